//! What is seen of a database, whatever engine has it, by whoever wants to know
//! whether a node could start on it and what waits in it for too long.

use super::payment::OperationStatus;

/// How far operations are whose outcome nobody knows.
pub(super) const UNCERTAIN: [OperationStatus; 2] =
    [OperationStatus::Submitting, OperationStatus::Unknown];

/// What was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Inspected {
    /// The newest migration that the database has; 0 when it is empty.
    pub(crate) schema: i64,
    /// How many partitions it was made with; 0 when it has none yet.
    pub(crate) partitions: u64,
    /// Operations of payments that did not move since a time and whose outcome
    /// is not known.
    pub(crate) stuck: u64,
    /// Tasks of the outbox that were due before it.
    pub(crate) overdue: u64,
}
