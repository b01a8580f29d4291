//! Server processes: started, found, counted, ended.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use simpul::client::dial::{self as connect, Address};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;

/// A server process. Killed when dropped.
pub struct Server {
    pub child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// CPU time used so far, user and system, in seconds.
    pub fn cpu(&self) -> f64 {
        cpu_of(self.child.id())
    }

    /// Asks it to end and waits.
    pub fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// CPU time that a process has used so far, user and system, in seconds.
pub fn cpu_of(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let after = stat.rsplit_once(") ").expect("a name").1;
    let fields: Vec<&str> = after.split(' ').collect();
    let ticks: f64 =
        fields[11].parse::<f64>().expect("utime") + fields[12].parse::<f64>().expect("stime");
    ticks / 100.0
}

/// A node in a directory of its own.
pub struct Node {
    pub server: Server,
    pub dir: tempfile::TempDir,
    pub info: Value,
}

/// Puts words before a command: `taskset -c 0`, `valgrind …`.
fn prefixed(prefix: &[&str], program: &Path) -> Command {
    match prefix.split_first() {
        None => Command::new(program),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    }
}

pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_simpul"))
}

impl Node {
    pub fn start(prefix: &[&str], env: &[(&str, &str)]) -> Node {
        let dir = tempfile::tempdir().expect("a directory");
        let child = prefixed(prefix, &binary())
            .arg("serve")
            .env("SIMPUL_DATA_DIR", dir.path())
            .env("SIMPUL_LISTEN__PUBLIC", "127.0.0.1:0")
            .env("SIMPUL_LISTEN__ADMIN", "127.0.0.1:0")
            .env("SIMPUL_TELEMETRY__LOG", "warn")
            .env("SIMPUL_TRAFFIC__RATE_PER_PRINCIPAL", "10000000")
            .env("SIMPUL_TRAFFIC__BURST_PER_PRINCIPAL", "10000000")
            .env("SIMPUL_TRAFFIC__MAX_STREAMS_PER_PRINCIPAL", "10000")
            .env("SIMPUL_TRAFFIC__FRAME_RATE_PER_PRINCIPAL", "100000000")
            .env("SIMPUL_TRAFFIC__FRAME_BURST_PER_PRINCIPAL", "100000000")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the node starts");
        let server = Server { child };
        let info = wait_for(&dir.path().join("node.json"));
        Node { server, dir, info: serde_json::from_str(&info).expect("JSON") }
    }

    pub fn cli(&self, args: &[&str]) -> String {
        let output = Command::new(binary())
            .args(args)
            .env("SIMPUL_DATA_DIR", self.dir.path())
            .output()
            .expect("the command runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    pub fn target(&self) -> Target {
        let address = self.info["public"].as_str().expect("an address");
        let ca = std::fs::read(self.info["ca_file"].as_str().expect("a file")).expect("PEM");
        Target::new(address, ca)
    }

    pub async fn channel(&self) -> Channel {
        self.target().channel().await
    }
}

/// Where a server is and who vouches for it.
#[derive(Clone)]
pub struct Target {
    address: Address,
    pub ca: Vec<u8>,
    tls: Arc<rustls::ClientConfig>,
}

impl Target {
    pub fn new(address: &str, ca: Vec<u8>) -> Target {
        Target::proven(address, ca, None)
    }

    /// One that is reached with a certificate and its key, where given.
    pub fn proven(address: &str, ca: Vec<u8>, identity: Option<(&[u8], &[u8])>) -> Target {
        let tls = Arc::new(connect::client_config(&ca, identity).expect("PEM"));
        Target { address: address.parse().expect("an address"), ca, tls }
    }

    pub async fn channel(&self) -> Channel {
        let dialed = connect::channel(&self.address, Some("localhost"), self.tls.clone()).await;
        dialed.expect("a connection")
    }

    pub async fn stream(&self) -> TlsStream<TcpStream> {
        let dialed = connect::dial(&self.address, Some("localhost"), self.tls.clone()).await;
        dialed.expect("a handshake")
    }
}

/// Waits until a file stands there with a whole line or object in it.
pub fn wait_for(path: &Path) -> String {
    let begun = Instant::now();
    loop {
        if let Ok(text) = std::fs::read_to_string(path)
            && (text.trim_end().ends_with('}') || text.ends_with('\n'))
        {
            return text;
        }
        assert!(begun.elapsed() < Duration::from_secs(300), "{} never came", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a program can be found.
pub fn find(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// The middle of the values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
