//! What is still to be done, as a number and an age.

use uuid::Uuid;

/// How full the outbox is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Rows.
    pub depth: u64,
    /// When the oldest of those that wait for this side was written, microseconds
    /// since 1970. A charge that the provider answered, and that waits for its
    /// payer or for the provider's decision, is asked about now and then for as
    /// long as that takes: it is no sign of anything, unless nobody asks.
    pub oldest: Option<i64>,
    /// The payment of the oldest.
    pub payment: Option<Uuid>,
}

/// How late the asking about a charge may be, microseconds.
pub(in crate::store) const LATE: i64 = 60_000_000;

/// Its row; 2 and 3 are those two statuses, `$1` is [`LATE`] ago. Looks at every row
/// of the outbox, and at its payment: seconds for a million.
pub(in crate::store) const SELECT: &str = "\
    SELECT (SELECT count(*) FROM outbox) AS depth, waits.created_at AS oldest, \
    waits.payment_id AS payment_id FROM (SELECT 1 AS one) AS it LEFT JOIN (\
        SELECT o.created_at, o.payment_id FROM outbox AS o \
        JOIN payment AS p ON p.id = o.payment_id \
        WHERE NOT (p.status IN (2, 3) AND NOT p.unknown AND o.next_at > $1) \
        ORDER BY o.created_at LIMIT 1\
    ) AS waits ON it.one = 1";
