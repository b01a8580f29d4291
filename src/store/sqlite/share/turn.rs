//! Whose turn it is to write, among the processes that share the file.
//!
//! SQLite's own lock is taken by whoever tries at the right moment, and who does
//! not get it sleeps and tries again: beside one busy writer another could wait
//! for seconds. Here a writer first locks the queue, then the turn, and lets go
//! of the queue: the next one waits inside the queue for the turn, so whoever
//! has just written must line up behind it.
//!
//! Waiting blocks, so it is done by a thread of its own, which a process that
//! ends does not wait for. A process that is stopped while it has the turn holds
//! up the others: several nodes on one file do not survive a frozen one.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::oneshot;

use super::{beside, lock_file, unusable};
use crate::store::StoreError;

#[derive(Debug)]
struct Files {
    queue: File,
    write: File,
}

type Answer = oneshot::Sender<Result<Held, StoreError>>;

/// Gives turns, one at a time.
#[derive(Debug)]
pub(in crate::store::sqlite) struct Turn {
    files: Arc<Files>,
    asks: SyncSender<Answer>,
}

/// The turn, until it is dropped.
#[derive(Debug)]
pub(in crate::store::sqlite) struct Held(Arc<Files>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.0.write.unlock() {
            tracing::error!(%error, "the turn to write is not let go");
        }
    }
}

impl Turn {
    pub(in crate::store::sqlite) fn of(database: &Path) -> Result<Self, StoreError> {
        let open = |suffix| {
            let name = beside(database, suffix);
            lock_file(&name).map_err(|error| unusable(&name, &error))
        };
        let files = Arc::new(Files { queue: open(".queue")?, write: open(".write")? });
        let (asks, asked) = sync_channel(1);
        let waiting = files.clone();
        std::thread::Builder::new()
            .name("store turn".to_owned())
            .spawn(move || wait(&waiting, &asked))
            .map_err(|error| unusable(database, &error))?;
        Ok(Self { files, asks })
    }

    /// Waits for the turn. Only one caller at a time: the locks are this
    /// process's.
    pub(in crate::store::sqlite) async fn take(&mut self) -> Result<Held, StoreError> {
        if let Some(held) = at_once(&self.files)? {
            return Ok(held);
        }
        let gone = || StoreError::Unavailable("nobody waits for the turn to write".to_owned());
        let (answer, answered) = oneshot::channel();
        self.asks.try_send(answer).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// The turn when nobody waits for it and nobody has it. Otherwise the queue may
/// be ours already: locking it again is nothing.
fn at_once(files: &Arc<Files>) -> Result<Option<Held>, StoreError> {
    for (lock, last) in [(&files.queue, false), (&files.write, true)] {
        match lock.try_lock() {
            Ok(()) if last => {
                let held = Held(files.clone());
                files.queue.unlock().map_err(failed)?;
                return Ok(Some(held));
            }
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    Ok(None)
}

fn wait(files: &Arc<Files>, asked: &Receiver<Answer>) {
    while let Ok(answer) = asked.recv() {
        let held = line_up(files).map_err(failed);
        // Nobody listens any more: the turn is dropped with the answer.
        drop(answer.send(held));
    }
}

fn line_up(files: &Arc<Files>) -> io::Result<Held> {
    patiently(&files.queue)?;
    let turn = patiently(&files.write).map(|()| Held(files.clone()));
    files.queue.unlock()?;
    turn
}

fn patiently(lock: &File) -> io::Result<()> {
    loop {
        match lock.lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            locked => return locked,
        }
    }
}

fn failed(error: io::Error) -> StoreError {
    StoreError::Unavailable(format!("the turn to write: {error}"))
}
