//! The audit log: who did what to whose, allowed or denied and why.
//!
//! It is apart from the debug log, one JSON object a line. Recorded are calls
//! that can change something, reads of what is somebody else's, and what was
//! denied, by a layer or by the service; calls of health and reflection are
//! not. A record holds names, never contents. On a chat stream each Join and
//! each refused Send is recorded; an accepted message stands in its room's log.
//!
//! Recording never waits: a thread of its own writes what a bounded queue
//! holds. When the disk is so slow that the queue is full, records are lost,
//! but never silently: they are counted in a metric and in the log itself.

use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;
use tonic::Code;

use super::permit::Caller;
use super::policy::{Method, Rule};
use crate::card;

/// How many records may wait for the writer.
const QUEUE: usize = 8 * 1024;

/// What a call is about. The authorize layer puts one into the extensions of
/// requests that may be recorded; the service names it.
#[derive(Debug, Clone, Default)]
pub struct AuditSubject(Arc<Named>);

#[derive(Debug, Default)]
struct Named {
    text: Mutex<Box<str>>,
    others: AtomicBool,
}

impl AuditSubject {
    /// The request's; one that nobody reads when the call is not recorded.
    pub fn of(extensions: &http::Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// The same, of a request that tonic decoded.
    pub fn of_request<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_default()
    }

    /// Names what a request is about, when the call is recorded.
    pub fn note<T>(request: &tonic::Request<T>, subject: impl FnOnce(&T) -> String) {
        if let Some(noted) = request.extensions().get::<Self>() {
            noted.set(&subject(request.get_ref()));
        }
    }

    /// Names the thing and its owner, bounded to 256 bytes; nothing for an
    /// empty text. The last word stands. Card numbers are redacted: a caller
    /// may have written one anywhere. Example: `payment 0190… of
    /// user/alice@dev.simpul`.
    pub fn set(&self, subject: &str) {
        if subject.is_empty() {
            return;
        }
        let subject = card::redact(subject).0;
        let mut end = subject.len().min(256);
        while !subject.is_char_boundary(end) {
            end -= 1;
        }
        let subject = subject.get(..end).unwrap_or_default().into();
        *self.0.text.lock().unwrap_or_else(PoisonError::into_inner) = subject;
    }

    /// Says whether it is somebody else's: reading one's own is not recorded.
    pub fn set_others(&self, others: bool) {
        self.0.others.store(others, Ordering::Relaxed);
    }

    pub(super) fn is_others(&self) -> bool {
        self.0.others.load(Ordering::Relaxed)
    }

    fn get(&self) -> Option<String> {
        let text = self.0.text.lock().unwrap_or_else(PoisonError::into_inner);
        (!text.is_empty()).then(|| text.to_string())
    }
}

/// One line.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) at: SystemTime,
    pub(super) caller: Option<Arc<Caller>>,
    pub(super) address: Option<IpAddr>,
    pub(super) method: Arc<Method>,
    /// Of a stream's frame, which kind.
    pub(super) frame: Option<&'static str>,
    pub(super) subject: AuditSubject,
    pub(super) code: Code,
    /// The refusal's reason and message, which hold no values. Example:
    /// `NOT_FOUND: no such room`.
    pub(super) why: Option<String>,
    pub(super) trace_id: Option<String>,
}

#[derive(Debug)]
enum Entry {
    Record(Box<Record>),
    Flush(oneshot::Sender<()>),
}

/// The log. Dropping the last handle ends its thread after what is queued.
#[derive(Debug)]
pub struct AuditLog {
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
    lost: Counter,
}

impl AuditLog {
    /// Opens the log: `-` writes to the node's own log under the target
    /// `audit`; a relative path lies in the data directory. The file is
    /// readable by its owner alone and only ever appended to.
    pub fn open(target: &str, data_dir: &Path, registry: &mut Registry) -> io::Result<Self> {
        let sink = if target == "-" {
            Sink::Log
        } else {
            let mut options = std::fs::OpenOptions::new();
            options.create(true).append(true).mode(0o600);
            Sink::File(io::BufWriter::new(options.open(data_dir.join(target))?))
        };
        let lost = Counter::default();
        registry.register(
            "audit_records_lost",
            "Audit records that could not be written",
            lost.clone(),
        );
        Self::start(sink, QUEUE, lost)
    }

