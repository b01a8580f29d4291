//! Finds payment card numbers in free text, so that chat can redact them and
//! payment fields can refuse them.
//!
//! A card number is 13 to 19 digits, alone or with single spaces or dashes
//! anywhere between them, whose first digits and length belong to an issuer and
//! whose Luhn check digit fits. The digits are bounded: a letter, an underscore
//! or a further digit beside them makes them part of something longer (a hash,
//! an order's name), and what is written as a UUID is one. Digits of every
//! script count, full-width ones too.
//!
//! One number in ten of an issuer's length passes by chance, and is redacted:
//! what is hidden in error can be sent again in other words, a leaked number
//! cannot be taken back. Numbers written with letters between the digits, or
//! over several lines, are not found.

mod brands;

use std::borrow::Cow;
use std::ops::Range;

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
    /// Nothing beside it makes it part of a longer name.
    bounded: bool,
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
            if at < skip_to {
                // Inside a UUID: neither digit nor separator.
                (two_before, before) = (before, Some('x'));
                continue;
            }
            match digit(c) {
                _ if c.is_ascii_hexdigit() && !in_name(before) && uuid_at(text, at) => {
                    skip_to = at + UUID;
                    (two_before, before) = (before, Some('x'));
                    continue;
                }
                Some(value) => scan.push(at, c, value, before, two_before),
                None if is_name(c) && before.is_some_and(|b| digit(b).is_some()) => {
                    scan.unbound();
                }
                None => {}
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
            bounded: !in_name(before),
            plus: before == Some('+'),
        });
    }

    /// A name goes on after the newest group.
    fn unbound(&mut self) {
        if let Some(group) = self.groups.last_mut() {
            group.bounded = false;
        }
    }

    /// The longest card number that begins with the group.
    fn longest_from(&self, first: usize) -> Option<Range<usize>> {
        let groups = self.groups.get(first..)?;
        let begin = groups.first()?;
        let mut longest = None;
        for (index, group) in groups.iter().enumerate() {
            let digits = self.digits.get(begin.digits.start..group.digits.end)?;
            let broken = !group.bounded || (index > 0 && !group.joined);
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

/// Letters of other scripts are no part of a name: many of them are written
/// without spaces, a number in the middle.
fn is_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn in_name(before: Option<char>) -> bool {
    before.is_some_and(|c| is_name(c) || digit(c).is_some())
}

const UUID: usize = 36;

/// Whether a UUID is written here, nothing of a name after it.
fn uuid_at(text: &str, at: usize) -> bool {
    let Some(bytes) = text.as_bytes().get(at..at + UUID) else { return false };
    let shaped = bytes.iter().enumerate().all(|(index, byte)| match index {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    shaped && !text.as_bytes().get(at + UUID).is_some_and(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests;
