//! `simpul whoami`: the caller as the node sees it.

use clap::Args;
use serde_json::{Value, json};

use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;
use super::render::role_words;
use super::text::{pairs, plain, time, word};
use crate::proto::identity::v1::{WhoAmIRequest, WhoAmIResponse};

/// Show who the node takes you for
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  simpul whoami --as alice")]
pub struct Whoami {}

impl Whoami {
    /// Asks and prints.
    pub async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let who = client.identity().who_am_i(client.unary(WhoAmIRequest {})).await?.into_inner();
        env.output.say(&json_of(&who), || text_of(&who))?;
        Ok(Exit::Done)
    }
}

fn proof(who: &WhoAmIResponse) -> String {
    word(who.proof().as_str_name(), "PROOF_").to_ascii_lowercase()
}

fn json_of(who: &WhoAmIResponse) -> Value {
    json!({
        "principal": who.principal,
        "roles": role_words(who.roles()),
        "proof": proof(who),
        "expires_at": time(who.expires_at.as_ref()),
        "acting_service": who.acting_service,
        "node_id": who.node_id,
    })
}

fn text_of(who: &WhoAmIResponse) -> String {
    let mut lines = vec![
        ("principal", plain(&who.principal)),
        ("roles", role_words(who.roles()).join(", ")),
        ("proof", proof(who)),
        ("expires", time(who.expires_at.as_ref())),
        ("node", plain(&who.node_id)),
    ];
    if !who.acting_service.is_empty() {
        lines.push(("acting", plain(&who.acting_service)));
    }
    pairs(&lines)
}
