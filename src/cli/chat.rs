//! `simpul chat`: a room in a terminal, in a pipe, or as a feed.
//!
//! Three ways, one stream. With a terminal it shows the room and sends what is
//! typed. Without one it sends each line of its input and ends when all are
//! acknowledged. With `--count` or `--follow` it only reads and does not look
//! at its input. A lost connection is taken up again, and a node that is about
//! to go is left for another one: [`crate::client::chat`] does both, so that
//! nothing is lost or doubled.

mod feed;
mod input;
mod opener;
mod session;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;
use crate::client::chat::{From, Options, start};
use feed::Feed;
use opener::Opener;
use session::Session;

/// How long nobody may answer before the command gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Read and write in a room
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  simpul chat lobby --as alice\n  \
    printf 'halo\\napa kabar\\n' | simpul chat lobby --as alice\n  \
    simpul chat lobby --as bob --from earliest --count 2\n  \
    simpul chat lobby --as bob --from cursor 41 --follow --output json")]
pub struct Chat {
    /// The room
    #[arg(value_name = "ROOM")]
    room: String,
    /// Where reading begins: earliest, latest, cursor N (after this seq), last N
    #[arg(long, value_names = ["WHERE", "N"], num_args = 1..=2)]
    from: Vec<String>,
    /// Show so many messages, then end; the input is not looked at
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Show messages as they come; the input is not looked at
    #[arg(long, short)]
    follow: bool,
    /// With --count or --follow: show changes of the room and its members too
    #[arg(long)]
    events: bool,
    /// The beginning of the ids of what is sent; made up when left out. The same
    /// beginning with the same lines does not send them twice
    #[arg(long, value_name = "TEXT")]
    id: Option<String>,
}

impl Chat {
    /// Whether it does not look at its input.
    pub fn only_reads(&self) -> bool {
        self.count.is_some() || self.follow
    }

    /// Reads, sends, comes back after losses, until the end.
    pub async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let from = feed::parse_from(&self.from)?;
        let reads_only = self.only_reads();
        let interactive = !reads_only && std::io::stdin().is_terminal();
        let shows = reads_only || interactive || from.is_some();
        let prefix = self.id.unwrap_or_else(|| crate::id::fresh().simple().to_string());
        if !crate::id::is_client_key(&format!("{prefix}-{}", u32::MAX)) {
            return Err(Failure::usage("--id must have 1 to 53 characters of A-Z a-z 0-9 . _ -"));
        }
        let feed = Feed::new(shows, self.events || interactive, self.count);
        let options = Options {
            prefix: Some(prefix),
            patience: Some(PATIENCE),
            // A node that was never there is not waited for.
            insist: false,
            // Somebody looks on.
            quiet: Duration::from_secs(1),
            ..Options::default()
        };
        let (chat, events) = start(Arc::new(Opener(env.clone())), options);
        let session = Session {
            env,
            room: self.room,
            chat,
            events,
            feed: if reads_only { feed.without_input() } else { feed },
            input: if reads_only { None } else { Some(input::lines()) },
            unanswered: 0,
            interactive,
            worst: Exit::Done,
        };
        session.run(from.unwrap_or(From::Latest)).await
    }
}

/// A line about the stream itself: stderr for people, an object for scripts.
fn tell(env: &Env, kind: &str, room: &str, text: &str) -> Result<(), Failure> {
    if env.output.is_json() {
        let line = json!({"type": "notice", "kind": kind, "room_id": room, "text": text});
        return env.output.raw(&line.to_string());
    }
    super::output::complain(&format!("* {}: {}", kind.to_lowercase(), super::text::plain(text)));
    Ok(())
}
