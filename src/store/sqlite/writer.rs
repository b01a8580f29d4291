//! The one writer: it takes jobs from many callers, runs those that are waiting
//! in one transaction, commits, and only then answers.
//!
//! Each job runs under a savepoint of its own: one that fails or panics is
//! rolled back alone (`group`). When the disk or the commit fails, every job
//! of the group fails, and the connection is closed and opened anew: after a
//! failed fsync nothing that the old one remembers can be trusted. Until a write
//! has succeeded on the new one the store is not healthy, and whoever wants to
//! write is refused at once.

mod group;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument, Span};

use super::metrics::StoreMetrics;
use super::migrate;
use super::share::turn::{Held, Turn};
use crate::backoff;
use crate::store::StoreError;
use crate::task;

/// A future that borrows the writer's connection.
pub(crate) type JobFuture<'c, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'c>>;

type Output = Box<dyn Any + Send>;
type Run = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> JobFuture<'c, Output> + Send>;

/// A caller's write. Its span is the caller's own: the group's is linked to it.
struct Job {
    run: Run,
    span: Span,
    answer: oneshot::Sender<Result<Output, StoreError>>,
}

/// What the task is asked for.
enum Command {
    Write(Job),
    Checkpoint(oneshot::Sender<Result<(), StoreError>>),
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// How many jobs may wait; more callers wait for a place.
const WAITING: usize = 1024;

/// How many jobs one transaction takes.
const GROUP: usize = 256;

/// The first and the longest delay between tries to reopen.
const REOPEN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long closing a connection may take on a disk that does not answer.
const CLOSE: Duration = Duration::from_secs(5);

/// Hands jobs to the writer's task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer {
    commands: mpsc::Sender<Command>,
    health: watch::Receiver<bool>,
}

impl Writer {
    /// Opens the writing connection, migrates, and starts the task.
    /// With a `turn` other processes write too: everything is done in turn.
    pub(super) async fn open(
        options: SqliteConnectOptions,
        mut turn: Option<Turn>,
        metrics: StoreMetrics,
    ) -> Result<Self, StoreError> {
        let held = in_turn(&mut turn).await?;
        let mut connection = options.connect().await?;
        migrate::run(&mut connection).await?;
        drop(held);
        let (commands, waiting) = mpsc::channel(WAITING);
        let (healthy, health) = watch::channel(true);
        metrics.writable(true);
        let task = Task { options, turn, waiting, healthy, metrics };
        task::spawn("store writer", task.run(connection));
        Ok(Self { commands, health })
    }

    /// Whether writing works.
    pub(crate) fn health(&self) -> watch::Receiver<bool> {
        self.health.clone()
    }

    /// Runs the job in the next transaction, in the span; returns its value once
    /// that is durable. If the future is dropped the job still runs, whole, once it was
    /// taken. While the store is not healthy it is refused at once.
    pub(crate) async fn write<T, F>(&self, span: Span, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> JobFuture<'c, T> + Send + 'static,
    {
        if !*self.health.borrow() {
            return Err(reopening());
        }
        let run: Run = Box::new(move |connection| {
            let inner = job(connection);
            Box::pin(async move { inner.await.map(|value| Box::new(value) as Output) })
        });
        let caller = span.clone();
        let asked = self.ask(|answer| Command::Write(Job { run, span: caller, answer }));
        match asked.instrument(span).await?.downcast() {
            Ok(value) => Ok(*value),
            Err(_) => Err(StoreError::Fault("a job answered with another type".to_owned())),
        }
    }

    /// Moves the log into the database file and truncates it.
    pub(crate) async fn checkpoint(&self) -> Result<(), StoreError> {
        self.ask(Command::Checkpoint).await
    }

    /// Ends the task after the jobs that wait. Closing twice is no error.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        if self.commands.is_closed() {
            return Ok(());
        }
        self.ask(Command::Close).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let stopped = || StoreError::Unavailable("the writer has stopped".to_owned());
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

fn reopening() -> StoreError {
    StoreError::Unavailable("the last commit failed; the database is being reopened".to_owned())
}

/// The writer's task.
struct Task {
    options: SqliteConnectOptions,
    /// Where other processes write too.
    turn: Option<Turn>,
    waiting: mpsc::Receiver<Command>,
    healthy: watch::Sender<bool>,
    metrics: StoreMetrics,
}

impl Task {
    async fn run(mut self, mut connection: SqliteConnection) {
        let mut closing = Vec::new();
        let mut commands = Vec::new();
        while self.waiting.recv_many(&mut commands, GROUP).await > 0 {
            let held = in_turn(&mut self.turn).await;
            // What came during the wait for the turn goes along.
            while commands.len() < GROUP
                && let Ok(command) = self.waiting.try_recv()
            {
                commands.push(command);
            }
            let (mut jobs, mut checkpoints) = (Vec::new(), Vec::new());
            for command in commands.drain(..) {
                match command {
                    Command::Write(job) => jobs.push(job),
                    Command::Checkpoint(answer) => checkpoints.push(answer),
                    Command::Close(answer) => {
                        // What is in the channel is still taken, nothing new.
                        self.waiting.close();
                        closing.push(answer);
                    }
                }
            }
            let held = match held {
                Ok(held) => held,
                Err(error) => {
                    refuse(jobs, checkpoints, &error);
                    continue;
                }
            };
            let committed = match jobs.is_empty() {
                true => Ok(()),
                false => group::commit(&mut connection, &mut jobs, &self.metrics).await,
            };
            if let Err(error) = committed {
                drop(held);
                refuse(jobs, checkpoints, &error);
                connection = match self.reopen(connection, &error).await {
                    Some(connection) => connection,
                    None => return,
                };
                continue;
            }
            for answer in checkpoints {
                let _ = answer.send(checkpoint(&mut connection).await);
            }
        }
        let moved = match in_turn(&mut self.turn).await {
            // Others read on: what they read cannot be moved, and need not be.
            Ok(Some(_held)) => passive(&mut connection).await,
            Ok(None) => checkpoint(&mut connection).await,
            Err(error) => Err(error),
        };
        close(connection).await;
        for answer in closing {
            let _ = answer.send(moved.clone());
        }
    }

