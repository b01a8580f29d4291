//! The one place that prints. Every command says a thing once as JSON and once
//! for people, and this picks. A line is flushed when it is written: whoever
//! follows a stream through a pipe sees it at once.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde_json::Value;

use super::failure::Failure;
use super::text;

/// How results look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Tables and sentences, for people.
    #[default]
    Text,
    /// One JSON object a line, for scripts.
    Json,
}

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
    chosen: bool,
}

impl Output {
    /// Prints to standard output in a format.
    pub fn new(format: Format) -> Self {
        Self { format, chosen: true }
    }

    /// Prints as `--output` says, or as people like it.
    pub fn of(chosen: Option<Format>) -> Self {
        Self { format: chosen.unwrap_or_default(), chosen: chosen.is_some() }
    }

    /// Whether the format was asked for.
    pub fn is_chosen(self) -> bool {
        self.chosen
    }

    /// Whether scripts read it.
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Whether a person sees it at once.
    pub fn is_terminal(self) -> bool {
        std::io::stdout().is_terminal()
    }

    /// One result: an object in JSON, any text for people.
    pub fn say(self, json: &Value, human: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.raw(&json.to_string()),
            Format::Text => self.raw(&human()),
        }
    }

    /// Many results: one object a line, or a table.
    pub fn list(self, head: &[&str], items: &[(Value, Vec<String>)]) -> Result<(), Failure> {
        if self.is_json() {
            for (json, _) in items {
                self.raw(&json.to_string())?;
            }
            return Ok(());
        }
        let rows: Vec<Vec<String>> = items.iter().map(|(_, row)| row.clone()).collect();
        self.raw(&text::table(head, &rows))
    }

    /// A line for people only. Nothing in JSON.
    pub fn note(self, text: &str) -> Result<(), Failure> {
        if self.is_json() { Ok(()) } else { self.raw(text) }
    }

    /// A line as it is, in both formats.
    pub fn raw(self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    }
}

/// Waits until nobody reads standard output any more: whoever follows a quiet
/// stream learns it without writing. For ever, where that cannot be.
pub async fn reader_gone() {
    use rustix::event::{PollFd, PollFlags, poll};

    let (gone, told) = tokio::sync::oneshot::channel();
    // Its own thread: it waits without an end, and the process does not wait
    // for it. Without asking for anything, only errors and hang-ups wake it.
    std::thread::spawn(move || {
        let stdout = std::io::stdout();
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        let woken = loop {
            match poll(&mut watched, None) {
                Err(rustix::io::Errno::INTR) => {}
                woken => break woken,
            }
        };
        if woken.is_ok() {
            let _ = gone.send(());
        }
    });
    if told.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Says something on standard error. A stderr that is gone is no reason to
/// fail: the exit code still tells.
pub fn complain(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes());
    let _ = err.write_all(b"\n");
}
