//! `simpul pay`: one payment, with the exit code of its true state.

use std::collections::HashMap;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tonic::{Code, Request};

use super::args::key_value;
use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;
use super::render::{payment_json, payment_text};
use crate::client::Client;
use crate::money::Money;
use crate::proto::payment::v1::{
    CaptureMode, Payment, PaymentStatus, ProcessPaymentRequest, WatchPaymentRequest,
};

/// Pay somebody
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    simpul pay --as alice --to toko --amount 'IDR 50000' --method sandbox_ok\n  \
    simpul pay --as alice --to toko --amount 'KWD 1.5' --method sandbox_ok --capture manual\n\n\
    Exit codes: 0 paid or authorized, 1 declined, 75 not decided yet.")]
pub struct Pay {
    /// Whom: kind/id@trust-domain, kind and domain optional
    #[arg(long, value_name = "WHO")]
    to: String,
    /// Currency and amount, in the currency's usual unit
    #[arg(long, value_name = "'CODE AMOUNT'", value_parser = payable)]
    amount: Money,
    /// The provider's token for the means of payment; never a card number
    #[arg(long, value_name = "TOKEN")]
    method: String,
    /// Your own key for this payment: again with the same key never pays twice;
    /// made up when left out
    #[arg(long = "key", value_name = "KEY")]
    idempotency_key: Option<String>,
    /// When money moves
    #[arg(long, value_enum, default_value_t = Capture::Automatic)]
    capture: Capture,
    /// A room of yours that gets the receipt
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,
    /// A text for both sides
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Your own pair; may be repeated
    #[arg(long, value_name = "K=V", value_parser = key_value)]
    metadata: Vec<(String, String)>,
    /// Wait until it is settled, up to this long
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration,
          num_args = 0..=1, default_missing_value = "60s")]
    wait: Option<Duration>,
}

/// `--capture`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Capture {
    /// At once
    Automatic,
    /// On `simpul payment capture`
    Manual,
}

impl Pay {
    /// Pays and prints the payment as it is.
    pub async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let key = self.idempotency_key.unwrap_or_else(fresh_key);
        let request = ProcessPaymentRequest {
            idempotency_key: key.clone(),
            payee: self.to,
            amount: Some(self.amount.to_proto()),
            payment_method: self.method,
            capture: match self.capture {
                Capture::Automatic => CaptureMode::Automatic.into(),
                Capture::Manual => CaptureMode::Manual.into(),
            },
            description: self.description.unwrap_or_default(),
            metadata: self.metadata.into_iter().collect::<HashMap<_, _>>(),
            room_id: self.room.unwrap_or_default(),
        };
        let client = env.connect().await?;
        let answer = client.payment().process_payment(client.unary(request)).await;
        let answer = answer.map_err(|status| maybe_done(status.into(), &key))?;
        let mut payment = answer.into_inner().payment.ok_or_else(no_payment)?;
        if let Some(wait) = self.wait
            && !is_settled(&payment)
        {
            payment = settle(&client, payment, wait).await?;
        }
        env.output.say(&payment_json(&payment), || payment_text(&payment))?;
        Ok(exit_of(&payment))
    }
}

/// A key that nobody else has.
pub fn fresh_key() -> String {
    crate::id::fresh().to_string()
}

/// The class of a payment's state. What the payer must still confirm and what
/// the provider has not decided is not known yet; so is an operation whose
/// outcome is not proven, whatever the last proven status.
pub fn exit_of(payment: &Payment) -> Exit {
    if payment.outcome_unknown {
        return Exit::Unknown;
    }
    match payment.status() {
        PaymentStatus::Authorized
        | PaymentStatus::Succeeded
        | PaymentStatus::PartiallyRefunded
        | PaymentStatus::Refunded => Exit::Done,
        PaymentStatus::Failed | PaymentStatus::Canceled | PaymentStatus::Expired => Exit::Refused,
        PaymentStatus::Unspecified
        | PaymentStatus::Created
        | PaymentStatus::RequiresAction
        | PaymentStatus::Pending => Exit::Unknown,
    }
}

