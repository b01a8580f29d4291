//! One node of the local cluster: a child process in a group of its own, so
//! that ctrl-c reaches this command alone, which ends the nodes in order.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::{Ends, say, unusable};
use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::target::{NodeFile, find_node};
use crate::client::dial::Address;

/// Where it writes its log.
const LOG: &str = "node.log";
/// How much longer to wait with each start that fails.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a node may take until it serves.
const START: Duration = Duration::from_secs(60);
/// How long a node may take to end, its own grace included.
const END: Duration = Duration::from_secs(20);

/// A node and how to start it again.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    dir: PathBuf,
    process: std::process::Child,
    arguments: Vec<String>,
    node: Option<NodeFile>,
    /// How often it has ended in a row before it was ready, and when it is started
    /// again.
    failed: u32,
    again: Option<Instant>,
}

impl Child {
    /// Starts a node; it is ready later.
    pub(super) fn start(env: &Env, home: &Path, number: u8) -> Result<Self, Failure> {
        let name = format!("n{number}");
        let dir = home.join(&name);
        if let Ok(node) = find_node(&dir) {
            let why = format!("{name} runs already: process {}", node.pid);
            return Err(Failure::unavailable(why).hint(format!("end it first: kill {}", node.pid)));
        }
        let arguments = arguments(env, home, &dir, &name);
        let process = launch(&dir, &arguments)?;
        Ok(Self { name, dir, process, arguments, node: None, failed: 0, again: None })
    }

    /// Its data directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Where clients reach it; nowhere while it is not ready.
    pub(super) fn address(&self) -> Option<Address> {
        self.node.as_ref()?.public.parse().ok()
    }

