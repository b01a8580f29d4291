//! Whose account is whose: the one place where ownership is decided.
//!
//! A principal's account is named by the principal itself. The configuration
//! may bind several principals to one account (`auth.accounts`); they then act
//! on it alike.

use std::collections::HashMap;

use super::audit::AuditSubject;
use super::permit::Permit;
use crate::principal::{Principal, Roles};
use crate::refusal::{Refusal, Violations};

/// The bindings of principals to shared accounts.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    shared: HashMap<Principal, Principal>,
}

impl Accounts {
    /// From pairs of (who shares it, the account).
    pub fn new(shared: impl IntoIterator<Item = (Principal, Principal)>) -> Self {
        Self { shared: shared.into_iter().collect() }
    }

    /// The account on which a principal acts.
    pub fn of(&self, principal: &Principal) -> Principal {
        self.shared.get(principal).unwrap_or(principal).clone()
    }

    /// Whether the caller acts on the account.
    pub fn owns(&self, permit: &Permit, account: &Principal) -> bool {
        self.of(permit.principal()) == *account
    }

    /// Whether the caller may read the account: its own, or anyone's with one
    /// of the roles.
    pub fn may_read(&self, permit: &Permit, account: &Principal, anyones: Roles) -> bool {
        self.owns(permit, account) || permit.caller().roles.intersects(anyones)
    }

    /// The account that a request's field names: the caller's own when empty.
    /// Somebody else's is NOT_FOUND unless the caller has one of the roles. The
    /// audit log is told whose it is in either case.
    pub fn resolve(
        &self,
        permit: &Permit,
        subject: &AuditSubject,
        field: &str,
        text: &str,
        anyones: Roles,
    ) -> Result<Principal, Refusal> {
        let own = self.of(permit.principal());
        if text.is_empty() {
            return Ok(own);
        }
        let mut violations = Violations::new();
        let domain = permit.principal().trust_domain();
        let named = violations.take(field, Principal::parse_in(text, &domain));
        violations.finish()?;
        let account = named.map_or_else(|| own.clone(), |named| self.of(&named));
        subject.set(&format!("account {account}"));
        subject.set_others(account != own);
        if self.may_read(permit, &account, anyones) {
            Ok(account)
        } else {
            Err(Refusal::not_found("account"))
        }
    }
}
