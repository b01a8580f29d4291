//! Holds calls to one message where their method takes one.
//!
//! The generated services hand the first message to the handler and pass over
//! what follows, as if the caller had not sent it. gRPC has exactly one there;
//! they read to the end before they call the handler, so that a body that
//! breaks at the surplus keeps the call from it. Only prefixes and lengths are
//! looked at.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;

use crate::refusal::{Reason, Refusal};

/// The flag and four bytes of length before each message.
const PREFIX: u8 = 5;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pin_project! {
    /// A request's body that breaks where its second message begins.
    #[derive(Debug)]
    pub struct OneMessage<B> {
        #[pin]
        inner: B,
        counted: Counted,
    }
}

/// How much of the message has come.
#[derive(Debug, Default)]
struct Counted {
    prefix: u8,
    left: u64,
}

impl Counted {
    /// Whether the data goes beyond the message.
    fn is_beyond(&mut self, mut data: &[u8]) -> bool {
        while self.prefix < PREFIX
            && let Some((byte, rest)) = data.split_first()
        {
            if self.prefix > 0 {
                self.left = self.left << 8 | u64::from(*byte);
            }
            self.prefix += 1;
            data = rest;
        }
        match self.left.checked_sub(data.len() as u64) {
            Some(left) => {
                self.left = left;
                false
            }
            None => true,
        }
    }
}

impl<B> OneMessage<B> {
    /// Around the body of a call whose method takes one message.
    pub fn new(inner: B) -> Self {
        Self { inner, counted: Counted::default() }
    }
}

impl<B> Body for OneMessage<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        Poll::Ready(match ready!(this.inner.poll_frame(cx)) {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) if this.counted.is_beyond(data) => {
                    let why = "the method takes one message; more came";
                    let refusal = Refusal::new(Reason::MalformedMessage, why);
                    Some(Err(Box::new(Status::from(refusal))))
                }
                _ => Some(Ok(frame)),
            },
            Some(Err(error)) => Some(Err(error.into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_surplus_is_seen_wherever_the_frames_are_cut() {
        let message = [[0, 0, 0, 1, 2].as_slice(), &[7; 258]].concat();
        let two = [message.as_slice(), &[0]].concat();
        for cut in 0..message.len() {
            let (before, after) = message.split_at(cut);
            let mut counted = Counted::default();
            assert!(!counted.is_beyond(before) && !counted.is_beyond(after), "{cut}");
            let (before, after) = two.split_at(cut);
            let mut counted = Counted::default();
            assert!(!counted.is_beyond(before) && counted.is_beyond(after), "{cut}");
        }
        let mut empty = Counted::default();
        assert!(!empty.is_beyond(&[0; 5]) && !empty.is_beyond(&[]) && empty.is_beyond(&[0]));
    }
}