    /// Waits until it serves.
    pub(super) async fn wait_ready(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        while !self.is_ready() {
            if let Ok(Some(status)) = self.process.try_wait() {
                let why = self.last_words();
                let text = format!("{} did not start ({status}):\n{why}", self.name);
                // A node's exit codes are the command's own.
                return Err(match status.code() {
                    Some(code) if code == i32::from(Exit::Usage.code()) => Failure::usage(text),
                    _ => Failure::unavailable(text),
                });
            }
            if began.elapsed() > START {
                return Err(Failure::unavailable(format!("{} does not get ready", self.name)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Looks whether it has become ready; a file of an earlier run is none.
    fn is_ready(&mut self) -> bool {
        let pid = self.process.id();
        self.node = find_node(&self.dir).ok().filter(|node| node.pid == pid);
        self.node.is_some()
    }

    /// Starts it again when it has ended; after a while when it does not get
    /// ready. True when its address has changed: it is gone, or it is back.
    pub(super) fn revive(&mut self, env: &Env) -> Result<bool, Failure> {
        if self.again.is_some_and(|at| Instant::now() < at) {
            return Ok(false);
        }
        if self.again.take().is_some() {
            self.process = launch(&self.dir, &self.arguments)?;
        }
        if let Ok(Some(status)) = self.process.try_wait() {
            let ready = self.node.take().is_some();
            self.failed = if ready { 0 } else { self.failed.saturating_add(1) };
            self.again = Some(Instant::now() + PAUSE * self.failed.min(10));
            let mut text = format!("(process {}) ended: {status}; starting it again", self.pid());
            // Why it does not start is told once.
            if self.failed == 1 {
                text = format!("{text}. Its last words:\n{}", self.last_words());
            }
            if self.failed <= 1 {
                say(env, "node_ended", &self.name, &text)?;
            }
            return Ok(ready);
        }
        if self.node.is_none() && self.is_ready() {
            self.tell(env, "is back")?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Says where it is.
    pub(super) fn tell(&self, env: &Env, what: &str) -> Result<(), Failure> {
        let Some(node) = &self.node else { return Ok(()) };
        let text = format!(
            "{what}: process {}, clients at {}, probes at {}",
            node.pid, node.public, node.admin
        );
        say(env, "node_ready", &self.name, &text)
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let text = std::fs::read(self.dir.join(LOG)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let start = lines.len().saturating_sub(8);
        lines.get(start..).unwrap_or_default().join("\n")
    }

    fn running(&mut self) -> Option<&mut Self> {
        self.runs().then_some(self)
    }

    fn runs(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }
}

/// Tells all to end, and waits; whoever does not end in time, or when ctrl-c
/// comes again, is killed.
pub(super) async fn end_all(
    env: &Env,
    children: &mut [Child],
    ends: &mut Ends,
) -> Result<(), Failure> {
    let mut ending: Vec<&mut Child> = children.iter_mut().filter_map(Child::running).collect();
    for child in &ending {
        // One that has ended by now needs no signal.
        let _ = kill_process(Pid::from_child(&child.process), Signal::TERM);
    }
    // Whoever reads what is said may have gone: the nodes are ended all the same.
    let mut told = Ok(());
    let ended = async {
        for child in &mut ending {
            while child.runs() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            told = std::mem::replace(&mut told, Ok(())).and(say(
                env,
                "node_ended",
                &child.name,
                "ended",
            ));
        }
    };
    tokio::select! {
        biased;
        () = ended => return told,
        () = ends.told() => {}
        () = tokio::time::sleep(END) => {}
    }
    for child in ending {
        if child.runs() {
            let _ = child.process.kill();
            let _ = child.process.wait();
            let text = "was killed: it did not end in time";
            told = told.and(say(env, "node_ended", &child.name, text));
        }
    }
    told
}

/// A child never outlives this command, whatever ends it here; when this command
/// is killed, the child is told by the system (`serve --child-of`).
impl Drop for Child {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// What the node is told: the command's own configuration flags, then what
/// makes it one of several here.
fn arguments(env: &Env, home: &Path, dir: &Path, name: &str) -> Vec<String> {
    let mut arguments = vec!["serve".to_owned()];
    let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    for file in &env.global.config {
        flag("--config", file.display().to_string());
    }
    if let Some(file) = &env.global.env_file {
        flag("--env-file", file.display().to_string());
    }
    for (key, value) in &env.global.set {
        flag("--set", format!("{key}={value}"));
    }
    flag("--profile", "development".to_owned());
    flag("--data-dir", dir.display().to_string());
    let database = home.join("shared.db");
    for (key, value) in [
        ("node.id", name.to_owned()),
        ("cluster.shared_file", "true".to_owned()),
        ("store.url", format!("sqlite:{}", database.display())),
        ("listen.public", "127.0.0.1:0".to_owned()),
        ("listen.mesh", "127.0.0.1:0".to_owned()),
        ("listen.admin", "127.0.0.1:0".to_owned()),
    ] {
        flag("--set", format!("{key}={value}"));
    }
    arguments
}

fn launch(dir: &Path, arguments: &[String]) -> Result<std::process::Child, Failure> {
    let log = dir.join(LOG);
    let log = File::options().create(true).append(true).open(&log);
    let log = log.map_err(|error| unusable(dir, &error))?;
    let program = std::env::current_exe().map_err(|error| unusable(dir, &error))?;
    Command::new(program)
        .args(arguments)
        // However this command ends, they end too. That rests on the thread that
        // starts them, which is the process's first: the runtime has no other.
        .args(["--child-of", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(|error| unusable(dir, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Global;
    use crate::cli::output::{Format, Output};

    #[test]
    fn a_node_is_told_what_makes_it_one_of_several() {
        let global =
            Global { set: vec![("telemetry.log".into(), "debug".into())], ..Global::default() };
        let env = Env { global, output: Output::new(Format::Json) };
        let told = arguments(&env, Path::new("/h"), Path::new("/h/n2"), "n2");
        let text = told.join(" ");
        assert!(
            text.starts_with("serve --set telemetry.log=debug --profile development"),
            "{text}"
        );
        for key in ["node.id=n2", "cluster.shared_file=true", "store.url=sqlite:/h/shared.db"] {
            assert!(told.iter().any(|argument| argument == key), "{key}: {text}");
        }
    }
}
