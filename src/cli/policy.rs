//! `simpul policy`: who may call what, as the contracts say.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;
use crate::principal::{Role, Roles};
use crate::security::policy::{Method, Policy, Rule};

/// Who may call what
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  simpul policy list\n  \
    simpul policy explain RefundPayment --role customer\n\n\
    With --role, explain ends with 77 when none of the roles may call the method.")]
pub struct PolicyCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List every method with its rule
    List,
    /// Say who may call a method; with --role, whether such a caller may
    Explain {
        /// Its path or the end of it. Example: ChatService/Chat
        method: String,
    },
}

impl PolicyCommand {
    /// Reads the embedded contracts: no node is asked.
    pub fn run(self, env: &Env) -> Result<Exit, Failure> {
        let development = env.global.profile.as_deref() != Some("production");
        let policy = Policy::embedded(development).map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Failure::usage(errors.join("; "))
        })?;
        let methods = policy.methods();
        match self.command {
            Command::List => {
                let rows: Vec<_> = methods
                    .iter()
                    .map(|m| (json_of(m), vec![m.path.to_string(), m.rule.to_string()]))
                    .collect();
                env.output.list(&["METHOD", "WHO"], &rows)?;
                Ok(Exit::Done)
            }
            Command::Explain { method } => {
                let matching = find(&methods, &method)?;
                let roles: Roles = env.global.roles.iter().copied().collect();
                let asked = !roles.is_empty();
                let mut exit = Exit::Done;
                for method in matching {
                    let allowed = method.rule.allows(Some(roles));
                    if asked && !allowed {
                        exit = Exit::Permission;
                    }
                    let mut json = json_of(method);
                    if asked {
                        json["allowed"] = json!(allowed);
                    }
                    env.output.say(&json, || explain(method, asked.then_some(roles)))?;
                }
                Ok(exit)
            }
        }
    }
}

/// The methods whose path ends in the text at a boundary.
fn find<'a>(methods: &[&'a Method], text: &str) -> Result<Vec<&'a Method>, Failure> {
    let wanted = text.trim_start_matches('/').replace('#', "/");
    let fits = |path: &str| {
        path.strip_suffix(wanted.as_str()).is_some_and(|rest| rest.ends_with(['/', '.']))
    };
    let found: Vec<&Method> = methods.iter().copied().filter(|method| fits(&method.path)).collect();
    if wanted.is_empty() || found.is_empty() {
        return Err(Failure::usage(format!("no method {text}")).hint("simpul policy list"));
    }
    Ok(found)
}

fn json_of(method: &Method) -> Value {
    let (rule, roles) = match method.rule {
        Rule::Public => ("public", Vec::new()),
        Rule::Authenticated => ("authenticated", Vec::new()),
        Rule::AnyOf(roles) => ("any_of", roles.iter().map(Role::as_str).collect()),
    };
    json!({"method": method.path, "rule": rule, "roles": roles, "streams": method.streams})
}

fn explain(method: &Method, roles: Option<Roles>) -> String {
    let rule = match method.rule {
        Rule::Public => "anyone may call it, proven or not".to_owned(),
        Rule::Authenticated => "any proven caller may call it, whatever its roles".to_owned(),
        Rule::AnyOf(roles) => {
            let words: Vec<_> = roles.iter().map(Role::as_str).collect();
            format!("a proven caller with one of these roles may call it: {}", words.join(", "))
        }
    };
    let verdict = match roles {
        None => String::new(),
        Some(roles) => {
            let words: Vec<_> = roles.iter().map(Role::as_str).collect();
            let may = if method.rule.allows(Some(roles)) { "may" } else { "may not" };
            format!("\n  a caller with {}: {may}", words.join(", "))
        }
    };
    format!("{}\n  {rule}{verdict}", method.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_found_by_the_end_of_its_path() {
        let policy = Policy::embedded(true).expect("sound");
        let methods = policy.methods();
        let paths = |text| {
            find(&methods, text)
                .map(|found| found.iter().map(|method| method.path.to_string()).collect::<Vec<_>>())
        };
        let chat = vec!["/simpul.chat.v1.ChatService/Chat".to_owned()];
        assert_eq!(paths("Chat").expect("found"), chat);
        assert_eq!(paths("ChatService/Chat").expect("found"), chat);
        assert_eq!(paths("/simpul.chat.v1.ChatService/Chat").expect("found"), chat);
        assert!(paths("hat").is_err());
        assert!(paths("").is_err());
    }

    #[test]
    fn an_explanation_says_whether_the_roles_are_enough() {
        let policy = Policy::embedded(true).expect("sound");
        let methods = policy.methods();
        let refund = find(&methods, "RefundPayment").expect("found")[0];
        let customer = Roles::NONE.with(Role::Customer);
        assert_eq!(
            explain(refund, Some(customer)),
            "/simpul.payment.v1.PaymentService/RefundPayment\n  a proven caller with one of these \
             roles may call it: merchant, operator\n  a caller with customer: may not"
        );
        assert_eq!(json_of(refund)["roles"], json!(["merchant", "operator"]));
    }
}
