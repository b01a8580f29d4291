//! Delays between tries: exponential with full jitter, so that many clients
//! that failed together do not come back together.

use std::time::Duration;

/// Between nothing and `base · 2^attempt`, capped. `random` is uniform in
/// [0, 1); attempts count from 0.
pub fn full_jitter(base: Duration, cap: Duration, attempt: u32, random: f64) -> Duration {
    let ceiling = base.saturating_mul(2_u32.saturating_pow(attempt)).min(cap);
    ceiling.mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_the_cap() {
        let at = |attempt| {
            full_jitter(Duration::from_millis(100), Duration::from_secs(2), attempt, 1.0)
                .as_millis()
        };
        assert_eq!([at(0), at(1), at(4), at(5), at(90)], [100, 200, 1600, 2000, 2000]);
    }
}
