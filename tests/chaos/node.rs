//! A node's process, on a host of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::net::Net;
use crate::world::{FIRST, LONG};

/// A node's process.
#[derive(Debug)]
pub struct Node {
    pub id: String,
    pub host: u8,
    pub address: String,
    dir: PathBuf,
    env: Vec<(String, String)>,
    child: Option<Child>,
    started: Instant,
}

impl Node {
    pub fn new(net: &Net, dir: &Path, index: u8, urls: &str) -> Node {
        let id = format!("n{}", index + 1);
        let host = FIRST + index;
        let dir = dir.join(&id);
        std::fs::create_dir_all(&dir).expect("a folder");
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).expect("chmod");
        let address = net.address(host);
        let env = [
            ("SIMPUL_NODE__ID", id.clone()),
            ("SIMPUL_NODE__ZONE", format!("z{}", index + 1)),
            ("SIMPUL_STORE__URL", urls.to_owned()),
            ("SIMPUL_LISTEN__PUBLIC", format!("{address}:7443")),
            ("SIMPUL_LISTEN__MESH", format!("{address}:7444")),
            ("SIMPUL_LISTEN__ADMIN", format!("{address}:7445")),
            ("SIMPUL_SHUTDOWN__GRACE", "10s".to_owned()),
            ("SIMPUL_TELEMETRY__LOG_FORMAT", "json".to_owned()),
        ];
        let env = env.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Node { id, host, address, dir, env, child: None, started: Instant::now() }
    }

    /// Steps of its wall clock come from a file from now on.
    pub fn fake_clock(&mut self) {
        let file = self.dir.join("clock");
        std::fs::write(&file, "+0").expect("written");
        let library = clock().expect("asked for before");
        for (key, value) in [
            ("LD_PRELOAD", library.to_str().expect("UTF-8")),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().expect("UTF-8")),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ] {
            self.env.push((key.to_owned(), value.to_owned()));
        }
    }

    /// It counts fault points and is held at them by files in its folder `faults`
    /// from the next start on.
    pub fn can_be_held(&mut self) {
        std::fs::create_dir_all(self.faults()).expect("a folder");
        let faults = self.faults().display().to_string();
        self.set_env("SIMPUL_TEST_FAULT_DIR", &faults);
    }

    /// Where fault points are counted and held.
    pub fn faults(&self) -> PathBuf {
        self.dir.join("faults")
    }

    /// Steps its wall clock, in seconds.
    pub fn step_clock(&self, seconds: i64) {
        std::fs::write(self.dir.join("clock"), format!("{seconds:+}")).expect("written");
    }

    /// Sets a variable from the next start on.
    pub fn set_env(&mut self, key: &str, value: &str) {
        self.env.push((key.to_owned(), value.to_owned()));
    }

    pub fn start(&mut self, net: &Net) {
        let _ = std::fs::remove_file(self.dir.join("node.json"));
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("node.log"))
            .expect("a log");
        let mut command = net.command(self.host, "env");
        command.arg("-i").args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        command.arg(format!("HOME={0}", self.dir.display()));
        command.arg(format!("SIMPUL_DATA_DIR={0}", self.dir.display()));
        command.args(self.env.iter().map(|(key, value)| format!("{key}={value}")));
        command.arg(env!("CARGO_BIN_EXE_simpul")).current_dir(&self.dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.started = Instant::now();
        self.child = Some(command.spawn().expect("the node starts"));
    }

    /// Waits until it is ready.
    pub fn wait_ready(&mut self) {
        let begun = Instant::now();
        while self.info().is_none() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("a child"));
            assert!(
                ended.is_none() && begun.elapsed() < LONG,
                "{} did not become ready ({ended:?}):\n{}",
                self.id,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// When it was started last.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Its files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it says of itself once it is ready.
    pub fn info(&self) -> Option<Value> {
        serde_json::from_str(&std::fs::read_to_string(self.dir.join("node.json")).ok()?).ok()
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("node.log")).unwrap_or_default()
    }

    /// Sends a signal to it; a process that is gone gets none.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            let _ = rustix::process::kill_process(Pid::from_child(child), signal);
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for its end; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait_end()
    }

    /// Waits for its end; the exit code.
    pub fn wait_end(&mut self) -> Option<i32> {
        let begun = Instant::now();
        let mut child = self.child.take()?;
        loop {
            if let Some(status) = child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(begun.elapsed() < LONG, "{} does not stop", self.id);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        self.kill();
    }
}

/// The library that steps a process's wall clock.
pub fn clock() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    libraries.find(|library| library.exists())
}
