//! What is too large for one message, in parts.

use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;

use super::Chunks;

/// Bytes of one part.
const CHUNK: usize = 32 * 1024;

/// The bytes in parts, made as the caller takes them; the place is held until
/// then.
pub(super) fn stream<T: Send + 'static>(
    bytes: Vec<u8>,
    place: OwnedSemaphorePermit,
    part: impl Fn(Vec<u8>) -> T + Send + 'static,
) -> Chunks<T> {
    let parts = stream::unfold((bytes, 0), move |(bytes, from)| {
        let _held = &place;
        let to = bytes.len().min(from + CHUNK);
        let next =
            bytes.get(from..to).filter(|next| !next.is_empty()).map(|next| part(next.to_vec()));
        std::future::ready(next.map(|next| (Ok(next), (bytes, to))))
    });
    Box::pin(parts)
}
