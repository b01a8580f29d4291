//! Statements for many rows at once, in a few fixed sizes.
//!
//! A statement costs a hand-over to the connection's thread and back, more than
//! the insertion of a row; and one that is not in the connection's cache costs
//! its preparation on top. With four sizes, any number of rows is a few
//! statements that are all prepared.

use std::sync::{Arc, LazyLock};

use sqlx::AssertSqlSafe;

/// Falling by four, so that at most three statements of each but the largest
/// are needed.
pub(super) const SIZES: [usize; 4] = [64, 16, 4, 1];

/// One statement in all sizes.
pub(super) type Sized = LazyLock<[Arc<str>; 4]>;

pub(super) static INSERT_ENTRIES: Sized = LazyLock::new(|| {
    sized(
        "INSERT INTO entry (\"partition\", room, seq, kind, sender, client_message_id, body, \
         reply_to, committed_at) VALUES ",
        |_| "(?,?,?,?,?,?,?,?,?)".to_owned(),
        "",
    )
});

pub(super) static INSERT_KEYS: Sized = LazyLock::new(|| {
    sized(
        "INSERT INTO entry_key (\"partition\", room, sender, client_message_id, seq, \
         committed_at, digest, redactions) VALUES ",
        |_| "(?,?,?,?,?,?,?,?)".to_owned(),
        "",
    )
});

/// First the partition, then three values a name; the first column of a found
/// row is the name's place in the batch. CROSS JOIN keeps the names outside, so
/// that each is one look-up in the key's index.
pub(super) static FIND_KEYS: Sized = LazyLock::new(|| {
    sized(
        "WITH own(slot) AS (SELECT ?), name(place, room, sender, id) AS (VALUES ",
        |place| format!("({place},?,?,?)"),
        ") SELECT n.place, k.seq, k.committed_at, k.digest, k.redactions \
         FROM own CROSS JOIN name n CROSS JOIN entry_key k ON k.\"partition\" = own.slot \
         AND k.room = n.room AND k.sender = n.sender AND k.client_message_id = n.id",
    )
});

fn sized(head: &str, row: impl Fn(usize) -> String, tail: &str) -> [Arc<str>; 4] {
    SIZES.map(|size| {
        let rows: Vec<_> = (0..size).map(&row).collect();
        format!("{head}{}{tail}", rows.join(",")).into()
    })
}

/// The items cut into pieces of the fixed sizes, each with its statement, which
/// is made of the constants above alone.
pub(super) fn split<'a, T>(
    statements: &'a [Arc<str>; 4],
    items: &'a [T],
) -> impl Iterator<Item = (AssertSqlSafe<Arc<str>>, &'a [T])> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let fits = |size: &usize| *size <= rest.len();
        let (size, sql) = SIZES.iter().zip(statements).find(|(size, _)| fits(size))?;
        let (piece, after) = rest.split_at_checked(*size)?;
        rest = after;
        Some((AssertSqlSafe(sql.clone()), piece))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_items_is_cut_into_few_pieces() {
        for count in 0..300 {
            let items: Vec<usize> = (0..count).collect();
            let pieces: Vec<_> = split(&INSERT_KEYS, &items).collect();
            let joined: Vec<_> = pieces.iter().flat_map(|(_, piece)| piece.to_vec()).collect();
            assert_eq!(joined, items);
            assert!(pieces.len() <= count / 64 + 9, "{count}: {}", pieces.len());
            for (sql, piece) in pieces {
                assert_eq!(sql.0.matches('?').count(), piece.len() * 8);
            }
        }
    }
}
