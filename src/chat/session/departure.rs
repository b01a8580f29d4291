//! How a session's client is sent away.
//!
//! With Notice MOVE a client may go when it likes: nothing ends its stream for
//! that. Only when the node itself stops does it end, and not before the time to
//! go that MOVE announced is over. Notice DRAINING comes just before the end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Frame, Session};
use crate::drain;
use crate::proto::chat::v1 as pb;
use crate::refusal::Refusal;

/// What a client needs at most, beyond its jitter, to open a stream elsewhere
/// and to end this one. Half the jitter where that is less.
const GOING: Duration = Duration::from_secs(1);

impl Session {
    /// Tells the client to go elsewhere, once. False when it was told before, or
    /// is gone.
    pub(crate) fn tell_move(&self, addresses: &[String], jitter: Duration) -> bool {
        let gone_by = Instant::now() + jitter + (jitter / 2).min(GOING);
        if self.closed.load(Ordering::Acquire) || self.moved.set(gone_by).is_err() {
            return false;
        }
        let text = "please go on at another node; nothing is lost";
        self.push(departure(pb::NoticeKind::Move, addresses, jitter, text));
        self.wake();
        true
    }

    /// Whether it was told to go elsewhere.
    pub(crate) fn has_moved(&self) -> bool {
        self.moved.get().is_some()
    }

    /// Waits until the node's stop may end it: who was told to go elsewhere has
    /// the time it was told, but not beyond the stop's deadline. Cancel safe.
    pub(super) async fn time_to_go(&self, drain: &mut drain::Watch) {
        drain.graceful().await;
        if let Some(gone_by) = self.moved.get() {
            tokio::select! {
                biased;
                () = drain.forced() => {}
                () = sleep_until(*gone_by) => {}
            }
        }
    }

    /// Ends the stream with a refusal, after Notice DRAINING.
    pub(crate) fn turn_away(&self, why: Refusal, addresses: &[String]) {
        let text = "the node cannot serve you now: connect again, elsewhere";
        self.push(departure(pb::NoticeKind::Draining, addresses, Duration::ZERO, text));
        self.end(why.into());
        self.turned_away.store(true, Ordering::Release);
        self.closing.notify_waiters();
    }
}

/// A notice about the whole stream, with where to go.
pub(super) fn departure(
    kind: pb::NoticeKind,
    addresses: &[String],
    jitter: Duration,
    text: &str,
) -> Frame {
    Frame::Notice(pb::Notice {
        kind: kind.into(),
        text: text.into(),
        addresses: addresses.to_vec(),
        jitter: prost_types::Duration::try_from(jitter).ok().filter(|_| !jitter.is_zero()),
        ..pb::Notice::default()
    })
}
