//! The command line: reads arguments, runs one command, ends with an exit code
//! by class ([`exit`]).
//!
//! Where the node is and who calls is decided in [`target`], printing in
//! [`output`], the words of failures in [`failure`]. Each command has a file of
//! its own. Nothing here is imported by the rest of the node.

pub mod args;
pub mod backup;
pub mod balance;
pub mod cert;
pub mod chat;
pub mod cluster;
pub mod completions;
pub mod config_command;
pub mod configuration;
pub mod context;
pub mod contexts;
pub mod credentials;
pub mod debug;
pub mod doctor;
pub mod env;
pub mod exit;
pub mod explain;
pub mod failure;
pub mod health;
pub mod history;
pub mod output;
pub mod pay;
pub mod payment;
pub mod policy;
pub mod render;
pub mod restore;
pub mod room;
pub mod serve;
pub mod store;
pub mod target;
pub mod text;
pub mod token;
pub mod when;
pub mod whoami;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand, value_parser};

use self::args::Global;
use self::env::Env;
use self::exit::Exit;
use self::failure::Failure;
use self::output::{Output, complain};

/// Chat, payments and transaction history over gRPC. Without a command it runs the node.
#[derive(Debug, Parser)]
#[command(name = "simpul", version, max_term_width = 100)]
#[command(after_help = "Examples:\n  simpul                                    run a node\n  \
    simpul room create lobby --as alice\n  simpul chat lobby --as alice\n  \
    simpul pay --as alice --to toko --amount 'IDR 50000' --method sandbox_ok\n  \
    simpul history --as toko --follow\n\n\
    Exit codes: 0 done, 1 refused, 64 usage or configuration, 69 unavailable, 75 not known yet, \
    77 permission.")]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Chat(chat::Chat),
    Pay(pay::Pay),
    Payment(payment::Payment),
    History(history::History),
    Balance(balance::Balance),
    Room(room::Room),
    Cluster(cluster::ClusterCommand),
    Whoami(whoami::Whoami),
    Token(token::Token),
    Cert(cert::Cert),
    Policy(policy::PolicyCommand),
    Config(config_command::ConfigCommand),
    Health(health::Health),
    Doctor(doctor::Doctor),
    Explain(explain::Explain),
    Debug(debug::Debug),
    Backup(backup::Backup),
    Restore(restore::Restore),
    Store(store::StoreCommand),
    Context(context::ContextCommand),
    Completions(completions::Completions),
}

/// The whole of `main`.
pub fn main() -> ExitCode {
    run(std::env::args_os().collect()).into()
}

/// Reads the arguments and runs the command to its end.
fn run(arguments: Vec<OsString>) -> Exit {
    let as_json = wants_json(&arguments);
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, as_json),
    };
    let env = Env { output: Output::of(cli.global.output), global: cli.global };
    let command = cli.command.unwrap_or_else(|| Command::Serve(serve::Serve::default()));
    match execute(command, &env) {
        Ok(exit) => exit,
        Err(failure) => {
            if let Some(text) = advise(failure.clone(), &env).render(env.output.is_json()) {
                complain(&text);
            }
            failure.exit()
        }
    }
}

/// The command line with its flags. Where a command has a `--key` of its own
/// (an idempotency key), the client certificate's key is `--cert-key` only.
pub fn command() -> clap::Command {
    let own_key = |command: clap::Command| {
        command.arg(
            Arg::new("cert_key")
                .long("cert-key")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help_heading("Who calls")
                .help("The certificate's private key, PEM"),
        )
    };
    Cli::command().mut_subcommand("pay", own_key).mut_subcommand("payment", |payment| {
        ["capture", "cancel", "refund"]
            .into_iter()
            .fold(payment, |payment, name| payment.mut_subcommand(name, own_key))
    })
}

fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let mut command = command();
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// Whether the arguments ask for JSON, whatever else is wrong with them.
fn wants_json(arguments: &[OsString]) -> bool {
    arguments.iter().any(|a| matches!(a.to_str(), Some("--output=json" | "-ojson" | "-o=json")))
        || arguments.windows(2).any(|pair| match pair {
            [flag, value] => (flag == "--output" || flag == "-o") && value == "json",
            _ => false,
        })
}

/// Help and version are no failure; the rest is usage.
fn refuse(error: &clap::Error, as_json: bool) -> Exit {
    if !error.use_stderr() {
        // A reader that is gone has read enough.
        let _ = error.print();
        return Exit::Done;
    }
    if as_json {
        let text = error.to_string();
        let text = text.trim_start_matches("error: ").trim_end();
        complain(&Failure::usage(text).render(true).unwrap_or_default());
    } else {
        let _ = error.print();
    }
    Exit::Usage
}

/// A caller that proved nothing is told how to.
fn advise(failure: Failure, env: &Env) -> Failure {
    let remote = env.global.server.is_some() || env.global.context.is_some();
    match failure.reason() {
        Some("CREDENTIALS_MISSING") if remote => {
            failure.hint("--token-file FILE, or --cert FILE and --key FILE")
        }
        Some("CREDENTIALS_MISSING") => failure.hint("--as NAME, in development"),
        _ => failure,
    }
}

fn execute(command: Command, env: &Env) -> Result<Exit, Failure> {
    // The node uses every core; a client needs one thread.
    let mut builder = match &command {
        Command::Serve(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::unavailable(format!("cannot start: {error}")))?;
    let follows = match &command {
        Command::Chat(command) => command.only_reads(),
        Command::Payment(command) => command.watches(),
        Command::History(command) => command.follow,
        Command::Health(command) => command.watch,
        Command::Cluster(command) => command.watches(),
        _ => false,
    };
    let done = runtime.block_on(async {
        let gone = async {
            match follows {
                true => output::reader_gone().await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = dispatch(command, env) => ended,
            () = gone => Err(Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe))),
        }
    });
    // What still blocks a thread (a file that does not answer, a receiver of
    // traces that hangs) must not hold up the end: everything that the end
    // waits for was awaited above.
    runtime.shutdown_background();
    done
}

async fn dispatch(command: Command, env: &Env) -> Result<Exit, Failure> {
    match command {
        Command::Serve(command) => command.run(env).await,
        Command::Chat(command) => command.run(env).await,
        Command::Pay(command) => command.run(env).await,
        Command::Payment(command) => command.run(env).await,
        Command::History(command) => command.run(env).await,
        Command::Balance(command) => command.run(env).await,
        Command::Room(command) => command.run(env).await,
        Command::Cluster(command) => command.run(env).await,
        Command::Whoami(command) => command.run(env).await,
        Command::Token(command) => command.run(env),
        Command::Cert(command) => command.run(env),
        Command::Policy(command) => command.run(env),
        Command::Config(command) => command.run(env),
        Command::Health(command) => command.run(env).await,
        Command::Doctor(command) => command.run(env).await,
        Command::Explain(command) => command.run(env).await,
        Command::Debug(command) => command.run(env).await,
        Command::Backup(command) => command.run(env).await,
        Command::Restore(command) => command.run(env).await,
        Command::Store(command) => command.run(env).await,
        Command::Context(command) => command.run(env),
        Command::Completions(command) => command.run(env),
    }
}

#[cfg(test)]
mod tests;
