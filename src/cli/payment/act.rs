//! `simpul payment act`: what the payer would do on a provider's page, for the
//! sandbox.

use clap::Args;

use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::pay::{exit_of, no_payment};
use crate::cli::render::{payment_json, payment_text};
use crate::proto::sandbox::v1::{ActionDecision, CompleteActionRequest};

/// Confirm a payment that waits for its payer (sandbox only)
#[derive(Debug, Args)]
pub(super) struct Act {
    /// The payment, in REQUIRES_ACTION
    #[arg(value_name = "PAYMENT")]
    payment_id: String,
    /// Refuse it instead
    #[arg(long)]
    decline: bool,
}

impl Act {
    /// A refusal that was asked for is done, not refused.
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let decision = if self.decline { ActionDecision::Decline } else { ActionDecision::Approve };
        let request =
            CompleteActionRequest { payment_id: self.payment_id, decision: decision.into() };
        let answer = client.sandbox().complete_action(client.unary(request)).await?.into_inner();
        let payment = answer.payment.ok_or_else(no_payment)?;
        env.output.say(&payment_json(&payment), || payment_text(&payment))?;
        Ok(match exit_of(&payment) {
            Exit::Refused if self.decline => Exit::Done,
            exit => exit,
        })
    }
}
