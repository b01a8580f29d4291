//! Time as the node uses it: a wall clock for what people and tokens mean, a
//! boot clock for what must not be fooled by a freeze.

#[cfg(feature = "fault")]
pub mod simulated;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Gives the wall clock's time; passed into cores so that tests can set it.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Now.
    fn now(&self) -> SystemTime;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Clock for System {
    fn now(&self) -> SystemTime {
        #[cfg(feature = "fault")]
        if let Some(reading) = simulated::reading() {
            return reading.wall;
        }
        SystemTime::now()
    }
}

/// Microseconds since 1970, the form in which the store keeps times. Times
/// before 1970 are 0.
pub fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The time of [`micros`].
pub fn from_micros(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros.max(0).unsigned_abs())
}

/// The contract's timestamp of [`micros`].
pub fn timestamp(micros: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or(0),
    }
}

/// Time since the machine started, time in which it slept or this process was
/// stopped included (CLOCK_BOOTTIME): a thawed process sees how long it was
/// away before it does anything else.
pub fn since_boot() -> Duration {
    #[cfg(feature = "fault")]
    if let Some(reading) = simulated::reading() {
        return reading.boot;
    }
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
