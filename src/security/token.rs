//! Bearer tokens: which are believed, and whom they name.
//!
//! A token's signature, issuer, audience and shape are checked once and the
//! result is kept, keyed by the whole token, together with the key sets that
//! verified it: a reload of the keys starts with nothing kept. What changes
//! while a token lives, its time, its binding and what its bearer may do, is
//! checked by every request.
//!
//! The algorithm is that of the key, never that of the token's header. Nothing
//! of a token is ever in an error.

mod cache;
mod claims;
mod jwks;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use self::cache::Cache;
use self::claims::{Claims, Header};
pub(super) use self::jwks::{DEVELOPMENT_MEMBER, KeySet};
use super::belief::Belief;
use super::permit::{Caller, Proof, Validity};
use crate::clock::Clock;
use crate::principal::{Kind, Principal, Roles, TrustDomain};
use crate::refusal::{Reason, Refusal};

/// The longest token that is looked at, bytes.
const MAX_TOKEN: usize = 8 * 1024;

/// How many verified tokens are kept.
const KEPT: usize = 16 * 1024;

/// What one issuer may say.
#[derive(Debug, Clone)]
pub(super) struct IssuerRules {
    pub(super) issuer: String,
    pub(super) audience: String,
    pub(super) domain: TrustDomain,
    pub(super) kinds: Vec<Kind>,
    pub(super) roles: Roles,
}

/// A token whose signature, issuer and audience are right.
#[derive(Debug)]
pub(super) struct Verified {
    /// Whom it names, as a caller who gave nothing else.
    pub(super) caller: Arc<Caller>,
    /// Shared by calls that cannot be extended.
    pub(super) validity: Validity,
    /// The belief in the key that signed it.
    pub(super) key: Option<Belief>,
    expires_at: SystemTime,
    not_before: Option<SystemTime>,
    /// The thumbprint of the certificate that must come with it.
    pub(super) bound_to: Option<[u8; 32]>,
}

impl Verified {
    pub(super) fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// As if it had been verified.
    #[cfg(test)]
    pub(super) fn for_tests(
        caller: Caller,
        expires_at: SystemTime,
        bound_to: Option<[u8; 32]>,
    ) -> Self {
        let validity = Validity::until(expires_at, None);
        Self {
            caller: Arc::new(caller),
            validity,
            key: None,
            expires_at,
            not_before: None,
            bound_to,
        }
    }

    /// Whether it holds now.
    pub(super) fn check(&self, now: SystemTime) -> Result<(), Refusal> {
        if self.expires_at <= now {
            return Err(Refusal::new(Reason::TokenExpired, "the token's time (exp) is over"));
        }
        if self.not_before.is_some_and(|begin| now < begin) {
            return Err(Refusal::new(Reason::TokenExpired, "the token's time (nbf) has not begun"));
        }
        Ok(())
    }
}

/// Verifies tokens against the key sets as they are now.
#[derive(Debug)]
pub(super) struct Tokens {
    state: ArcSwap<State>,
    bindings: Arc<HashMap<Principal, Roles>>,
    clock: Arc<dyn Clock>,
}

/// One generation of key sets, with what it verified.
#[derive(Debug)]
struct State {
    issuers: Vec<(IssuerRules, Arc<KeySet>)>,
    cache: Cache,
}

impl Tokens {
    pub(super) fn new(
        issuers: Vec<(IssuerRules, Arc<KeySet>)>,
        bindings: Arc<HashMap<Principal, Roles>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let state = State { issuers, cache: Cache::new(KEPT) };
        Self { state: ArcSwap::from_pointee(state), bindings, clock }
    }

    /// Goes on with other key sets, forgets what the former ones verified, and
    /// withdraws the belief in keys that are in none of them any more.
    pub(super) fn replace(&self, issuers: Vec<(IssuerRules, Arc<KeySet>)>) {
        let kept: Vec<Arc<KeySet>> = issuers.iter().map(|(_, keys)| keys.clone()).collect();
        let former = self.state.swap(Arc::new(State { issuers, cache: Cache::new(KEPT) }));
        // After the swap: whoever verified by the former ones sees it.
        former.issuers.iter().for_each(|(_, keys)| keys.withdraw_unless_in(&kept));
    }

