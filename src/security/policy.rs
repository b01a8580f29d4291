//! Who may call what: read from the contracts themselves, denied by default.
//!
//! Every method of ours carries the option `simpul.auth.v1.access`; one without
//! it, or whose rule is not exactly one of the three, stops the start-up with
//! its name. Health and reflection are not ours: their rules stand here.

use std::fmt;
use std::sync::Arc;

use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, MethodDescriptor, Value};

use super::permit::Caller;
use crate::path::PathMap;
use crate::principal::{Role, Roles};
use crate::proto::auth::v1 as pb;
use crate::refusal::{Reason, Refusal};

/// The option's full name.
const ACCESS: &str = "simpul.auth.v1.access";

/// Verbs of methods that change nothing.
const READING: [&str; 4] = ["Get", "List", "Watch", "WhoAmI"];

/// What a method asks of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Nothing.
    Public,
    /// Any proof.
    Authenticated,
    /// A proof, and one of these roles.
    AnyOf(Roles),
}

impl Rule {
    /// Whether a caller with these roles may; `None` is a caller without proof.
    pub fn allows(self, roles: Option<Roles>) -> bool {
        match (self, roles) {
            (Rule::Public, _) | (Rule::Authenticated, Some(_)) => true,
            (Rule::AnyOf(wanted), Some(roles)) => wanted.intersects(roles),
            (Rule::Authenticated | Rule::AnyOf(_), None) => false,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Public => f.write_str("public"),
            Rule::Authenticated => f.write_str("authenticated"),
            Rule::AnyOf(roles) => {
                let words: Vec<_> = roles.iter().map(Role::as_str).collect();
                write!(f, "any of {}", words.join(", "))
            }
        }
    }
}

/// One method and its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// As in a request. Example: `/simpul.chat.v1.ChatService/Chat`.
    pub path: Box<str>,
    /// Who may call it.
    pub rule: Rule,
    /// Whether its response is a stream, which can outlive its caller's proof.
    pub streams: bool,
    /// Whether a call can change something.
    pub mutates: bool,
    /// Whether calls belong in the audit log: not those of health and
    /// reflection.
    pub audited: bool,
}

/// The answer for one call.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It may go on.
    Allowed(Rule),
    /// It may not: by which rule (none for a method that is not known), and
    /// what the caller is told.
    Denied(Option<Rule>, Refusal),
}

/// Why the contracts are no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The descriptors do not parse, or lack the option.
    #[error("the embedded contracts cannot be read")]
    Descriptors,
    /// A method has no rule.
    #[error("{0} has no `access`: every method must say who may call it")]
    Missing(String),
    /// A method has no single rule.
    #[error("{0} must have exactly one of public, authenticated and any_of in its `access`")]
    Ambiguous(String),
    /// A method names a role that is none.
    #[error("{0} names an unknown role in its `access`")]
    Role(String),
}

/// Every known method.
#[derive(Debug, Clone)]
pub struct Policy {
    methods: PathMap<Box<str>, Arc<Method>>,
}

impl Policy {
    /// Of the embedded contracts. In development anyone may use reflection.
    pub fn embedded(development: bool) -> Result<Self, Vec<PolicyError>> {
        Self::read(crate::proto::DESCRIPTORS, development)
    }

