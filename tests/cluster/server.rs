//! A PostgreSQL server of one test, where the tests' own does not do: with a
//! certificate, with passwords, as a standby; and one that is not PostgreSQL.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::cluster::connect;
use crate::support::{LONG, not_run};

/// PostgreSQL refuses to run as root; this is nobody.
const NOBODY: u32 = 65_534;

/// A server.
#[derive(Debug)]
pub struct Server {
    dir: TempDir,
    child: Child,
    port: u16,
}

/// How a server is to be.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    /// Lines of pg_hba.conf before the one that lets `postgres` in.
    pub access: &'a str,
    /// Chain and key with which it speaks TLS.
    pub certificate: Option<[PathBuf; 2]>,
    /// Whether it only ever waits for another one's log.
    pub standby: bool,
}

impl Server {
    /// Starts one; `None`, with a word about it, where PostgreSQL is not
    /// installed.
    pub async fn start(test: &str, wanted: Wanted<'_>) -> Option<Self> {
        let Some(programs) = programs() else {
            not_run(&format!("{test}: the programs of PostgreSQL's server are not installed"));
            return None;
        };
        let open = std::fs::Permissions::from_mode(0o711);
        let dir = tempfile::Builder::new().permissions(open).tempdir().expect("a directory");
        let data = dir.path().join("data");
        std::fs::create_dir(&data).expect("a folder");
        give(&data);
        let mut initdb = as_user(&programs.join("initdb"), dir.path());
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        let output = initdb.arg("-D").arg(&data).output().expect("initdb");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let access = format!("{}\nhost all postgres 127.0.0.1/32 trust\n", wanted.access);
        std::fs::write(data.join("pg_hba.conf"), access).expect("written");
        if wanted.standby {
            std::fs::write(data.join("standby.signal"), "").expect("written");
            give(&data.join("standby.signal"));
        }
        let mut settings = Vec::new();
        if let Some(files) = &wanted.certificate {
            settings.push("ssl=on".to_owned());
            for (setting, file) in ["ssl_cert_file", "ssl_key_file"].iter().zip(files) {
                let own = data.join(setting);
                std::fs::copy(file, &own).expect("copied");
                std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o600))
                    .expect("set");
                give(&own);
                settings.push(format!("{setting}={}", own.display()));
            }
        }
        for _ in 0..8 {
            let port = free_port();
            let mut child = launch(&programs, dir.path(), port, &settings);
            if answers(&mut child, port).await {
                return Some(Self { dir, child, port });
            }
        }
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        panic!("PostgreSQL does not start: {log}");
    }

    /// The URL of a database for a user (and password), with parameters.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs statements as its owner, one after the other.
    pub async fn sql(&self, statements: &[&str]) {
        let mut connection = connect(&self.url("postgres", "postgres")).await;
        for statement in statements {
            let statement = sqlx::AssertSqlSafe((*statement).to_owned());
            sqlx::raw_sql(statement).execute(&mut connection).await.expect("done");
        }
    }

    /// Asks it for one number.
    pub async fn number(&self, question: &str) -> i64 {
        let mut connection = connect(&self.url("postgres", "postgres")).await;
        let question = sqlx::AssertSqlSafe(question.to_owned());
        sqlx::query_scalar(question).fetch_one(&mut connection).await.expect("a number")
    }

    /// Stops it and all its sessions without ending them: nothing is answered,
    /// nothing is refused.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    /// To the server first: stopped, it starts no more processes.
    fn signal_all(&self, signal: Signal) {
        let server = Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(server, signal);
        for process in std::fs::read_dir("/proc").expect("processes").flatten() {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            // After the name, which may hold anything: state, parent.
            let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
            let ours = parent.and_then(|parent| parent.parse().ok()).and_then(Pid::from_raw);
            if ours == Some(server)
                && let Some(pid) = Pid::from_raw(pid)
            {
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }

    /// A folder that is its own.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal_all(Signal::CONT);
        // At once, and its sessions with it.
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::QUIT);
        let _ = self.child.wait();
    }
}

/// The folder with the server's programs.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // Where Debian keeps what is not on the path.
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    places.extend(installed.map(|version| version.path().join("bin")));
    places
        .into_iter()
        .find(|place| ["initdb", "postgres"].iter().all(|program| place.join(program).exists()))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes something the server's own.
