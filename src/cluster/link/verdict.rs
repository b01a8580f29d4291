//! What the other node says of this one's certificate.
//!
//! In TLS 1.3 the side that dials believes to be through before its own
//! certificate was looked at. A refusal comes as an alert on the open stream, of
//! which HTTP/2 above makes "connection closed" or "broken pipe", as it happens.
//! The stream is watched here, so that both sides name the reason.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::security::mesh::refusal_of;

/// What was said first; nothing as long as all is well. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Verdict(Arc<OnceLock<String>>);

impl Verdict {
    /// Why the other side ended TLS, if it did.
    pub(super) fn refused(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    /// Whether the error is one of TLS.
    fn note(&self, error: &io::Error) -> bool {
        let said = refusal_of(error);
        said.map(|why| self.0.get_or_init(|| why)).is_some()
    }
}

/// A stream whose verdict is kept.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    verdict: Verdict,
}

impl<S: AsyncRead + Unpin> Watched<S> {
    pub(super) fn new(stream: S, verdict: Verdict) -> Self {
        Self { stream, verdict }
    }

    /// Writing fails when the other side is gone; what it said last may still be
    /// there to be read. Nothing else will be read from a broken stream.
    fn wrote<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled
            && !self.verdict.note(error)
        {
            let mut byte = [0];
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
            if let Poll::Ready(Err(last)) = read {
                self.verdict.note(&last);
            }
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &polled {
            self.verdict.note(error);
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, data);
        self.wrote(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.wrote(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.wrote(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.wrote(cx, polled)
    }
}
