//! The core, exhaustively in the small and by property in the large.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::money::Money;
use crate::store::ledger::AccountName;
use crate::store::payment::{CaptureMode, NextAction};

const AMOUNT: i64 = 1_000;

fn payment(status: Status, captured: i64, refunded: i64) -> PaymentRecord {
    PaymentRecord {
        id: Uuid::from_u128(1),
        payer: "user/alice@t".parse().expect("a principal"),
        payee: "user/toko@t".parse().expect("a principal"),
        amount: Money { currency: "IDR".parse().expect("a currency"), minor_units: AMOUNT },
        capture: CaptureMode::Automatic,
        proven: Proven {
            status,
            captured,
            refunded,
            unknown: false,
            failure: None,
            next_action: None,
        },
        busy: false,
        unsent: false,
        description: String::new(),
        metadata: BTreeMap::new(),
        room_id: "lobby".to_owned(),
        provider: "sandbox".to_owned(),
        created_at: 0,
        updated_at: 0,
        version: 1,
    }
}

fn operation(kind: OperationKind, status: OperationStatus, minor_units: i64) -> OperationRecord {
    OperationRecord {
        id: Uuid::from_u128(2),
        payment_id: Uuid::from_u128(1),
        kind,
        status,
        minor_units,
        provider_key: "key".to_owned(),
        charge_key: "charge".to_owned(),
        method: None,
        failure: None,
        created_at: 0,
    }
}

fn answers() -> Vec<ProviderAnswer> {
    let action = NextAction { kind: "confirm".to_owned(), url: String::new() };
    let declined = ProviderAnswer::Declined { code: "no".to_owned(), message: "no".to_owned() };
    vec![
        ProviderAnswer::Succeeded,
        ProviderAnswer::Authorized,
        ProviderAnswer::RequiresAction(action),
        ProviderAnswer::Pending,
        declined,
        ProviderAnswer::Canceled,
        ProviderAnswer::Expired,
        ProviderAnswer::NotSent,
        ProviderAnswer::NotFound,
        ProviderAnswer::Unknown,
    ]
}

#[test]
fn the_table_of_transitions_is_the_one_that_was_decided() {
    use Status::*;
    let table: &[(Status, &[Status])] = &[
        (Created, &[RequiresAction, Pending, Authorized, Succeeded, Failed, Canceled, Expired]),
        (RequiresAction, &[Pending, Authorized, Succeeded, Failed, Canceled, Expired]),
        (Pending, &[Authorized, Succeeded, Failed, Canceled, Expired]),
        (Authorized, &[Succeeded, Failed, Canceled, Expired]),
        (Succeeded, &[PartiallyRefunded, Refunded]),
        (PartiallyRefunded, &[PartiallyRefunded, Refunded]),
        (Refunded, &[]),
        (Failed, &[]),
        (Canceled, &[]),
        (Expired, &[]),
    ];
    assert_eq!(table.len(), Status::ALL.len());
    for (from, tos) in table {
        assert_eq!(from.is_final(), tos.is_empty(), "{from:?}");
        for to in Status::ALL {
            assert_eq!(is_legal(*from, *to), tos.contains(to), "{from:?} to {to:?}");
        }
    }
}

/// Every status, kind, operation status and answer: 10 · 4 · 5 · 10.
#[test]
fn every_answer_to_everything_keeps_the_invariants() {
    for status in Status::ALL {
        let (captured, refunded) = match status {
            Status::Succeeded => (AMOUNT, 0),
            Status::PartiallyRefunded => (AMOUNT, 400),
            Status::Refunded => (AMOUNT, AMOUNT),
            _ => (0, 0),
        };
        for kind in OperationKind::ALL {
            for doing in OperationStatus::ALL {
                for answer in answers() {
                    let before = payment(*status, captured, refunded);
                    let operation = operation(*kind, *doing, 500);
                    let Ok(after) = outcome(&before, &operation, &answer, 7) else { continue };
                    let case = format!("{status:?} {kind:?} {doing:?} {answer:?} gives {after:?}");
                    check(&before, &after, &case);
                }
            }
        }
    }
}

fn check(before: &PaymentRecord, after: &Transition, case: &str) {
    let (was, is) = (&before.proven, &after.proven);
    assert!(was.status == is.status || is_legal(was.status, is.status), "{case}");
    assert!(0 <= is.refunded && is.refunded <= is.captured && is.captured <= AMOUNT, "{case}");
    assert!(is.captured >= was.captured && is.refunded >= was.refunded, "{case}");
    // Live operations have something that brings them on; done ones on a decided
    // payment have nothing.
    if after.operation.is_live() {
        assert_ne!(after.follow, Follow::Done, "{case}");
    }
    // Money in the ledger is money in the payment, or an alarm.
    let net: i64 = after
        .transfers
        .iter()
        .flat_map(|transfer| &transfer.movements)
        .map(|movement| {
            let clearing = AccountName::provider_clearing("sandbox");
            let out = if movement.from == clearing { movement.minor_units } else { 0 };
            let back = if movement.to == clearing { movement.minor_units } else { 0 };
            out - back
        })
        .sum();
    let gained = (is.captured - is.refunded) - (was.captured - was.refunded);
    assert!(net == gained || gained == 0 && after.alarm.is_some() && net > 0, "{case}");
    assert_eq!(after.receipt, is.captured > was.captured, "{case}");
    let entered = is.status == Status::Authorized && was.status != Status::Authorized;
    let left = was.status == Status::Authorized && is.status != Status::Authorized;
    assert_eq!(matches!(after.hold, Hold::Put { .. }), entered, "{case}");
    assert_eq!(after.hold == Hold::Release, left, "{case}");
    assert!(is.next_action.is_none() || is.status == Status::RequiresAction, "{case}");
}