fn give(path: &Path) {
    if is_root() {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("chown");
    }
}

fn as_user(program: &Path, dir: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        let nobody = NOBODY.to_string();
        command.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups", "--"]);
        command.arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir(dir);
    command
}

fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("an address").port()
}

fn launch(programs: &Path, dir: &Path, port: u16, settings: &[String]) -> Child {
    let log = std::fs::File::create(dir.join("log")).expect("a log");
    let mut command = as_user(&programs.join("postgres"), dir);
    command.arg("-D").arg(dir.join("data")).args(["-p", &port.to_string()]);
    command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
    for setting in settings {
        command.args(["-c", setting]);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
    command.spawn().expect("it starts")
}

/// Waits until it answers; false when it ends: somebody took the port.
async fn answers(child: &mut Child, port: u16) -> bool {
    use sqlx::Connection as _;
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    let begun = Instant::now();
    loop {
        if sqlx::PgConnection::connect(&url).await.is_ok() {
            return true;
        }
        if child.try_wait().expect("a child").is_some() {
            return false;
        }
        assert!(begun.elapsed() < LONG, "PostgreSQL does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Something that says what PostgreSQL 12 says: lets everybody in, and answers
/// the one question that a node asks first. Gives its port; ends with the test.
pub async fn an_old_one() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    simpul::task::spawn("old server", async move {
        while let Ok((stream, _)) = listener.accept().await {
            simpul::task::spawn("old session", async move {
                let _ = old_session(stream).await;
            });
        }
    });
    port
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("small");
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// The protocol's version 3: start, then questions in the extended form.
async fn old_session(mut stream: TcpStream) -> std::io::Result<()> {
    const TLS: u32 = 80_877_103;
    loop {
        let length = stream.read_u32().await?;
        let mut start = vec![0; length.saturating_sub(4) as usize];
        stream.read_exact(&mut start).await?;
        if start.get(..4) != Some(&TLS.to_be_bytes()[..]) {
            break;
        }
        stream.write_all(b"N").await?;
    }
    let welcome = [
        message(b'R', &0_u32.to_be_bytes()),
        message(b'S', b"server_version\x0012.22\0"),
        message(b'K', &[0; 8]),
        message(b'Z', b"I"),
    ];
    stream.write_all(&welcome.concat()).await?;
    loop {
        let kind = stream.read_u8().await?;
        let length = stream.read_u32().await?;
        let mut body = vec![0; length.saturating_sub(4) as usize];
        stream.read_exact(&mut body).await?;
        let answer = match kind {
            b'P' => message(b'1', &[]),
            b'D' => [message(b't', &[0, 0]), message(b'T', &columns())].concat(),
            b'B' => message(b'2', &[]),
            b'E' => [message(b'D', &row()), message(b'C', b"SELECT 1\0")].concat(),
            b'C' => message(b'3', &[]),
            b'S' => message(b'Z', b"I"),
            b'X' => return Ok(()),
            _ => Vec::new(),
        };
        stream.write_all(&answer).await?;
    }
}

/// In recovery, version, encoding, synchronous_commit, read-only: types bool,
/// int4, text, text, bool.
const COLUMNS: [(u32, i16, &[u8]); 5] = [
    (16, 1, &[0]),
    (23, 4, &120_022_i32.to_be_bytes()),
    (25, -1, b"UTF8"),
    (25, -1, b"on"),
    (16, 1, &[0]),
];

fn columns() -> Vec<u8> {
    let mut body = vec![0, COLUMNS.len() as u8];
    for (kind, size, _) in COLUMNS {
        body.extend(b"c\0");
        body.extend([0; 6]);
        body.extend(kind.to_be_bytes());
        body.extend(size.to_be_bytes());
        // No modifier; binary.
        body.extend([0xff, 0xff, 0xff, 0xff, 0, 1]);
    }
    body
}

fn row() -> Vec<u8> {
    let mut body = vec![0, COLUMNS.len() as u8];
    for (_, _, value) in COLUMNS {
        body.extend(u32::try_from(value.len()).expect("small").to_be_bytes());
        body.extend(value);
    }
    body
}
