//! SPIFFE ids: the one URI in a certificate that names its holder.
//!
//! An id is `spiffe://<trust domain>/<path>`; patterns map paths to a kind and
//! an id. Nothing is decoded or normalised: what is not literally of that form
//! is refused, so that two spellings can never name one principal.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::id;
use crate::principal::{Kind, Principal, TrustDomain};

/// Longest id that is read, as the SPIFFE standard says.
const MAX_LENGTH: usize = 2048;

/// Why a certificate names nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a certificate.
    #[error("the certificate cannot be read")]
    Certificate,
    /// None, or more than one.
    #[error("the certificate must have exactly one URI among its names")]
    OneUri,
    /// Not a SPIFFE id.
    #[error("the certificate's URI is not a SPIFFE id")]
    Form,
    /// Another trust domain than its bundle's.
    #[error("the SPIFFE id's trust domain is not that of its authority")]
    TrustDomain,
    /// No pattern takes the path.
    #[error("no pattern takes the SPIFFE id's path")]
    Path,
    /// The bundle may not assert the kind.
    #[error("its authority may not assert this kind of principal")]
    Kind,
    /// The id has characters that principals do not have.
    #[error("the SPIFFE id's last part is not a principal's id")]
    Id,
    /// Not a node.
    #[error("the certificate is not a node's: its SPIFFE path must be /node or /node/<id>")]
    NotNode,
    /// Another node than the one that was meant.
    #[error("the certificate names another node")]
    OtherNode,
}

/// Which node a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeName {
    /// Any node of the trust domain: the path `/node`.
    Any,
    /// One, by its id: the path `/node/<id>`.
    One(Arc<str>),
}

impl NodeName {
    /// Whether its holder may be the node with this id.
    pub fn covers(&self, id: &str) -> bool {
        match self {
            NodeName::Any => true,
            NodeName::One(named) => **named == *id,
        }
    }
}

/// Which paths mean whom.
#[derive(Debug, Clone, Default)]
pub(super) struct Patterns(Vec<Pattern>);

#[derive(Debug, Clone)]
struct Pattern {
    parts: Vec<Part>,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Id,
}

impl Patterns {
    /// Those of the configuration, or the defaults when there are none.
    pub(super) fn new(configured: &BTreeMap<String, Kind>) -> Result<Self, String> {
        let defaults = [("/user/<id>", Kind::User), ("/service/<id>", Kind::Service)];
        if configured.is_empty() {
            let read = defaults.iter().map(|(text, kind)| Pattern::new(text, *kind));
            return Ok(Self(read.collect::<Result<_, _>>()?));
        }
        let read = configured.iter().map(|(text, kind)| Pattern::new(text, *kind));
        Ok(Self(read.collect::<Result<_, _>>()?))
    }

    /// Whom a path names.
    fn find(&self, path: &str) -> Option<(Kind, String)> {
        self.0.iter().find_map(|pattern| Some((pattern.kind, pattern.id(path)?)))
    }
}

impl Pattern {
    fn new(text: &str, kind: Kind) -> Result<Self, String> {
        let path = text.strip_prefix('/').ok_or("a path pattern begins with a slash")?;
        let parts: Vec<Part> = path
            .split('/')
            .map(|part| match part.strip_prefix('<').and_then(|part| part.strip_suffix('>')) {
                Some(_) => Part::Id,
                None => Part::Literal(part.into()),
            })
            .collect();
        let empty = parts.contains(&Part::Literal("".into()));
        if empty || !parts.contains(&Part::Id) {
            return Err("a path pattern has whole parts and at least one like <id>".into());
        }
        Ok(Self { parts, kind })
    }

    /// The parts that stand for placeholders, joined by dots. Only the last of
    /// them may have dots of its own: else two paths could give one id.
    fn id(&self, path: &str) -> Option<String> {
        let given: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        if given.len() != self.parts.len() {
            return None;
        }
        let mut id = Vec::new();
        for (part, given) in self.parts.iter().zip(given) {
            match part {
                Part::Literal(literal) if **literal == *given => {}
                Part::Literal(_) => return None,
                Part::Id => id.push(given),
            }
        }
        let (_, inner) = id.split_last()?;
        if inner.iter().any(|part| part.contains('.')) {
            return None;
        }
        Some(id.join("."))
    }
}

/// The only URI among a certificate's names.
pub(super) fn uri(der: &[u8]) -> Result<String, IdentityError> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(|_| IdentityError::Certificate)?;
    let names = parsed.subject_alternative_name().map_err(|_| IdentityError::Certificate)?;
    let mut uris =
        names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri.to_owned()),
        _ => Err(IdentityError::OneUri),
    }
}

