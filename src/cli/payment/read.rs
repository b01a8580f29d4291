//! `simpul payment get`, `list` and `watch`.

use clap::Args;
use tonic::Request;

use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::pay::{exit_of, no_payment};
use crate::cli::render::{PAYMENT_HEAD, payment_json, payment_row, payment_text};
use crate::proto::payment::v1::{
    GetPaymentRequest, ListPaymentsRequest, PaymentStatus, WatchPaymentRequest,
};

/// Show a payment
#[derive(Debug, Args)]
pub(super) struct Get {
    /// The payment
    #[arg(value_name = "PAYMENT")]
    payment_id: String,
}

impl Get {
    /// To look at a payment succeeds whatever its state: the state is printed.
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let request = GetPaymentRequest { payment_id: self.payment_id };
        let answer = client.payment().get_payment(client.unary(request)).await?.into_inner();
        let payment = answer.payment.ok_or_else(no_payment)?;
        env.output.say(&payment_json(&payment), || payment_text(&payment))?;
        Ok(Exit::Done)
    }
}

/// List payments made or received, newest first
#[derive(Debug, Args)]
pub(super) struct List {
    /// Whose: kind/id@trust-domain, kind and domain optional; absent, the caller's own
    #[arg(long, value_name = "WHO")]
    account: Option<String>,
    /// Only those in this status; may be repeated. Example: succeeded
    #[arg(long, value_name = "STATUS", value_parser = status)]
    status: Vec<PaymentStatus>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl List {
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let statuses: Vec<i32> = self.status.into_iter().map(i32::from).collect();
        let mut left = self.limit as usize;
        let (mut rows, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListPaymentsRequest {
                account: self.account.clone().unwrap_or_default(),
                statuses: statuses.clone(),
                page_size: u32::try_from(left.min(500)).unwrap_or(500),
                page_token,
            };
            let page = client.payment().list_payments(client.unary(request)).await?.into_inner();
            rows.extend(page.payments.iter().take(left).map(|p| (payment_json(p), payment_row(p))));
            left = left.saturating_sub(page.payments.len());
            page_token = page.next_page_token;
            if left == 0 || page_token.is_empty() {
                break;
            }
        }
        env.output.list(&PAYMENT_HEAD, &rows)?;
        Ok(Exit::Done)
    }
}

/// Show a payment now and at each change, until it is settled
#[derive(Debug, Args)]
pub(super) struct Watch {
    /// The payment
    #[arg(value_name = "PAYMENT")]
    payment_id: String,
    /// Go on until the status is final
    #[arg(long)]
    until_final: bool,
}

impl Watch {
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let request =
            WatchPaymentRequest { payment_id: self.payment_id, until_settled: !self.until_final };
        let mut stream = client.payment().watch_payment(Request::new(request)).await?.into_inner();
        let mut exit = Exit::Unknown;
        while let Some(answer) = stream.message().await? {
            let payment = answer.payment.ok_or_else(no_payment)?;
            env.output.say(&payment_json(&payment), || payment_text(&payment))?;
            exit = exit_of(&payment);
        }
        Ok(exit)
    }
}

fn status(text: &str) -> Result<PaymentStatus, String> {
    let name = format!("PAYMENT_STATUS_{}", text.to_ascii_uppercase().replace('-', "_"));
    PaymentStatus::from_str_name(&name)
        .filter(|status| *status != PaymentStatus::Unspecified)
        .ok_or_else(|| {
            "must be created, requires-action, pending, authorized, succeeded, \
             partially-refunded, refunded, failed, canceled or expired"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_the_contracts_words() {
        assert_eq!(status("succeeded"), Ok(PaymentStatus::Succeeded));
        assert_eq!(status("requires-action"), Ok(PaymentStatus::RequiresAction));
        assert!(status("unspecified").is_err());
    }
}
