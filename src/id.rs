//! Ids and the rules that given ones obey.

use uuid::Uuid;

/// A fresh UUID version 7: ordered by time, so that keys of new rows lie
/// together in an index. In a simulation one that its seed decides.
pub fn fresh() -> Uuid {
    #[cfg(feature = "fault")]
    if crate::chance::is_fixed() {
        return crate::chance::uuid();
    }
    Uuid::now_v7()
}

/// Whether the text is a short name: `[a-z0-9][a-z0-9._-]{0,63}`, as rooms have.
pub fn is_short_name(text: &str) -> bool {
    let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    (1..=64).contains(&text.len())
        && text.bytes().all(inner)
        && text.as_bytes()[0].is_ascii_alphanumeric()
}

/// Whether the text is a key that a client gave: `[A-Za-z0-9._-]{1,64}`, for
/// idempotency keys and client message ids.
pub fn is_client_key(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// What [`is_short_name`] asks for, to be put after a field's name.
pub const SHORT_NAME_RULE: &str =
    "must have 1 to 64 characters of a-z 0-9 . _ - and begin with a letter or digit";

/// [`SHORT_NAME_RULE`] with the shape of a text that breaks it, never the text.
pub fn short_name_rule(text: &str) -> String {
    let inner = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
    let fits = |(at, c): (usize, char)| inner(c) && (at > 0 || c.is_ascii_alphanumeric());
    let length = text.chars().count();
    let shape = match text.chars().enumerate().position(|it| !fits(it)) {
        _ if length == 0 => "it is empty".to_owned(),
        Some(at) => format!("it has {length}, and number {} does not fit", at + 1),
        None => format!("it has {length}"),
    };
    format!("{SHORT_NAME_RULE}; {shape}")
}

/// What [`is_client_key`] asks for, to be put after a field's name.
pub const CLIENT_KEY_RULE: &str = "must have 1 to 64 characters of A-Z a-z 0-9 . _ -";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_lower_case_and_bounded() {
        let long = "a".repeat(64);
        for good in ["a", "lobby", "0", "a.b_c-d", &long] {
            assert!(is_short_name(good), "{good}");
        }
        let longer = "a".repeat(65);
        for bad in ["", "-a", ".a", "A", "a b", "a/b", "é", &longer] {
            assert!(!is_short_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_broken_rule_tells_the_shape_and_not_the_text() {
        let longer = "a".repeat(65);
        for (bad, shape) in [
            ("", "; it is empty"),
            ("-secret", "; it has 7, and number 1 does not fit"),
            ("Secret", "; it has 6, and number 1 does not fit"),
            ("secret éa", "; it has 9, and number 7 does not fit"),
            (&longer, "; it has 65"),
        ] {
            let rule = short_name_rule(bad);
            assert_eq!(rule.strip_prefix(SHORT_NAME_RULE), Some(shape));
        }
    }
}