    /// Closes the connection that failed and opens another, until a write has
    /// succeeded on it; `None` when nobody is left who could write.
    async fn reopen(
        &mut self,
        failed: SqliteConnection,
        error: &StoreError,
    ) -> Option<SqliteConnection> {
        tracing::error!(%error, "a commit failed: the store takes no writes until one succeeds");
        self.healthy.send_replace(false);
        self.metrics.writable(false);
        close(failed).await;
        for attempt in 0.. {
            let delay = backoff::full_jitter(REOPEN.0, REOPEN.1, attempt, rand::random());
            if !self.refuse_for(delay).await {
                return None;
            }
            let probed = match in_turn(&mut self.turn).await {
                Ok(_held) => probe(&self.options).await,
                Err(error) => Err(error),
            };
            match probed {
                Ok(connection) => {
                    tracing::info!(attempt, "the store takes writes again");
                    self.metrics.writable(true);
                    self.healthy.send_replace(true);
                    return Some(connection);
                }
                Err(error) => tracing::warn!(%error, attempt, "the store cannot be written yet"),
            }
        }
        None
    }

    /// Refuses what comes for a while; false when nothing can come any more.
    async fn refuse_for(&mut self, delay: Duration) -> bool {
        let mut over = pin!(tokio::time::sleep(delay));
        loop {
            let command = tokio::select! {
                () = &mut over => return true,
                command = self.waiting.recv() => command,
            };
            // A caller that has gone needs no answer.
            match command {
                Some(Command::Write(job)) => drop(job.answer.send(Err(reopening()))),
                Some(Command::Checkpoint(answer)) => drop(answer.send(Err(reopening()))),
                Some(Command::Close(answer)) => {
                    self.waiting.close();
                    let _ = answer.send(Err(reopening()));
                }
                None => return false,
            }
        }
    }
}

/// Waits for the turn, where there are others.
async fn in_turn(turn: &mut Option<Turn>) -> Result<Option<Held>, StoreError> {
    match turn {
        Some(turn) => turn.take().await.map(Some),
        None => Ok(None),
    }
}

fn refuse(
    jobs: Vec<Job>,
    checkpoints: Vec<oneshot::Sender<Result<(), StoreError>>>,
    error: &StoreError,
) {
    // A caller that has gone needs no answer.
    for job in jobs {
        let _ = job.answer.send(Err(error.clone()));
    }
    for answer in checkpoints {
        let _ = answer.send(Err(error.clone()));
    }
}

/// Opens a connection and commits a write on it. The write also overwrites, in
/// the log, what the failed commit may have left there.
async fn probe(options: &SqliteConnectOptions) -> Result<SqliteConnection, StoreError> {
    let mut connection = options.connect().await?;
    let written = sqlx::query(
        "INSERT INTO meta (key, value) VALUES ('reopened', '1') \
         ON CONFLICT (key) DO UPDATE SET value = CAST(value AS INTEGER) + 1",
    )
    .execute(&mut connection)
    .await;
    match written {
        Ok(_) => Ok(connection),
        Err(error) => {
            close(connection).await;
            Err(error.into())
        }
    }
}

async fn checkpoint(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let (busy, _, _): (i64, i64, i64) =
        sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(connection).await?;
    if busy == 0 {
        Ok(())
    } else {
        Err(StoreError::Unavailable("a reader holds the log: it was not truncated".to_owned()))
    }
}

/// Moves what nobody reads any more, and waits for nobody.
async fn passive(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(connection).await?;
    Ok(())
}

async fn close(connection: SqliteConnection) {
    match tokio::time::timeout(CLOSE, connection.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "closing the writing connection"),
        Err(_) => tracing::warn!("the writing connection does not close"),
    }
}
