//! Page tokens: the last key of the page before, with a version and the list it
//! belongs to, in base64. Nobody but the node reads them; one that is not its
//! own is a violation.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::refusal::Violations;

const VERSION: u8 = 1;

/// The longest key is a principal: kind, id and trust domain.
const MAX_KEY: usize = 512;

/// Which list a token belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum List {
    Rooms = 1,
    Members = 2,
}

/// The key after which the page begins: empty for the first page.
pub(super) fn after(violations: &mut Violations, list: List, token: &str) -> String {
    if token.is_empty() {
        return String::new();
    }
    let key = read(list, token);
    violations.check(key.is_some(), "page_token", || {
        "must be the next_page_token of the same list".to_owned()
    });
    key.unwrap_or_default()
}

fn read(list: List, token: &str) -> Option<String> {
    // Four characters hold three bytes.
    let bounded = Some(token).filter(|token| token.len() <= MAX_KEY / 3 * 4)?;
    let bytes = URL_SAFE_NO_PAD.decode(bounded).ok()?;
    let key = bytes.strip_prefix(&[VERSION, list as u8])?;
    String::from_utf8(key.to_vec()).ok().filter(|key| !key.is_empty())
}

/// Cuts what was read with one item more than the page has, and makes the token
/// for the next page if there was one more.
pub(super) fn cut<T>(
    items: &mut Vec<T>,
    size: u32,
    list: List,
    key: impl Fn(&T) -> &str,
) -> String {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if items.len() <= size {
        return String::new();
    }
    items.truncate(size);
    items.last().map(|last| token(list, key(last))).unwrap_or_default()
}

fn token(list: List, key: &str) -> String {
    URL_SAFE_NO_PAD.encode([&[VERSION, list as u8], key.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violated(list: List, token: &str) -> bool {
        let mut violations = Violations::new();
        after(&mut violations, list, token);
        violations.finish().is_err()
    }

    #[test]
    fn a_token_reads_back_in_its_own_list_alone() {
        let token = token(List::Rooms, "lobby");
        let mut violations = Violations::new();
        assert_eq!(after(&mut violations, List::Rooms, &token), "lobby");
        assert!(violations.finish().is_ok());
        assert!(violated(List::Members, &token));
        for foreign in ["lobby", "AA", "!", "AgFsb2JieQ", &"A".repeat(4096), "AQE"] {
            assert!(violated(List::Rooms, foreign), "{foreign}");
        }
    }

    #[test]
    fn the_last_page_has_no_token() {
        let mut items = vec!["a", "b", "c"];
        assert_eq!(cut(&mut items, 3, List::Rooms, |name| name), "");
        assert_eq!(cut(&mut items, 2, List::Rooms, |name| name), token(List::Rooms, "b"));
        assert_eq!(items, ["a", "b"]);
    }
}