    fn start(sink: Sink, capacity: usize, lost: Counter) -> io::Result<Self> {
        let (queue, entries) = sync_channel(capacity);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer { sink, dropped: dropped.clone(), lost: lost.clone(), failing: false };
        std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(&entries))?;
        Ok(Self { queue, dropped, lost })
    }

    /// Hands a record to the writer, or counts it as lost.
    pub(super) fn record(&self, record: Record) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(Entry::Record(Box::new(record)))
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.lost.inc();
        }
    }

    /// Returns when all that was recorded before is in the file and on the
    /// disk. For the end of the node, and for tests.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        let mut entry = Entry::Flush(done);
        // The queue may be full: the writer makes room.
        loop {
            match self.queue.try_send(entry) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) => {
                    entry = back;
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
        let _ = written.await;
    }
}

/// Whether [`AuditLog::open`] would work; makes nothing.
pub(super) fn look(target: &str, data_dir: &Path) -> io::Result<()> {
    if target == "-" {
        return Ok(());
    }
    let path = data_dir.join(target);
    match std::fs::OpenOptions::new().append(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened.map(drop),
    }
    let folder = path.parent().unwrap_or(data_dir);
    // The data directory itself is made by the first start.
    if folder == data_dir && !folder.exists() {
        return Ok(());
    }
    Ok(rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)?)
}

enum Sink {
    Log,
    File(io::BufWriter<std::fs::File>),
}

struct Writer {
    sink: Sink,
    dropped: Arc<AtomicU64>,
    lost: Counter,
    /// Said once per change, not for every record.
    failing: bool,
}

impl Writer {
    fn run(mut self, entries: &Receiver<Entry>) {
        while let Ok(entry) = entries.recv() {
            self.take(entry);
            while let Ok(entry) = entries.try_recv() {
                self.take(entry);
            }
            self.flush(false);
        }
    }

    fn take(&mut self, entry: Entry) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            self.write(&serde_json::json!({ "records_lost": dropped }).to_string());
        }
        match entry {
            Entry::Record(record) => self.write(&line(&record)),
            Entry::Flush(done) => {
                self.flush(true);
                let _ = done.send(());
            }
        }
    }

    fn write(&mut self, line: &str) {
        let written = match &mut self.sink {
            Sink::Log => {
                tracing::info!(target: "audit", record = %line);
                Ok(())
            }
            Sink::File(file) => writeln!(file, "{line}"),
        };
        if written.is_err() {
            self.lost.inc();
        }
        self.state(written);
    }

    fn flush(&mut self, durably: bool) {
        let Sink::File(file) = &mut self.sink else { return };
        let mut written = file.flush();
        if durably && written.is_ok() {
            written = file.get_ref().sync_data();
        }
        self.state(written);
    }

    fn state(&mut self, written: io::Result<()>) {
        match (&written, self.failing) {
            (Err(error), false) => tracing::error!(%error, "the audit log cannot be written"),
            (Ok(()), true) => tracing::info!("the audit log can be written again"),
            _ => {}
        }
        self.failing = written.is_err();
    }
}

/// Whether a code means that the caller may not. NOT_FOUND is among them: it
/// stands for what is somebody else's too.
pub(super) fn is_denial(code: Code) -> bool {
    matches!(code, Code::Unauthenticated | Code::PermissionDenied | Code::NotFound)
}

fn decision(code: Code) -> &'static str {
    match code {
        // Who went away was let through, and may have changed something.
        Code::Ok | Code::Cancelled => "allowed",
        code if is_denial(code) => "denied",
        _ => "failed",
    }
}

fn line(record: &Record) -> String {
    let caller = record.caller.as_deref();
    let at = jiff::Timestamp::try_from(record.at).map(|at| at.to_string()).unwrap_or_default();
    let rule: Rule = record.method.rule;
    let mut line = serde_json::json!({
        "time": at,
        "method": record.method.path,
        "decision": decision(record.code),
        "code": format!("{:?}", record.code),
        "rule": rule.to_string(),
    });
    let mut put = |key: &str, value: Option<String>| {
        if let (Some(value), Some(object)) = (value, line.as_object_mut()) {
            object.insert(key.to_owned(), value.into());
        }
    };
    put("principal", caller.map(|caller| caller.principal.to_string()));
    put("acting_service", caller.and_then(|c| c.acting_service.as_ref()).map(|s| s.to_string()));
    put("address", record.address.map(|address| address.to_string()));
    put("frame", record.frame.map(str::to_owned));
    put("subject", record.subject.get());
    put("why", record.why.clone());
    put("trace_id", record.trace_id.clone());
    line.to_string()
}

#[cfg(test)]
mod tests;
mod trail;

pub use trail::AuditTrail;
