//! Cutting a stream whose client takes nothing.
//!
//! A response's body is asked for more only when the client can take more, so
//! the body of a client that has stopped reading cannot end its stream. The
//! future that HTTP/2 drives for the stream can: dropped, it resets the stream
//! and forgets what waited in it. [`Executor`] wraps each such future; the code
//! that runs inside of it asks for its [`Cut`].

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use pin_project_lite::pin_project;

thread_local! {
    /// The handle of the stream that is polled here: none outside of one, and
    /// an empty place until somebody asks.
    static CURRENT: RefCell<Option<Option<Cut>>> = const { RefCell::new(None) };
}

/// Cuts one stream. Clones cut the same.
#[derive(Debug, Clone, Default)]
pub struct Cut(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    cut: AtomicBool,
    waker: AtomicWaker,
}

impl Cut {
    /// The handle of the stream within whose poll this is called; `None`
    /// outside of one (a body that tests drive by hand).
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow_mut(|place| {
            place.as_mut().map(|slot| slot.get_or_insert_with(Cut::default).clone())
        })
    }

    /// Drops the stream's future as soon as its task runs. Does nothing when it
    /// has ended.
    pub fn now(&self) {
        self.0.cut.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}

/// Runs HTTP/2's futures as tasks that can be cut.
#[derive(Debug, Clone, Copy, Default)]
pub struct Executor;

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[allow(clippy::disallowed_methods)] // One for each call: a span for each would cost too much.
    fn execute(&self, inner: F) {
        tokio::spawn(Cuttable { inner: Some(inner), cut: None });
    }
}

pin_project! {
    /// A future that ends when it is cut, dropping what it runs.
    struct Cuttable<F> {
        #[pin]
        inner: Option<F>,
        cut: Option<Cut>,
    }
}

impl<F: Future> Future for Cuttable<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if let Some(cut) = &this.cut {
            cut.0.waker.register(task.waker());
            if cut.0.cut.load(Ordering::Acquire) {
                this.inner.set(None);
                return Poll::Ready(());
            }
        }
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        let asked = this.cut.is_some();
        let poll = {
            let _entered = Entered::new(this.cut);
            inner.poll(task)
        };
        match &this.cut {
            // It was asked for just now: whoever cuts must find the waker.
            Some(cut) if !asked && poll.is_pending() => {
                cut.0.waker.register(task.waker());
                if cut.0.cut.load(Ordering::Acquire) {
                    task.waker().wake_by_ref();
                }
            }
            _ => {}
        }
        poll.map(drop)
    }
}

/// The stream's handle in its place while the stream is polled, also when that
/// panics.
struct Entered<'a> {
    own: &'a mut Option<Cut>,
    outer: Option<Option<Cut>>,
}

impl<'a> Entered<'a> {
    fn new(own: &'a mut Option<Cut>) -> Self {
        let outer = CURRENT.replace(Some(own.take()));
        Self { own, outer }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        *self.own = CURRENT.replace(self.outer.take()).flatten();
    }
}

#[cfg(test)]
mod tests {
    use hyper::rt::Executor as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_cut_drops_what_runs_and_others_run_on() {
        assert!(Cut::current().is_none(), "no stream is polled here");
        let (tell, told) = oneshot::channel();
        let (alive, gone) = oneshot::channel::<()>();
        Executor.execute(async move {
            let _alive = alive;
            let _ = tell.send(Cut::current());
            std::future::pending::<()>().await;
        });
        let (go, going) = oneshot::channel::<()>();
        let (done, other) = oneshot::channel();
        Executor.execute(async move {
            let _ = going.await;
            let _ = done.send(Cut::current().is_some());
        });
        let cut = told.await.expect("it runs").expect("it is a stream");
        cut.now();
        gone.await.expect_err("it was dropped");
        go.send(()).expect("the other one lives");
        assert!(other.await.expect("it ends by itself"));
        cut.now();
    }
}
