//! Finds payment card numbers in free text, so that chat can redact them and
//! payment fields can refuse them.
//!
//! A card number is 13 to 19 digits, alone or with single spaces or dashes
//! anywhere between them, whose first digits and length belong to an issuer and
//! whose Luhn check digit fits. A further digit beside them makes them part of
//! something longer; a letter or an underscore does not. What is written as a
//! UUID, and a word in which letters and digits go to and fro as in a hash or a
//! key, is left alone. Digits of every script count, full-width ones too;
//! characters that nobody sees do not.
//!
//! One number in ten of an issuer's length passes by chance, and is redacted:
//! what is hidden in error can be sent again in other words, a leaked number
//! cannot be taken back. Numbers written with letters between the digits, or
//! over several lines, are not found.

mod brands;

use std::borrow::Cow;
use std::ops::Range;

/// What a field that must not hold any says of it.
pub const RULE: &str = "must not contain a card number";

/// What stands in the place of every redacted number. Not longer than the
/// shortest number, so that a redacted text never grows.
pub const REDACTED: &str = "[card number]";

const SHORTEST: usize = 13;
const LONGEST: usize = 19;

/// The byte ranges of the card numbers, in order, apart from each other.
/// Candidates that overlap are one range. Linear in the text's length.
pub fn find(text: &str) -> Vec<Range<usize>> {
    if !worth_a_look(text) {
        return Vec::new();
    }
    let scan = Scan::of(text);
    let mut found: Vec<Range<usize>> = Vec::new();
    for first in 0..scan.groups.len() {
        let Some(range) = scan.longest_from(first) else { continue };
        match found.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => found.push(range),
        }
    }
    found
}

/// Whether there is a card number in the text.
pub fn contains(text: &str) -> bool {
    !find(text).is_empty()
}

/// The text with [`REDACTED`] for every card number, and how many there were.
pub fn redact(text: &str) -> (Cow<'_, str>, u32) {
    let found = find(text);
    if found.is_empty() {
        return (Cow::Borrowed(text), 0);
    }
    let mut redacted = String::with_capacity(text.len());
    let mut after = 0;
    for range in &found {
        redacted.push_str(text.get(after..range.start).unwrap_or_default());
        redacted.push_str(REDACTED);
        after = range.end;
    }
    redacted.push_str(text.get(after..).unwrap_or_default());
    (Cow::Owned(redacted), u32::try_from(found.len()).unwrap_or(u32::MAX))
}

/// Most texts have too few digits; they are let go without any allocation. The
/// first byte of a longer character may begin a digit of another script.
fn worth_a_look(text: &str) -> bool {
    text.bytes().filter(|byte| byte.is_ascii_digit() || *byte >= 0xc2).count() >= SHORTEST
}

/// Digits without anything between them.
struct Group {
    bytes: Range<usize>,
    digits: Range<usize>,
    /// One separator stands between the group before and this one.
    joined: bool,
    /// A plus sign stands before it, as before telephone numbers.
    plus: bool,
}

struct Scan {
    digits: Vec<u8>,
    groups: Vec<Group>,
}

impl Scan {
    fn of(text: &str) -> Self {
        let mut scan = Self { digits: Vec::new(), groups: Vec::new() };
        let mut before = None;
        let mut two_before = None;
        let mut skip_to = 0;
        for (at, c) in text.char_indices() {
            if is_invisible(c) {
                continue;
            }
            if at >= skip_to && c.is_ascii_alphanumeric() && !in_word(before) {
                skip_to = at + id_at(text, at);
            }
            if at < skip_to {
                // Inside an id: neither digit nor separator.
                (two_before, before) = (before, Some('x'));
                continue;
            }
            if let Some(value) = digit(c) {
                scan.push(at, c, value, before, two_before);
            }
            (two_before, before) = (before, Some(c));
        }
        scan
    }

    fn push(&mut self, at: usize, c: char, value: u8, before: Option<char>, two: Option<char>) {
        let end = at + c.len_utf8();
        self.digits.push(value);
        let count = self.digits.len();
        if before.is_some_and(|b| digit(b).is_some())
            && let Some(group) = self.groups.last_mut()
        {
            group.bytes.end = end;
            group.digits.end = count;
            return;
        }
        let joined = before.is_some_and(is_separator) && two.is_some_and(|c| digit(c).is_some());
        self.groups.push(Group {
            bytes: at..end,
            digits: count - 1..count,
            joined,
            plus: before == Some('+'),
        });
    }

