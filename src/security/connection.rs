//! What the accept loop knows of a connection; it stands in every request's
//! extensions as [`Connection`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::belief::Belief;
use crate::principal::{Principal, Roles};

/// The connection that brought a request.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Where it comes from.
    pub remote: SocketAddr,
    /// The client's verified certificate.
    pub certificate: Option<Arc<PeerCertificate>>,
    /// Withdrawn when the certificate is no longer believed.
    pub belief: Option<Belief>,
}

/// A client certificate whose chain, time and SPIFFE id were verified.
#[derive(Debug, Clone)]
pub struct PeerCertificate {
    /// Whom it names.
    pub principal: Principal,
    /// The roles that its source and the bindings give.
    pub roles: Roles,
    /// When it ends.
    pub not_after: SystemTime,
    /// SHA-256 of its DER form, for tokens that are bound to it (RFC 8705).
    pub thumbprint: [u8; 32],
}
