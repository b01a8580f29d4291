//! Nodes over a database of their own, which goes with them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
use simpul::proto::chat::v1::{GetMessagesRequest, Message, SendMessageRequest};
use simpul::proto::cluster::v1 as pb;
use simpul::proto::cluster::v1::cluster_service_client::ClusterServiceClient;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::support::{Node, command, eventually, not_run, with_token};

/// The variable that names the server.
pub const SERVER: &str = "SIMPUL_TEST_POSTGRES_URL";

/// A database of one test.
#[derive(Debug)]
pub struct Database {
    server: String,
    name: String,
}

impl Database {
    /// Makes one; `None`, with a word about it, where there is no server.
    pub async fn new(test: &str) -> Option<Self> {
        let Ok(server) = std::env::var(SERVER) else {
            not_run(&format!("{test}: {SERVER} names no PostgreSQL"));
            return None;
        };
        let name = format!("simpul_cluster_{:016x}", rand::random::<u64>());
        let mut connection = connect(&server).await;
        connection
            .execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .await
            .expect("a database");
        Some(Self { server, name })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        let (server, _) = self.server.rsplit_once('/').expect("a URL with a database");
        format!("{server}/{}", self.name)
    }

    /// Runs statements in it, as the server's owner.
    pub async fn sql(&self, statements: &str) {
        let mut connection = connect(&self.url()).await;
        let statements = sqlx::AssertSqlSafe(statements.to_owned());
        sqlx::raw_sql(statements).execute(&mut connection).await.expect("done");
    }

    /// Asks it for one number.
    pub async fn number(&self, question: &str) -> i64 {
        let mut connection = connect(&self.url()).await;
        let question = sqlx::AssertSqlSafe(question.to_owned());
        sqlx::query_scalar(question).fetch_one(&mut connection).await.expect("a number")
    }

    /// Its URL for another user.
    pub fn url_for(&self, user: &str) -> String {
        let url = self.url();
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        format!("{scheme}://{user}@{host}")
    }

    /// Drops it.
    pub async fn drop(&self) {
        let mut connection = connect(&self.server).await;
        let dropped = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        connection.execute(sqlx::AssertSqlSafe(dropped)).await.expect("dropped");
    }
}

/// A session with a server.
pub async fn connect(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().expect("a URL");
    PgConnection::connect_with(&options.disable_statement_logging())
        .await
        .expect("the server answers")
}

/// Nodes that share a database.
#[derive(Debug)]
pub struct Cluster {
    /// `None` where the nodes share a file.
    pub database: Option<Database>,
    pub nodes: Vec<Node>,
    pub dirs: TempDir,
}

impl Cluster {
    /// Starts so many; `None` where there is no server. Every partition has an
    /// owner when it returns, and the partitions are spread.
    pub async fn start(test: &str, nodes: usize) -> Option<Self> {
        Self::start_with(test, nodes, &[]).await
    }

    pub async fn start_with(test: &str, nodes: usize, env: &[(&str, &str)]) -> Option<Self> {
        let database = Some(Database::new(test).await?);
        let dirs = tempfile::tempdir().expect("a directory");
        let mut cluster = Self { database, nodes: Vec::new(), dirs };
        for _ in 0..nodes {
            cluster.add(env);
        }
        cluster.spread().await;
        Some(cluster)
    }

    /// Starts so many over one SQLite file, with nothing installed.
    pub async fn start_on_a_file(nodes: usize) -> Self {
        let dirs = tempfile::tempdir().expect("a directory");
        let mut cluster = Self { database: None, nodes: Vec::new(), dirs };
        for _ in 0..nodes {
            cluster.add(&[("SIMPUL_CLUSTER__SHARED_FILE", "true")]);
        }
        cluster.spread().await;
        cluster
    }

    /// Starts one more node.
    pub fn add(&mut self, env: &[(&str, &str)]) {
        let at = self.nodes.len();
        let dir = self.dir(&format!("n{at}"));
        let node = Node::start_in(&dir, &self.env(&format!("n{at}"), env));
        self.nodes.push(node);
    }

