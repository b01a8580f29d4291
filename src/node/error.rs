//! Why a node does not start, or does not go on.

use crate::cluster::driver::JoinError;
use crate::security::SecurityProblem;
use crate::server::bind::BindError;
use crate::store::StoreError;
use crate::store::datadir::DataDirError;
use crate::store::location::LocationError;
use crate::telemetry::TelemetryError;

/// Why a node does not start, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error("data_dir: {0}")]
    DataDir(#[from] DataDirError),
    /// Logs and traces.
    #[error("telemetry.log: {0}")]
    Telemetry(#[from] TelemetryError),
    /// Certificates, keys and who is believed: everything that is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Security(Vec<SecurityProblem>),
    /// Which database.
    #[error("store.url: {0}")]
    Location(#[from] LocationError),
    /// The database.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// An address.
    #[error("{0}")]
    Bind(#[from] BindError),
    /// The cluster does not take the node.
    #[error("{0}")]
    Join(#[from] JoinError),
    /// The contracts that the binary embeds do not fit together: our bug.
    #[error("the embedded contracts: {0}")]
    Contracts(String),
    /// The system.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// It did start, and a task of this name, without which it would only seem
    /// to live, has panicked.
    #[error("the node ended by itself: the task {0} is gone (its log says why)")]
    Failed(&'static str),
    /// More than one of these.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<StartError>),
}

/// Collects what is wrong, so that all of it is told at once.
#[derive(Debug, Default)]
pub(super) struct Refused(Vec<StartError>);

impl Refused {
    /// What is good, or nothing and a problem more.
    pub(super) fn take<T, E: Into<StartError>>(&mut self, had: Result<T, E>) -> Option<T> {
        had.map_err(|error| self.0.push(error.into())).ok()
    }

    /// An error if anything was wrong.
    pub(super) fn none(&mut self) -> Result<(), StartError> {
        let all = std::mem::take(&mut self.0);
        if all.is_empty() { Ok(()) } else { Err(Refused(all).into()) }
    }
}

impl From<Refused> for StartError {
    fn from(mut refused: Refused) -> Self {
        match refused.0.pop() {
            Some(only) if refused.0.is_empty() => only,
            last => StartError::Several(refused.0.into_iter().chain(last).collect()),
        }
    }
}

impl StartError {
    /// 64 for what the configuration must change, 69 for what is not to be had
    /// now; 64 when there is some of each.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::DataDir(error) if error.is_temporary() => 69,
            StartError::Store(StoreError::Unavailable(_))
            | StartError::Join(
                JoinError::Store(StoreError::Unavailable(_)) | JoinError::Distrust { .. },
            )
            | StartError::Bind(_)
            | StartError::Failed(_)
            | StartError::System(_) => 69,
            StartError::Several(all) if all.iter().all(|error| error.exit_code() == 69) => 69,
            _ => 64,
        }
    }
}

impl From<Vec<SecurityProblem>> for StartError {
    fn from(problems: Vec<SecurityProblem>) -> Self {
        StartError::Security(problems)
    }
}