    /// Of an encoded FileDescriptorSet; all errors at once.
    pub fn read(descriptors: &[u8], development: bool) -> Result<Self, Vec<PolicyError>> {
        let unreadable = || vec![PolicyError::Descriptors];
        let pool = DescriptorPool::decode(descriptors).map_err(|_| unreadable())?;
        let access = pool.get_extension_by_name(ACCESS).ok_or_else(unreadable)?;
        let mut methods = built_in(development);
        let mut errors = Vec::new();
        for service in pool.services() {
            for method in service.methods() {
                match read(&method, &access) {
                    Ok(method) => methods.push(method),
                    Err(error) => errors.push(error),
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let named = methods.into_iter().map(|method| (method.path.clone(), Arc::new(method)));
        Ok(Self { methods: named.collect() })
    }

    /// The method of a path, matched exactly.
    pub fn find(&self, path: &str) -> Option<&Arc<Method>> {
        self.methods.get(path)
    }

    /// Whether there is such a method.
    pub fn known(&self, path: &str) -> bool {
        self.methods.contains_key(path)
    }

    /// Every method, by path.
    pub fn methods(&self) -> Vec<&Method> {
        let mut methods: Vec<_> = self.methods.values().map(Arc::as_ref).collect();
        methods.sort_by(|a, b| a.path.cmp(&b.path));
        methods
    }

    /// Whether the caller may call the method.
    pub fn decide(&self, path: &str, caller: Option<&Caller>) -> Decision {
        match self.find(path) {
            Some(method) => method.decide(caller),
            None => {
                let refusal = Refusal::new(Reason::UnknownMethod, "there is no such method");
                Decision::Denied(None, refusal)
            }
        }
    }
}

impl Method {
    /// Whether the caller may call it.
    pub fn decide(&self, caller: Option<&Caller>) -> Decision {
        let rule = self.rule;
        if rule.allows(caller.map(|caller| caller.roles)) {
            return Decision::Allowed(rule);
        }
        let refusal = match caller {
            None => Refusal::new(
                Reason::CredentialsMissing,
                "a client certificate or a bearer token is needed",
            ),
            Some(_) => Refusal::new(Reason::RoleMissing, format!("the method asks for {rule}")),
        };
        Decision::Denied(Some(rule), refusal)
    }
}

fn built_in(development: bool) -> Vec<Method> {
    let reflection = if development { Rule::Public } else { Rule::Authenticated };
    let method = |path: &str, rule, streams| Method {
        path: path.into(),
        rule,
        streams,
        mutates: false,
        audited: false,
    };
    vec![
        method("/grpc.health.v1.Health/Check", Rule::Public, false),
        method("/grpc.health.v1.Health/Watch", Rule::Public, true),
        method("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", reflection, true),
        method("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", reflection, true),
    ]
}

fn read(method: &MethodDescriptor, access: &ExtensionDescriptor) -> Result<Method, PolicyError> {
    let service = method.parent_service().full_name().to_owned();
    let path = format!("/{service}/{}", method.name());
    let options = method.options();
    if !options.has_extension(access) {
        return Err(PolicyError::Missing(path));
    }
    let value = options.get_extension(access);
    let Some(message) = value.as_message() else { return Err(PolicyError::Ambiguous(path)) };
    let rule = rule(&path, message)?;
    let reads = READING.iter().any(|verb| method.name().starts_with(verb));
    Ok(Method {
        path: path.into(),
        rule,
        streams: method.is_server_streaming(),
        mutates: !reads,
        audited: true,
    })
}

fn rule(path: &str, access: &DynamicMessage) -> Result<Rule, PolicyError> {
    let flag = |name| access.get_field_by_name(name).and_then(|v| v.as_bool()).unwrap_or(false);
    let (public, authenticated) = (flag("public"), flag("authenticated"));
    let listed = access.get_field_by_name("any_of");
    let listed = listed.as_deref().and_then(Value::as_list).unwrap_or_default();
    let mut roles = Roles::NONE;
    for value in listed {
        let role = value.as_enum_number().and_then(|number| pb::Role::try_from(number).ok());
        let role = role.and_then(Role::from_proto);
        roles = roles.with(role.ok_or_else(|| PolicyError::Role(path.to_owned()))?);
    }
    match (public, authenticated, roles.is_empty()) {
        (true, false, true) => Ok(Rule::Public),
        (false, true, true) => Ok(Rule::Authenticated),
        (false, false, false) => Ok(Rule::AnyOf(roles)),
        _ => Err(PolicyError::Ambiguous(path.to_owned())),
    }
}

#[cfg(test)]
mod tests;
