//! Where a reader begins and what it is shown: pure.

use crate::cli::failure::Failure;
use crate::client::chat::From;
use crate::proto::chat::v1::{Message, MessageKind};

/// Reads the words of `--from`; none is none. `cursor=N` and `last=N` are
/// understood too.
pub(super) fn parse_from(words: &[String]) -> Result<Option<From>, Failure> {
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

/// What a reader is shown of a room.
#[derive(Debug)]
pub(super) struct Feed {
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
    pub(super) fn new(shows: bool, events: bool, count: Option<u64>) -> Self {
        Self { shows, events, left: count, reads_only: false }
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

    /// An entry came.
    pub(super) fn entry(&mut self, message: &Message) -> Step {
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
            assert_eq!(parse_from(&words(text)).expect("good"), Some(from), "{text}");
        }
        assert_eq!(parse_from(&[]).expect("good"), None);
        for bad in ["first", "cursor", "cursor x", "last 0", "last 10001", "earliest 1"] {
            assert!(parse_from(&words(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_count_counts_what_is_shown() {
        let mut feed = Feed::new(true, false, Some(2));
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
        let mut all = Feed::new(true, true, Some(1));
        assert_eq!(all.entry(&message(1, MessageKind::Room)), Step::ShowLast);
    }

    #[test]
    fn a_sender_that_reads_nothing_is_shown_nothing() {
        let mut feed = Feed::new(false, true, None);
        assert_eq!(feed.entry(&message(4, MessageKind::Text)), Step::Skip);
    }
}
