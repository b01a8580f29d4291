//! One read of the cluster's tables, with a deadline.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::Parts;
use crate::clock;
use crate::store::StoreError;
use crate::store::cluster::{Observation, StoreIdentity};

/// How often.
pub(super) const EVERY: Duration = Duration::from_millis(250);

/// How long one may take: what it shows is too old for readers then.
const DEADLINE: Duration = Duration::from_secs(1);

/// A read that came to its end.
#[derive(Debug)]
pub(super) struct Read {
    /// When it began, boot clock.
    pub(super) began: Duration,
    /// When it ended.
    pub(super) ended: Duration,
    pub(super) outcome: Result<Observation, StoreError>,
    /// Which database it was, when that was asked.
    pub(super) identity: Option<StoreIdentity>,
}

/// Begins a read; `whole` asks also which database it is.
pub(super) fn read(parts: &Arc<Parts>, whole: bool) -> BoxFuture<'static, Read> {
    let parts = parts.clone();
    Box::pin(async move {
        let mut began = clock::since_boot();
        let mut identity = None;
        let reading = async {
            if whole {
                identity = Some(parts.store.identity().await?);
                began = clock::since_boot();
            }
            parts.store.observe().await
        };
        let outcome = timeout(DEADLINE, reading).await;
        let late = || Err(StoreError::Unavailable("no answer in time".to_owned()));
        let outcome = outcome.unwrap_or_else(|_| late());
        Read { began, ended: clock::since_boot(), outcome, identity }
    })
}