#[test]
fn money_for_what_has_ended_goes_to_suspense_with_an_alarm() {
    for status in [Status::Failed, Status::Canceled, Status::Expired] {
        for kind in [OperationKind::Charge, OperationKind::Capture] {
            let operation = operation(kind, OperationStatus::Unknown, 500);
            let after = outcome(&payment(status, 0, 0), &operation, &ProviderAnswer::Succeeded, 7);
            let after = after.expect("it is taken");
            assert_eq!(after.proven.status, status);
            assert!(after.alarm.is_some());
            let to = &after.transfers[0].movements[0].to;
            assert_eq!(*to, AccountName::suspense());
        }
    }
}

#[test]
fn news_of_the_charge_says_nothing_of_a_cancellation_under_way() {
    let mut before = payment(Status::Pending, 0, 0);
    before.proven.unknown = true;
    let charge = operation(OperationKind::Charge, OperationStatus::Done, AMOUNT);
    let after = outcome(&before, &charge, &ProviderAnswer::Pending, 7).expect("legal");
    assert!(after.proven.unknown);
}

#[test]
fn ids_of_transfers_differ_by_operation_and_step_alone() {
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let ids: HashSet<_> =
        [a, b].iter().flat_map(|id| [transfer_id(*id, "x"), transfer_id(*id, "y")]).collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(transfer_id(a, "x"), transfer_id(a, "x"));
}

/// One step of a life: what is begun (if it may be) and what the provider says.
#[derive(Debug, Clone)]
struct Step {
    kind: OperationKind,
    asked: i64,
    answers: Vec<usize>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop::sample::select(vec![
        OperationKind::Capture,
        OperationKind::Cancel,
        OperationKind::Refund,
    ]);
    let step = (kind, 0..=AMOUNT, prop::collection::vec(0..10_usize, 1..4))
        .prop_map(|(kind, asked, answers)| Step { kind, asked, answers });
    prop::collection::vec(step, 0..12)
}

proptest! {
    /// A whole life: a charge, then any operations with any answers. The
    /// ledger's accounts are folded as the store would.
    #[test]
    fn money_is_conserved_over_every_life(
        first in prop::collection::vec(0..10_usize, 1..4),
        steps in steps(),
    ) {
        let mut life = Life::new();
        life.answer(OperationKind::Charge, AMOUNT, &first);
        for step in steps {
            if let Ok(minor_units) = begin(&life.payment, step.kind, step.asked) {
                life.answer(step.kind, minor_units, &step.answers);
            }
        }
        life.check()?;
    }
}

struct Life {
    payment: PaymentRecord,
    accounts: HashMap<AccountName, i64>,
    posted: HashSet<Uuid>,
    operations: u128,
}

impl Life {
    fn new() -> Self {
        Self {
            payment: payment(Status::Created, 0, 0),
            accounts: HashMap::new(),
            posted: HashSet::new(),
            operations: 10,
        }
    }

    /// Gives the answers in turn while the operation is live; a refund whose
    /// last answer proves nothing stays under way, and so does all after it.
    fn answer(&mut self, kind: OperationKind, minor_units: i64, indices: &[usize]) {
        if self.payment.busy {
            return;
        }
        self.operations += 1;
        let mut operation = operation(kind, OperationStatus::New, minor_units);
        operation.id = Uuid::from_u128(self.operations);
        if kind == OperationKind::Refund {
            let reserve = reservation(&self.payment, operation.id, minor_units, false, 7);
            self.post(&[reserve]);
        }
        for index in indices {
            let answer = &answers()[*index];
            let Ok(after) = outcome(&self.payment, &operation, answer, 7) else { continue };
            let from = self.payment.proven.status;
            let to = after.proven.status;
            assert!(from == to || is_legal(from, to), "{from:?} to {to:?}");
            self.payment.proven = after.proven;
            operation.status = after.operation;
            self.post(&after.transfers);
            if after.follow == Follow::Done {
                break;
            }
        }
        self.payment.busy = operation.status.is_live();
    }

    fn post(&mut self, transfers: &[Transfer]) {
        for transfer in transfers {
            assert!(self.posted.insert(transfer.id), "posted twice");
            for movement in &transfer.movements {
                *self.accounts.entry(movement.from.clone()).or_default() -= movement.minor_units;
                *self.accounts.entry(movement.to.clone()).or_default() += movement.minor_units;
            }
        }
    }

    fn balance(&self, account: &AccountName) -> i64 {
        self.accounts.get(account).copied().unwrap_or(0)
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let Proven { captured, refunded, .. } = self.payment.proven;
        prop_assert_eq!(self.accounts.values().sum::<i64>(), 0);
        let clearing = self.balance(&AccountName::provider_clearing("sandbox"));
        let suspense = self.balance(&AccountName::suspense());
        prop_assert_eq!(clearing, -(captured - refunded) - suspense);
        let payee = self.balance(&AccountName::of(&self.payment.payee));
        let reserved = self.balance(&AccountName::refunds_payable());
        prop_assert_eq!(payee + reserved, captured - refunded);
        prop_assert_eq!(self.balance(&AccountName::of(&self.payment.payer)), 0);
        prop_assert!(payee >= 0 && reserved >= 0);
        prop_assert!(self.payment.busy || reserved == 0);
        Ok(())
    }
}
