//! Waiting for an operation's outcome, no longer than the caller does.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{Answer, refused_operation};
use crate::config::schema;
use crate::drain::Phase;
use crate::payment::Core;
use crate::payment::wake::Subscription;
use crate::refusal::Refusal;
use crate::store::payment::{OperationStatus, Status};
use crate::traffic::deadline::Deadline;

/// How often it looks although nobody woke it: another process may have moved
/// the payment.
const LOOK: Duration = Duration::from_secs(1);

/// What the answer needs to reach the caller in time.
const MARGIN: Duration = Duration::from_millis(250);

/// When the answer must be on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Until(Instant);

impl Until {
    /// Some time before the caller's deadline; without one, as long as one call
    /// to the provider may take.
    pub(super) fn of<T>(request: &tonic::Request<T>, config: &schema::Payment) -> Self {
        let header = request.metadata().get("grpc-timeout").and_then(|text| text.to_str().ok());
        let time = match header.and_then(timeout) {
            Some(timeout) => timeout.saturating_sub(MARGIN.min(timeout / 5)),
            None => config.provider_timeout,
        };
        // A deadline years away is none; the longest waits an hour.
        let until = Instant::now() + time.min(Duration::from_secs(3600));
        // The node may allow less than the caller does, and cuts the call there.
        let allowed = Deadline::of(request.extensions())
            .and_then(|deadline| deadline.0.checked_sub(MARGIN.min(deadline.remaining() / 5)));
        Self(allowed.map_or(until, |allowed| allowed.min(until)))
    }
}

/// Reads the header grpc-timeout: at most eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Waits until the operation is over, the caller's time is, or the node stops;
/// returns the payment as it is then. The subscription must be older than the
/// operation.
pub(super) async fn settled(
    core: &Arc<Core>,
    (payment_id, operation_id): (Uuid, Uuid),
    mut subscription: Subscription,
    until: Until,
) -> Answer {
    let (mut drain, mut forced) = (core.parts.drain.clone(), core.parts.drain.clone());
    loop {
        let operation = core.store().operation(operation_id).await?;
        let operation = operation.ok_or_else(|| Refusal::not_found("payment"))?;
        let leaving = match drain.phase() {
            Phase::Running => false,
            // What is being sent ends soon; what is not will not be sent here.
            Phase::Graceful => operation.status != OperationStatus::Submitting,
            Phase::Forced => true,
        };
        if !operation.status.is_live() || leaving || Instant::now() >= until.0 {
            if let Some(refusal) = refused_operation(&operation) {
                return Err(refusal);
            }
            let payment = core.store().payment(payment_id).await?;
            return payment.ok_or_else(|| Refusal::not_found("payment"));
        }
        let stopping = drain.phase() != Phase::Running;
        tokio::select! {
            () = subscription.changed() => {}
            () = tokio::time::sleep_until(until.0.min(Instant::now() + LOOK)) => {}
            () = drain.graceful(), if !stopping => {}
            () = forced.forced(), if stopping => {}
        }
    }
}

/// Waits until a payment no longer waits for its payer; as [`settled`]
/// otherwise.
pub(super) async fn confirmed(
    core: &Arc<Core>,
    payment_id: Uuid,
    mut subscription: Subscription,
    until: Until,
) -> Answer {
    let mut drain = core.parts.drain.clone();
    loop {
        let payment = core.store().payment(payment_id).await?;
        let payment = payment.ok_or_else(|| Refusal::not_found("payment"))?;
        let waiting = payment.proven.status == Status::RequiresAction;
        if !waiting || drain.phase() != Phase::Running || Instant::now() >= until.0 {
            return Ok(payment);
        }
        tokio::select! {
            () = subscription.changed() => {}
            () = tokio::time::sleep_until(until.0.min(Instant::now() + LOOK)) => {}
            () = drain.graceful() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_answer_is_on_its_way_before_the_node_cuts_the_call() {
        let config: crate::config::schema::Config =
            toml::from_str(include_str!("../../../config/default.toml")).expect("good defaults");
        let mut request = tonic::Request::new(());
        request.metadata_mut().insert("grpc-timeout", "900S".parse().expect("a header"));
        let cut = Instant::now() + Duration::from_secs(300);
        request.extensions_mut().insert(Deadline(cut));
        assert_eq!(Until::of(&request, &config.payment).0, cut - MARGIN);
        request.metadata_mut().insert("grpc-timeout", "10S".parse().expect("a header"));
        let own = Instant::now() + Duration::from_secs(10);
        assert_eq!(Until::of(&request, &config.payment).0, own - MARGIN);
    }

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        assert_eq!(timeout("100m"), Some(Duration::from_millis(100)));
        assert_eq!(timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_secs(359_999_996_400)));
        for bad in ["", "S", "1", "-1S", "1.5S", "100000000S", "1s", "1é"] {
            assert_eq!(timeout(bad), None, "{bad}");
        }
    }
}
