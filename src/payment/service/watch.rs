//! A payment, and again at each change.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tonic::Status as RpcStatus;
use uuid::Uuid;

use super::convert;
use crate::drain;
use crate::payment::Core;
use crate::payment::wake::Subscription;
use crate::proto::payment::v1::WatchPaymentResponse;
use crate::refusal::{Reason, Refusal};
use crate::store::payment::PaymentRecord;

/// How often it looks although nobody woke it: another process may have moved
/// the payment.
const LOOK: Duration = Duration::from_secs(2);

struct Watching {
    core: Arc<Core>,
    payment: Uuid,
    until_settled: bool,
    subscription: Subscription,
    drain: drain::Watch,
    /// The version that was told last; 0 before the first.
    told: u64,
    over: bool,
}

/// The subscription must be older than the stream's first read. The stream ends
/// with the payment, or with DRAINING when the node stops; it holds no
/// connection to the store while it waits.
pub(super) fn stream(
    core: Arc<Core>,
    payment: Uuid,
    until_settled: bool,
    subscription: Subscription,
) -> impl Stream<Item = Result<WatchPaymentResponse, RpcStatus>> + Send {
    let drain = core.parts.drain.clone();
    let watching =
        Watching { core, payment, until_settled, subscription, drain, told: 0, over: false };
    unfold(watching, |mut watching| async move {
        if watching.over {
            return None;
        }
        let told = match watching.next().await {
            Ok(payment) => {
                watching.told = payment.version;
                watching.over = watching.is_over(&payment);
                Ok(WatchPaymentResponse { payment: Some(convert::payment(payment)) })
            }
            Err(refusal) => {
                watching.over = true;
                Err(refusal.into())
            }
        };
        Some((told, watching))
    })
}

impl Watching {
    async fn next(&mut self) -> Result<PaymentRecord, Refusal> {
        loop {
            let payment = self.core.store().payment(self.payment).await?;
            let payment = payment.ok_or_else(|| Refusal::not_found("payment"))?;
            if payment.version != self.told {
                return Ok(payment);
            }
            tokio::select! {
                () = self.subscription.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
                () = self.drain.graceful() => {
                    let message = "the node is stopping; watch again";
                    return Err(Refusal::new(Reason::Draining, message)
                        .retry_after(Duration::from_secs(1)));
                }
            }
        }
    }

    fn is_over(&self, payment: &PaymentRecord) -> bool {
        let status = payment.proven.status;
        let settled = !payment.busy && !status.is_open();
        status.is_final() || self.until_settled && settled
    }
}
