//! `simpul payment capture`, `cancel` and `refund`: operations with a key of
//! the caller, so that a repetition does nothing more.

use clap::Args;

use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::pay::{exit_of, fresh_key, maybe_done, no_payment};
use crate::cli::render::{payment_json, payment_text};
use crate::client::Client;
use crate::money::Money;
use crate::proto::payment::v1::{
    CancelPaymentRequest, CapturePaymentRequest, GetPaymentRequest, Payment, PaymentStatus,
    RefundPaymentRequest,
};

// Not a doc comment: clap would give it to the commands as their help.
// A payment, how much of it, and under which key.
#[derive(Debug, Args)]
struct Part {
    /// The payment
    #[arg(value_name = "PAYMENT")]
    payment_id: String,
    /// How much, in the payment's currency; all that is left when left out
    #[arg(long, value_name = "'CODE AMOUNT'")]
    amount: Option<Money>,
    /// Your own key for this operation; made up when left out
    #[arg(long = "key", value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl Part {
    /// Payment, key and minor units, as the requests want them.
    async fn settled(self, client: &Client) -> Result<(String, String, i64), Failure> {
        let minor_units = part(client, &self.payment_id, self.amount).await?;
        Ok((self.payment_id, self.idempotency_key.unwrap_or_else(fresh_key), minor_units))
    }
}

/// Take the money of an authorized payment, or a part of it
#[derive(Debug, Args)]
pub(super) struct Capture {
    #[command(flatten)]
    part: Part,
}

impl Capture {
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let (payment_id, idempotency_key, minor_units) = self.part.settled(&client).await?;
        let key = idempotency_key.clone();
        let request = CapturePaymentRequest { payment_id, idempotency_key, minor_units };
        let answer = client.payment().capture_payment(client.unary(request)).await;
        let answer = answer.map_err(|status| maybe_done(status.into(), &key))?;
        finish(env, answer.into_inner().payment, exit_of)
    }
}

/// Give a payment up before money moved
#[derive(Debug, Args)]
pub(super) struct Cancel {
    /// The payment
    #[arg(value_name = "PAYMENT")]
    payment_id: String,
    /// Your own key for this cancellation; made up when left out
    #[arg(long = "key", value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl Cancel {
    /// Here CANCELED is what was asked for; money that was taken after all is
    /// a refusal.
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let key = self.idempotency_key.unwrap_or_else(fresh_key);
        let request =
            CancelPaymentRequest { payment_id: self.payment_id, idempotency_key: key.clone() };
        let answer = client.payment().cancel_payment(client.unary(request)).await;
        let answer = answer.map_err(|status| maybe_done(status.into(), &key))?;
        finish(env, answer.into_inner().payment, exit_of_cancel)
    }
}

/// Give captured money back, whole or in part
#[derive(Debug, Args)]
pub(super) struct Refund {
    #[command(flatten)]
    part: Part,
}

impl Refund {
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let (payment_id, idempotency_key, minor_units) = self.part.settled(&client).await?;
        let key = idempotency_key.clone();
        let request = RefundPaymentRequest { payment_id, idempotency_key, minor_units };
        let answer = client.payment().refund_payment(client.unary(request)).await;
        let answer = answer.map_err(|status| maybe_done(status.into(), &key))?;
        finish(env, answer.into_inner().payment, exit_of)
    }
}

fn finish(
    env: &Env,
    payment: Option<Payment>,
    exit: impl FnOnce(&Payment) -> Exit,
) -> Result<Exit, Failure> {
    let payment = payment.ok_or_else(no_payment)?;
    env.output.say(&payment_json(&payment), || payment_text(&payment))?;
    Ok(exit(&payment))
}

fn exit_of_cancel(payment: &Payment) -> Exit {
    match payment.status() {
        _ if payment.outcome_unknown => Exit::Unknown,
        PaymentStatus::Canceled => Exit::Done,
        PaymentStatus::Created | PaymentStatus::RequiresAction | PaymentStatus::Pending => {
            Exit::Unknown
        }
        _ => Exit::Refused,
    }
}

/// The minor units of a part, 0 for all. The contract has no currency here, so
/// the payment's own is asked for first: `USD 5` of a payment in IDR would
/// otherwise move something else than was typed.
async fn part(client: &Client, payment_id: &str, amount: Option<Money>) -> Result<i64, Failure> {
    let Some(amount) = amount else { return Ok(0) };
    let request = GetPaymentRequest { payment_id: payment_id.to_owned() };
    let answer = client.payment().get_payment(client.unary(request)).await?.into_inner();
    let payment = answer.payment.ok_or_else(no_payment)?;
    let currency = payment.amount.map(|amount| amount.currency).unwrap_or_default();
    if amount.minor_units <= 0 {
        return Err(Failure::usage("--amount must be more than nothing"));
    }
    if amount.currency.as_str() != currency {
        return Err(Failure::usage(format!("the payment is in {currency}")));
    }
    Ok(amount.minor_units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancellation_is_done_when_nothing_moved() {
        let with = |status: PaymentStatus| Payment { status: status.into(), ..Default::default() };
        assert_eq!(exit_of_cancel(&with(PaymentStatus::Canceled)), Exit::Done);
        assert_eq!(exit_of_cancel(&with(PaymentStatus::Succeeded)), Exit::Refused);
        assert_eq!(exit_of_cancel(&with(PaymentStatus::Created)), Exit::Unknown);
    }
}
