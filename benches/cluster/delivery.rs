//! Delivery across nodes: a sender on one node, a room that another owns, a
//! reader on the third. Against what nobody can do without: a bare call over
//! mutual TLS and one commit of one row on the same server. Lone messages, and
//! lone calls between them, so that both begin with everybody asleep.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use secrecy::ExposeSecret;
use simpul::principal::Principal;
use simpul::proto::identity::v1::WhoAmIRequest;
use simpul::proto::identity::v1::identity_service_client::IdentityServiceClient;
use simpul::security::issue::{self, CertificateRequest};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::transport::Channel;

use crate::figures::{Figure, millis, percentile};
use crate::process::{Server, Target, median, wait_for};
use crate::readers::{self, Stream, Writer};
use crate::stage::Stage;
use crate::world::LONG;

const ROUNDS: usize = 5;
const MESSAGES: u64 = 1_000;

/// Between a message and a call: each comes a hundred times a second.
const TICK: Duration = Duration::from_millis(5);

/// A bare server in a process of its own, and a client with a certificate.
struct Bare {
    _server: Server,
    _dir: tempfile::TempDir,
    client: IdentityServiceClient<Channel>,
}

impl Bare {
    async fn start() -> Bare {
        let (now, ttl) = (SystemTime::now(), Duration::from_secs(86_400));
        let authority = issue::authority("bare", ttl, false, now).expect("an authority");
        let sign = |request: CertificateRequest| {
            issue::sign(&authority.certificate, &authority.key, &request, now).expect("signed")
        };
        let server = sign(CertificateRequest {
            dns: vec!["localhost".to_owned()],
            ttl,
            ..CertificateRequest::default()
        });
        let bench: Principal = "user/bench@bare".parse().expect("a principal");
        let user = sign(CertificateRequest {
            principal: Some(bench),
            ttl,
            ..CertificateRequest::default()
        });
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).expect("written");
        };
        write("server.pem", &server.certificate);
        write("server-key.pem", server.key.expose_secret());
        write("clients.pem", &authority.certificate);
        let child = Command::new(std::env::current_exe().expect("this program"))
            .arg("bare-server")
            .arg(dir.path())
            .spawn()
            .expect("it starts");
        let address = wait_for(&dir.path().join("address")).trim().to_owned();
        let identity = (user.certificate.as_bytes(), user.key.expose_secret().as_bytes());
        let target = Target::proven(&address, authority.certificate.into_bytes(), Some(identity));
        let client = IdentityServiceClient::new(target.channel().await);
        Bare { _server: Server { child }, _dir: dir, client }
    }
}

/// A sender on one node and a reader on another.
struct Crossing {
    room: String,
    writer: Writer,
    arrived: mpsc::Receiver<(u64, Instant)>,
    next: u64,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Crossing {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Crossing {
    async fn open(stage: &Stage, room: &str, from: usize, to: usize) -> Crossing {
        let Stream { writer, mut reader } =
            Stream::join(&stage.target(from), &stage.token, room).await;
        // Its own messages and acknowledgements are read as any client does.
        let own = simpul::task::spawn("sender's reader", async move {
            loop {
                reader.read(|_| ()).await;
            }
        });
        let Stream { writer: kept, mut reader } =
            Stream::join(&stage.target(to), &stage.token, room).await;
        let (told, arrived) = mpsc::channel(64);
        let other = simpul::task::spawn("reader", async move {
            let _kept = kept;
            loop {
                let mut came = Vec::new();
                reader.messages(|_, body| came.push((number(body), Instant::now()))).await;
                for one in came {
                    if told.send(one).await.is_err() {
                        return;
                    }
                }
            }
        });
        Crossing { room: room.to_owned(), writer, arrived, next: 0, tasks: [own, other] }
    }

    /// How long one message takes.
    async fn send(&mut self) -> Duration {
        let number = self.next;
        self.next += 1;
        let begun = Instant::now();
        self.writer.write(readers::send(&self.room, number, &body(number))).await;
        loop {
            let arrived = timeout(LONG, self.arrived.recv()).await.expect("it arrives");
            let (which, at) = arrived.expect("the reader reads");
            if which == number {
                return at - begun;
            }
        }
    }
}

fn body(number: u64) -> String {
    format!("{number:012}{}", "x".repeat(138))
}

fn number(body: &[u8]) -> u64 {
    std::str::from_utf8(&body[..12]).expect("ASCII").parse().expect("a number")
}

/// One commit of one row.
async fn commit(connection: &mut PgConnection, number: i64) {
    sqlx::query("INSERT INTO bare_row (id, body) VALUES ($1, $2)")
        .bind(number)
        .bind(body(0).into_bytes())
        .execute(connection)
        .await
        .expect("a commit");
}

pub async fn run() -> Vec<Figure> {
    let stage = Stage::start(3, 0);
    stage.settled(0, 3).await;
    let room = stage.rooms("delivery", Some(1), 1).await.remove(0);
    let mut crossing = Crossing::open(&stage, &room, 0, 2).await;
    let mut bare = Bare::start().await;
    let url = stage.world.postgres.url("simpul");
    let mut connection = PgConnection::connect(&url).await.expect("the store");
    let table = "CREATE TABLE bare_row (id BIGINT PRIMARY KEY, body BYTEA NOT NULL)";
    connection.execute(table).await.expect("a table");
    let (mut middles, mut tails, mut rows) = (Vec::new(), Vec::new(), 0);
    // The first round warms up and is not counted.
    for round in 0..=ROUNDS {
        let (mut ours, mut calls, mut commits, mut base) = (vec![], vec![], vec![], vec![]);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..MESSAGES {
            ticks.tick().await;
            ours.push(crossing.send().await);
            ticks.tick().await;
            let begun = Instant::now();
            bare.client.who_am_i(WhoAmIRequest {}).await.expect("an answer");
            calls.push(begun.elapsed());
            let begun = Instant::now();
            commit(&mut connection, rows).await;
            rows += 1;
            commits.push(begun.elapsed());
            base.push(calls[calls.len() - 1] + commits[commits.len() - 1]);
        }
        let at = |values: &Vec<Duration>, percent| percentile(values.clone(), percent);
        let ratio = |percent| at(&ours, percent).as_secs_f64() / at(&base, percent).as_secs_f64();
        for percent in [50, 99] {
            println!(
                "delivery round {round} p{percent}: {} against {} (call {}, commit {}): {:.2}",
                millis(at(&ours, percent)),
                millis(at(&base, percent)),
                millis(at(&calls, percent)),
                millis(at(&commits, percent)),
                ratio(percent),
            );
        }
        if round > 0 {
            middles.push(ratio(50));
            tails.push(ratio(99));
        }
    }
    let name =
        |percent| format!("delivery across nodes, {percent} ÷ bare mTLS call and one commit");
    vec![
        Figure::new(name("p50"), format!("{:.2}", median(middles)), "2", "1.5"),
        Figure::new(name("p99"), format!("{:.2}", median(tails)), "3", "2.5"),
    ]
}
