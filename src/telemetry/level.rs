//! What is logged now, and changing it while the node runs.
//!
//! The configured directive comes back by itself: whoever asks for more says
//! for how long. Levels below debug cannot be asked for: a release has no such
//! lines, and those of the libraries hold what callers send.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, reload};

use crate::task;

/// The longest directive, characters.
pub const MAX_DIRECTIVE: usize = 512;

/// What may be asked for, for people.
pub const RULE: &str = "must be LEVEL or TARGET=LEVEL with commas between, a level being error, \
                        warn, info, debug or off; at most 512 characters";

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// The directive.
    pub directive: String,
    /// The one that is configured.
    pub configured: String,
    /// When that comes back; `None` when it is in force.
    pub until: Option<SystemTime>,
}

/// Changes the filter of the log's lines. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Levels(Arc<Shared>);

struct Shared {
    configured: String,
    now: Mutex<Now>,
    /// Whether spans are made for the lines: they cost.
    debugging: Arc<AtomicBool>,
    /// `None` in a process without a pipeline.
    install: Option<Box<dyn Fn(EnvFilter) -> bool + Send + Sync>>,
}

#[derive(Debug, Default)]
struct Now {
    directive: String,
    until: Option<SystemTime>,
    /// How many changes there were: an older one's end changes nothing. Under the
    /// same lock as what is in force, so that the number is that of its change.
    change: u64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Levels").field("now", &self.now).finish_non_exhaustive()
    }
}

/// Whether a filter lets through what needs spans beside it.
fn debugs(filter: &EnvFilter) -> bool {
    filter.max_level_hint().is_none_or(|level| level >= LevelFilter::DEBUG)
}

/// The filter of what is configured, as one that can be exchanged; whether it
/// debugs is in the flag from then on.
pub(super) fn exchangeable<S: Subscriber>(
    directive: &str,
) -> Option<(reload::Layer<EnvFilter, S>, Arc<AtomicBool>, Levels)> {
    let filter = EnvFilter::try_new(directive).ok()?;
    let debugging = Arc::new(AtomicBool::new(debugs(&filter)));
    let (layer, handle) = reload::Layer::new(filter);
    let levels = Levels(Arc::new(Shared {
        configured: directive.to_owned(),
        now: Mutex::new(Now { directive: directive.to_owned(), ..Now::default() }),
        debugging: debugging.clone(),
        install: Some(Box::new(move |filter| handle.reload(filter).is_ok())),
    }));
    Some((layer, debugging, levels))
}

/// Whether a directive may be asked for.
pub fn is_sound(directive: &str) -> bool {
    let part = |part: &str| {
        let (target, level) = part.split_once('=').unwrap_or(("simpul", part));
        let named = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        !target.is_empty()
            && target.chars().all(named)
            && matches!(level, "error" | "warn" | "info" | "debug" | "off")
    };
    directive.len() <= MAX_DIRECTIVE && directive.split(',').all(part)
}

impl Levels {
    /// Of a process without a pipeline: nothing can be changed.
    pub(super) fn none() -> Self {
        Self(Arc::new(Shared {
            configured: String::new(),
            now: Mutex::default(),
            debugging: Arc::default(),
            install: None,
        }))
    }

    /// What is in force.
    pub fn level(&self) -> Level {
        let now = self.0.now();
        let configured = self.0.configured.clone();
        Level { directive: now.directive.clone(), configured, until: now.until }
    }

    /// Puts a sound directive in force for a time, or what is configured for
    /// good. False when it is not sound, or the process has no pipeline. To be
    /// called inside the runtime.
    pub fn change(&self, to: Option<(&str, Duration)>) -> bool {
        let Some((directive, time)) = to else {
            return self.0.install(&self.0.configured, None, None).is_some();
        };
        if !is_sound(directive) {
            return false;
        }
        let until = SystemTime::now().checked_add(time);
        // Who names modules alone means them beside the rest, not without it.
        let whole = directive.split(',').any(|part| !part.contains('='));
        let directive = match whole {
            true => directive.to_owned(),
            false => format!("{},{directive}", self.0.configured),
        };
        let Some(change) = self.0.install(&directive, until, None) else { return false };
        let shared = self.0.clone();
        task::spawn("log level", async move {
            tokio::time::sleep(time).await;
            if shared.install(&shared.configured, None, Some(change)).is_some() {
                tracing::info!("the configured log level is in force again");
            }
        });
        true
    }
}

