//! Tasks with a name: each runs in a span, and one that panics says so.
//!
//! `tokio::spawn` is banned elsewhere (clippy.toml): a bare task that panics is
//! silent until somebody awaits it, and its log lines belong to nothing.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument;

/// The target of the tasks' spans, so that telemetry can tell them.
pub const TARGET: &str = "simpul::task";

/// Runs a future as a task named `name`. A panic is logged with the name and
/// then seen by whoever awaits the handle. Dropping the handle detaches it.
#[allow(clippy::disallowed_methods)] // The one place that spawns.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let alarm = Alarm(name);
    // A simulated process and what it spawns are one.
    #[cfg(feature = "fault")]
    let future = crate::fault::domain::within(crate::fault::domain::current(), future);
    tokio::spawn(
        async move {
            let output = future.await;
            std::mem::forget(alarm);
            output
        }
        .instrument(tracing::info_span!(target: TARGET, parent: None, "task", name)),
    )
}

/// Speaks when it is dropped by a panic.
struct Alarm(&'static str);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.0, "a task panicked");
        }
    }
}
