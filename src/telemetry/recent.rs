//! The newest warnings and errors, kept in memory for whoever collects a bundle.
//!
//! What is logged is fit to be read, so it is kept as it is, in a bounded
//! number of bounded lines; the oldest go. Kept whatever the log's level is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::{context, logs};
use crate::card;

/// How many are kept.
const KEPT: usize = 256;

/// The longest one, bytes of JSON.
const LONGEST: usize = 2048;

/// The newest warnings and errors, oldest first. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Recent(Arc<Mutex<VecDeque<String>>>);

impl Recent {
    /// Each a JSON object.
    pub fn lines(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, line: Map<String, Value>) {
        let mut text = Value::Object(line.clone()).to_string();
        if text.len() > LONGEST {
            text = Value::Object(cut(line)).to_string();
        }
        let mut lines = self.lock();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(text);
    }
}

/// The line's own names, and the beginning of its message.
fn cut(line: Map<String, Value>) -> Map<String, Value> {
    let own = ["time", "level", "target", "trace_id", "message"];
    let mut short: Map<_, _> =
        line.into_iter().filter(|(name, _)| own.contains(&name.as_str())).collect();
    if let Some(Value::String(message)) = short.get_mut("message") {
        *message = message.chars().take(LONGEST / 8).collect();
    }
    short.insert("cut".into(), true.into());
    short
}

impl<S> Layer<S> for Recent
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_event(&self, event: &Event<'_>, spans: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Map::new();
        event.record(&mut logs::Fields(&mut line));
        for value in line.values_mut() {
            if let Value::String(text) = value {
                *text = card::redact(text).0.into_owned();
            }
        }
        let at = jiff::Timestamp::try_from(SystemTime::now());
        line.insert("time".into(), at.map(|at| at.to_string()).unwrap_or_default().into());
        line.insert("level".into(), metadata.level().as_str().into());
        line.insert("target".into(), metadata.target().into());
        if let Some(context) = context::current() {
            line.insert("trace_id".into(), context.trace_id().into());
        }
        let scope: Vec<Value> = spans
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
            .map(|span| Value::from(span.name()))
            .collect();
        if !scope.is_empty() {
            line.insert("spans".into(), scope.into());
        }
        self.keep(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn they_are_bounded_in_number_and_length_and_hold_no_card() {
        let recent = Recent::default();
        let pipeline = tracing_subscriber::Registry::default().with(recent.clone());
        tracing::subscriber::with_default(pipeline, || {
            for n in 0..KEPT + 2 {
                tracing::warn!(n, "card 4111 1111 1111 1111");
            }
            let detail = "é".repeat(5_000);
            tracing::error!(detail, "{}", "long ".repeat(2_000));
        });
        let lines = recent.lines();
        assert_eq!(lines.len(), KEPT);
        assert!(lines.iter().all(|line| line.len() <= LONGEST && !line.contains("4111 1111")));
        let parsed = |line: &String| serde_json::from_str::<Value>(line).expect("an object");
        assert_eq!(parsed(&lines[0])["n"], 3, "the oldest went");
        let last = parsed(&lines[KEPT - 1]);
        assert_eq!((&last["level"], &last["cut"]), (&"ERROR".into(), &true.into()));
    }
}