    /// A data directory that shares the cluster's authority.
    pub fn dir(&self, name: &str) -> std::path::PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let dir = self.dirs.path().join(name);
        std::fs::create_dir_all(&dir).expect("a directory");
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&dir, private).expect("its owner's");
        if let Some(first) = self.nodes.first() {
            copy(&first.dir().join("dev"), &dir.join("dev"));
        }
        dir
    }

    /// What a node's environment adds.
    pub fn env<'a>(&'a self, id: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let url = match &self.database {
            Some(database) => database.url(),
            None => format!("sqlite:{}", self.dirs.path().join("shared.db").display()),
        };
        let url: &'a str = Box::leak(url.into_boxed_str());
        let id: &'a str = Box::leak(id.to_owned().into_boxed_str());
        let mut env = vec![
            ("SIMPUL_STORE__URL", url),
            ("SIMPUL_NODE__ID", id),
            ("SIMPUL_CHAT__PARTITIONS", "32"),
            ("SIMPUL_SHUTDOWN__GRACE", "20s"),
        ];
        env.extend_from_slice(more);
        env
    }

    /// Starts a node that must refuse; what it says.
    pub fn refused(&self, dir: &str, id: &str, more: &[(&str, &str)]) -> String {
        refused(&self.dir(dir), &self.env(id, more)).1
    }

    /// A token that every node takes.
    pub fn token(&self, who: &str, roles: &[&str]) -> String {
        self.nodes.first().expect("a node").token(who, roles)
    }

    /// The cluster as a node sees it.
    pub async fn seen_by(&self, node: usize) -> pb::Cluster {
        let token = self.token("olga", &["operator"]);
        let mut client = ClusterServiceClient::new(self.nodes[node].channel().await);
        let seen = client.get_cluster(with_token(pb::GetClusterRequest {}, &token)).await;
        seen.expect("the cluster").into_inner().cluster.expect("a cluster")
    }

    /// The same, of the first of these nodes: the others may have ended.
    pub async fn seen_by_any(&self, nodes: &[usize]) -> pb::Cluster {
        self.seen_by(*nodes.first().expect("a node")).await
    }

    /// Waits until the live nodes own about as much as each other, and are
    /// linked.
    pub async fn spread(&self) {
        let live = self.nodes.len();
        eventually("the partitions are spread and the nodes linked", async || {
            let seen = self.seen_by(0).await;
            let owning = seen.nodes.iter().filter(|node| node.partitions > 0).count();
            let links = seen.links.iter().filter(|link| link.connections > 0).count();
            (owning == live && links + 1 == live).then_some(())
        })
        .await;
    }

    /// The node that owns a room's partition.
    pub async fn owner_of(&self, room: &str) -> usize {
        let partition = simpul::store::chat::partition_of(room, 32);
        eventually("the room has an owner", async || {
            let seen = self.seen_by(0).await;
            let row = seen.partitions.iter().find(|row| row.partition == u32::from(partition))?;
            row.owner.strip_prefix('n')?.parse().ok()
        })
        .await
    }

    /// Ends the nodes and drops the database.
    pub async fn end(mut self) {
        self.nodes.clear();
        if let Some(database) = &self.database {
            database.drop().await;
        }
    }
}

/// Starts a node that must refuse; its exit code and what it says.
pub fn refused(dir: &Path, env: &[(&str, &str)]) -> (i32, String) {
    let refused = refused_by(command(dir), env);
    assert!(!dir.join("node.json").exists(), "it serves: {}", refused.1);
    refused
}

