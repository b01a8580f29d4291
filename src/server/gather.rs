//! A connection's bytes, gathered and written once per turn of its task.
//!
//! HTTP/2 flushes after every DATA frame, and each flush of a TLS stream is a
//! system call, which costs more than the encryption of what it carries. So
//! what hyper flushes is only encrypted and kept; the connection's task, which
//! polls hyper, flushes at the end of the same poll ([`Flusher`]). Nothing waits
//! longer than that poll lasts. At most [`MOST`] bytes and one frame are kept:
//! with more, and when the socket takes no more, writing waits as it always does.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// What is kept before it is written within a poll: what one response's
/// HTTP/2 buffer gives at a time. Below rustls's own limit of 64 KiB.
const MOST: usize = 32 * 1024;

struct Stream {
    tls: TlsStream<TcpStream>,
    /// Bytes that were taken and not flushed.
    kept: usize,
    /// A flush failed: hyper learns it from its next read or write.
    broken: Option<io::ErrorKind>,
}

/// hyper's side of the connection.
pub(super) struct Gathered(Arc<Mutex<Stream>>);

/// The side of the connection's task.
pub(super) struct Flusher(Arc<Mutex<Stream>>);

/// Both sides. Whoever uses the first must poll the second after it, in the
/// same task.
pub(super) fn gather(tls: TlsStream<TcpStream>) -> (Gathered, Flusher) {
    let stream = Arc::new(Mutex::new(Stream { tls, kept: 0, broken: None }));
    (Gathered(stream.clone()), Flusher(stream))
}

/// Never contended: both sides are polled by one task.
fn lock(stream: &Mutex<Stream>) -> MutexGuard<'_, Stream> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flusher {
    /// Writes what was kept, as far as the socket takes it; the task is woken
    /// when it takes more.
    pub(super) fn flush(&self, cx: &mut Context<'_>) {
        let mut stream = lock(&self.0);
        if stream.kept == 0 {
            return;
        }
        if let Poll::Ready(Err(error)) = stream.flush(cx) {
            stream.broken = Some(error.kind());
            stream.kept = 0;
            cx.waker().wake_by_ref();
        }
    }
}

impl Stream {
    fn check(&self) -> io::Result<()> {
        self.broken.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.tls).poll_flush(cx))?;
        self.kept = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Gathered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut stream = lock(&self.0);
        stream.check()?;
        Pin::new(&mut stream.tls).poll_read(cx, into)
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut stream = lock(&self.0);
        stream.check()?;
        if stream.kept >= MOST {
            ready!(stream.flush(cx))?;
        }
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut taken = take(&mut stream.tls, slices)?;
        if taken == 0 && wanted > 0 {
            // rustls holds as much as it may.
            ready!(stream.flush(cx))?;
            taken = take(&mut stream.tls, slices)?;
        }
        stream.kept += taken;
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The flusher does it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(lock(&self.0).check())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = lock(&self.0);
        stream.check()?;
        Pin::new(&mut stream.tls).poll_shutdown(cx)
    }
}

/// Encrypts, without any IO.
fn take(tls: &mut TlsStream<TcpStream>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    io::Write::write_vectored(&mut tls.get_mut().1.writer(), slices)
}
