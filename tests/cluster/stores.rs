//! Databases that a node must not use, each refused with its reason, and TLS to
//! those that it may.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::cluster::{Database, refused};
use crate::pki::Authority;
use crate::server::{Server, Wanted, an_old_one};
use crate::support::Node;

/// Nobody may read it anywhere.
const PASSWORD: &str = "hunter2-in-a-password";

/// What the configuration must change, and what is not to be had now.
const WRONG: i32 = 64;
const ABSENT: i32 = 69;

/// Folders for nodes.
struct Nodes(TempDir);

impl Nodes {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn dir(&self, name: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = self.0.path().join(name);
        std::fs::create_dir_all(&dir).expect("a folder");
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&dir, private).expect("its owner's");
        dir
    }

    /// A node that this store must keep from starting, with the reason.
    fn refused(&self, url: &str, code: i32, reason: &str) {
        let (ended, said) = refused(&self.dir("refused"), &[("SIMPUL_STORE__URL", url)]);
        assert!(said.contains(reason), "{reason}: {said}");
        assert_eq!(ended, code, "{said}");
        assert!(!said.contains(PASSWORD), "{said}");
        assert!(!said.contains("postgres://"), "the URL is not repeated: {said}");
    }

    /// A node that starts, and ends again.
    fn starts(&self, url: &str) {
        let dir = self.dir("starts");
        let node = Node::start_in(&dir, &[("SIMPUL_STORE__URL", url)]);
        assert_eq!(node.admin("/readyz").0, 200);
        drop(node);
        no_password(&dir.join("node.log"));
    }
}

fn no_password(log: &Path) {
    let log = std::fs::read_to_string(log).expect("a log");
    assert!(!log.contains(PASSWORD), "{log}");
}

/// A role's name that no other test has.
fn role() -> String {
    format!("simpul_role_{:016x}", rand::random::<u64>())
}

const TABLES: &str = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_rights() {
    let Some(database) = Database::new("a user without rights").await else { return };
    let nodes = Nodes::new();
    let role = role();
    database
        .sql(&format!("CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
        .await;
    let url = database.url_for(&role);
    nodes.refused(&url, WRONG, "may not make tables");
    database.sql("REVOKE ALL ON SCHEMA public FROM PUBLIC").await;
    nodes.refused(&url, WRONG, "may not make tables");
    assert_eq!(database.number(TABLES).await, 0, "nothing was made");
    // Where another user has made them.
    database.sql("GRANT USAGE ON SCHEMA public TO PUBLIC").await;
    nodes.starts(&database.url());
    let made = database.number(TABLES).await;
    nodes.refused(&url, WRONG, "the database user may not use the tables");
    assert_eq!(database.number(TABLES).await, made);
    // Who may use the tables needs not be one who may make some.
    database
        .sql(&format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}; \
             GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"
        ))
        .await;
    nodes.starts(&url);
    database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_can_lose_what_was_acknowledged() {
    let Some(database) = Database::new("synchronous_commit off").await else { return };
    let nodes = Nodes::new();
    let set = async |level: &str| {
        let set = format!(
            "DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = {level}', \
             current_database()); END$$"
        );
        database.sql(&set).await;
    };
    for level in ["off", "local"] {
        set(level).await;
        nodes.refused(&database.url(), WRONG, &format!("synchronous_commit is {level}"));
    }
    assert_eq!(database.number(TABLES).await, 0, "nothing was made");
    set("on").await;
    nodes.starts(&database.url());
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_too_old() {
    let nodes = Nodes::new();
    let port = an_old_one().await;
    let url = format!("postgres://simpul:{PASSWORD}@127.0.0.1:{port}/simpul");
    nodes.refused(&url, WRONG, "the server is PostgreSQL 12; 13 is the oldest");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_and_a_database_that_is_not_there() {
    let access = "host all teller 127.0.0.1/32 scram-sha-256";
    let wanted = Wanted { access, ..Wanted::default() };
    let Some(server) = Server::start("a wrong password", wanted).await else { return };
    let nodes = Nodes::new();
    server
        .sql(&[
            &format!("CREATE ROLE teller LOGIN PASSWORD '{PASSWORD}'"),
            "CREATE DATABASE simpul OWNER teller",
        ])
        .await;
    let good = server.url(&format!("teller:{PASSWORD}"), "simpul");
    nodes.starts(&good);
    let wrong = server.url(&format!("teller:{PASSWORD}-not"), "simpul");
    nodes.refused(&wrong, ABSENT, "password authentication failed for user \"teller\" (28P01)");
    let absent = server.url(&format!("teller:{PASSWORD}"), "nowhere");
    nodes.refused(&absent, ABSENT, "database \"nowhere\" does not exist (3D000)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_primary_is_taken_wherever_it_stands_in_the_list() {
    let Some(database) = Database::new("a standby").await else { return };
    let wanted = Wanted { standby: true, ..Wanted::default() };
    let Some(standby) = Server::start("a standby", wanted).await else { return };
    let nodes = Nodes::new();
    let alone = standby.url("postgres", "postgres");
    nodes.refused(&alone, ABSENT, "the server is a standby");
    // Nobody listens on the port of a socket that was closed.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let dead = closed.local_addr().expect("an address");
    drop(closed);
    let dead = format!("postgres://postgres@{dead}/postgres");
    nodes.refused(&format!("{dead},{alone}"), ABSENT, "no address of 2 is a primary");
    for first in [&dead, &alone] {
        nodes.starts(&format!("{first},{}", database.url()));
    }
    assert!(standby.dir().exists());
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_to_the_database_is_verified() {
    let pki = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(pki.path(), "database");
    let other = Authority::new(pki.path(), "other");
    let wanted = Wanted {
        access: "hostssl all teller 127.0.0.1/32 trust\nhostnossl all teller 127.0.0.1/32 reject",
        certificate: Some(authority.server("server", "127.0.0.1")),
        ..Wanted::default()
    };
    let Some(server) = Server::start("TLS to the database", wanted).await else { return };
    let nodes = Nodes::new();
    server.sql(&["CREATE ROLE teller LOGIN", "CREATE DATABASE simpul OWNER teller"]).await;
    let url = server.url("teller", "simpul");
    let by = |mode: &str, authority: &Authority, url: &str| {
        format!("{url}?sslmode={mode}&sslrootcert={}", authority.ca().display())
    };

    let good = by("verify-full", &authority, &url);
    let node = Node::start_in(&nodes.dir("tls"), &[("SIMPUL_STORE__URL", &good)]);
    let sessions = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                    WHERE usename = 'teller' AND ssl";
    assert!(server.number(sessions).await > 0);
    assert_eq!(server.number(&sessions.replace("AND ssl", "AND NOT ssl")).await, 0);
    drop(node);

    nodes.refused(&by("verify-full", &other, &url), ABSENT, "UnknownIssuer");
    nodes.refused(&by("verify-ca", &other, &url), ABSENT, "UnknownIssuer");
    // The certificate names the address, and not this name of it.
    let by_name = url.replace("127.0.0.1", "localhost");
    nodes.refused(&by("verify-full", &authority, &by_name), ABSENT, "not valid for name");
    nodes.starts(&by("verify-ca", &authority, &by_name));
    nodes.refused(&format!("{url}?sslmode=disable"), ABSENT, "pg_hba.conf");
}
