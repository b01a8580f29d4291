//! What a reader has and what it is shown: pure.

use crate::cli::failure::Failure;
use crate::proto::chat::v1::join;
use crate::proto::chat::v1::{Join, Joined, Message, MessageKind};

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Earliest,
    Latest,
    Cursor(u64),
    Last(u32),
}

impl From {
    /// Reads the words of `--from`; none is none. `cursor=N` and `last=N` are
    /// understood too.
    pub(super) fn parse(words: &[String]) -> Result<Option<Self>, Failure> {
        let wrong =
            || Failure::usage("--from must be earliest, latest, cursor N, or last N (1 to 10000)");
        let joined = words.join(" ");
        let mut parts = joined.split([' ', '=', ':']).filter(|part| !part.is_empty());
        let from = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => return Ok(None),
            (Some("earliest"), None, _) => From::Earliest,
            (Some("latest"), None, _) => From::Latest,
            (Some("cursor"), Some(n), None) => From::Cursor(n.parse().map_err(|_| wrong())?),
            (Some("last"), Some(n), None) => {
                let n = n.parse().ok().filter(|n| (1..=10_000).contains(n));
                From::Last(n.ok_or_else(wrong)?)
            }
            _ => return Err(wrong()),
        };
        Ok(Some(from))
    }
}

/// A reader's place in one room.
#[derive(Debug)]
pub(super) struct Feed {
    from: From,
    cursor: Option<u64>,
    shows: bool,
    events: bool,
    left: Option<u64>,
    reads_only: bool,
}

/// What to do with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Show it and go on.
    Show,
    /// Show it; it was the last one that was asked for.
    ShowLast,
    /// Do not show it.
    Skip,
}

impl Feed {
    /// A reader that is shown messages, and events of the room if asked for,
    /// up to a count.
    pub(super) fn new(from: Option<From>, shows: bool, events: bool, count: Option<u64>) -> Self {
        let from = from.unwrap_or(From::Latest);
        Self { from, cursor: None, shows, events, left: count, reads_only: false }
    }

    /// There is no input: the feed itself says when it ends.
    pub(super) fn without_input(mut self) -> Self {
        self.reads_only = true;
        self
    }

    /// Whether there is no input.
    pub(super) fn reads_only(&self) -> bool {
        self.reads_only
    }

    /// How to join now: as asked for at first, after the last entry later.
    pub(super) fn join(&self, room: &str) -> Join {
        let from = match (self.cursor, self.from) {
            (Some(cursor), _) | (None, From::Cursor(cursor)) => join::From::Cursor(cursor),
            (None, From::Earliest) => join::From::Earliest(true),
            (None, From::Latest) => join::From::Latest(true),
            (None, From::Last(n)) => join::From::LastN(n),
        };
        Join { room_id: room.to_owned(), from: Some(from) }
    }

    /// The node said where reading begins.
    pub(super) fn joined(&mut self, joined: &Joined) {
        self.cursor.get_or_insert(joined.cursor);
    }

    /// An entry came. What was shown before a reconnect is not shown again.
    pub(super) fn entry(&mut self, message: &Message) -> Step {
        if self.cursor.is_some_and(|cursor| message.seq <= cursor) {
            return Step::Skip;
        }
        self.cursor = Some(message.seq);
        let said = matches!(message.kind(), MessageKind::Text | MessageKind::Payment);
        if !self.shows || !(said || self.events) {
            return Step::Skip;
        }
        let Some(left) = &mut self.left else { return Step::Show };
        *left = left.saturating_sub(1);
        if *left == 0 { Step::ShowLast } else { Step::Show }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn message(seq: u64, kind: MessageKind) -> Message {
        Message { seq, kind: kind.into(), ..Message::default() }
    }

    #[test]
    fn where_to_begin_is_read_from_words() {
        for (text, from) in [
            ("earliest", From::Earliest),
            ("latest", From::Latest),
            ("cursor 41", From::Cursor(41)),
            ("cursor=41", From::Cursor(41)),
            ("last 10", From::Last(10)),
        ] {
            assert_eq!(From::parse(&words(text)).expect("good"), Some(from), "{text}");
        }
        assert_eq!(From::parse(&[]).expect("good"), None);
        for bad in ["first", "cursor", "cursor x", "last 0", "last 10001", "earliest 1"] {
            assert!(From::parse(&words(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_count_counts_what_is_shown() {
        let mut feed = Feed::new(Some(From::Earliest), true, false, Some(2));
        let steps: Vec<Step> = [
            message(1, MessageKind::Room),
            message(2, MessageKind::Membership),
            message(3, MessageKind::Text),
            message(4, MessageKind::Payment),
        ]
        .iter()
        .map(|entry| feed.entry(entry))
        .collect();
        assert_eq!(steps, [Step::Skip, Step::Skip, Step::Show, Step::ShowLast]);
        let mut all = Feed::new(Some(From::Earliest), true, true, Some(1));
        assert_eq!(all.entry(&message(1, MessageKind::Room)), Step::ShowLast);
    }

    #[test]
    fn reading_goes_on_where_it_was_and_shows_nothing_twice() {
        let mut feed = Feed::new(Some(From::Last(5)), true, false, None);
        assert_eq!(feed.join("r").from, Some(join::From::LastN(5)));
        feed.joined(&Joined { cursor: 7, ..Joined::default() });
        assert_eq!(feed.entry(&message(8, MessageKind::Text)), Step::Show);
        assert_eq!(feed.join("r").from, Some(join::From::Cursor(8)));
        feed.joined(&Joined { cursor: 8, ..Joined::default() });
        assert_eq!(feed.entry(&message(8, MessageKind::Text)), Step::Skip);
        assert_eq!(feed.entry(&message(9, MessageKind::Text)), Step::Show);
    }

    #[test]
    fn a_sender_that_reads_nothing_keeps_its_place_all_the_same() {
        let mut feed = Feed::new(None, false, false, None);
        assert_eq!(feed.join("r").from, Some(join::From::Latest(true)));
        assert_eq!(feed.entry(&message(4, MessageKind::Text)), Step::Skip);
        assert_eq!(feed.join("r").from, Some(join::From::Cursor(4)));
    }
}
