//! `simpul balance`: what stands on an account, by currency.

use clap::Args;
use serde_json::json;

use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;
use super::render::money_json;
use super::text::{money, plain};
use crate::proto::transaction::v1::GetBalanceRequest;

/// Show an account's balance in each currency
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  simpul balance --as toko")]
pub struct Balance {
    /// Whose: kind/id@trust-domain, kind and domain optional; absent, the caller's own
    #[arg(long, value_name = "WHO")]
    account: Option<String>,
}

impl Balance {
    /// Asks and prints.
    pub async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let request = GetBalanceRequest { account: self.account.unwrap_or_default() };
        let answer = client.transaction().get_balance(client.unary(request)).await?.into_inner();
        let rows: Vec<_> = answer
            .balances
            .iter()
            .map(|balance| {
                let json = json!({
                    "account": answer.account,
                    "posted": money_json(balance.posted.as_ref()),
                    "held": money_json(balance.held.as_ref()),
                });
                let row = vec![
                    plain(&answer.account),
                    money(balance.posted.as_ref()),
                    money(balance.held.as_ref()),
                ];
                (json, row)
            })
            .collect();
        env.output.list(&["ACCOUNT", "POSTED", "HELD"], &rows)?;
        Ok(Exit::Done)
    }
}
