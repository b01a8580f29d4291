//! `simpul history`: an account's transactions, once or as they come.

use std::time::Duration;

use clap::Args;
use tonic::{Code, Request};

use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;
use super::render::{TRANSACTION_HEAD, TRANSACTION_WIDTHS, transaction_json, transaction_row};
use super::target::Target;
use super::text;
use super::when;
use crate::client::patience::Patience;
use crate::proto::transaction::v1::{GetTransactionHistoryRequest, TransactionKind};

/// Show an account's transactions, oldest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  simpul history --as alice\n  \
    simpul history --as toko --follow\n  \
    simpul history --as toko --kind payment --from-time 2026-01-01T00:00:00Z --limit 10")]
pub struct History {
    /// Whose: kind/id@trust-domain, kind and domain optional; absent, the caller's own
    #[arg(long, value_name = "WHO")]
    account: Option<String>,
    /// Go on with what is posted from now on; survives a restart of the node
    #[arg(long, short)]
    pub(super) follow: bool,
    /// Only transactions after this position
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    after: u64,
    /// Only this kind; may be repeated
    #[arg(long, value_name = "KIND", value_parser = kind)]
    kind: Vec<TransactionKind>,
    /// Only what was posted at or after this time (RFC 3339, or a span ago: 2h)
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    from_time: Option<prost_types::Timestamp>,
    /// Only what was posted before this time
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    to_time: Option<prost_types::Timestamp>,
    /// End after so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

impl History {
    /// Prints from the cursor on. While following, a lost connection is taken up
    /// again after the last position that was printed.
    pub async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let mut next = GetTransactionHistoryRequest {
            account: self.account.unwrap_or_default(),
            after_position: self.after,
            posted_from: self.from_time,
            posted_before: self.to_time,
            kinds: self.kind.into_iter().map(i32::from).collect(),
            follow: self.follow,
            limit: self.limit.unwrap_or(0),
        };
        let mut patience = Patience::new(Duration::from_secs(60));
        let mut met = false;
        loop {
            let began = std::mem::take(&mut met);
            let Err(failure) = pass(env, &mut next, began, &mut met).await else {
                return Ok(Exit::Done);
            };
            if met {
                patience.reset();
            }
            // A node that was never there is not waited for.
            met |= began;
            if !self.follow || !met || !is_lost(&failure) || !patience.wait().await {
                return Err(failure);
            }
        }
    }
}

/// One stream, to its end or failure; moves the request's cursor along. `began`
/// says that the heading stands already, `met` that the node answered.
async fn pass(
    env: &Env,
    next: &mut GetTransactionHistoryRequest,
    began: bool,
    met: &mut bool,
) -> Result<(), Failure> {
    let client = Target::resolve(&env.global)?.connect().await?;
    let mut request = Request::new(next.clone());
    if !next.follow {
        request.set_timeout(client.timeout());
    }
    let mut stream = client.transaction().get_transaction_history(request).await?.into_inner();
    *met = true;
    if !began {
        let head: Vec<String> = TRANSACTION_HEAD.map(str::to_owned).to_vec();
        env.output.note(&text::line(&TRANSACTION_WIDTHS, &head))?;
    }
    while let Some(answer) = stream.message().await? {
        let Some(entry) = answer.transaction else { continue };
        env.output.say(&transaction_json(&entry), || {
            text::line(&TRANSACTION_WIDTHS, &transaction_row(&entry))
        })?;
        next.after_position = entry.position;
        if next.limit > 0 {
            next.limit -= 1;
            if next.limit == 0 {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether the same request may get further on another connection.
fn is_lost(failure: &Failure) -> bool {
    failure.exit() == Exit::Unavailable && !failure.is_ours()
        || failure.code() == Some(Code::Cancelled)
        || failure.reason() == Some("TOKEN_EXPIRED")
}

fn kind(text: &str) -> Result<TransactionKind, String> {
    let name = format!("TRANSACTION_KIND_{}", text.to_ascii_uppercase().replace('-', "_"));
    TransactionKind::from_str_name(&name)
        .filter(|kind| *kind != TransactionKind::Unspecified)
        .ok_or_else(|| {
            "must be funding, payment, refund-reserved, refund, refund-released or payback"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_the_contracts_words() {
        assert_eq!(kind("payment"), Ok(TransactionKind::Payment));
        assert_eq!(kind("refund-reserved"), Ok(TransactionKind::RefundReserved));
        assert_eq!(kind("REFUND_RELEASED"), Ok(TransactionKind::RefundReleased));
        assert!(kind("unspecified").is_err());
        assert!(kind("gift").is_err());
    }
}
