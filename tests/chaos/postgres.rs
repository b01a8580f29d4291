//! A PostgreSQL of the run's own, on hosts of its own: a primary and, where a run
//! wants one, a synchronous standby.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::net::Net;

/// Where Debian keeps what is not on the path.
const PLACES: [&str; 3] =
    ["/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/16/bin", "/usr/lib/postgresql/17/bin"];

/// The password of the database's user.
const PASSWORD: &str = "a-password";

/// The user and the group that it runs as: it refuses to run as root.
pub const OWNER: u32 = 65534;

/// A server.
#[derive(Debug)]
pub struct Postgres {
    dir: PathBuf,
    settings: &'static [&'static str],
    host: u8,
    address: String,
    child: Option<Child>,
}

/// The folder with the server's programs, if there is one.
pub fn programs() -> Option<PathBuf> {
    PLACES.iter().map(PathBuf::from).find(|place| place.join("initdb").exists())
}

/// A command that runs as a user that PostgreSQL accepts.
fn as_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
    command
}

fn ok(command: &mut Command) {
    let output = command.output().expect("the command is there");
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Postgres {
    /// Where a server on a host keeps its files.
    pub fn folder(host: u8, dir: &Path) -> PathBuf {
        dir.join(format!("pg{host}"))
    }

    /// Makes a primary in an empty folder and starts it, with settings of its own.
    pub fn primary(net: &Net, host: u8, dir: &Path, settings: &'static [&'static str]) -> Postgres {
        let programs = programs().expect("PostgreSQL is installed");
        let data = Postgres::folder(host, dir);
        std::fs::create_dir_all(&data).expect("a folder");
        let password = dir.join("password");
        std::fs::write(&password, PASSWORD).expect("written");
        for path in [&data, &password] {
            std::os::unix::fs::chown(path, Some(OWNER), Some(OWNER)).expect("chown");
        }
        let mut initdb = as_user(&programs.join("initdb"));
        initdb.args(["-U", "simpul", "-A", "trust", "-E", "UTF8", "--no-locale", "-D"]);
        ok(initdb.arg(&data).arg("--pwfile").arg(&password));
        let access = "host all all 0.0.0.0/0 trust\nhost replication all 0.0.0.0/0 trust\n";
        std::fs::write(data.join("pg_hba.conf"), access).expect("written");
        let address = net.address(host);
        let mut server = Postgres { dir: data, settings, host, address, child: None };
        server.start(net);
        server
    }

    /// Makes a synchronous standby of a running primary and starts it.
    pub fn standby(&self, net: &Net, host: u8, dir: &Path) -> Postgres {
        let programs = programs().expect("PostgreSQL is installed");
        let data = Postgres::folder(host, dir);
        std::fs::create_dir_all(&data).expect("a folder");
        std::os::unix::fs::chown(&data, Some(OWNER), Some(OWNER)).expect("chown");
        // Its own copy would keep the folder's mode, which the server refuses.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&data, private).expect("chmod");
        let conninfo = format!(
            "host={} port=5432 user=simpul password={PASSWORD} application_name=standby",
            self.address
        );
        let mut copy = as_user(&programs.join("pg_basebackup"));
        ok(copy.args(["-R", "-X", "stream", "-c", "fast", "-d", &conninfo, "-D"]).arg(&data));
        let (settings, address) = (self.settings, net.address(host));
        let mut server = Postgres { dir: data, settings, host, address, child: None };
        server.start(net);
        self.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'");
        self.sql("SELECT pg_reload_conf()");
        server
    }

    /// Starts it and waits until it answers.
    pub fn start(&mut self, net: &Net) {
        let programs = programs().expect("PostgreSQL is installed");
        let log = std::fs::File::create(self.dir.with_extension("log")).expect("a log");
        let mut command = net.command(self.host, "setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(programs.join("postgres"))
            .arg("-D")
            .arg(&self.dir)
            .args(["-c", &format!("listen_addresses={}", self.address)])
            .args(["-c", "unix_socket_directories=", "-c", "max_connections=200"])
            .args(["-c", "shared_buffers=64MB", "-c", "restart_after_crash=on"])
            .args(self.settings.iter().flat_map(|setting| ["-c", setting]))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        self.child = Some(command.spawn().expect("postgres starts"));
        let begun = Instant::now();
        while !self.answers() {
            let patient = begun.elapsed() < Duration::from_secs(60);
            assert!(patient, "PostgreSQL does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it said since it was started.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.with_extension("log")).unwrap_or_default()
    }

    /// Waits until it answers, and starts it if it ended by itself; whether it
    /// had to be.
    pub fn revive(&mut self, net: &Net) -> bool {
        let begun = Instant::now();
        while !self.answers() {
            if matches!(self.child.as_mut().map(Child::try_wait), Some(Ok(Some(_)))) {
                self.child = None;
                self.start(net);
                return true;
            }
            let patient = begun.elapsed() < Duration::from_secs(60);
            assert!(patient, "PostgreSQL does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    fn answers(&self) -> bool {
        let mut command = Command::new("psql");
        command.args([&self.admin_url("postgres"), "-Atc", "SELECT 1"]);
        command.output().is_ok_and(|output| output.status.success())
    }

    fn admin_url(&self, database: &str) -> String {
        format!("{}?connect_timeout=2", self.url(database))
    }

    /// The URL of a database on it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://simpul:{PASSWORD}@{}:5432/{database}", self.address)
    }

    /// Its host.
    pub fn host(&self) -> u8 {
        self.host
    }

    /// Runs a statement.
    pub fn sql(&self, statement: &str) -> String {
        self.sql_in("postgres", statement)
    }

    /// Runs a statement in a database.
    pub fn sql_in(&self, database: &str, statement: &str) -> String {
        let output = Command::new("psql")
            .args([&self.admin_url(database), "-v", "ON_ERROR_STOP=1", "-Atc", statement])
            .output()
            .expect("psql");
        assert!(
            output.status.success(),
            "{statement}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The process of the server and those of its sessions.
    fn processes(&self) -> Vec<i32> {
        let Some(child) = &self.child else { return Vec::new() };
        let main = i32::try_from(child.id()).expect("a pid");
        let children = format!("/proc/{main}/task/{main}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        std::iter::once(main)
            .chain(children.split_whitespace().filter_map(|pid| pid.parse().ok()))
            .collect()
    }

    fn signal(&self, signal: Signal) {
        for pid in self.processes() {
            let pid = Pid::from_raw(pid).expect("a pid");
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// kill -9 of the whole server.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(self.dir.join("postmaster.pid"));
    }

    /// A restart as an administrator does it.
    pub fn restart(&mut self, net: &Net) {
        if let Some(child) = &mut self.child {
            let pid = Pid::from_child(child);
            // Fast: sessions are ended.
            let _ = rustix::process::kill_process(pid, Signal::INT);
            let _ = child.wait();
        }
        self.start(net);
    }

    /// Stops every process of it, and has them go on.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Has them go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        self.sql("SELECT pg_promote(true, 30)");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        self.kill();
    }
}
