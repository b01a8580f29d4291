//! Which simulated process a task belongs to, so that one can be stopped and
//! continued, as SIGSTOP and SIGCONT do, killed, and can have clocks of its own.
//!
//! A simulation puts what a process begins with into a domain ([`within`]);
//! whatever is spawned from there ([`crate::task::spawn`]) belongs to it too. A
//! task of a frozen domain is not polled. Its timers run on, so that it finds
//! them over when it is thawed, all at once.
//!
//! A task of a killed domain drops what it holds when it is next polled, and all
//! are woken for it, in the order in which they began. A runtime that is dropped
//! drops its tasks in an order that depends on their ids, which the whole process
//! counts: a killed domain comes to its end the same way each time.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

thread_local! {
    static CURRENT: Cell<u32> = const { Cell::new(0) };
    static FROZEN: RefCell<BTreeMap<u32, Vec<Waker>>> = const { RefCell::new(BTreeMap::new()) };
    static KILLED: RefCell<BTreeSet<u32>> = const { RefCell::new(BTreeSet::new()) };
    /// Whatever has been polled and is not over, by domain and beginning.
    static LIVING: RefCell<BTreeMap<(u32, u64), Waker>> = const { RefCell::new(BTreeMap::new()) };
    static BEGUN: Cell<u64> = const { Cell::new(0) };
}

pin_project! {
    /// A future of a domain.
    #[derive(Debug)]
    pub struct Within<F> {
        domain: u32,
        living: Option<Living>,
        // None once it was killed.
        #[pin]
        inner: Option<F>,
    }
}

/// Runs a future as a part of a domain; 0 is that of everything else.
pub fn within<F: Future>(domain: u32, inner: F) -> Within<F> {
    Within { domain, living: None, inner: Some(inner) }
}

/// An entry among the living.
#[derive(Debug)]
struct Living((u32, u64));

impl Living {
    fn begin(domain: u32, waker: &Waker) -> Self {
        let key = (domain, BEGUN.replace(BEGUN.get() + 1));
        LIVING.with_borrow_mut(|living| living.insert(key, waker.clone()));
        Self(key)
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        // A waker may be the last that holds a task: it is dropped outside.
        drop(LIVING.with_borrow_mut(|living| living.remove(&self.0)));
    }
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

/// Ends a domain: when its tasks are next polled, which each is soon, they drop
/// what they hold and never end. It stays dead until [`revive`].
pub fn kill(domain: u32) {
    KILLED.with_borrow_mut(|killed| killed.insert(domain));
    let all = (domain, 0)..=(domain, u64::MAX);
    let wakers: Vec<Waker> =
        LIVING.with_borrow(|living| living.range(all).map(|(_, waker)| waker.clone()).collect());
    wakers.into_iter().for_each(Waker::wake);
}

/// Lets a killed domain have tasks again, once those before are gone.
pub fn revive(domain: u32) {
    KILLED.with_borrow_mut(|killed| killed.remove(&domain));
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
        let mut this = self.project();
        if is_frozen(*this.domain, cx.waker()) {
            return Poll::Pending;
        }
        let _entered = Entered(CURRENT.replace(*this.domain));
        if KILLED.with_borrow(|killed| killed.contains(this.domain)) {
            this.inner.set(None);
        }
        let Some(inner) = this.inner.as_pin_mut() else { return Poll::Pending };
        // What belongs to no domain is not killed, and may change threads.
        if this.living.is_none() && *this.domain != 0 {
            *this.living = Some(Living::begin(*this.domain, cx.waker()));
        }
        inner.poll(cx)
    }
}