/// The node that a URI names.
pub(super) fn node(uri: &str, domain: &TrustDomain) -> Result<NodeName, IdentityError> {
    match path(uri, domain)?.strip_prefix("/node") {
        Some("") => Ok(NodeName::Any),
        Some(rest) => match rest.strip_prefix('/') {
            Some(id) if id::is_short_name(id) => Ok(NodeName::One(id.into())),
            _ => Err(IdentityError::NotNode),
        },
        None => Err(IdentityError::NotNode),
    }
}

/// The path of a SPIFFE id of this trust domain.
fn path<'a>(uri: &'a str, domain: &TrustDomain) -> Result<&'a str, IdentityError> {
    if uri.len() > MAX_LENGTH {
        return Err(IdentityError::Form);
    }
    let rest = uri.strip_prefix("spiffe://").ok_or(IdentityError::Form)?;
    let slash = rest.find('/').ok_or(IdentityError::Form)?;
    let (named, path) = rest.split_at(slash);
    let named = TrustDomain::from_str(named).map_err(|_| IdentityError::Form)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    let dots = path.split('/').any(|part| part == "." || part == "..");
    if !path.bytes().all(plain) || path.contains("//") || path.ends_with('/') || dots {
        return Err(IdentityError::Form);
    }
    if named != *domain {
        return Err(IdentityError::TrustDomain);
    }
    Ok(path)
}

/// The principal that a URI names, by an authority's rules.
pub(super) fn principal(
    uri: &str,
    domain: &TrustDomain,
    kinds: &[Kind],
    patterns: &Patterns,
) -> Result<Principal, IdentityError> {
    let path = path(uri, domain)?;
    let (kind, id) = patterns.find(path).ok_or(IdentityError::Path)?;
    if kind == Kind::Node || !kinds.contains(&kind) {
        return Err(IdentityError::Kind);
    }
    Principal::new(kind, &id, domain).map_err(|_| IdentityError::Id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str) -> Result<String, IdentityError> {
        let domain = "corp.test".parse().expect("a trust domain");
        let configured = BTreeMap::from([
            ("/user/<id>".to_owned(), Kind::User),
            ("/node/<id>".to_owned(), Kind::Node),
            ("/job/<id>".to_owned(), Kind::Service),
            ("/ns/<ns>/sa/<name>".to_owned(), Kind::User),
        ]);
        let patterns = Patterns::new(&configured).expect("good patterns");
        principal(uri, &domain, &[Kind::User], &patterns).map(|p| p.to_string())
    }

    #[test]
    fn a_node_is_named_by_its_path_alone() {
        let domain = "corp.test".parse().expect("a trust domain");
        let read = |path: &str| node(&format!("spiffe://corp.test{path}"), &domain);
        assert_eq!(read("/node"), Ok(NodeName::Any));
        assert_eq!(read("/node/n-1"), Ok(NodeName::One("n-1".into())));
        for path in ["/nodes", "/node/N1", "/node/a/b", "/user/node", "/user/alice", "/node-1"] {
            assert_eq!(read(path), Err(IdentityError::NotNode), "{path}");
        }
        assert_eq!(read("/node/"), Err(IdentityError::Form));
        assert_eq!(node("spiffe://else.test/node", &domain), Err(IdentityError::TrustDomain));
        assert!(NodeName::Any.covers("n-2") && !NodeName::One("n-1".into()).covers("n-2"));
    }

    #[test]
    fn an_id_is_read_literally_or_not_at_all() {
        assert_eq!(read("spiffe://corp.test/user/alice").as_deref(), Ok("user/alice@corp.test"));
        assert_eq!(read("spiffe://corp.test/ns/shop/sa/web.v1").as_deref(), {
            Ok("user/shop.web.v1@corp.test")
        });
        for (uri, error) in [
            ("https://corp.test/user/alice", IdentityError::Form),
            ("spiffe://corp.test", IdentityError::Form),
            ("spiffe://corp.test:1/user/alice", IdentityError::Form),
            ("spiffe://x@corp.test/user/alice", IdentityError::Form),
            ("spiffe://CORP.test/user/alice", IdentityError::Form),
            ("spiffe://corp.test/user//alice", IdentityError::Form),
            ("spiffe://corp.test/user/alice/", IdentityError::Form),
            ("spiffe://corp.test/user/../user/alice", IdentityError::Form),
            ("spiffe://corp.test/user/%61lice", IdentityError::Form),
            ("spiffe://corp.test/user/alice?x", IdentityError::Form),
            ("spiffe://corp.test/user/alice#x", IdentityError::Form),
            ("spiffe://other.test/user/alice", IdentityError::TrustDomain),
            ("spiffe://corp.test/group/alice", IdentityError::Path),
            ("spiffe://corp.test/ns/a.b/sa/c", IdentityError::Path),
            ("spiffe://corp.test/job/alice", IdentityError::Kind),
            ("spiffe://corp.test/node/n1", IdentityError::Kind),
        ] {
            assert_eq!(read(uri), Err(error), "{uri}");
        }
    }
}
