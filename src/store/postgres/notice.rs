//! Seeing a warning that the server sends beside an answer.
//!
//! When an administrator cancels a COMMIT that waits for a synchronous standby,
//! the server answers success with a warning. The client library only logs such
//! notices, so they are seen there: while the COMMIT is polled, a subscriber
//! of our own is the current one, which notes them.

use std::cell::Cell;
use std::future::Future;
use std::sync::LazyLock;

use tracing::instrument::WithSubscriber as _;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Subscriber;
use tracing::{Dispatch, Event, Level, Metadata};

/// Where the library logs them.
const TARGET: &str = "sqlx::postgres::notice";

tokio::task_local! {
    static WARNED: Cell<bool>;
}

/// One for the process: making one re-evaluates every call site.
static LISTENER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Listener));

/// Runs the future; says with its output whether the server warned meanwhile.
pub(super) async fn watched<T>(future: impl Future<Output = T>) -> (T, bool) {
    let listening = async {
        let output = future.with_subscriber(LISTENER.clone()).await;
        (output, WARNED.with(Cell::get))
    };
    WARNED.scope(Cell::new(false), listening).await
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET && *metadata.level() <= Level::WARN
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if *event.metadata().level() <= Level::WARN {
            let _ = WARNED.try_with(|warned| warned.set(true));
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
