//! Where the node spends its processor time.
//!
//! A timer of the process's own processor time interrupts whatever runs, and a
//! handler of the crate `pprof` notes the stack: nothing is noted, and nothing
//! costs, while no profile is taken. Samples inside the unwinder's and the
//! loader's own code are left out: the handler could wait for a lock that the
//! interrupted code holds. Names are looked up after the timer has stopped.

mod format;

use std::time::Duration;

use pprof::{ProfilerGuard, ProfilerGuardBuilder, Report};

use crate::drain::Watch;
use crate::proto::operate::v1 as pb;
use crate::refusal::{Reason, Refusal, Violations};

const DEFAULT: Duration = Duration::from_secs(10);

const LONGEST: Duration = Duration::from_secs(60);

/// Not a divisor of anything that repeats.
const FREQUENCY: u32 = 99;

const MAX_FREQUENCY: u32 = 999;

/// Libraries whose code is not unwound from.
const LEFT_OUT: [&str; 3] = ["libgcc", "ld-linux", "vdso"];

/// A checked request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    time: Duration,
    frequency: u32,
}

impl Wanted {
    pub(super) fn of(request: &pb::ProfileCpuRequest) -> Result<Self, Refusal> {
        let mut violations = Violations::new();
        let time = request.duration.map_or(Ok(DEFAULT), Duration::try_from).unwrap_or_default();
        let fits = (Duration::from_secs(1)..=LONGEST).contains(&time);
        violations.check(fits, "duration", || "must be 1 to 60 seconds".to_owned());
        let given = request.frequency;
        violations
            .check(given <= MAX_FREQUENCY, "frequency", || format!("must be 0 to {MAX_FREQUENCY}"));
        violations.finish()?;
        Ok(Self { time, frequency: if given == 0 { FREQUENCY } else { given } })
    }
}

/// Watches for the time asked for, or until the node stops. A caller that goes
/// ends it: dropping the future stops the timer.
pub(super) async fn take(wanted: Wanted, mut drain: Watch) -> Result<Vec<u8>, Refusal> {
    tracing::info!(
        seconds = wanted.time.as_secs(),
        frequency = wanted.frequency,
        "an operator profiles the node"
    );
    let guard = blocking(move || start(wanted.frequency)).await?;
    tokio::select! {
        () = tokio::time::sleep(wanted.time) => {}
        () = drain.graceful() => {}
    }
    blocking(move || finish(guard)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|_| Err("the profiler failed".to_owned()));
    done.map_err(|why| Refusal::new(Reason::ToolUnavailable, why))
}

fn start(frequency: u32) -> Result<ProfilerGuard<'static>, String> {
    ProfilerGuardBuilder::default()
        .frequency(i32::try_from(frequency).unwrap_or(1))
        .blocklist(&LEFT_OUT)
        .build()
        .map_err(|error| {
            format!("no profile can be taken: {error} (it needs a writable temporary folder)")
        })
}

fn finish(guard: ProfilerGuard<'static>) -> Result<Vec<u8>, String> {
    let unresolved = guard.report().build_unresolved();
    // The timer stops here: looking names up is not part of the profile.
    drop(guard);
    let unresolved = unresolved.map_err(|error| format!("the profile cannot be read: {error}"))?;
    let mut data = std::collections::HashMap::new();
    for (frames, count) in unresolved.data {
        *data.entry(pprof::Frames::from(frames)).or_default() += count;
    }
    let report = Report { data, timing: unresolved.timing };
    format::encode(&report).map_err(|error| format!("the profile cannot be packed: {error}"))
}
