//! A real node in a real process, and clients that talk to it over real TLS.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use simpul::client::dial::{self as connect, Address};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

/// Longer than anything here takes; a test that gets there has failed.
pub const LONG: Duration = Duration::from_secs(60);

/// A running node. Killed when dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    dir: PathBuf,
    _owned: Option<TempDir>,
    env: Vec<(String, String)>,
    pub info: Value,
}

impl Node {
    /// Starts a node in a fresh directory.
    pub fn start() -> Node {
        Self::start_with(&[])
    }

    /// Starts a node in a fresh directory with more environment.
    pub fn start_with(env: &[(&str, &str)]) -> Node {
        use std::os::unix::fs::PermissionsExt;
        let private = std::fs::Permissions::from_mode(0o700);
        let owned = tempfile::Builder::new().permissions(private).tempdir().expect("a directory");
        let mut node = Self::start_in(owned.path(), env);
        node._owned = Some(owned);
        node
    }

    /// Starts a node in a directory that outlives it.
    pub fn start_in(dir: &Path, env: &[(&str, &str)]) -> Node {
        let env: Vec<_> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (child, info) = launch(dir, &env);
        Node { child, dir: dir.to_owned(), _owned: None, env, info }
    }

    /// Kills it with SIGKILL and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again in the same directory.
    pub fn restart(&mut self) {
        self.kill();
        (self.child, self.info) = launch(&self.dir, &self.env);
    }

    /// Changes its environment from the next start on.
    pub fn set_env(&mut self, key: &str, value: &str) {
        self.env.push((key.to_owned(), value.to_owned()));
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the node lives");
    }

    /// Waits for its end, at most `limit`; the exit code, or `None` by signal.
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(begun.elapsed() < limit, "the node did not end within {limit:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it has not ended yet.
    #[allow(dead_code)] // Not every suite asks.
    pub fn running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn address(&self, listener: &str) -> String {
        self.info[listener].as_str().expect("an address").to_owned()
    }

    /// Runs the command line against this node.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.cli_with_input(args, "")
    }

    /// Runs the command line with text on its standard input.
    pub fn cli_with_input(&self, args: &[&str], input: &str) -> Output {
        cli_in(&self.dir, args, input)
    }

    /// Runs the command line, which must succeed; its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        assert!(
            output.status.success(),
            "simpul {args:?}: {:?}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// A token for a user, with the roles that `--as` gives and others.
    pub fn token(&self, who: &str, roles: &[&str]) -> String {
        let mut args = vec!["token", "--as", who, "--ttl", "1h"];
        for role in roles {
            args.extend(["--role", role]);
        }
        self.ok(&args).trim().to_owned()
    }

    /// A client certificate for a user, from the development authority: the
    /// chain and its key, PEM.
    pub fn certificate(&self, who: &str) -> (Vec<u8>, Vec<u8>) {
        let dir = self.dir.join("dev");
        let folder = dir.to_str().expect("UTF-8");
        let principal = format!("user/{who}@dev.simpul");
        self.ok(&["cert", "issue", who, "--dir", folder, "--principal", &principal]);
        let read = |end: &str| std::fs::read(dir.join(format!("{who}{end}"))).expect("a PEM file");
        (read(".pem"), read("-key.pem"))
    }

    /// A connection of its own to the public listener.
    pub async fn channel(&self) -> Channel {
        self.channel_as(None).await
    }

    /// A connection that proves itself with a certificate and its key, PEM.
    pub async fn channel_as(&self, identity: Option<(&[u8], &[u8])>) -> Channel {
        let tls = self.tls(identity);
        connect::channel(&self.public(), Some("localhost"), tls).await.expect("the node answers")
    }

    /// A TLS stream of its own to the public listener.
    pub async fn stream(&self) -> TlsStream<TcpStream> {
        connect::dial(&self.public(), Some("localhost"), self.tls(None)).await.expect("a handshake")
    }

