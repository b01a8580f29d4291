//! Which simulated process a task belongs to, so that one can be stopped and
//! continued, as SIGSTOP and SIGCONT do, and can have clocks of its own.
//!
//! A simulation puts what a process begins with into a domain ([`within`]);
//! whatever is spawned from there ([`crate::task::spawn`]) belongs to it too. A
//! task of a frozen domain is not polled. Its timers run on, so that it finds
//! them over when it is thawed, all at once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

thread_local! {
    static CURRENT: Cell<u32> = const { Cell::new(0) };
    static FROZEN: RefCell<BTreeMap<u32, Vec<Waker>>> = const { RefCell::new(BTreeMap::new()) };
}

pin_project! {
    /// A future of a domain.
    #[derive(Debug)]
    pub struct Within<F> {
        domain: u32,
        #[pin]
        inner: F,
    }
}

/// Runs a future as a part of a domain; 0 is that of everything else.
pub fn within<F: Future>(domain: u32, inner: F) -> Within<F> {
    Within { domain, inner }
}

/// The domain of the code that runs.
pub fn current() -> u32 {
    CURRENT.get()
}

/// Stops a domain.
pub fn freeze(domain: u32) {
    FROZEN.with_borrow_mut(|frozen| {
        frozen.entry(domain).or_default();
    });
}

/// Lets a domain go on.
pub fn thaw(domain: u32) {
    let waiting = FROZEN.with_borrow_mut(|frozen| frozen.remove(&domain));
    waiting.into_iter().flatten().for_each(Waker::wake);
}

/// Whether the domain is stopped; if so, the waker is kept for its thaw.
fn is_frozen(domain: u32, waker: &Waker) -> bool {
    FROZEN.with_borrow_mut(|frozen| {
        let waiting = frozen.get_mut(&domain);
        let is_frozen = waiting.is_some();
        if let Some(waiting) = waiting
            && !waiting.iter().any(|other| other.will_wake(waker))
        {
            waiting.push(waker.clone());
        }
        is_frozen
    })
}

/// Goes back to the domain before, also when a poll panics.
struct Entered(u32);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if is_frozen(*this.domain, cx.waker()) {
            return Poll::Pending;
        }
        let _entered = Entered(CURRENT.replace(*this.domain));
        this.inner.poll(cx)
    }
}
