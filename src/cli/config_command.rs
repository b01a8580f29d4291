//! `simpul config`: what the node would start with, and whether it would.

use clap::{Args, Subcommand};
use serde_json::json;

use super::configuration::{load, refuse, unfit};
use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;
use crate::security::SecurityProblem;

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
    /// Say everything that is wrong, in the files that it names too; exit code
    /// 64 when something is. Makes and writes nothing
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
                Ok(loaded) => check(env, &unfit(&loaded.config)),
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

/// The configuration is sound; `problems` are of what it names.
fn check(env: &Env, problems: &[SecurityProblem]) -> Result<Exit, Failure> {
    if problems.is_empty() {
        env.output.say(&json!({"ok": true}), || "ok".to_owned())?;
        return Ok(Exit::Done);
    }
    if !env.output.is_json() {
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        return Err(Failure::usage(lines.join("\n")));
    }
    for problem in problems {
        let json = json!({"key": problem.key, "source": null, "rule": problem.message});
        env.output.raw(&json.to_string())?;
    }
    Ok(Exit::Usage)
}
