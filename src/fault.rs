//! Named points at which a test may count, hold and then kill the process, faults
//! that a test plants to see that they are found, and a binary that behaves as
//! the release before it.
//!
//! They exist only with the cargo feature `fault`, which releases do not have;
//! without it [`point`] is nothing. With it, and with SIMPUL_TEST_FAULT_DIR
//! set, passing the point `x` appends a byte to the file `x` in that directory
//! (its length counts the passes), then waits while the file `x.hold` exists,
//! and panics if the file `x.panic` does.

#[cfg(feature = "fault")]
pub mod domain;

/// A fault planted on purpose, to show that the simulation's judge finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// The store appends whatever the partition's row says.
    NoFence,
    /// A takeover works with the head as of when its statement began.
    HeadInTake,
    /// A send is acknowledged before its commit.
    AckFirst,
    /// A session resumes one entry too late.
    CursorOff,
    /// A new link does not say again which rooms are followed.
    InterestLost,
    /// Nobody looks whether the last message of a link was lost.
    NoResync,
}

/// Whether the fault is planted in this thread: never, in a release.
#[cfg(not(feature = "fault"))]
#[inline]
pub const fn planted(_plant: Plant) -> bool {
    false
}

/// Whether the fault is planted in this thread.
#[cfg(feature = "fault")]
pub fn planted(plant: Plant) -> bool {
    PLANTED.try_with(std::cell::Cell::get).ok().flatten() == Some(plant)
}

/// Plants a fault in this thread, in the place of any other; `None` removes it.
#[cfg(feature = "fault")]
pub fn plant(plant: Option<Plant>) {
    PLANTED.set(plant);
}

#[cfg(feature = "fault")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Plant>> = const { std::cell::Cell::new(None) };
}

/// How many releases older than itself the process is to be, so that a test can
/// roll two side by side. It then knows as many migrations less and speaks an
/// older protocol. Always 0 in a release.
#[cfg(not(feature = "fault"))]
#[inline]
pub const fn releases_before() -> u32 {
    0
}

/// How many releases older than itself the process is to be, by
/// SIMPUL_TEST_RELEASE_BEFORE.
#[cfg(feature = "fault")]
pub fn releases_before() -> u32 {
    let said = std::env::var("SIMPUL_TEST_RELEASE_BEFORE").ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Passes a point. Points are named after what has just become true. Example:
/// `payment.submitting`.
#[cfg(not(feature = "fault"))]
#[inline]
pub async fn point(_name: &'static str) {}

/// Passes a point. Points are named after what has just become true. Example:
/// `payment.submitting`.
#[cfg(feature = "fault")]
pub async fn point(name: &'static str) {
    use std::io::Write;
    use std::path::PathBuf;

    let Some(dir) = std::env::var_os("SIMPUL_TEST_FAULT_DIR").map(PathBuf::from) else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(dir.join(name));
    if let Err(error) = file.and_then(|mut file| file.write_all(b".")) {
        tracing::warn!(%error, name, "the fault point cannot be counted");
    }
    let hold = dir.join(format!("{name}.hold"));
    while hold.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(!dir.join(format!("{name}.panic")).exists(), "the fault at {name} was asked for");
}
