//! Times as they are typed.

use std::time::SystemTime;

use prost_types::Timestamp;

/// Reads RFC 3339, or a span that lies back from now: `90s`, `2h`, `7days`.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    at(text, SystemTime::now())
}

fn at(text: &str, now: SystemTime) -> Result<Timestamp, String> {
    if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        let nanos = stamp.subsec_nanosecond();
        let (seconds, nanos) = if nanos < 0 {
            (stamp.as_second() - 1, nanos + 1_000_000_000)
        } else {
            (stamp.as_second(), nanos)
        };
        return Ok(Timestamp { seconds, nanos });
    }
    let ago = humantime::parse_duration(text).map_err(|_| {
        "must be a time like 2026-01-31T12:00:00Z, or a span before now like 2h".to_owned()
    })?;
    let then = now.checked_sub(ago).ok_or("lies too far back")?;
    Ok(Timestamp::from(then))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_time_or_a_span_before_now() {
        let now = UNIX_EPOCH + Duration::from_secs(10_000);
        let seconds = |text| at(text, now).map(|stamp| stamp.seconds);
        assert_eq!(seconds("2023-11-14T22:13:20Z"), Ok(1_700_000_000));
        assert_eq!(seconds("2023-11-15T05:13:20+07:00"), Ok(1_700_000_000));
        assert_eq!(seconds("1h"), Ok(6400));
        assert!(at("yesterday", now).is_err());
        let before = at("1969-12-31T23:59:59.5Z", now).expect("a time");
        assert_eq!((before.seconds, before.nanos), (-1, 500_000_000));
    }
}
