//! An owner is lost while everybody talks: how long until its rooms are answered
//! again. It is killed, or frozen, or frozen between its fence and its COMMIT.
//! Clients of the other nodes are the figure; those that were connected to the
//! node itself are shown beside it.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use crate::figures::{Figure, millis, percentile};
use crate::stage::Stage;
use crate::talk::Talk;
use crate::world::LONG;

/// The node that is lost, and those that stay.
const VICTIM: usize = 1;
const OTHERS: [usize; 2] = [0, 2];
const ALL: [usize; 3] = [0, 1, 2];

/// Rooms in which clients of the other nodes talk, and clients of the victim.
const ROOMS: usize = 48;
const OWN: usize = 16;

const ROUNDS: usize = 8;
const PAUSE: Duration = Duration::from_millis(100);

/// What a process may still do after a signal was sent to it.
const STOPPING: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Kill,
    Freeze,
    FreezeInside,
}

/// The longest silences of rooms.
#[derive(Default)]
struct Silences {
    others: Vec<Duration>,
    own: Vec<Duration>,
}

pub async fn run() -> Vec<Figure> {
    let mut stage = Stage::start(3, 0);
    let faults = tempfile::tempdir().expect("a directory");
    stage.settled(0, 3).await;
    let rooms = stage.rooms("kill", Some(VICTIM), ROOMS + OWN).await;
    let mut figures = Vec::new();
    for (blow, name, floor, goal) in [
        (Blow::Kill, "kill -9 of an owner → next ack in its rooms, p99", "3 s", "1 s"),
        (Blow::Freeze, "freeze (SIGSTOP) → next ack, p99", "4 s", "3 s"),
        (Blow::FreezeInside, "freeze between fence and COMMIT → next ack, p99", "4 s", "3 s"),
    ] {
        if blow == Blow::FreezeInside {
            if !cfg!(feature = "fault") {
                println!("kill: {name}: LEFT OUT, it needs --features fault");
                continue;
            }
            hold_at_faults(&mut stage, faults.path());
        }
        let mut all = Silences::default();
        for round in 0..ROUNDS {
            stage.settled(0, 3).await;
            let silences = strike(&mut stage, &rooms, blow, faults.path()).await;
            println!(
                "{blow:?} {}: median {}, longest {}; clients of the node itself {}, {}",
                round + 1,
                millis(percentile(silences.others.clone(), 50)),
                millis(percentile(silences.others.clone(), 100)),
                millis(percentile(silences.own.clone(), 50)),
                millis(percentile(silences.own.clone(), 100)),
            );
            all.others.extend(silences.others);
            all.own.extend(silences.own);
        }
        figures.push(Figure::new(name, millis(percentile(all.others, 99)), floor, goal));
        let own = format!("the same, clients of the {blow:?} node itself");
        figures.push(Figure::new(own, millis(percentile(all.own, 99)), "", ""));
    }
    figures
}

/// The victim's appends can be held after their fence from now on.
fn hold_at_faults(stage: &mut Stage, dir: &Path) {
    let world = &mut stage.world;
    assert_eq!(world.nodes[VICTIM].stop(), Some(0), "a node that is asked to stop does");
    world.nodes[VICTIM].set_env("SIMPUL_TEST_FAULT_DIR", dir.to_str().expect("UTF-8"));
    world.start_node(VICTIM);
    world.wait_ready(VICTIM);
}

/// One loss, from the talk before until everything is as it was.
async fn strike(stage: &mut Stage, rooms: &[String], blow: Blow, faults: &Path) -> Silences {
    let (theirs, own) = rooms.split_at(ROOMS);
    let others = Talk::start(stage, theirs, &OTHERS, &OTHERS, PAUSE);
    let own = Talk::start(stage, own, &[VICTIM; 4], &ALL, PAUSE);
    let begun = Instant::now();
    others.goes_on(begun).await;
    own.goes_on(begun).await;
    // Not always at the same place between two beats.
    tokio::time::sleep(Duration::from_millis(rand::random_range(500..1_000))).await;
    let hold = faults.join("append.fenced.hold");
    if blow == Blow::FreezeInside {
        std::fs::write(&hold, "").expect("written");
        inside(&stage.world.postgres.url("simpul"), &stage.world.nodes[VICTIM].id).await;
    }
    let at = Instant::now();
    match blow {
        Blow::Kill => stage.world.nodes[VICTIM].kill(),
        Blow::Freeze | Blow::FreezeInside => stage.world.nodes[VICTIM].signal(Signal::STOP),
    }
    others.goes_on(at + STOPPING).await;
    own.goes_on(at + STOPPING).await;
    let silences = Silences { others: others.silences(at), own: own.silences(at) };
    match blow {
        Blow::Kill => {
            stage.world.start_node(VICTIM);
            stage.world.wait_ready(VICTIM);
        }
        Blow::Freeze => stage.world.nodes[VICTIM].signal(Signal::CONT),
        Blow::FreezeInside => {
            std::fs::remove_file(&hold).expect("removed");
            stage.world.nodes[VICTIM].signal(Signal::CONT);
        }
    }
    silences
}

/// Waits until a fencing session of a node stands still inside its transaction.
async fn inside(url: &str, node: &str) {
    let mut connection = PgConnection::connect(url).await.expect("the store");
    let begun = Instant::now();
    loop {
        let held: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE application_name LIKE 'simpul/%/' || $1 AND state = 'idle in transaction' \
             AND state_change < clock_timestamp() - interval '20 ms'",
        )
        .bind(node)
        .fetch_one(&mut connection)
        .await
        .expect("an answer");
        if held > 0 {
            return;
        }
        assert!(begun.elapsed() < LONG, "no append of {node} is held at its fence");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
