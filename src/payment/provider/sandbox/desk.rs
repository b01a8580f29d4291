//! The one place where the books are written: what waits is booked together
//! and answered after the commit, so that many charges share one fsync.
//!
//! A job that was taken is booked whole or not at all, also when whoever asked
//! has gone. When one fails, its whole group is undone: nobody is answered
//! anything that is not in the books. So it is when the books do not answer in
//! time, as on a network that swallows everything: the next group gets a
//! connection of its own.

mod shelf;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::books::Rows;
use crate::store::StoreError;
use crate::task;

pub(super) use shelf::Shelf;

/// A future that borrows the books.
pub(super) type Booking<'c, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'c>>;

/// Answers, once it is known whether the group was committed.
type Answer = Box<dyn FnOnce(Option<StoreError>) + Send>;
type Job = Box<dyn for<'c> FnOnce(&'c mut dyn Rows) -> Booking<'c, Answer> + Send>;

/// How many jobs may wait; more callers wait for a place.
const WAITING: usize = 256;

/// How many jobs one transaction takes.
const GROUP: usize = 64;

/// How long one transaction may take, a new connection included.
const WITHIN: Duration = Duration::from_secs(15);

/// Hands jobs to the task that has the books. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    jobs: mpsc::Sender<Job>,
    end: CancellationToken,
    ended: CancellationToken,
}

impl Desk {
    pub(super) fn open(shelf: Shelf) -> Self {
        Self::open_within(shelf, WITHIN)
    }

    fn open_within(shelf: Shelf, within: Duration) -> Self {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let (end, ended) = (CancellationToken::new(), CancellationToken::new());
        let (asked, done) = (end.clone(), ended.clone().drop_guard());
        task::spawn("sandbox books", async move {
            serve(shelf, waiting, asked, within).await;
            drop(done);
        });
        Self { jobs, end, ended }
    }

    /// Books nothing more and closes the books.
    pub(super) async fn close(&self) {
        self.end.cancel();
        self.ended.cancelled().await;
    }

    /// Runs the job in the next transaction; returns its value once that is
    /// durable.
    pub(super) async fn book<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut dyn Rows) -> Booking<'c, T> + Send + 'static,
    {
        let closed = || StoreError::Unavailable("the sandbox's books are closed".to_owned());
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |rows| {
            let booked = job(rows);
            Box::pin(async move {
                let value = booked.await?;
                let answer: Answer = Box::new(move |undone| {
                    // Whoever asked may have gone: it is booked all the same.
                    let _ = answer.send(undone.map_or(Ok(value), Err));
                });
                Ok(answer)
            })
        });
        self.jobs.send(job).await.map_err(|_| closed())?;
        // Dropped without an answer: its own statement failed, nothing is booked.
        answered.await.map_err(|_| closed())?
    }
}

async fn serve(
    mut shelf: Shelf,
    mut waiting: mpsc::Receiver<Job>,
    end: CancellationToken,
    within: Duration,
) {
    let mut group = Vec::new();
    while let Some(1..) = end.run_until_cancelled(waiting.recv_many(&mut group, GROUP)).await {
        let mut answers = Vec::with_capacity(group.len());
        let booking = book_group(&mut shelf, &mut group, &mut answers);
        let undone = timeout(within, booking).await.unwrap_or_else(|_| Err(late())).err();
        if let Some(error) = &undone {
            tracing::warn!(%error, "the sandbox could not book");
            shelf.undo().await;
        }
        group.clear();
        for answer in answers {
            answer(undone.clone());
        }
    }
    if let Err(error) = shelf.close().await {
        tracing::warn!(%error, "the sandbox's books were not closed cleanly");
    }
}

fn late() -> StoreError {
    StoreError::Unavailable("the sandbox's books do not answer in time".to_owned())
}

async fn book_group(
    shelf: &mut Shelf,
    group: &mut Vec<Job>,
    answers: &mut Vec<Answer>,
) -> Result<(), StoreError> {
    shelf.begin().await?;
    for job in group.drain(..) {
        answers.push(job(shelf.rows()?).await?);
    }
    shelf.commit().await
}
