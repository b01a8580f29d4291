//! `simpul store`: the operator's work on the database itself. It connects with
//! the node's configuration, so whoever can run it has everything anyway.

use clap::{Args, Subcommand};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::configuration;
use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;
use super::target::data_dir;
use crate::store::StoreError;
use crate::store::location::{self, Location};
use crate::store::postgres::PgSettings;
use crate::store::postgres::distribute::{self, Distributed};

/// Work on the store's database
#[derive(Debug, Args)]
pub struct StoreCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Distribute(Distribute),
}

/// Spread rooms over the servers of a Citus cluster
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  simpul store distribute --shards 64\n\n\
    Needs `CREATE EXTENSION citus` and its workers; store.url names the coordinator.\n\
    Rooms and their entries are spread by partition; payments, the ledger and the\n\
    table of nodes stay on the coordinator. Tables are locked while rows move.\n\
    Restart the nodes afterwards. Running it again changes nothing.")]
struct Distribute {
    /// How many pieces the tables are cut into; not more than chat.partitions helps
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    shards: u32,
}

impl StoreCommand {
    /// Does it and says what was done.
    pub async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let Action::Distribute(Distribute { shards }) = self.action;
        let loaded = configuration::load(&env.global, &[])
            .map_err(|problems| configuration::refuse(&problems))?;
        let config = loaded.config;
        let place = location::of(config.store.url.expose_secret(), &data_dir(&env.global))
            .map_err(|error| Failure::usage(format!("store.url: {error}")))?;
        if place != Location::Postgres {
            return Err(Failure::usage("only a store on PostgreSQL can be distributed"));
        }
        let settings = PgSettings::of(&config.store, "operator", "operator");
        let done = distribute::distribute(settings, shards).await.map_err(refuse)?;
        let json = json!({ "tables": done.iter().map(told).collect::<Vec<_>>() });
        env.output.say(&json, || text_of(&done))?;
        Ok(Exit::Done)
    }
}

fn told(table: &Distributed) -> serde_json::Value {
    json!({ "table": table.table, "already": table.already })
}

fn text_of(done: &[Distributed]) -> String {
    let lines: Vec<String> = done
        .iter()
        .map(|one| match one.already {
            true => format!("{}  was distributed", one.table),
            false => format!("{}  is distributed by partition now", one.table),
        })
        .collect();
    format!("{}\nrestart the nodes", lines.join("\n"))
}

/// What waiting does not mend is for the operator to change.
fn refuse(error: StoreError) -> Failure {
    match &error {
        StoreError::Unavailable(_) => Failure::unavailable(error.to_string()),
        _ => Failure::new(Exit::Refused, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_told_for_each_table() {
        let done = [
            Distributed { table: "partition".to_owned(), already: true },
            Distributed { table: "room".to_owned(), already: false },
        ];
        let text = text_of(&done);
        assert_eq!(text.lines().count(), 3);
        assert!(text.starts_with("partition  was distributed\nroom  is distributed"), "{text}");
        assert_eq!(told(&done[1]), json!({ "table": "room", "already": false }));
    }

    #[test]
    fn each_failure_has_its_class() {
        let refused = refuse(StoreError::Version("no citus".to_owned()));
        assert_eq!(refused.exit(), Exit::Refused);
        assert_eq!(refuse(StoreError::Unavailable("x".to_owned())).exit(), Exit::Unavailable);
    }
}
