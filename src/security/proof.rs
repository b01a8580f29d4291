//! Who a caller is, from what it presents: a certificate, a token, both, and
//! the name of a user for whom a service acts. Pure.
//!
//! The token decides the principal. A user's certificate must name the same
//! one; a service's certificate beside a user's token means that the service
//! acts for the user, which it must be allowed. Roles are those of the one
//! proof that decides, never united.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use super::connection::PeerCertificate;
use super::permit::{Caller, Proof};
use super::token::Verified;
use crate::principal::{Kind, Principal, Roles, TrustDomain};
use crate::refusal::{Reason, Refusal};

/// What a request brings.
#[derive(Debug, Default)]
pub(super) struct Presented<'a> {
    pub(super) token: Option<&'a Verified>,
    pub(super) certificate: Option<&'a PeerCertificate>,
    /// The text of `simpul-on-behalf-of`.
    pub(super) on_behalf_of: Option<&'a str>,
}

/// Who it is, and until when that is proven.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) caller: Arc<Caller>,
    pub(super) expires_at: SystemTime,
}

/// What the configuration says about services that act for users.
#[derive(Debug, Default)]
pub(super) struct Delegation {
    pub(super) may_delegate: HashSet<Principal>,
    pub(super) delegated_roles: Roles,
    pub(super) bindings: Arc<HashMap<Principal, Roles>>,
    /// The trust domains that somebody here vouches for.
    pub(super) domains: HashSet<TrustDomain>,
}

impl Delegation {
    /// Decides; `None` when nothing was presented.
    pub(super) fn prove(
        &self,
        presented: &Presented<'_>,
        now: SystemTime,
    ) -> Result<Option<Proven>, Refusal> {
        if let Some(certificate) = presented.certificate
            && certificate.not_after <= now
        {
            let rule = "the client certificate's time is over";
            return Err(Refusal::new(Reason::CertificateExpired, rule));
        }
        if let Some(token) = presented.token {
            token.check(now)?;
            bound(token, presented.certificate)?;
        }
        let proven = match (presented.token, presented.certificate) {
            (None, None) if presented.on_behalf_of.is_some() => {
                let rule = "who acts for a user must prove itself";
                return Err(Refusal::new(Reason::CredentialsMissing, rule));
            }
            (None, None) => return Ok(None),
            (Some(token), None) => {
                Proven { caller: token.caller.clone(), expires_at: token.expires_at() }
            }
            (None, Some(certificate)) => of_certificate(certificate),
            (Some(token), Some(certificate)) => self.both(token, certificate)?,
        };
        match presented.on_behalf_of {
            None => Ok(Some(proven)),
            Some(user) => self.on_behalf_of(proven, user).map(Some),
        }
    }

    fn both(&self, token: &Verified, certificate: &PeerCertificate) -> Result<Proven, Refusal> {
        let own = &token.caller;
        let same = own.principal == certificate.principal;
        let acting_service = match certificate.principal.kind() {
            _ if same => None,
            Kind::Service => {
                self.may_act(&certificate.principal, &own.principal)?;
                Some(certificate.principal.clone())
            }
            Kind::User | Kind::Node => {
                let rule = "token and certificate name different callers";
                return Err(Refusal::new(Reason::ProofMismatch, rule));
            }
        };
        let caller = Caller {
            principal: own.principal.clone(),
            roles: own.roles,
            acting_service,
            proof: Proof::TokenAndCertificate,
        };
        let expires_at = token.expires_at().min(certificate.not_after);
        Ok(Proven { caller: Arc::new(caller), expires_at })
    }

    fn on_behalf_of(&self, proven: Proven, text: &str) -> Result<Proven, Refusal> {
        let own = &proven.caller;
        let user = Principal::parse_in(text, &own.principal.trust_domain())
            .map_err(|_| denied("simpul-on-behalf-of must be `[user/]id[@trust-domain]`"))?;
        if own.principal == user {
            return Ok(proven);
        }
        if own.acting_service.is_some() || !self.domains.contains(&user.trust_domain()) {
            return Err(denied("simpul-on-behalf-of names another than the proof allows"));
        }
        self.may_act(&own.principal, &user)?;
        let limit = self.bindings.get(&user).copied().unwrap_or(self.delegated_roles);
        let caller = Caller {
            principal: user,
            roles: self.delegated_roles.intersection(limit),
            acting_service: Some(own.principal.clone()),
            proof: own.proof,
        };
        Ok(Proven { caller: Arc::new(caller), expires_at: proven.expires_at })
    }

    fn may_act(&self, service: &Principal, user: &Principal) -> Result<(), Refusal> {
        if service.kind() != Kind::Service || user.kind() != Kind::User {
            return Err(denied("only a service may act for another, and only for a user"));
        }
        if self.may_delegate.contains(service) {
            Ok(())
        } else {
            Err(denied("the service is not allowed (auth.may_delegate) to act for users"))
        }
    }
}

/// A token that is bound to a certificate comes with it (RFC 8705).
fn bound(token: &Verified, certificate: Option<&PeerCertificate>) -> Result<(), Refusal> {
    let given = certificate.map(|certificate| certificate.thumbprint);
    match token.bound_to {
        Some(wanted) if given != Some(wanted) => {
            let rule = "the token is bound (cnf) to a certificate that the connection has not";
            Err(Refusal::new(Reason::ProofMismatch, rule))
        }
        _ => Ok(()),
    }
}

fn of_certificate(certificate: &PeerCertificate) -> Proven {
    let caller = Caller {
        principal: certificate.principal.clone(),
        roles: certificate.roles,
        acting_service: None,
        proof: Proof::Certificate,
    };
    Proven { caller: Arc::new(caller), expires_at: certificate.not_after }
}

fn denied(rule: &str) -> Refusal {
    Refusal::new(Reason::DelegationDenied, rule)
}

#[cfg(test)]
mod tests;
