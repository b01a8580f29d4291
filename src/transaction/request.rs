//! What the requests ask for, checked: every violated field at once.

use prost_types::Timestamp;
use uuid::Uuid;

use crate::principal::{Principal, Role, Roles};
use crate::proto::transaction::v1 as pb;
use crate::refusal::{Reason, Refusal, Violations};
use crate::security::accounts::Accounts;
use crate::security::audit::AuditSubject;
use crate::security::permit::Permit;
use crate::store::ledger::{HistoryFilter, TransactionKind};

/// How many kinds a request may list.
const MAX_KINDS: usize = 16;

/// The seconds that a protobuf Timestamp may have: years 1 to 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Who may read anyone's account.
pub(super) fn anyones() -> Roles {
    [Role::Support, Role::Auditor].into_iter().collect()
}

/// A checked [`pb::GetTransactionHistoryRequest`].
#[derive(Debug)]
pub(super) struct History {
    pub(super) account: Principal,
    pub(super) after: u64,
    pub(super) filter: HistoryFilter,
    pub(super) follow: bool,
    /// None: no bound.
    pub(super) limit: Option<u32>,
}

impl History {
    pub(super) fn parse(
        accounts: &Accounts,
        permit: &Permit,
        subject: &AuditSubject,
        request: &pb::GetTransactionHistoryRequest,
    ) -> Result<Self, Refusal> {
        let mut violations = Violations::new();
        let account = resolve(accounts, permit, subject, &request.account, &mut violations);
        let from = time("posted_from", request.posted_from.as_ref(), &mut violations);
        let before = time("posted_before", request.posted_before.as_ref(), &mut violations);
        if let (Some(from), Some(before)) = (from, before) {
            violations
                .check(from < before, "posted_before", || "must be after posted_from".to_owned());
        }
        let fits = i64::try_from(request.after_position).is_ok();
        violations.check(fits, "after_position", || "must be below 2^63".to_owned());
        let kinds = kinds(&request.kinds, &mut violations);
        violations.finish()?;
        Ok(Self {
            account: account?,
            after: request.after_position,
            filter: HistoryFilter { from, before, kinds },
            follow: request.follow,
            limit: (request.limit > 0).then_some(request.limit),
        })
    }
}

/// The account alone.
pub(super) fn account(
    accounts: &Accounts,
    permit: &Permit,
    subject: &AuditSubject,
    text: &str,
) -> Result<Principal, Refusal> {
    accounts.resolve(permit, subject, "account", text, anyones())
}

/// A transaction's id.
pub(super) fn transaction_id(text: &str) -> Result<Uuid, Refusal> {
    let mut violations = Violations::new();
    let id = Uuid::try_parse(text).map_err(|_| "must be a UUID");
    let id = violations.take("transaction_id", id);
    violations.finish()?;
    id.ok_or_else(|| Refusal::not_found("transaction"))
}

/// Moves a violated field to the others; any other refusal waits until all
/// fields were looked at.
fn resolve(
    accounts: &Accounts,
    permit: &Permit,
    subject: &AuditSubject,
    text: &str,
    violations: &mut Violations,
) -> Result<Principal, Refusal> {
    let resolved = account(accounts, permit, subject, text);
    if let Err(refusal) = &resolved
        && refusal.reason == Reason::InvalidArgument
    {
        for violation in &refusal.violations {
            violations.add(violation.field.clone(), violation.rule.clone());
        }
    }
    resolved
}

/// Microseconds, rounded up: an entry's time has no finer parts, so it is at or
/// after, or before, the one exactly when it is so of the other.
fn time(field: &str, time: Option<&Timestamp>, violations: &mut Violations) -> Option<i64> {
    let time = time?;
    let fits = SECONDS.contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos);
    violations.check(fits, field, || {
        "must be in the years 1 to 9999, with 0 to 999999999 nanoseconds".to_owned()
    });
    fits.then(|| time.seconds * 1_000_000 + i64::from(time.nanos).saturating_add(999) / 1_000)
}

fn kinds(numbers: &[i32], violations: &mut Violations) -> Vec<TransactionKind> {
    violations.check(numbers.len() <= MAX_KINDS, "kinds", || {
        format!("must have at most {MAX_KINDS}; it has {}", numbers.len())
    });
    let mut kinds = Vec::new();
    for (index, number) in numbers.iter().take(MAX_KINDS).enumerate() {
        match TransactionKind::from_number(i64::from(*number)) {
            Some(kind) => kinds.push(kind),
            None => violations.add(format!("kinds[{index}]"), "must be a known kind"),
        }
    }
    kinds
}