/// Whether nothing is under way.
pub fn is_settled(payment: &Payment) -> bool {
    exit_of(payment) != Exit::Unknown
}

/// A call that moves money and got no answer may have been done: the class is
/// "not known", and the hint says how to ask again without doing it twice.
pub fn maybe_done(failure: Failure, key: &str) -> Failure {
    let no_answer = matches!(
        failure.code(),
        Some(Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded)
    ) && failure.reason().is_none_or(|reason| reason == "DEADLINE_EXCEEDED");
    if no_answer {
        failure
            .with_exit(Exit::Unknown)
            .hint(format!("it may have been done; ask again without doing it twice: --key {key}"))
    } else {
        failure
    }
}

/// An answer that the contract does not allow.
pub fn no_payment() -> Failure {
    Failure::unavailable("the node answered without a payment")
}

/// Watches until the payment is settled or the time is over; then it is as it
/// was last seen.
async fn settle(client: &Client, payment: Payment, wait: Duration) -> Result<Payment, Failure> {
    let mut last = payment;
    let id = last.payment_id.clone();
    let watching = async {
        let request = WatchPaymentRequest { payment_id: id, until_settled: true };
        let mut stream = client.payment().watch_payment(Request::new(request)).await?.into_inner();
        while let Some(answer) = stream.message().await? {
            if let Some(payment) = answer.payment {
                last = payment;
            }
        }
        Ok::<(), Failure>(())
    };
    match tokio::time::timeout(wait, watching).await {
        Ok(Err(failure)) => Err(failure),
        Ok(Ok(())) | Err(_) => Ok(last),
    }
}

fn payable(text: &str) -> Result<Money, String> {
    let money: Money = text.parse().map_err(|error| format!("{error}"))?;
    Money::payable(money.currency.as_str(), money.minor_units).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_by_the_currencys_exponent() {
        assert_eq!(payable("IDR 50000").map(|m| m.minor_units), Ok(5_000_000));
        assert_eq!(payable("KWD 1.5").map(|m| m.minor_units), Ok(1500));
        assert_eq!(payable("JPY 50").map(|m| m.minor_units), Ok(50));
        for bad in ["JPY 1.5", "IDR", "50000", "XXX 1", "IDR -1", "IDR 0", "IDR 50.000"] {
            assert!(payable(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_exit_code_is_that_of_the_true_state() {
        let with = |status: PaymentStatus| Payment { status: status.into(), ..Default::default() };
        for (status, exit) in [
            (PaymentStatus::Succeeded, Exit::Done),
            (PaymentStatus::Authorized, Exit::Done),
            (PaymentStatus::Failed, Exit::Refused),
            (PaymentStatus::Canceled, Exit::Refused),
            (PaymentStatus::Pending, Exit::Unknown),
            (PaymentStatus::Created, Exit::Unknown),
            (PaymentStatus::RequiresAction, Exit::Unknown),
        ] {
            assert_eq!(exit_of(&with(status)), exit, "{status:?}");
        }
        let mut unknown = with(PaymentStatus::Succeeded);
        unknown.outcome_unknown = true;
        assert_eq!(exit_of(&unknown), Exit::Unknown);
    }

    #[test]
    fn a_lost_answer_names_the_key_and_a_refusal_stays_one() {
        use crate::refusal::{Reason, Refusal};
        let lost = maybe_done(tonic::Status::unavailable("gone").into(), "k1");
        assert_eq!(lost.exit(), Exit::Unknown);
        assert!(lost.render(false).is_some_and(|text| text.contains("--key k1")));
        let shed: tonic::Status = Refusal::new(Reason::Overloaded, "busy").into();
        assert_eq!(maybe_done(shed.into(), "k1").exit(), Exit::Unavailable);
    }
}