/// The same, of a command that starts a node.
pub fn refused_by(mut node: std::process::Command, env: &[(&str, &str)]) -> (i32, String) {
    let output = node
        .env("SIMPUL_LISTEN__PUBLIC", "127.0.0.1:0")
        .env("SIMPUL_LISTEN__MESH", "127.0.0.1:0")
        .env("SIMPUL_LISTEN__ADMIN", "127.0.0.1:0")
        .envs(env.iter().copied())
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().expect("it ends by itself"), said)
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        return;
    }
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.expect("cp").success(), "{from:?} is copied");
}

/// Sends messages one after the other, each until it is acknowledged.
#[derive(Debug)]
pub struct Writer {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    task: JoinHandle<Vec<(String, u64)>>,
}

impl Writer {
    /// Begins to write through these nodes: on the first until it fails, then
    /// the next. With `strict` nothing may fail.
    pub async fn start(nodes: &[&Node], token: &str, room: &str, name: &str, strict: bool) -> Self {
        let mut clients = Vec::new();
        for node in nodes {
            clients.push(ChatServiceClient::new(node.channel().await));
        }
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, counting) = (stop.clone(), sent.clone());
        let (token, room, name) = (token.to_owned(), room.to_owned(), name.to_owned());
        let writing = async move {
            let mut acknowledged = Vec::new();
            let mut at = 0;
            let mut tries = 0;
            while !stopping.load(Ordering::Relaxed) {
                let id = format!("{name}-{}", acknowledged.len());
                let send = SendMessageRequest {
                    room_id: room.clone(),
                    client_message_id: id.clone(),
                    body: id.clone(),
                    ..Default::default()
                };
                match clients[at].send_message(with_token(send, &token)).await {
                    Ok(answer) => {
                        acknowledged.push((id, answer.into_inner().seq));
                        counting.fetch_add(1, Ordering::Relaxed);
                        tries = 0;
                    }
                    Err(status) => {
                        assert!(!strict, "{name}: {status:?}");
                        let passing = [
                            Code::Unavailable,
                            Code::DeadlineExceeded,
                            Code::Unknown,
                            Code::Cancelled,
                        ];
                        assert!(passing.contains(&status.code()), "{name}: {status:?}");
                        tries += 1;
                        assert!(tries < 3_000, "{name}: {status:?}");
                        at = (at + 1) % clients.len();
                        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    }
                }
            }
            acknowledged
        };
        Self { stop, sent, task: simpul::task::spawn("writer", writing) }
    }

    /// How many were acknowledged.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits for so many more.
    pub async fn more(&self, count: u64) {
        let from = self.sent();
        eventually("the writer goes on", async || {
            assert!(!self.task.is_finished(), "the writer has failed");
            (self.sent() >= from + count).then_some(())
        })
        .await;
    }

    /// What was acknowledged: ids and seqs.
    pub async fn stop(self) -> Vec<(String, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the writer did not fail")
    }
}

/// The whole log of a room, read through a node.
pub async fn log(node: &Node, token: &str, room: &str) -> Vec<Message> {
    let mut client = ChatServiceClient::new(node.channel().await);
    let mut all: Vec<Message> = Vec::new();
    loop {
        let after = all.last().map_or(0, |last| last.seq);
        let get =
            GetMessagesRequest { room_id: room.to_owned(), after_seq: after, ..Default::default() };
        let mut stream =
            client.get_messages(with_token(get, token)).await.expect("the log").into_inner();
        let before = all.len();
        while let Some(answer) = stream.message().await.expect("a page") {
            all.extend(answer.message);
        }
        if all.len() == before {
            return all;
        }
    }
}

/// Every acknowledged message stands once, at the seq that was acknowledged,
/// and seqs have no gaps.
pub fn check(log: &[Message], acknowledged: &[(String, u64)]) {
    for (at, message) in log.iter().enumerate() {
        assert_eq!(message.seq, at as u64 + 1, "no gap");
    }
    for (id, seq) in acknowledged {
        let found: Vec<u64> = log
            .iter()
            .filter(|message| message.client_message_id == *id)
            .map(|message| message.seq)
            .collect();
        assert_eq!(found, [*seq], "{id}");
    }
}
