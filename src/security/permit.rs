//! The proof that a call was authorized.
//!
//! The authorize layer puts a [`Permit`] into the request's extensions; a
//! handler takes the principal from it and from nowhere else. A permit of a
//! stream outlives the check: [`Validity`] ends it when its token or
//! certificate does, unless it is extended.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::belief::Belief;
use crate::principal::{Principal, Role, Roles};
use crate::refusal::{Reason, Refusal};

/// Who calls, proven and allowed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Permit {
    caller: Arc<Caller>,
    validity: Validity,
}

/// A proven caller.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who it is, or for whom a service acts.
    pub principal: Principal,
    /// What it may do.
    pub roles: Roles,
    /// The service that acts for the principal.
    pub acting_service: Option<Principal>,
    /// What proved it.
    pub proof: Proof,
}

/// What proved a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A client certificate.
    Certificate,
    /// A bearer token.
    Token,
    /// Both together.
    TokenAndCertificate,
}

/// Proves the same principal again by a fresh token.
pub trait Reauthenticator: Send + Sync + std::fmt::Debug {
    /// Returns what the new proof rests on; refuses a token that is not valid
    /// or names another principal than `caller`.
    fn reauthenticate(&self, caller: &Caller, token: &str) -> Result<Renewed, Refusal>;
}

/// What a permit goes on with.
#[derive(Debug)]
pub struct Renewed {
    /// When the new proof ends.
    pub expires_at: SystemTime,
    /// The belief in the key that signed it.
    pub key: Option<Belief>,
}

impl Permit {
    /// Made by the authorize layer alone (and by tests of services).
    pub fn new(caller: Caller, validity: Validity) -> Self {
        Self { caller: Arc::new(caller), validity }
    }

    /// The same, of a caller that other permits share.
    pub(super) fn shared(caller: Arc<Caller>, validity: Validity) -> Self {
        Self { caller, validity }
    }

    /// The permit of a request that came through the layers.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Permit, Refusal> {
        request
            .extensions()
            .get::<Permit>()
            .cloned()
            .ok_or_else(|| Refusal::new(Reason::Internal, "the call has no permit"))
    }

    /// Who calls.
    pub fn principal(&self) -> &Principal {
        &self.caller.principal
    }

    /// Everything that was proven.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether the caller has the role.
    pub fn has(&self, role: Role) -> bool {
        self.caller.roles.contains(role)
    }

    /// How long it holds.
    pub fn validity(&self) -> &Validity {
        &self.validity
    }

    /// Goes on with a fresh token of the same principal. A refused one leaves
    /// the validity as it was.
    pub fn reauthenticate(&self, token: &str) -> Result<(), Refusal> {
        self.validity.reauthenticate(&self.caller, token)
    }
}

/// How long a permit holds. Clones share it.
#[derive(Debug, Clone)]
pub struct Validity {
    state: Arc<watch::Sender<State>>,
    reauthenticator: Option<Arc<dyn Reauthenticator>>,
    /// The belief in the connection's certificate.
    certificate: Option<Belief>,
}

#[derive(Debug, Clone)]
struct State {
    expires_at: SystemTime,
    /// The belief in the key that signed the token.
    key: Option<Belief>,
    /// What is said when that time has come.
    at_end: Reason,
    revoked: Option<Refusal>,
}

impl Validity {
    /// Ends at a time, unless extended through the reauthenticator.
    pub fn until(
        expires_at: SystemTime,
        reauthenticator: Option<Arc<dyn Reauthenticator>>,
    ) -> Self {
        Self::new(expires_at, Reason::TokenExpired, reauthenticator)
    }

    /// Ends with a certificate; nothing extends it.
    pub fn until_certificate_ends(expires_at: SystemTime) -> Self {
        Self::new(expires_at, Reason::CertificateExpired, None)
    }

    fn new(
        expires_at: SystemTime,
        at_end: Reason,
        reauthenticator: Option<Arc<dyn Reauthenticator>>,
    ) -> Self {
        let state = State { expires_at, key: None, at_end, revoked: None };
        Self { state: Arc::new(watch::channel(state).0), reauthenticator, certificate: None }
    }

    /// Ends also when one of these is withdrawn: the key that signed the token,
    /// the certificate of the connection.
    pub fn resting_on(mut self, key: Option<Belief>, certificate: Option<Belief>) -> Self {
        self.certificate = certificate;
        self.state.send_modify(|state| state.key = key);
        self
    }

    /// When it ends, as far as is known now.
    pub fn expires_at(&self) -> SystemTime {
        self.state.borrow().expires_at
    }

    /// Ends it at once.
    pub fn revoke(&self, why: Refusal) {
        self.state.send_modify(|state| state.revoked = Some(why));
    }

    /// Waits for its end and says why. Cancel safe. Looks at the wall clock at
    /// least once a second, so that a stepped clock or a freeze cannot stretch
    /// it by more than that.
    pub async fn ended(&self) -> Refusal {
        let mut state = self.state.subscribe();
        loop {
            let State { expires_at, mut key, at_end, revoked } = state.borrow_and_update().clone();
            if let Some(why) = revoked {
                return why;
            }
            if key.as_ref().is_some_and(Belief::is_withdrawn) {
                let why = "the key that signed the token is no longer believed";
                return Refusal::new(Reason::TokenInvalid, why);
            }
            let mut certificate = self.certificate.clone();
            if certificate.as_ref().is_some_and(Belief::is_withdrawn) {
                let why = "the client certificate is no longer believed";
                return Refusal::new(Reason::CertificateInvalid, why);
            }
            let Ok(left) = expires_at.duration_since(SystemTime::now()) else {
                return Refusal::new(at_end, "the proof's time is over");
            };
            let nap = left.min(std::time::Duration::from_millis(900));
            tokio::select! {
                _ = tokio::time::timeout(nap, state.changed()) => {}
                // A fresh token may rest on another key meanwhile: look again.
                () = withdrawn(&mut key) => {}
                () = withdrawn(&mut certificate) => {}
            }
        }
    }

    fn reauthenticate(&self, caller: &Caller, token: &str) -> Result<(), Refusal> {
        let reauthenticator = self.reauthenticator.as_ref().ok_or_else(|| {
            Refusal::new(Reason::TokenInvalid, "this call was not proven by a token")
        })?;
        let Renewed { expires_at, key } = reauthenticator.reauthenticate(caller, token)?;
        self.state.send_modify(|state| {
            state.expires_at = expires_at;
            state.key = key;
        });
        Ok(())
    }
}

async fn withdrawn(belief: &mut Option<Belief>) {
    match belief {
        Some(belief) => belief.withdrawn().await,
        None => std::future::pending().await,
    }
}

/// In a response's extensions: the body sees to its own end when the permit
/// ends, so the authorize layer does not cut it. For bodies that must not be
/// cut inside a message.
#[derive(Debug, Clone, Copy)]
pub struct EndsWithPermit;
