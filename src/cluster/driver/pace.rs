//! How fast partitions move when nothing forces them to: pure.

use std::time::Duration;

/// So many a second, a quarter of them at once.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: f64,
    left: f64,
    at: Duration,
}

impl Pace {
    pub(super) fn new(per_second: u32, now: Duration) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self { per_second, left: 0.0, at: now }
    }

    /// How many may begin now.
    pub(super) fn allowed(&mut self, now: Duration) -> usize {
        let since = now.saturating_sub(self.at);
        self.at = now;
        let most = (self.per_second / 4.0).max(1.0);
        self.left = (self.left + since.as_secs_f64() * self.per_second).min(most);
        // At most a quarter of a u32: no fraction and no sign is lost.
        self.left as usize
    }

    /// One has begun.
    pub(super) fn spend(&mut self) {
        self.left -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_brings_as_many_as_configured() {
        let start = Duration::from_secs(100);
        let mut pace = Pace::new(32, start);
        let mut moved = 0;
        for tick in 1..=8 {
            let now = start + Duration::from_millis(125) * tick;
            for _ in 0..pace.allowed(now) {
                pace.spend();
                moved += 1;
            }
        }
        assert_eq!(moved, 32);
        assert_eq!(pace.allowed(start + Duration::from_secs(60)), 8, "a pause saves nothing up");
    }
}
