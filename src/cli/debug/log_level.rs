//! `simpul debug log-level`: more lines for a while.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::nodes::Chosen;
use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::text::{plain, time};
use crate::proto::operate::v1::{GetLogLevelRequest, GetLogLevelResponse, SetLogLevelRequest};

/// Show what a node logs, or have it log other levels for a while
#[derive(Debug, Args)]
#[command(after_help = "The configured levels come back by themselves.\n\nExamples:\n  \
    simpul debug log-level --as ana --role operator\n  \
    simpul debug log-level info,simpul::chat=debug --for 5m --as ana --role operator\n  \
    simpul debug log-level --reset --as ana --role operator")]
pub(super) struct LogLevel {
    /// Levels by part: LEVEL or TARGET=LEVEL, with commas between
    #[arg(value_name = "DIRECTIVE")]
    directive: Option<String>,
    /// For how long, 1s to 24h
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration,
          default_value = "10m", requires = "directive")]
    time: Duration,
    /// Put what is configured in force again
    #[arg(long, conflicts_with = "directive")]
    reset: bool,
    #[command(flatten)]
    chosen: Chosen,
}

impl LogLevel {
    /// Asks, or changes, and prints what is in force then.
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = self.chosen.connect(env).await?;
        let mut operator = client.operator();
        let level = match (self.directive, self.reset) {
            (None, false) => {
                operator.get_log_level(client.unary(GetLogLevelRequest {})).await?.into_inner()
            }
            (directive, _) => {
                let request = SetLogLevelRequest {
                    directive: directive.unwrap_or_default(),
                    duration: prost_types::Duration::try_from(self.time).ok(),
                };
                let set = operator.set_log_level(client.unary(request)).await?.into_inner();
                GetLogLevelResponse {
                    node_id: set.node_id,
                    directive: set.directive,
                    configured: set.configured,
                    until: set.until,
                }
            }
        };
        env.output.say(&as_json(&level), || as_text(&level))?;
        Ok(Exit::Done)
    }
}

fn as_json(level: &GetLogLevelResponse) -> Value {
    json!({
        "node_id": level.node_id, "directive": level.directive, "configured": level.configured,
        "until": level.until.as_ref().map(|until| time(Some(until))),
    })
}

fn as_text(level: &GetLogLevelResponse) -> String {
    let (node, directive) = (plain(&level.node_id), plain(&level.directive));
    match &level.until {
        None => format!("{node} logs {directive}"),
        Some(until) => {
            let then = plain(&level.configured);
            format!("{node} logs {directive} until {}, then {then}", time(Some(until)))
        }
    }
}