impl Shared {
    /// Puts a directive in force, with `after` only if that is the newest change
    /// still; gives the number of this one. `None`: everything is as it was, an
    /// earlier change's end included.
    fn install(
        &self,
        directive: &str,
        until: Option<SystemTime>,
        after: Option<u64>,
    ) -> Option<u64> {
        let filter = EnvFilter::try_new(directive).ok()?;
        let install = self.install.as_ref()?;
        // The lock is held throughout: what is said is what is in force.
        let mut now = self.now();
        if after.is_some_and(|after| after != now.change) {
            return None;
        }
        // Before the exchange, which asks every callsite anew.
        let debugging = self.debugging.swap(debugs(&filter), Ordering::AcqRel);
        if !install(filter) {
            self.debugging.store(debugging, Ordering::Release);
            return None;
        }
        let change = now.change + 1;
        *now = Now { directive: directive.to_owned(), until, change };
        Some(change)
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_asked_for_is_levels_of_parts() {
        for sound in ["info", "off", "warn,simpul::chat=debug,h2=info", "simpul::a_b=error"] {
            assert!(is_sound(sound), "{sound}");
        }
        let long = format!("{}=info", "a".repeat(MAX_DIRECTIVE));
        for bad in [
            "",
            "trace",
            "simpul=trace",
            "info,",
            "[span]=debug",
            "a[b{c=d}]=info",
            "x=5",
            "info;debug",
            "simpul:=loud",
            "INFO",
            &long,
        ] {
            assert!(!is_sound(bad), "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_configured_level_comes_back_and_an_older_end_changes_nothing() {
        let (_layer, debugging, levels) =
            exchangeable::<tracing_subscriber::Registry>("info").expect("sound");
        let debugs = || debugging.load(Ordering::Acquire);
        assert!(!levels.change(Some(("trace", Duration::from_secs(5)))));
        assert!(levels.change(Some(("debug", Duration::from_secs(5)))) && debugs());
        assert!(levels.level().until.is_some());
        assert!(levels.change(Some(("warn,simpul=debug", Duration::from_secs(60)))) && debugs());
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(levels.level().directive, "warn,simpul=debug", "the first one's end came");
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!((levels.level().directive.as_str(), debugs()), ("info", false));
        assert_eq!(levels.level().until, None);
        let modules = "simpul::chat=debug,h2=warn";
        assert!(levels.change(Some((modules, Duration::from_secs(60)))));
        assert_eq!(levels.level().directive, format!("info,{modules}"), "the rest goes on");
        assert!(levels.change(Some(("debug", Duration::from_secs(60)))) && levels.change(None));
        assert_eq!(levels.level().directive, "info");
    }

    /// Of a pipeline that takes filters only while it is told to.
    fn with_pipeline(works: &Arc<AtomicBool>) -> Levels {
        let works = works.clone();
        Levels(Arc::new(Shared {
            configured: "info".to_owned(),
            now: Mutex::new(Now { directive: "info".to_owned(), ..Now::default() }),
            debugging: Arc::default(),
            install: Some(Box::new(move |_| works.load(Ordering::Acquire))),
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_fails_leaves_the_earlier_ones_end() {
        let works = Arc::new(AtomicBool::new(true));
        let levels = with_pipeline(&works);
        assert!(levels.change(Some(("debug", Duration::from_secs(5)))));
        works.store(false, Ordering::Release);
        assert!(!levels.change(Some(("warn", Duration::from_secs(60)))));
        assert!(!levels.change(None), "nor for good");
        works.store(true, Ordering::Release);
        assert_eq!(levels.level().directive, "debug");
        assert!(levels.0.debugging.load(Ordering::Acquire), "spans for debug are made still");
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(levels.level().directive, "info");
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_changes_at_once_the_one_in_force_has_its_end() {
        let works = Arc::new(AtomicBool::new(true));
        let levels = with_pipeline(&works);
        let runtime = tokio::runtime::Handle::current();
        for round in 0..500 {
            let both = std::sync::Barrier::new(2);
            let change = |to: Option<(&str, Duration)>| {
                let _inside = runtime.enter();
                both.wait();
                assert!(levels.change(to));
            };
            std::thread::scope(|scope| {
                scope.spawn(|| change(Some(("debug", Duration::from_secs(10)))));
                scope.spawn(|| change(None));
            });
            tokio::time::sleep(Duration::from_secs(11)).await;
            assert_eq!(levels.level().directive, "info", "round {round}");
        }
    }
}
