//! What is told of one payment to those who explain it.

use std::sync::Arc;

use simpul::id;
use simpul::store::TrailStore;
use simpul::store::payment::{OperationKind, OperationStatus, Row, Task, Trail};

use super::{Both, claimed, lease_one, operate, succeeded};

pub(crate) async fn everything_of_a_payment_is_told<S: Both + TrailStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let claim = claimed(&*store, "k").await;
    let other = claimed(&*store, "other").await;
    let told = async || store.trail(claim.payment_id).await.expect("reads");
    let states = |trail: &Trail| -> Vec<_> {
        trail.operations.iter().map(|(it, at)| (it.kind, it.status, *at)).collect()
    };
    let new = told().await;
    assert_eq!(states(&new), [(OperationKind::Charge, OperationStatus::New, 10)]);
    assert!(new.operations[0].0.method.is_none(), "the method token is told");
    let row = &new.waiting[0];
    assert_eq!((row.task, row.operation_id, row.next_at), (Task::Drive, claim.operation_id, 10));
    assert_eq!((row.lease_owner.as_str(), row.trace.as_str()), ("", "00-trace"));
    assert_eq!((row.created_at, row.attempts, row.hastened), (10, 0, false));
    assert!(new.entries.is_empty() && new.held.is_none() && new.waiting.len() == 1);

    // Both are leased, in whatever order.
    let leased = store.lease("w", 11, 111, 8).await.expect("leases");
    let leased = leased.into_iter().find(|it| it.payment.id == claim.payment_id).expect("ours");
    store.mark_submitting(&leased, 12).await.expect("the holder may");
    let sent = told().await;
    assert_eq!(states(&sent), [(OperationKind::Charge, OperationStatus::Submitting, 12)]);
    assert_eq!((sent.waiting[0].lease_owner.as_str(), sent.waiting[0].lease_until), ("w", 111));

    store.record(succeeded(&leased)).await.expect("records");
    let receipt = lease_one(&*store, "w", 21).await;
    assert_eq!(told().await.waiting[0].task, Task::Receipt);
    store.reschedule(&receipt, Row::Remove).await.expect("is done");
    let refund = operate(claim.payment_id, 2, "back", None);
    store.claim(refund.clone()).await.expect("claims");
    let done = told().await;
    assert_eq!(
        states(&done),
        [
            (OperationKind::Charge, OperationStatus::Done, 20),
            (OperationKind::Refund, OperationStatus::New, 50),
        ]
    );
    assert_eq!(done.waiting[0].operation_id, refund.operation_id);
    let accounts: Vec<_> = done.entries.iter().map(|entry| entry.account.as_str()).collect();
    assert_eq!(
        accounts,
        ["provider_clearing:sandbox", "user/alice@test", "user/alice@test", "user/toko@test"]
    );
    assert!(done.entries.iter().all(|entry| entry.payment_id == claim.payment_id));
    assert_eq!(store.trail(other.payment_id).await.expect("reads").entries, []);
    let nobody = store.trail(id::fresh()).await.expect("reads");
    assert!(nobody.operations.is_empty() && nobody.waiting.is_empty());
}
