//! What keeps a node from starting: told before anything binds, with the exit
//! code of its class.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{Node, cli_in, command};

fn start(dir: &Path, env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = command(dir);
    command.arg("serve").envs(env.iter().copied());
    let output = run(command);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn run(mut command: Command) -> Output {
    command.output().expect("it ran")
}

fn local(more: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    let free = "127.0.0.1:0".to_owned();
    let mut env = vec![("SIMPUL_LISTEN__PUBLIC", free.clone()), ("SIMPUL_LISTEN__ADMIN", free)];
    env.extend(more.iter().cloned());
    env
}

fn refused(dir: &Path, more: &[(&'static str, String)], code: i32, words: &[&str]) {
    let env = local(more);
    let env: Vec<(&str, &str)> = env.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let (got, said) = start(dir, &env);
    assert_eq!(got, Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word} is missing:\n{said}");
    }
    assert!(!dir.join("node.json").exists(), "it became ready:\n{said}");
}

#[test]
fn a_taken_admin_port_is_unavailable_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    refused(dir.path(), &[("SIMPUL_LISTEN__ADMIN", address)], 69, &["listen.admin"]);
}

#[test]
fn missing_files_and_mistyped_variables_are_told_together() {
    let dir = tempfile::tempdir().expect("a directory");
    let env = [
        ("SIMPUL_TLS__CERT_FILE", "/does/not/exist.pem".to_owned()),
        ("SIMPUL_TLS__KEY_FILE", "/does/not/exist-key.pem".to_owned()),
        ("SIMPUL_DATADIR", "planted".to_owned()),
    ];
    let words = ["SIMPUL_DATADIR", "data_dir is", "tls.cert_file", "tls.key_file"];
    refused(dir.path(), &env, 64, &words);
}

#[test]
fn a_key_that_cannot_be_read_is_a_matter_of_configuration() {
    let node = Node::start();
    let dir = tempfile::tempdir().expect("a directory");
    let pem = |name: &str| {
        let to = dir.path().join(name);
        std::fs::copy(node.dir().join("dev").join(name), &to).expect("copied");
        to
    };
    let (cert, key) = (pem("server.pem"), pem("server-key.pem"));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o000)).expect("shut");
    let mut command = if rustix::process::geteuid().is_root() {
        // Root reads everything: somebody else has to try.
        for path in [dir.path(), &cert] {
            let mode = if path.is_dir() { 0o777 } else { 0o644 };
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("open");
        }
        let Ok(found) = Command::new("setpriv").arg("--version").output() else {
            crate::support::not_run("it needs setpriv when it runs as root");
            return;
        };
        assert!(found.status.success());
        let binary = dir.path().join("simpul");
        std::fs::copy(env!("CARGO_BIN_EXE_simpul"), &binary).expect("copied");
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(binary);
        command
    } else {
        Command::new(env!("CARGO_BIN_EXE_simpul"))
    };
    command
        .arg("serve")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", dir.path())
        .env("SIMPUL_DATA_DIR", dir.path().join("data"))
        .envs(local(&[
            ("SIMPUL_TLS__CERT_FILE", cert.display().to_string()),
            ("SIMPUL_TLS__KEY_FILE", key.display().to_string()),
        ]))
        .current_dir(dir.path());
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("tls.key_file"), "{said}");
}

/// A full disk: a file system of a few pages, where one may be mounted.
#[test]
fn a_full_disk_is_unavailable() {
    let dir = tempfile::tempdir().expect("a directory");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(dir.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        crate::support::not_run("a full disk needs the right to mount");
        return;
    }
    let unmount = Unmount(dir.path());
    refused(dir.path(), &[], 69, &[]);
    drop(unmount);
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).output();
    }
}

#[test]
fn doctor_finds_what_is_really_broken() {
    let mut node = Node::start();
    assert_eq!(node.cli(&["doctor"]).status.code(), Some(0));
    node.kill();
    let dir = node.dir().to_owned();
    let found = |what: &str| {
        let output = cli_in(&dir, &["doctor", "--output", "json"], "");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        (output.status.code() == Some(1), format!("{what}:\n{text}"))
    };
    // Each breaks one thing, looks, and mends it again.
    let (ill, said) = found("a node that was killed");
    assert!(ill && said.contains("node-gone"), "{said}");

    let key = dir.join("dev/server-key.pem");
    let mode = std::fs::metadata(&key).expect("the key").permissions();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("opened");
    let (ill, said) = found("a key that everybody reads");
    assert!(ill && said.contains("key-open"), "{said}");
    std::fs::set_permissions(&key, mode).expect("shut");

    let certificate = dir.join("dev/server.pem");
    let whole = std::fs::read(&certificate).expect("the certificate");
    std::fs::write(&certificate, &whole[..whole.len() / 2]).expect("torn");
    let (ill, said) = found("a torn certificate");
    assert!(ill && said.contains("certificate-unreadable"), "{said}");
    std::fs::write(&certificate, &whole).expect("whole");

    let version = std::fs::read(dir.join("version")).expect("the version");
    std::fs::write(dir.join("version"), "999\n").expect("newer");
    let (ill, said) = found("a data directory of a newer version");
    assert!(ill && said.contains("data-dir-unusable"), "{said}");
    std::fs::write(dir.join("version"), version).expect("as it was");

    // With its log, which would hold every page of so young a database.
    let database = dir.join("simpul.db");
    let _ = std::fs::remove_file(dir.join("simpul.db-wal"));
    std::fs::write(&database, b"this is no database, whatever its name says").expect("written");
    let (ill, said) = found("a damaged database");
    assert!(ill && said.contains("database-unreadable"), "{said}");
}
