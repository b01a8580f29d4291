//! `simpul config`: what the node would start with, and whether it would.

use clap::{Args, Subcommand};
use serde_json::json;

use super::configuration::{load, refuse};
use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;

/// Show or check the configuration
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  simpul config show\n  \
    simpul config check --profile production --config /etc/simpul.toml")]
pub struct ConfigCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print every key with its value and where it came from; secrets are masked
    Show,
    /// Say everything that is wrong; exit code 64 when something is
    Check,
}

impl ConfigCommand {
    /// Loads and prints.
    pub fn run(self, env: &Env) -> Result<Exit, Failure> {
        match self.command {
            Command::Show => {
                let loaded = load(&env.global, &[]).map_err(|problems| refuse(&problems))?;
                let rows: Vec<_> = loaded
                    .effective()
                    .into_iter()
                    .map(|setting| {
                        let json = json!({
                            "key": setting.key, "value": setting.value, "source": setting.source,
                        });
                        (json, vec![setting.key, setting.value, setting.source])
                    })
                    .collect();
                env.output.list(&["KEY", "VALUE", "SOURCE"], &rows)?;
                Ok(Exit::Done)
            }
            Command::Check => match load(&env.global, &[]) {
                Ok(_) => {
                    env.output.say(&json!({"ok": true}), || "ok".to_owned())?;
                    Ok(Exit::Done)
                }
                Err(problems) if env.output.is_json() => {
                    for problem in problems.iter() {
                        let json = json!({
                            "key": problem.key, "source": problem.source, "rule": problem.rule,
                        });
                        env.output.raw(&json.to_string())?;
                    }
                    Ok(Exit::Usage)
                }
                Err(problems) => Err(refuse(&problems)),
            },
        }
    }
}
