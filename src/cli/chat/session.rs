//! The conversation: whatever comes first of what the chat tells and a line of
//! input, until everything is done.

use tokio::sync::mpsc;
use tonic::Status;

use super::feed::{Feed, Step};
use super::input::Line;
use super::opener::failure_of;
use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render::{message_json, message_text};
use crate::cli::text::{time, word};
use crate::client::chat::{Chat, Event, Events, From, LIMIT, status_of};
use crate::proto::chat::v1::{Failed, Message, Notice, Sent};

/// A chat with a person or a script.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) env: &'a Env,
    pub(super) room: String,
    pub(super) chat: Chat,
    pub(super) events: Events,
    pub(super) feed: Feed,
    /// Lines of input; none when it is not looked at or has ended.
    pub(super) input: Option<mpsc::Receiver<Line>>,
    /// Messages without an answer.
    pub(super) unanswered: usize,
    pub(super) interactive: bool,
    /// The worst answer to a message so far.
    pub(super) worst: Exit,
}

impl Session<'_> {
    /// Runs to the end.
    pub(super) async fn run(mut self, from: From) -> Result<Exit, Failure> {
        // An end of the chat is told by its last event.
        let _ = self.chat.join(&self.room, from).await;
        let mut joined = false;
        loop {
            if joined && self.is_finished() {
                return Ok(self.worst);
            }
            // Below the limit, sending waits for nothing.
            let takes_input = joined && self.input.is_some() && self.unanswered < LIMIT;
            tokio::select! {
                biased;
                event = self.events.next() => {
                    joined |= matches!(event, Some(Event::Joined { .. }));
                    if let Some(end) = self.event(event)? {
                        return Ok(end);
                    }
                }
                line = next_line(&mut self.input), if takes_input => match line {
                    None => self.input = None,
                    Some(Err(why)) => self.refuse(&why),
                    Some(Ok(line)) if line.is_empty() => {}
                    Some(Ok(line)) if self.interactive && line == "/quit" => self.input = None,
                    Some(Ok(line)) => {
                        if self.chat.send(&self.room, line, 0).await.is_ok() {
                            self.unanswered += 1;
                        }
                    }
                },
            }
        }
    }

    /// What one event means; an exit when it is the end.
    fn event(&mut self, event: Option<Event>) -> Result<Option<Exit>, Failure> {
        match event {
            Some(Event::Joined { joined, .. }) if self.interactive => {
                self.tell(
                    "JOINED",
                    &format!("{}, newest message {}", joined.room_id, joined.head),
                )?;
            }
            Some(Event::Message(message)) => return self.message(&message),
            Some(Event::Sent(sent)) => self.sent(&sent)?,
            Some(Event::Failed(failed)) => self.failed(&failed)?,
            Some(Event::Waiting(failed)) => {
                self.tell("WAITING", Failure::from(status_of(&failed)).message())?;
            }
            Some(Event::Refused(failed)) => return Err(status_of(&failed).into()),
            Some(Event::Notice(notice)) => self.notice(&notice)?,
            Some(Event::Lost(why)) => self.tell("RECONNECTING", failure_of(why).message())?,
            Some(Event::Ended { why, .. }) => return Err(self.give_up(failure_of(why))),
            Some(Event::Joined { .. } | Event::Connected { .. } | Event::Moved { .. }) => {}
            None => return Err(Status::unavailable("the chat has ended").into()),
        }
        Ok(None)
    }

    fn message(&mut self, message: &Message) -> Result<Option<Exit>, Failure> {
        let step = self.feed.entry(message);
        // A person has seen what was typed; everybody else sees it in order.
        let echo = self.interactive && self.chat.is_ours(&message.client_message_id);
        if step != Step::Skip && !echo {
            let text = || message_text(message);
            self.env.output.say(&message_json(message), text)?;
        }
        Ok((step == Step::ShowLast).then_some(self.worst))
    }

    fn sent(&mut self, sent: &Sent) -> Result<(), Failure> {
        self.unanswered = self.unanswered.saturating_sub(1);
        let at = time(sent.committed_at.as_ref());
        if self.env.output.is_json() {
            let line = serde_json::json!({
                "type": "sent", "room_id": sent.room_id, "seq": sent.seq, "committed_at": at,
                "client_message_id": sent.client_message_id, "redactions": sent.redactions,
            });
            return self.env.output.raw(&line.to_string());
        }
        if sent.redactions > 0 {
            self.tell("REDACTED", &format!("{} card number(s) in {}", sent.redactions, sent.seq))?;
        }
        if self.interactive {
            return Ok(());
        }
        self.env.output.raw(&format!("{at}  {:>4}  sent", sent.seq))
    }

    /// A refused message is told and counted; the others go on. Where nobody could
    /// take it for long, no more input is taken unless a person types it: what
    /// comes after it would stand in the room without it.
    fn failed(&mut self, failed: &Failed) -> Result<(), Failure> {
        let failure = Failure::from(status_of(failed));
        if failed.client_message_id.is_empty() {
            return Err(failure);
        }
        self.unanswered = self.unanswered.saturating_sub(1);
        if failure.exit() == Exit::Unavailable && !self.interactive {
            self.input = None;
        }
        self.refuse(&failure.unsent(&failed.client_message_id));
        Ok(())
    }

    /// Tells why one message is not sent; the others are.
    fn refuse(&mut self, why: &Failure) {
        self.worst = self.worst.max(why.exit());
        if let Some(text) = why.render(self.env.output.is_json()) {
            crate::cli::output::complain(&text);
        }
    }

    fn notice(&self, notice: &Notice) -> Result<(), Failure> {
        self.tell(word(notice.kind().as_str_name(), "NOTICE_KIND_"), &notice.text)
    }

    fn tell(&self, kind: &str, text: &str) -> Result<(), Failure> {
        super::tell(self.env, kind, &self.room, text)
    }

    /// Whether the input has ended and everything in it was answered. A chat
    /// that only reads has no input to end.
    fn is_finished(&self) -> bool {
        !self.feed.reads_only() && self.input.is_none() && self.unanswered == 0
    }

    /// The failure to end with when nobody comes back. Messages under way may
    /// have been written: that is not known.
    fn give_up(&self, why: Failure) -> Failure {
        if self.unanswered == 0 {
            return why;
        }
        let waiting = self.unanswered;
        why.with_exit(Exit::Unknown).hint(format!("{waiting} message(s) were not acknowledged"))
    }
}

async fn next_line(input: &mut Option<mpsc::Receiver<Line>>) -> Option<Line> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}
