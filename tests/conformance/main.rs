//! The conformance suite: what every engine of the store promises.
//!
//! A case is a function of a factory: each call of it opens the same store
//! again, so a case can also look at what a new opening finds. Another engine
//! is put under the suite by a fixture and one more `promised_by!` line. Only
//! [`kill`], [`spans`], [`server`] and [`races`] know which engine they look at.

#![allow(clippy::print_stdout)] // What is not run, and shares, are told.

mod books;
mod chat;
mod cluster;
mod kill;
mod ledger;
mod payment;
mod races;
mod server;
mod shared;
mod spans;
mod transfers;
mod writer;

use std::sync::Arc;

use simpul::store::sqlite::SqliteStore;

use self::books::{FileBooks, PostgresBooks};
use self::server::{Citus, Postgres};

/// The embedded engine, in a directory of its own.
struct Sqlite(tempfile::TempDir);

impl Sqlite {
    fn new() -> Option<Self> {
        Some(Self(tempfile::tempdir().expect("a directory")))
    }

    async fn open(&self) -> Arc<SqliteStore> {
        let opened = SqliteStore::open(&self.0.path().join("simpul.db"), 4).await;
        Arc::new(opened.expect("opened"))
    }
}

/// The embedded engine as several nodes of one machine open it.
struct SharedFile(tempfile::TempDir);

impl SharedFile {
    fn new() -> Option<Self> {
        Some(Self(tempfile::tempdir().expect("a directory")))
    }

    async fn open(&self) -> Arc<SqliteStore> {
        Arc::new(shared::open(&self.0.path().join("simpul.db")).await)
    }
}

/// The engine of the simulations: a store is opened again by another client.
#[cfg(feature = "fault")]
struct Memory(simpul::store::memory::Database);

#[cfg(feature = "fault")]
impl Memory {
    fn new() -> Option<Self> {
        Some(Self(simpul::store::memory::Database::new()))
    }

    async fn open(&self) -> Arc<simpul::store::memory::MemoryStore> {
        Arc::new(self.0.client())
    }
}

/// The same, committing the parts of an append one by one.
#[cfg(feature = "fault")]
struct MemoryApart(simpul::store::memory::Database);

#[cfg(feature = "fault")]
impl MemoryApart {
    fn new() -> Option<Self> {
        Some(Self(simpul::store::memory::Database::distributed()))
    }

    async fn open(&self) -> Arc<simpul::store::memory::MemoryStore> {
        Arc::new(self.0.client())
    }
}

/// Every case of the areas named, on one engine. A fixture that cannot be had
/// says so itself.
macro_rules! promised_by {
    ($engine:ident, $fixture:ident: $($area:ident)+) => {
        mod $engine {
            $(area! { $area, $fixture })+
        }
    };
}

/// The cases of an area.
macro_rules! area {
    (ledger, $fixture:ident) => {
        cases! { ledger, $fixture:
            a_transfer_stands_on_both_sides,
            positions_have_no_gaps_whoever_posts,
            a_transfer_is_posted_once,
            a_balance_that_is_needed_is_there_or_nothing_moves,
            an_unsound_transfer_is_refused,
            pages_are_bounded_and_advance_whatever_the_filter,
            it_agrees_with_a_simple_model,
        }
    };
    (payment, $fixture:ident) => {
        cases! { payment, $fixture:
            a_claim_is_all_or_nothing_and_once,
            one_key_claimed_by_many_is_one_payment,
            a_lease_is_held_by_one_and_ends,
            an_outcome_is_recorded_once_with_its_postings,
            a_payment_has_one_live_operation,
            only_a_charge_that_was_never_sent_is_withdrawn,
            a_reservation_without_balance_keeps_nothing,
            what_was_being_sent_is_unknown_after_a_start,
            what_waits_for_its_payer_is_not_overdue,
            a_hastened_row_is_due_at_once_also_after_a_lease,
            keys_are_forgotten_by_age,
            listings_follow_both_sides,
            everything_of_a_payment_is_told,
        }
    };
    (chat, $fixture:ident) => {
        cases! { chat, $fixture:
            partitions_are_taken_whole_and_counted,
            what_was_appended_is_read_back,
            a_seq_that_does_not_follow_is_refused_whole,
            a_room_begins_once_and_with_its_first_entry,
            a_fenced_part_is_not_kept_while_others_are,
            keys_are_found_in_the_order_asked,
            a_taken_key_keeps_its_part_out,
            of_several_parts_one_with_a_taken_key_is_told_apart,
            keys_are_forgotten_by_age,
            pages_are_bounded_by_entries_and_bytes,
            a_large_append_is_kept_whole,
            appends_from_many_callers_leave_no_gap,
            what_was_acknowledged_is_there_when_opened_again,
            a_deleted_room_leaves_its_id_alone,
            deletion_is_fenced,
            members_come_and_go_and_change,
            members_come_in_pages,
            rooms_of_a_member_come_in_pages,
            heads_come_in_the_order_asked,
            titles_change,
        }
    };
    (writer, $fixture:ident) => {
        cases! { writer, $fixture:
            concurrent_writes_are_all_there_when_opened_again,
            a_failing_write_fails_alone,
            a_caller_that_leaves_loses_a_write_whole_or_not_at_all,
        }
    };
    (books, $fixture:ident) => {
        cases! { books, $fixture:
            a_request_that_comes_again_is_booked_once,
            what_one_node_charged_another_finds_and_gives_back_once,
            nodes_that_charge_at_once_lose_and_double_nothing,
            what_was_never_sent_is_proven_absent,
            what_the_payer_did_at_one_node_is_known_at_the_other,
        }
    };
    (cluster, $fixture:ident) => {
        cases! { cluster, $fixture:
            a_node_joins_and_beats,
            an_id_has_one_incarnation_that_is_alive,
            death_is_declared_on_an_unchanged_beat_alone,
            states_change_while_alive,
            partitions_are_made_once_and_counted,
            what_the_first_node_says_of_the_cluster_stands,
            a_partition_is_taken_by_one,
            a_takeover_fences_the_owner_before,
            a_release_names_the_successor,
            everything_is_observed,
            letters_are_answered_and_collected_once,
            what_nobody_needs_is_tidied,
            a_database_has_an_identity,
        }
    };
}

macro_rules! cases {
    ($area:ident, $fixture:ident: $($case:ident,)+) => {
        mod $area {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(fixture) = crate::$fixture::new() else { return };
                crate::$area::$case(async || fixture.open().await).await;
            })+
        }
    };
}

promised_by!(sqlite, Sqlite: ledger payment chat writer cluster);
promised_by!(sqlite_books, FileBooks: books);
promised_by!(shared_file, SharedFile: ledger payment chat writer cluster);
promised_by!(postgres, Postgres: ledger payment chat writer cluster);
promised_by!(citus, Citus: ledger payment chat writer cluster);
promised_by!(postgres_books, PostgresBooks: books);
#[cfg(feature = "fault")]
promised_by!(memory, Memory: ledger payment chat writer cluster);
#[cfg(feature = "fault")]
promised_by!(memory_apart, MemoryApart: chat cluster);
