//! Pods that go: by hand, by eviction, by a signal; and the database's.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::clients::Clients;
use crate::kit::{kubectl, until};
use crate::pods::{LONG, pods, ready};
use crate::site::{NODES, Site, evict as ask_to_evict};

/// A pod is deleted and comes back under its name.
pub async fn delete(_: &Site, _: &Clients) -> String {
    let before = ready(NODES).await;
    let begun = Instant::now();
    kubectl(&["delete", "pod", "simpul-1"]).await;
    let after = ready(NODES).await;
    assert_ne!(before[1].uid, after[1].uid);
    assert_eq!((&before[0], &before[2]), (&after[0], &after[2]), "the others stay");
    format!("simpul-1 was back after {:.1} s", begun.elapsed().as_secs_f64())
}

/// One may be evicted, a second at the same time may not.
pub async fn evict(_: &Site, _: &Clients) -> String {
    until("one may go", LONG, async || {
        let allowed = "jsonpath={.status.disruptionsAllowed}";
        (kubectl(&["get", "pdb", "simpul", "--output", allowed]).await == "1").then_some(())
    })
    .await;
    let before = ready(NODES).await;
    ask_to_evict("simpul-0").await.expect("one may go");
    let refused = ask_to_evict("simpul-1").await.expect_err("a second may not");
    assert!(refused.contains("disruption budget"), "{refused}");
    until("simpul-0 is another", LONG, async || {
        let uid = pods().await.first()?.uid.clone();
        (uid != before[0].uid).then_some(())
    })
    .await;
    let after = ready(NODES).await;
    assert_eq!((&before[1], &before[2]), (&after[1], &after[2]), "the others stay");
    "simpul-0 went and came back, simpul-1 was refused meanwhile".to_owned()
}

/// The node's process is killed; kubelet starts the container again.
pub async fn kill(_: &Site, _: &Clients) -> String {
    let before = ready(NODES).await;
    let process = before[2].process().expect("its process on this machine");
    let begun = Instant::now();
    kill_process(Pid::from_raw(process).expect("a process"), Signal::KILL).expect("killed");
    let after = until("the container runs again", LONG, async || {
        let pod = pods().await.into_iter().find(|pod| pod.name == before[2].name)?;
        (pod.restarts > before[2].restarts && pod.ready).then_some(pod)
    })
    .await;
    assert_eq!(after.uid, before[2].uid, "the same pod");
    let took = begun.elapsed();
    let mut deaths = 0.0;
    for pod in ready(NODES).await {
        deaths += pod.value("simpul_cluster_deaths_declared_total", "").await.unwrap_or(0.0);
    }
    format!("ready again after {:.1} s; {deaths} deaths declared so far", took.as_secs_f64())
}

/// The database is stopped and comes back: nodes stay up, say so, and go on by
/// themselves.
pub async fn store(_: &Site, clients: &Clients) -> String {
    let before = ready(NODES).await;
    let begun = Instant::now();
    let stop = "kill -INT 1";
    // Its fast shutdown; kubelet starts the container again, its files stay.
    kubectl(&["exec", "postgres-0", "--", "/bin/bash", "-c", stop]).await;
    until("the database runs again", LONG, async || {
        let restarts = "jsonpath={.status.containerStatuses[0].restartCount} \
                        {.status.containerStatuses[0].ready}";
        let said = kubectl(&["get", "pod", "postgres-0", "--output", restarts]).await;
        (said == "1 true").then_some(())
    })
    .await;
    clients.going_on().await;
    let took = begun.elapsed();
    // Readiness follows the store, and the Service has its endpoints again.
    let after = ready(NODES).await;
    assert_eq!(
        before.iter().map(|pod| (&pod.uid, pod.restarts)).collect::<Vec<_>>(),
        after.iter().map(|pod| (&pod.uid, pod.restarts)).collect::<Vec<_>>(),
        "no node was restarted for it"
    );
    until("calls work", Duration::from_secs(30), async || {
        let from = clients.now();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let seen = clients.since(from);
        (seen.calls > 5 && seen.failed.is_empty()).then_some(())
    })
    .await;
    format!("chats went on {:.1} s after it was stopped; no node restarted", took.as_secs_f64())
}
