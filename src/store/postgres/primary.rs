//! Finding the primary, at the start and again whenever the store did not
//! answer.
//!
//! Every address is asked at once. The newest timeline wins, then the order of
//! `store.url`; a server that does not answer delays nobody for long once
//! another one has. Connections to what was used before are not used again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::known::{Known, Seen};
use super::{addresses, session};
use crate::backoff;
use crate::store::StoreError;

/// How long the others are waited for once one server is good.
const OTHERS: Duration = Duration::from_millis(300);

/// The first and the longest delay between looks while nothing is found.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The servers and what is known of them.
#[derive(Debug)]
pub(super) struct Primary {
    pub(super) addresses: Vec<PgConnectOptions>,
    pub(super) known: Arc<Known>,
    pub(super) connect_timeout: Duration,
}

impl Primary {
    /// The server to use, by its place in the list, with a connection to it.
    pub(super) async fn find(&self) -> Result<(usize, PgConnection), StoreError> {
        let mut asked: FuturesUnordered<_> =
            (0..self.addresses.len()).map(|place| self.ask(place)).collect();
        let mut best: Option<(Seen, usize, PgConnection)> = None;
        let mut refusals = Vec::new();
        let mut until = Instant::now() + self.connect_timeout * 2;
        while let Ok(Some((place, answer))) = tokio::time::timeout_at(until, asked.next()).await {
            match answer {
                Ok((seen, connection)) => {
                    until = until.min(Instant::now() + OTHERS);
                    let better = best.as_ref().is_none_or(|(other, at, _)| {
                        (seen.timeline, std::cmp::Reverse(place))
                            > (other.timeline, std::cmp::Reverse(*at))
                    });
                    if better {
                        best = Some((seen, place, connection));
                    }
                }
                Err(error) => refusals.push((place, error)),
            }
        }
        let Some((seen, place, connection)) = best else { return Err(self.nobody(refusals)) };
        self.known.admit(&seen)?;
        Ok((place, connection))
    }

    async fn ask(&self, place: usize) -> (usize, Result<(Seen, PgConnection), StoreError>) {
        let Some(options) = self.addresses.get(place) else { return (place, Err(silent())) };
        let asking = async {
            let mut connection = options.connect().await?;
            let seen = session::look(&mut connection).await?;
            Ok((seen, connection))
        };
        let answer = timeout(self.connect_timeout, asking).await.unwrap_or_else(|_| Err(silent()));
        (place, answer.map_err(|error| at(options, error)))
    }

    /// The reason that waiting does not mend, if there is one, else the first.
    fn nobody(&self, mut refusals: Vec<(usize, StoreError)>) -> StoreError {
        refusals.sort_by_key(|(place, error)| (!matches!(error, StoreError::Version(_)), *place));
        let Some((place, error)) = refusals.into_iter().next() else { return silent() };
        if self.addresses.len() == 1 || matches!(error, StoreError::Version(_)) {
            return error;
        }
        let (at, all) = (place + 1, self.addresses.len());
        StoreError::Unavailable(format!("no address of {all} is a primary; address {at}: {error}"))
    }
}

/// The error with the server that it is about, and the file when that is why.
fn at(options: &PgConnectOptions, error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(why) => {
            let why = addresses::unreadable_file(options).unwrap_or(why);
            StoreError::Unavailable(format!("{}: {why}", addresses::place(options)))
        }
        other => other,
    }
}

fn silent() -> StoreError {
    StoreError::Unavailable("the server does not answer".to_owned())
}

/// Looks for the primary whenever somebody asks, and says whether there is one.
/// Ends when nobody is left who could ask.
pub(super) struct Watch {
    pub(super) primary: Primary,
    pub(super) pools: [PgPool; 3],
    pub(super) place: usize,
    pub(super) healthy: watch::Sender<bool>,
}

impl Watch {
    pub(super) async fn run(mut self, mut wanted: mpsc::Receiver<()>) {
        while wanted.recv().await.is_some() {
            for attempt in 0.. {
                match self.primary.find().await {
                    Ok((place, connection)) => {
                        self.found(place, attempt);
                        let _ = timeout(self.primary.connect_timeout, connection.close()).await;
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(%error, attempt, "the store cannot be reached");
                        self.healthy.send_replace(false);
                    }
                }
                if wanted.is_closed() {
                    return;
                }
                let delay = backoff::full_jitter(AGAIN.0, AGAIN.1, attempt, rand::random());
                tokio::time::sleep(delay).await;
            }
            // What was asked while looking has been answered too.
            while wanted.try_recv().is_ok() {}
        }
    }

    fn found(&mut self, place: usize, attempt: u32) {
        if place != self.place
            && let Some(options) = self.primary.addresses.get(place)
        {
            tracing::warn!(address = place + 1, "the store's primary is another server now");
            for pool in &self.pools {
                pool.set_connect_options(options.clone());
            }
            self.primary.known.distrust_connections();
            self.place = place;
        }
        if !self.healthy.send_replace(true) {
            tracing::info!(attempt, "the store is reached again");
        }
    }
}
