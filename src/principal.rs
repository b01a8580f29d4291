//! Who is calling: a kind, a trust domain and an id.
//!
//! `service/alice`, `user/alice` and the `alice` of two trust domains are four
//! principals that share nothing. Sources of proof configured with the same
//! trust domain share a namespace. The text form, on the wire, on the command
//! line and in the store, is `kind/id@trust-domain`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::proto::auth::v1 as pb;

/// What sort of caller a principal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A person.
    User,
    /// A program of the company.
    Service,
    /// A node of the cluster; proven by the mesh bundle alone.
    Node,
}

impl Kind {
    /// The word in the text form.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::User => "user",
            Kind::Service => "service",
            Kind::Node => "node",
        }
    }
}

/// A namespace of principals, as in a SPIFFE id: 1 to 255 characters of
/// `[a-z0-9._-]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = PrincipalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=255).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
        if fits { Ok(Self(text.into())) } else { Err(PrincipalError::TrustDomain) }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TrustDomain {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for TrustDomain {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A caller, or one who could be. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal {
    text: Arc<str>,
    kind: Kind,
    at: usize,
}

impl Principal {
    /// Puts one together. The id has 1 to 128 characters of `[A-Za-z0-9._-]`.
    pub fn new(kind: Kind, id: &str, domain: &TrustDomain) -> Result<Self, PrincipalError> {
        let fits = (1..=128).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !fits {
            return Err(PrincipalError::Id);
        }
        let text = format!("{}/{id}@{domain}", kind.as_str());
        Ok(Self { at: kind.as_str().len() + 1 + id.len(), text: text.into(), kind })
    }

    /// Reads `[kind/]id[@trust-domain]`: a user of `domain` when left out.
    pub fn parse_in(text: &str, domain: &TrustDomain) -> Result<Self, PrincipalError> {
        let (kind, rest) = match text.split_once('/') {
            None => (Kind::User, text),
            Some(("user", rest)) => (Kind::User, rest),
            Some(("service", rest)) => (Kind::Service, rest),
            Some(("node", rest)) => (Kind::Node, rest),
            Some(_) => return Err(PrincipalError::Kind),
        };
        match rest.split_once('@') {
            None => Self::new(kind, rest, domain),
            Some((id, domain)) => Self::new(kind, id, &domain.parse()?),
        }
    }

    /// What sort of caller it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The id alone. Example: `alice`.
    pub fn id(&self) -> &str {
        &self.text[self.kind.as_str().len() + 1..self.at]
    }

    /// The trust domain that it belongs to.
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.text[self.at + 1..].into())
    }

    /// The whole text. Example: `user/alice@dev.simpul`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Principal {
    type Err = PrincipalError;

    /// Reads the full form `kind/id@trust-domain`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let domain = text.rsplit_once('@').ok_or(PrincipalError::TrustDomain)?.1.parse()?;
        if !text.contains('/') {
            return Err(PrincipalError::Kind);
        }
        Self::parse_in(text, &domain)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a text is not a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrincipalError {
    /// An unknown word before the slash.
    #[error("must be `[kind/]id[@trust-domain]` with the kind user, service or node")]
    Kind,
    /// The id does not fit.
    #[error("the id must have 1 to 128 characters of A-Z a-z 0-9 . _ -")]
    Id,
    /// The trust domain does not fit.
    #[error("the trust domain must have 1 to 255 characters of a-z 0-9 . _ -")]
    TrustDomain,
}

/// A named set of rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Chats, pays, reads its own history.
    Customer,
    /// Is paid; captures, cancels and refunds what was paid to it.
    Merchant,
    /// Reads anyone's payments, balances and histories to help them.
    Support,
    /// Reads anyone's payments, balances and histories to check them.
    Auditor,
    /// Runs the cluster; may capture and refund any payment.
    Operator,
    /// A service of the company on its own behalf.
    Backend,
    /// Another node of the cluster.
    Node,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 7] = [
        Role::Customer,
        Role::Merchant,
        Role::Support,
        Role::Auditor,
        Role::Operator,
        Role::Backend,
        Role::Node,
    ];

    /// The word in configuration, tokens and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Customer => "customer",
            Role::Merchant => "merchant",
            Role::Support => "support",
            Role::Auditor => "auditor",
            Role::Operator => "operator",
            Role::Backend => "backend",
            Role::Node => "node",
        }
    }

    /// The role of a contract's enum; `None` for the unspecified one.
    pub fn from_proto(role: pb::Role) -> Option<Self> {
        Some(match role {
            pb::Role::Unspecified => return None,
            pb::Role::Customer => Role::Customer,
            pb::Role::Merchant => Role::Merchant,
            pb::Role::Support => Role::Support,
            pb::Role::Auditor => Role::Auditor,
            pb::Role::Operator => Role::Operator,
            pb::Role::Backend => Role::Backend,
            pb::Role::Node => Role::Node,
        })
    }

    /// The contract's enum.
    pub fn to_proto(self) -> pb::Role {
        match self {
            Role::Customer => pb::Role::Customer,
            Role::Merchant => pb::Role::Merchant,
            Role::Support => pb::Role::Support,
            Role::Auditor => pb::Role::Auditor,
            Role::Operator => pb::Role::Operator,
            Role::Backend => pb::Role::Backend,
            Role::Node => pb::Role::Node,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Role::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

/// The text names no role.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("not a role: customer, merchant, support, auditor, operator, backend or node")]
pub struct UnknownRole;

/// A set of roles, as bits: copied with every request.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// No role.
    pub const NONE: Roles = Roles(0);

    /// Whether the role is in the set.
    pub fn contains(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }

    /// The set with the role added.
    #[must_use]
    pub fn with(self, role: Role) -> Self {
        Self(self.0 | (1 << role as u8))
    }

    /// Whether the sets share a role.
    pub fn intersects(self, other: Roles) -> bool {
        self.0 & other.0 != 0
    }

    /// The roles that are in both sets.
    #[must_use]
    pub fn intersection(self, other: Roles) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The roles, in the order of [`Role::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.contains(*role))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Roles::NONE, Roles::with)
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Role::as_str)).finish()
    }
}
