//! The one writer: it takes jobs from many callers, runs those that are waiting
//! in one transaction, commits, and only then answers.
//!
//! Each job runs under a savepoint of its own: one that fails is rolled back
//! alone. When the commit fails, every job of the group fails.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{mpsc, oneshot};

use crate::store::StoreError;
use crate::task;

/// A future that borrows the writer's connection.
pub(crate) type JobFuture<'c, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'c>>;

type Output = Box<dyn Any + Send>;
type Run = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> JobFuture<'c, Output> + Send>;

struct Job {
    run: Run,
    answer: oneshot::Sender<Result<Output, StoreError>>,
}

/// How many jobs may wait; more callers wait for a place.
const WAITING: usize = 1024;

/// How many jobs one transaction takes.
const GROUP: usize = 256;

/// Hands jobs to the writer's task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Opens the writing connection, migrates, and starts the task.
    pub(crate) async fn open(options: SqliteConnectOptions) -> Result<Self, StoreError> {
        let mut connection = options.connect().await?;
        sqlx::migrate!("src/store/migrations/sqlite")
            .run(&mut connection)
            .await
            .map_err(|error| StoreError::Fault(error.to_string()))?;
        let (jobs, waiting) = mpsc::channel(WAITING);
        task::spawn("store writer", run(connection, waiting));
        Ok(Self { jobs })
    }

    /// Runs the job in the next transaction; returns its value once that is
    /// durable. If the future is dropped the job still runs, whole.
    pub(crate) async fn write<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> JobFuture<'c, T> + Send + 'static,
    {
        let run: Run = Box::new(move |connection| {
            let inner = job(connection);
            Box::pin(async move { inner.await.map(|value| Box::new(value) as Output) })
        });
        let (answer, answered) = oneshot::channel();
        let closed = || StoreError::Unavailable("the writer has stopped".to_owned());
        self.jobs.send(Job { run, answer }).await.map_err(|_| closed())?;
        let output = answered.await.map_err(|_| closed())??;
        match output.downcast() {
            Ok(value) => Ok(*value),
            Err(_) => Err(StoreError::Fault("a job answered with another type".to_owned())),
        }
    }
}

async fn run(mut connection: SqliteConnection, mut waiting: mpsc::Receiver<Job>) {
    let mut group = Vec::new();
    while waiting.recv_many(&mut group, GROUP).await > 0 {
        commit_group(&mut connection, &mut group).await;
    }
    let _ = connection.close().await;
}

async fn commit_group(connection: &mut SqliteConnection, group: &mut Vec<Job>) {
    let mut answers = Vec::with_capacity(group.len());
    let mut broken = execute(connection, "BEGIN IMMEDIATE").await.err();
    for job in group.drain(..) {
        let result = match &broken {
            Some(error) => Err(error.clone()),
            None => match under_savepoint(connection, job.run).await {
                Ok(result) => result,
                Err(error) => {
                    broken = Some(error.clone());
                    Err(error)
                }
            },
        };
        answers.push((job.answer, result));
    }
    if broken.is_none() {
        broken = execute(connection, "COMMIT").await.err();
    }
    if broken.is_some() {
        let _ = execute(connection, "ROLLBACK").await;
    }
    for (answer, result) in answers {
        let result = match (&broken, result) {
            (Some(error), Ok(_)) => Err(error.clone()),
            (_, result) => result,
        };
        // The caller may have gone: the write stands all the same.
        let _ = answer.send(result);
    }
}

/// The inner result is the job's own; the outer error breaks the transaction.
async fn under_savepoint(
    connection: &mut SqliteConnection,
    run: Run,
) -> Result<Result<Output, StoreError>, StoreError> {
    execute(connection, "SAVEPOINT job").await?;
    let result = run(connection).await;
    match &result {
        Ok(_) => execute(connection, "RELEASE job").await?,
        Err(StoreError::Unavailable(_)) => return result.map(Ok),
        Err(_) => {
            execute(connection, "ROLLBACK TO job").await?;
            execute(connection, "RELEASE job").await?;
        }
    }
    Ok(result)
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), StoreError> {
    sqlx::query(sql).execute(connection).await?;
    Ok(())
}
