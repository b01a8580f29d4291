//! How values look for people, always the same: times, amounts, columns, and
//! other people's text made harmless for a terminal.

use std::fmt::Write;
use std::time::SystemTime;

use crate::money::Currency;
use crate::proto::money::v1 as pb;

/// Other people's text without control characters: they would move a terminal's
/// cursor, set its title, or forge lines.
pub fn plain(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if hidden(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

/// RFC 3339 in UTC with microseconds; `-` when the time is absent or beyond
/// what can be written.
pub fn time(stamp: Option<&prost_types::Timestamp>) -> String {
    stamp
        .and_then(|stamp| jiff::Timestamp::new(stamp.seconds, stamp.nanos).ok())
        .map_or_else(|| "-".to_owned(), |stamp| format!("{stamp:.6}"))
}

/// [`time`] of the machine's own form.
pub fn system_time(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| "-".to_owned(), |stamp| format!("{stamp:.6}"))
}

/// An amount as people write it: code, sign, digits with the currency's
/// decimals. Trailing zero decimals are left out when all are zero.
/// Examples: `IDR 50000`, `KWD 1.500`, `IDR -12.34`.
pub fn amount(currency: &str, minor_units: i64) -> String {
    let Ok(known) = currency.parse::<Currency>() else {
        return format!("{} {minor_units} minor units", plain(currency));
    };
    let scale = 10_u64.pow(known.exponent());
    let (whole, part) = (minor_units.unsigned_abs() / scale, minor_units.unsigned_abs() % scale);
    let sign = if minor_units < 0 { "-" } else { "" };
    let mut out = format!("{known} {sign}{whole}");
    if part > 0 {
        // Writing to a String cannot fail.
        let _ = write!(out, ".{part:0width$}", width = known.exponent() as usize);
    }
    out
}

/// [`amount`] of a contract's message.
pub fn money(money: Option<&pb::Money>) -> String {
    money.map_or_else(|| "-".to_owned(), |money| amount(&money.currency, money.minor_units))
}

/// A word of a contract's enum without its prefix.
pub fn word<'a>(name: &'a str, prefix: &str) -> &'a str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// Rows under a heading, each column as wide as its widest cell; the last one
/// is not padded. Without rows only the heading.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let mut out = line(&widths, &head);
    for row in rows {
        out.push('\n');
        out.push_str(&line(&widths, row));
    }
    out
}

/// One row with columns of at least the given widths.
pub fn line(widths: &[usize], cells: &[String]) -> String {
    let mut out = String::new();
    for (at, cell) in cells.iter().enumerate() {
        if at > 0 {
            out.push_str("  ");
        }
        out.push_str(cell);
        if at + 1 < cells.len() {
            let width = widths.get(at).copied().unwrap_or(0);
            out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
    }
    out
}

/// Names and values, one a line, values in one column.
pub fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}").trim_end().to_owned())
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_people_write_them() {
        for (currency, minor, text) in [
            ("IDR", 5_000_000, "IDR 50000"),
            ("IDR", -1234, "IDR -12.34"),
            ("IDR", 5, "IDR 0.05"),
            ("JPY", 50, "JPY 50"),
            ("KWD", 1500, "KWD 1.500"),
            ("IDR", 0, "IDR 0"),
            ("XXX", 7, "XXX 7 minor units"),
        ] {
            assert_eq!(amount(currency, minor), text);
        }
    }

    #[test]
    fn what_is_printed_can_be_read_back() {
        for (currency, minor) in [("IDR", 5_000_001), ("JPY", 3), ("KWD", 1), ("CLF", 12_345)] {
            let back: crate::money::Money = amount(currency, minor).parse().expect("our own form");
            assert_eq!(back.minor_units, minor);
        }
    }

    #[test]
    fn times_are_utc_with_microseconds() {
        let stamp = prost_types::Timestamp { seconds: 1_700_000_000, nanos: 12_000 };
        assert_eq!(time(Some(&stamp)), "2023-11-14T22:13:20.000012Z");
        assert_eq!(time(None), "-");
        let beyond = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
        assert_eq!(time(Some(&beyond)), "-");
    }

    #[test]
    fn tables_align_and_do_not_trail() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["longer".into(), "2".into()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME    N\na       1\nlonger  2");
        assert_eq!(pairs(&[("a", "1".into()), ("long", String::new())]), "a     1\nlong");
    }

    #[test]
    fn control_and_direction_characters_are_spelled_out() {
        assert_eq!(plain("a\tb\u{202e}c\n"), "a\\tb\\u{202e}c\\n");
        assert_eq!(plain("apa kabar, é 日本"), "apa kabar, é 日本");
    }
}
