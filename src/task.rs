//! Tasks with a name: each runs in a span, and one that panics says so.
//!
//! `tokio::spawn` is banned elsewhere (clippy.toml): a bare task that panics is
//! silent until somebody awaits it, and its log lines belong to nothing.

pub mod tally;

use std::future::Future;

use tokio::task::{AbortHandle, JoinHandle};
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
    let (alarm, counted) = (Alarm(name), tally::Counted::begin(name));
    // A simulated process and what it spawns are one.
    #[cfg(feature = "fault")]
    let future = crate::fault::domain::within(crate::fault::domain::current(), future);
    tokio::spawn(
        async move {
            let output = future.await;
            std::mem::forget(alarm);
            drop(counted);
            output
        }
        .instrument(tracing::info_span!(target: TARGET, parent: None, "task", name)),
    )
}

/// Runs a future as [`spawn`] does, as part of whoever holds what this returns:
/// dropping that ends the task, also when it is a panic that drops it.
pub fn spawn_owned<F>(name: &'static str, future: F) -> Owned
where
    F: Future<Output = ()> + Send + 'static,
{
    Owned(spawn(name, future).abort_handle())
}

/// A task that does not outlive this.
#[derive(Debug)]
#[must_use = "dropping it ends the task"]
pub struct Owned(AbortHandle);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
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

#[cfg(all(test, feature = "fault"))]
mod tests {
    use std::time::Duration;

    use crate::fault::domain::*;
    use crate::task;

    #[tokio::test(start_paused = true)]
    async fn what_a_frozen_process_spawned_stops_with_it_and_goes_on() {
        let (told, mut heard) = tokio::sync::mpsc::channel(9);
        let process = within(7, async move {
            let child = task::spawn("child", async move {
                for n in 0..3 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    told.send((current(), n)).await.expect("heard");
                }
            });
            child.await.expect("ended");
        });
        let process = task::spawn("process", process);
        assert_eq!((heard.recv().await, current()), (Some((7, 0)), 0));
        freeze(7);
        let silence = tokio::time::timeout(Duration::from_secs(60), heard.recv()).await;
        assert!(silence.is_err());
        thaw(7);
        assert_eq!(heard.recv().await, Some((7, 1)));
        assert_eq!(heard.recv().await, Some((7, 2)));
        process.await.expect("ended");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_killed_process_held_is_dropped_in_the_order_of_its_beginning() {
        struct Held(&'static str, tokio::sync::mpsc::Sender<&'static str>);
        impl Drop for Held {
            fn drop(&mut self) {
                let _ = self.1.try_send(self.0);
            }
        }
        let (told, mut heard) = tokio::sync::mpsc::channel(9);
        let (begun, mut seen) = tokio::sync::mpsc::channel(9);
        let lives = move |name| {
            let (held, begun) = (Held(name, told.clone()), begun.clone());
            async move {
                let _held = held;
                let _ = begun.try_send(name);
                std::future::pending::<()>().await;
            }
        };
        let [parent, first, second] = ["parent", "first", "second"].map(lives);
        let process = async move {
            task::spawn("first", first);
            task::spawn("second", second);
            parent.await;
        };
        let process = task::spawn("process", within(8, process));
        for _ in 0..3 {
            seen.recv().await.expect("began");
        }
        kill(8);
        let mut order = Vec::new();
        for _ in 0..3 {
            order.extend(heard.recv().await);
        }
        assert_eq!(order, ["parent", "first", "second"]);
        revive(8);
        assert!(!process.is_finished());
        task::spawn("again", within(8, async {})).await.expect("a domain lives again");
    }
}
