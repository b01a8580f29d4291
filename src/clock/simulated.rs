//! The clocks of a simulation: what the calling thread reads in place of the
//! machine's. Only with the cargo feature `fault`.
//!
//! A simulation runs all of its nodes on one thread and knows which of them is
//! running, so that each can have a clock of its own, wrong in its own way.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

/// What both clocks show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// [`super::since_boot`].
    pub boot: Duration,
    /// [`super::System`].
    pub wall: SystemTime,
}

type Source = Box<dyn Fn() -> Option<Reading>>;

thread_local! {
    static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
}

/// Ends the simulation of the clocks when it is dropped.
#[derive(Debug)]
#[must_use = "the clocks are simulated as long as it is kept"]
pub struct Simulated(());

impl Drop for Simulated {
    fn drop(&mut self) {
        SOURCE.set(None);
    }
}

/// From now on this thread reads its clocks from `source`, which must not read
/// them itself; where it says `None`, the machine's.
pub fn install(source: impl Fn() -> Option<Reading> + 'static) -> Simulated {
    SOURCE.set(Some(Box::new(source)));
    Simulated(())
}

pub(super) fn reading() -> Option<Reading> {
    // A thread that ends, and has no locals any more, is not simulated.
    SOURCE
        .try_with(|source| source.try_borrow().ok()?.as_ref().and_then(|source| source()))
        .ok()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{self, Clock};

    #[test]
    fn a_thread_reads_what_its_simulation_says_and_then_the_machine_again() {
        let wall = clock::from_micros(5_000_000);
        let boot = Duration::from_secs(3);
        let simulated = install(move || Some(Reading { boot, wall }));
        assert_eq!((clock::since_boot(), clock::System.now()), (boot, wall));
        let elsewhere = std::thread::spawn(clock::since_boot).join().expect("joined");
        assert_ne!(elsewhere, boot);
        drop(simulated);
        assert_ne!(clock::System.now(), wall);
    }
}
