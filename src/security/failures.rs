//! How often proofs from one address have failed: guessing is slowed, and an
//! address that fails without end stops costing verifications.
//!
//! Only proofs that are not known to be good are counted and refused, so that
//! callers with a verified token behind the same address go on. IPv6 addresses
//! count by /64, which is what one customer of a network has. The table is
//! bounded: when it is full of addresses that failed within the minute, some of
//! them are forgotten rather than strangers refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::refusal::{Reason, Refusal};

/// How many addresses are remembered.
const MAX_ADDRESSES: usize = 16 * 1024;

const WINDOW: Duration = Duration::from_secs(60);

/// Failures by address within the running minute.
#[derive(Debug)]
pub(super) struct Failures {
    per_minute: u32,
    table: Mutex<HashMap<IpAddr, Window>>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    failed: u32,
}

impl Failures {
    /// Zero allows any number.
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_minute, table: Mutex::default() }
    }

    /// Refuses an address that has failed too often.
    pub(super) fn check(&self, address: IpAddr, now: Instant) -> Result<(), Refusal> {
        if self.per_minute == 0 {
            return Ok(());
        }
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(window) = table.get(&key(address)) else { return Ok(()) };
        let age = now.saturating_duration_since(window.began);
        if window.failed < self.per_minute || age >= WINDOW {
            return Ok(());
        }
        let rule = "too many proofs from this address have failed";
        Err(Refusal::new(Reason::TooManyFailures, rule).retry_after(WINDOW - age))
    }

    /// Counts one.
    pub(super) fn note(&self, address: IpAddr, now: Instant) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let address = key(address);
        if table.len() >= MAX_ADDRESSES && !table.contains_key(&address) {
            make_room(&mut table, now);
        }
        let window = table.entry(address).or_insert(Window { began: now, failed: 0 });
        if now.saturating_duration_since(window.began) >= WINDOW {
            *window = Window { began: now, failed: 0 };
        }
        window.failed = window.failed.saturating_add(1);
    }
}

/// Forgets those whose minute is over, or else half of all: so the cost of
/// looking through the table falls on one in many.
fn make_room(table: &mut HashMap<IpAddr, Window>, now: Instant) {
    table.retain(|_, window| now.saturating_duration_since(window.began) < WINDOW);
    if table.len() >= MAX_ADDRESSES {
        let mut keep = false;
        table.retain(|_, _| {
            keep = !keep;
            keep
        });
    }
}

fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_waits_for_the_rest_of_its_minute() {
        let failures = Failures::new(3);
        let begin = Instant::now();
        let near: IpAddr = "2001:db8::1".parse().expect("an address");
        let same: IpAddr = "2001:db8::ffff:2".parse().expect("an address");
        let other: IpAddr = "2001:db8:0:1::1".parse().expect("an address");
        for _ in 0..3 {
            assert!(failures.check(near, begin).is_ok());
            failures.note(near, begin);
        }
        let refused = failures.check(same, begin + Duration::from_secs(20)).expect_err("too many");
        assert_eq!(refused.reason, Reason::TooManyFailures);
        assert_eq!(refused.retry_after, Some(Duration::from_secs(40)));
        assert!(failures.check(other, begin).is_ok());
        assert!(failures.check(near, begin + WINDOW).is_ok());
        failures.note(near, begin + WINDOW);
        assert!(failures.check(near, begin + WINDOW).is_ok(), "a new minute counts from one");
    }

    #[test]
    fn the_table_is_bounded() {
        let failures = Failures::new(1);
        let now = Instant::now();
        for n in 0..(MAX_ADDRESSES as u32 * 2) {
            failures.note(IpAddr::V4(n.into()), now);
        }
        let held = failures.table.lock().expect("not poisoned").len();
        assert!(held <= MAX_ADDRESSES, "{held}");
    }
}
