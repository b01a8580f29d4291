//! The store's spans: one tree from a call down to the store, and the group's
//! commit linked to every call in it; none where nobody is traced. Seen in a process of its own, this test run
//! again: which spans are wanted is remembered for a process, not for a test.

use std::process::Command;
use std::sync::{Arc, Mutex};

use simpul::store::LedgerStore;
use simpul::store::ledger::{AccountName, Movement, TransactionKind, Transfer};
use simpul::store::sqlite::SqliteStore;
use simpul::telemetry::context;
use tracing::span::{Attributes, Id};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use uuid::Uuid;

/// Notes each span's parent, and what follows from what.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<(&'static str, String)>>>);

impl<S> Layer<S> for Spans
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let parent = span.parent().map_or("none", |parent| parent.name());
            self.0.lock().expect("whole").push((span.name(), format!("in {parent}")));
        }
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, S>) {
        if let (Some(span), Some(cause)) = (context.span(id), context.span(follows)) {
            let cause = format!("follows {}", cause.name());
            self.0.lock().expect("whole").push((span.name(), cause));
        }
    }
}

#[test]
fn a_write_stands_in_its_callers_trace_and_the_commit_is_linked_to_it() {
    let alone = Command::new(std::env::current_exe().expect("this test"))
        .args(["--ignored", "--exact", "spans::the_process_that_looks_at_spans"])
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
#[ignore = "run by a_write_stands_in_its_callers_trace_and_the_commit_is_linked_to_it"]
async fn the_process_that_looks_at_spans() {
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let dir = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(&dir.path().join("simpul.db"), 1).await.expect("opened");
    let movement = Movement {
        from: AccountName::suspense(),
        to: AccountName::refunds_payable(),
        minor_units: 1,
        kind: TransactionKind::Payment,
        needs_balance: false,
    };
    let transfer = Transfer {
        id: Uuid::now_v7(),
        payment_id: Uuid::now_v7(),
        currency: "IDR".parse().expect("a currency"),
        movements: vec![movement],
        posted_at: 1,
    };
    store.history_head(&AccountName::suspense()).await.expect("a head");
    let untraced = spans.0.lock().expect("whole").clone();
    assert!(untraced.iter().all(|(name, _)| !name.starts_with("store.")), "{untraced:?}");
    let calls = async {
        store.post(transfer).await.expect("posted");
        store.history_head(&AccountName::suspense()).await.expect("a head");
    };
    let sampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    context::follow(Some(sampled), tracing::info_span!("call"), calls).await;
    let seen = spans.0.lock().expect("whole").clone();
    for expected in [
        ("store.write", "in call"),
        ("store.read", "in call"),
        ("store.commit", "in none"),
        ("store.commit", "follows store.write"),
    ] {
        assert!(seen.iter().any(|(name, how)| (*name, how.as_str()) == expected), "{seen:?}");
    }
}