    /// A TLS stream to a node whose certificate another authority made.
    pub async fn stream_believing(&self, ca: &[u8]) -> TlsStream<TcpStream> {
        let tls = Arc::new(connect::client_config(ca, None).expect("PEM"));
        connect::dial(&self.public(), Some("localhost"), tls).await.expect("a handshake")
    }

    /// A TLS stream with this certificate or none; fails where that is refused.
    pub async fn try_stream(
        &self,
        identity: Option<(&[u8], &[u8])>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = connect::dial(&self.public(), Some("localhost"), self.tls(identity)).await;
        stream.map_err(|error| std::io::Error::other(error.to_string()))
    }

    fn public(&self) -> Address {
        self.address("public").parse().expect("an address")
    }

    fn tls(&self, identity: Option<(&[u8], &[u8])>) -> Arc<rustls::ClientConfig> {
        let ca = std::fs::read(self.info["ca_file"].as_str().expect("a file")).expect("the CA");
        Arc::new(connect::client_config(&ca, identity).expect("PEM"))
    }

    /// One number of the metrics.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.admin("/metrics");
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|l| l.starts_with(' ')));
        let number = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        number.unwrap_or_else(|| panic!("no metric {name}:\n{text}"))
    }

    /// The admin listener's answer to a GET.
    pub fn admin(&self, path: &str) -> (u16, String) {
        http_get(&self.address("admin"), path)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(dir: &Path, env: &[(String, String)]) -> (Child, Value) {
    let _ = std::fs::remove_file(dir.join("node.json"));
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("node.log"))
        .expect("a log file");
    let mut command = command(dir);
    // What the environment cannot say, lists above all, stands in a file.
    if dir.join("node.toml").exists() {
        command.args(["--config", "node.toml"]);
    }
    let mut child = command
        .env("SIMPUL_LISTEN__PUBLIC", "127.0.0.1:0")
        .env("SIMPUL_LISTEN__ADMIN", "127.0.0.1:0")
        .env("SIMPUL_LISTEN__MESH", "127.0.0.1:0")
        .envs(env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the binary starts");
    let begun = Instant::now();
    loop {
        if let Ok(text) = std::fs::read_to_string(dir.join("node.json"))
            && let Ok(info) = serde_json::from_str(&text)
        {
            return (child, info);
        }
        let ended = child.try_wait().expect("a child");
        assert!(
            ended.is_none() && begun.elapsed() < LONG,
            "the node did not become ready ({ended:?}):\n{}",
            std::fs::read_to_string(dir.join("node.log")).unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A file that does not answer, as on a network disk that is gone.
#[derive(Debug)]
pub struct Pipe(PathBuf);

impl Pipe {
    pub fn in_place_of(file: &Path) -> Self {
        let pipe = file.with_extension("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success());
        std::fs::rename(&pipe, file).expect("swapped");
        Self(file.to_owned())
    }

    /// Returns once somebody reads it, who then waits for what is never written.
    pub fn read_by_somebody(&self) -> std::fs::File {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        options.write(true).custom_flags(nonblock);
        let begun = Instant::now();
        loop {
            if let Ok(writer) = options.open(&self.0) {
                return writer;
            }
            assert!(begun.elapsed() < LONG, "nobody reads the file");
            std::thread::yield_now();
        }
    }
}

/// The binary with a clean environment but for the data directory.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simpul"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", dir)
        .env("SIMPUL_DATA_DIR", dir)
        .current_dir(dir);
    command
}

/// Runs the command line with a data directory.
pub fn cli_in(dir: &Path, args: &[&str], input: &str) -> Output {
    use std::io::Write;
    let mut child = command(dir)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that does not read may have closed it already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("a child")
}

/// Puts a bearer token on a request.
pub fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value: MetadataValue<_> = format!("Bearer {token}").parse().expect("ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

/// A plain HTTP/1.1 GET.
pub fn http_get(address: &str, path: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}

/// Tries until it holds.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(begun.elapsed() < LONG, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Says that something was not tested, past the capture of a test's output.
pub fn not_run(what: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "NOT RUN: {what}");
}
