//! What the doctor knows when it judges. A fact that could not be had is
//! absent, and its checks say nothing.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::cli::target::NoNode;
use crate::client::dial::DialError;

/// Everything.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) now: SystemTime,
    /// The production profile was chosen.
    pub(super) production: bool,
    /// What the configuration's own check says.
    pub(super) config_problems: Vec<String>,
    /// Absent when a remote node was named.
    pub(super) data_dir: Option<DirFacts>,
    /// Whether a node runs there: absent when a remote one was named.
    pub(super) node: Option<Result<(), NoNode>>,
    /// Addresses of the configuration that somebody else holds, while no node
    /// runs.
    pub(super) ports_in_use: Vec<String>,
    /// How connecting went; absent when there was nothing to connect to.
    pub(super) dial: Option<Result<(), DialError>>,
    /// The node's certificate, as it was shown or as it lies in its file.
    pub(super) certificate: Option<CertificateFacts>,
    /// The certificate that a cluster's node shows to others.
    pub(super) mesh_certificate: Option<CertificateFacts>,
    /// Why the file of the certificate is of no use.
    pub(super) certificate_problem: Option<String>,
    /// Why this release cannot use the data directory.
    pub(super) data_dir_problem: Option<String>,
    /// What a start would refuse in files that the configuration names.
    pub(super) unfit: Vec<String>,
    /// Of `chat.partitions`.
    pub(super) partitions: Option<u64>,
    /// Whether the sandbox's books are there.
    pub(super) sandbox_books: bool,
    /// Files that hold secrets.
    pub(super) secrets: Vec<SecretFacts>,
    /// What is in the way of a token of one's own, in development.
    pub(super) token_problem: Option<String>,
    /// The node's clock less ours, in seconds.
    pub(super) clock_offset: Option<i64>,
    /// Whether the node says that it serves.
    pub(super) serving: Option<bool>,
    /// Files that this process may open.
    pub(super) file_limit: Option<u64>,
    /// Bytes that are free where the data directory is.
    pub(super) free_bytes: Option<u64>,
    /// Why nothing can be written to the audit log.
    pub(super) audit_problem: Option<String>,
    /// The database, when there is one.
    pub(super) database: Option<DatabaseFacts>,
    /// Why the database server that the configuration names cannot be used.
    pub(super) server: Option<ServerProblem>,
}

/// A database server that a node could not start on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerProblem {
    /// Whether waiting does not help.
    pub(super) refused: bool,
    /// What it says; no word of the URL's password.
    pub(super) why: String,
}

/// The data directory.
#[derive(Debug, Clone)]
pub(super) struct DirFacts {
    pub(super) path: PathBuf,
    pub(super) exists: bool,
    pub(super) mode: u32,
    pub(super) writable: bool,
}

/// A certificate.
#[derive(Debug, Clone)]
pub(super) struct CertificateFacts {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    /// It lies in the data directory's `dev`, where the node makes its own.
    pub(super) development: bool,
}

/// A file that holds a secret.
#[derive(Debug, Clone)]
pub(super) struct SecretFacts {
    pub(super) path: PathBuf,
    /// Why it cannot be read.
    pub(super) problem: Option<String>,
    pub(super) mode: u32,
    /// Its group is one of this process's.
    pub(super) in_our_group: bool,
}

/// The database, embedded or a server's.
#[derive(Debug, Clone, Default)]
pub(super) struct DatabaseFacts {
    /// Why it cannot be looked into at all.
    pub(super) problem: Option<String>,
    pub(super) writable: bool,
    /// What its own check says; empty when it is sound.
    pub(super) damage: Vec<String>,
    /// The newest migration that it has, and the newest that this release has.
    pub(super) version: Option<(i64, i64)>,
    /// How many partitions it was made with; 0 when it has none yet.
    pub(super) partitions: u64,
    /// Whether it holds payments.
    pub(super) has_payments: bool,
    /// What is wrong in the ledger.
    pub(super) ledger: Vec<String>,
    /// Operations of payments whose outcome is not known for long.
    pub(super) stuck_payments: u64,
    /// Tasks of the outbox that are long overdue.
    pub(super) overdue_tasks: u64,
    /// When something was last written.
    pub(super) last_write: Option<SystemTime>,
}