    /// The longest card number that begins with the group.
    fn longest_from(&self, first: usize) -> Option<Range<usize>> {
        let groups = self.groups.get(first..)?;
        let begin = groups.first()?;
        let mut longest = None;
        for (index, group) in groups.iter().enumerate() {
            let digits = self.digits.get(begin.digits.start..group.digits.end)?;
            let broken = index > 0 && !group.joined;
            if broken || digits.len() > LONGEST {
                break;
            }
            // E.164: a telephone number has at most 15 digits.
            let telephone = begin.plus && digits.len() <= 15;
            if digits.len() >= SHORTEST && !telephone && is_card(digits) {
                longest = Some(begin.bytes.start..group.bytes.end);
            }
        }
        longest
    }
}

fn is_card(digits: &[u8]) -> bool {
    brands::issued(digits) && luhn(digits)
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| {
            let digit = u32::from(*digit);
            match index % 2 {
                0 => digit,
                _ if digit > 4 => digit * 2 - 9,
                _ => digit * 2,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Where the decimal digits of scripts begin (Unicode's category Nd, what
/// people write with): ASCII and full-width first.
const ZEROS: &[u32] = &[
    0x0030, 0xff10, 0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66,
    0x0ce6, 0x0d66, 0x0e50, 0x0ed0, 0x0f20, 0x1040, 0x17e0, 0x1810, 0x1b50, 0xa9d0, 0x1d7ce,
    0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6,
];

fn digit(c: char) -> Option<u8> {
    let code = c as u32;
    if code < 0x80 {
        return c.is_ascii_digit().then(|| c as u8 - b'0');
    }
    ZEROS
        .iter()
        .find(|zero| (**zero..**zero + 10).contains(&code))
        .and_then(|zero| u8::try_from(code - zero).ok())
}

/// Spaces and dashes, as typed and as word processors make of them.
fn is_separator(c: char) -> bool {
    matches!(
        c,
        ' ' | '-' | '\u{a0}' | '\u{2007}' | '\u{2009}' | '\u{202f}' | '\u{3000}' | '\u{2010}'
            ..='\u{2015}' | '\u{2212}' | '\u{ff0d}'
    )
}

/// Zero-width characters, as pages and keyboards leave them: between digits
/// they are not there.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

/// Words are of ASCII: in many other scripts they stand without spaces, a
/// number in the middle.
fn in_word(before: Option<char>) -> bool {
    before.is_some_and(|c| c.is_ascii_alphanumeric() || digit(c).is_some())
}

/// How many bytes the id has that begins here, where a word does; 0 for none.
fn id_at(text: &str, at: usize) -> usize {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    if is_uuid(rest) {
        return UUID;
    }
    let end = rest.iter().position(|byte| !byte.is_ascii_alphanumeric());
    let word = end.and_then(|end| rest.get(..end)).unwrap_or(rest);
    if is_hash(word) || is_key(word) { word.len() } else { 0 }
}

const UUID: usize = 36;

/// Whether a UUID is written at the beginning, nothing of a word after it.
fn is_uuid(rest: &[u8]) -> bool {
    let Some(bytes) = rest.get(..UUID) else { return false };
    let shaped = bytes.iter().enumerate().all(|(index, byte)| match index {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    shaped && !rest.get(UUID).is_some_and(u8::is_ascii_alphanumeric)
}

/// Whether it is hexadecimal and as long as a UUID without dashes or a hash.
fn is_hash(word: &[u8]) -> bool {
    matches!(word.len(), 32 | 40 | 64)
        && word.iter().all(u8::is_ascii_hexdigit)
        && word.iter().any(u8::is_ascii_alphabetic)
}

/// Whether it is as long as a random key, and letters and digits follow each
/// other as often. A card number among words and years does not get there.
fn is_key(word: &[u8]) -> bool {
    const KEY: usize = 20;
    const TURNS: usize = 6;
    let turns = word.windows(2).filter(|two| {
        let [one, other] = two else { return false };
        one.is_ascii_digit() != other.is_ascii_digit()
    });
    word.len() >= KEY && turns.count() >= TURNS
}

#[cfg(test)]
mod tests;