    /// The token, if these key sets have verified it before. Its time is not
    /// looked at.
    pub(super) fn known(&self, token: &[u8]) -> Option<Arc<Verified>> {
        self.state.load().cache.get(token)
    }

    /// Verifies a token and keeps it. Its time is looked at only so far that
    /// one that is over is not kept.
    pub(super) fn verify(&self, token: &[u8]) -> Result<Arc<Verified>, Refusal> {
        let state = self.state.load();
        if let Some(known) = state.cache.get(token) {
            return Ok(known);
        }
        let verified = Arc::new(self.examine(&state, token)?);
        verified.check(self.clock.now())?;
        state.cache.insert(token, verified.clone());
        Ok(verified)
    }

    fn examine(&self, state: &State, token: &[u8]) -> Result<Verified, Refusal> {
        if token.len() > MAX_TOKEN {
            return Err(invalid("the token is longer than 8192 bytes"));
        }
        let text = std::str::from_utf8(token).map_err(|_| invalid("the token is not text"))?;
        let (message, signature) =
            text.rsplit_once('.').ok_or_else(|| invalid("the token has not three parts"))?;
        let (header, payload) =
            message.split_once('.').ok_or_else(|| invalid("the token has not three parts"))?;
        let header = Header::read(header)?;
        let claims = Claims::read(payload)?;
        let (rules, keys) = state
            .issuers
            .iter()
            .find(|(rules, _)| rules.issuer == claims.iss)
            .ok_or_else(|| invalid("the token's issuer (iss) is not believed here"))?;
        let key = keys.verify(&header, message.as_bytes(), signature)?;
        self.believe(rules, &claims, key)
    }

    /// What an issuer's word is worth, once it is certain that it is its word.
    fn believe(
        &self,
        rules: &IssuerRules,
        claims: &Claims,
        key: Belief,
    ) -> Result<Verified, Refusal> {
        if !claims.aud.contains(&rules.audience) {
            return Err(invalid("the token's audience (aud) is another"));
        }
        let kind = claims.kind.unwrap_or(Kind::User);
        if kind == Kind::Node || !rules.kinds.contains(&kind) {
            return Err(invalid("the token's issuer may not assert this kind of principal"));
        }
        let principal = Principal::new(kind, &claims.sub, &rules.domain)
            .map_err(|_| invalid("the token's subject (sub) is not a principal's id"))?;
        let roles = self.roles(rules, claims, &principal);
        let expires_at = claims::time(&claims.exp).ok_or_else(|| invalid("exp is not a time"))?;
        let not_before = match &claims.nbf {
            Some(begin) => Some(claims::time(begin).ok_or_else(|| invalid("nbf is not a time"))?),
            None => None,
        };
        let caller = Caller { principal, roles, acting_service: None, proof: Proof::Token };
        Ok(Verified {
            caller: Arc::new(caller),
            validity: Validity::until(expires_at, None),
            key: Some(key),
            expires_at,
            not_before,
            bound_to: claims.bound_to()?,
        })
    }

    /// What the token claims, or else what the bindings give; within what the
    /// issuer may grant, and within the binding when there is one.
    fn roles(&self, rules: &IssuerRules, claims: &Claims, principal: &Principal) -> Roles {
        let binding = self.bindings.get(principal).copied();
        let claimed = claims
            .roles
            .as_ref()
            .map(|words| words.iter().filter_map(|word| word.parse().ok()).collect::<Roles>());
        let wanted = match (claimed, binding) {
            (Some(claimed), Some(binding)) => claimed.intersection(binding),
            (Some(claimed), None) => claimed,
            (None, Some(binding)) => binding,
            (None, None) => Roles::NONE,
        };
        wanted.intersection(rules.roles)
    }
}

fn invalid(rule: &str) -> Refusal {
    Refusal::new(Reason::TokenInvalid, rule)
}

#[cfg(test)]
mod tests;
