//! Texts as the blobs that may one day be encrypted: a format byte, then the
//! text. Both engines store them so.

use super::NextAction;
use crate::store::StoreError;

/// The format byte of a plain text.
const PLAIN: u8 = 0;

/// A text as it is stored.
pub(in crate::store) fn seal(text: &str) -> Vec<u8> {
    let mut blob = Vec::with_capacity(text.len() + 1);
    blob.push(PLAIN);
    blob.extend_from_slice(text.as_bytes());
    blob
}

/// The text of a stored blob.
pub(in crate::store) fn unseal(blob: &[u8]) -> Result<String, StoreError> {
    match blob.split_first() {
        Some((&PLAIN, text)) => {
            String::from_utf8(text.to_vec()).map_err(|_| damaged("a text is not UTF-8"))
        }
        _ => Err(damaged("a text has an unknown format")),
    }
}

/// What stands in the payment area cannot be so.
pub(in crate::store) fn damaged(what: &str) -> StoreError {
    StoreError::Corrupt(what.to_owned())
}

/// A next action as it is stored: kind, a line's end, url.
pub(in crate::store) fn seal_action(action: &NextAction) -> Vec<u8> {
    seal(&format!("{}\n{}", action.kind, action.url))
}

/// The next action of an unsealed text.
pub(in crate::store) fn action(text: &str) -> NextAction {
    let (kind, url) = text.split_once('\n').unwrap_or((text, ""));
    NextAction { kind: kind.to_owned(), url: url.to_owned() }
}
