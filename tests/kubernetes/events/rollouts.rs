//! New pods for old ones: restarts, other numbers, and what must not roll out.

use std::time::Duration;

use crate::clients::Clients;
use crate::kit::{ask, kubectl, until};
use crate::pods::{LONG, Pod, pods, ready, rolled_out};
use crate::site::{NODES, Site, dry_run as dry};

/// When the sessions are counted after a change of the number of nodes.
const SETTLED: Duration = Duration::from_secs(60);

/// The most of one node over the mean.
const SKEW: f64 = 1.5;

fn rollouts() -> usize {
    let asked = std::env::var("SIMPUL_TEST_ROLLOUTS").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(2)
}

/// Every pod is replaced, as often as asked for.
pub async fn restart(_: &Site, clients: &Clients) -> String {
    let before = clients.turns();
    for _ in 0..rollouts() {
        let old = ready(NODES).await;
        kubectl(&["rollout", "restart", "statefulset/simpul"]).await;
        rolled_out().await;
        let new = ready(NODES).await;
        assert!(new.iter().all(|pod| old.iter().all(|old| old.uid != pod.uid)), "all are new");
        assert_eq!(new.iter().map(|pod| pod.restarts).sum::<u64>(), 0, "none fell over");
    }
    let after = clients.turns();
    format!(
        "{} rollouts of {NODES} pods, {} moves without a pause, {} streams lost",
        rollouts(),
        after.1 - before.1,
        after.0 - before.0
    )
}

/// The sessions of each node.
async fn sessions(pods: &[Pod]) -> Vec<f64> {
    let mut all = Vec::new();
    for pod in pods {
        let told = until("a pod tells its sessions", LONG, async || {
            pod.value("simpul_chat_sessions", "").await
        });
        all.push(told.await);
    }
    all
}

fn skew(sessions: &[f64]) -> f64 {
    let mean = sessions.iter().sum::<f64>() / sessions.len() as f64;
    sessions.iter().copied().fold(0.0, f64::max) / mean
}

/// More nodes take their share of sessions; fewer are enough.
pub async fn scale(_: &Site, _: &Clients) -> String {
    kubectl(&["scale", "statefulset/simpul", "--replicas=5"]).await;
    let five = ready(5).await;
    tokio::time::sleep(SETTLED).await;
    let at_five = sessions(&five).await;
    let (skewed, owned) = (skew(&at_five), owned(&five).await);
    kubectl(&["scale", "statefulset/simpul", "--replicas=2"]).await;
    ready(2).await;
    until("two nodes own everything", LONG, async || {
        let owned = owned_by(&pods().await).await;
        (owned.len() == 2 && owned.iter().sum::<f64>() == 256.0).then_some(())
    })
    .await;
    kubectl(&["scale", "statefulset/simpul", "--replicas=3"]).await;
    ready(NODES).await;
    assert!(skewed <= SKEW, "a node has {skewed:.2} times the mean: {at_five:?}");
    format!(
        "{} s after 5 were ready the fullest had {skewed:.2} times the mean of the sessions \
         {at_five:?}, partitions {owned:?}",
        SETTLED.as_secs()
    )
}

async fn owned(pods: &[Pod]) -> Vec<f64> {
    owned_by(pods).await
}

async fn owned_by(pods: &[Pod]) -> Vec<f64> {
    let mut all = Vec::new();
    for pod in pods {
        all.extend(pod.value("simpul_cluster_partitions_owned", "").await);
    }
    all
}

/// The API server takes every manifest, whole and strictly.
pub async fn dry_run(site: &Site, _: &Clients) -> String {
    let mut kinds = 0;
    for overlay in ["single", "cluster", "demo", "cert-manager"] {
        let rendered = site.rendered(overlay).await;
        // The kinds of cert-manager are not of Kubernetes itself.
        let own: Vec<&str> = rendered
            .split("\n---\n")
            .filter(|document| !document.contains("apiVersion: cert-manager.io/"))
            .collect();
        kinds += own.len();
        dry(&own.join("\n---\n")).await.unwrap_or_else(|error| panic!("{overlay}: {error}"));
    }
    format!("{kinds} manifests of four overlays")
}

/// What is wrong is refused before anything happens.
pub async fn bad_manifests(site: &Site, _: &Clients) -> String {
    let good = site.rendered("cluster").await;
    for (from, to, complaint) in [
        ("readinessProbe:", "readynessProbe:", "unknown field"),
        ("minReadySeconds: 5", "minReadySeconds: -5", "must be greater than or equal to 0"),
        ("port: 7445", "port: 99999", "between 1 and 65535"),
        ("policyTypes:", "policyKinds:", "unknown field"),
        ("kind: PodDisruptionBudget", "kind: PodDisruptionBudgets", "no matches for kind"),
    ] {
        assert!(good.contains(from), "{from}");
        let said = dry(&good.replace(from, to)).await.expect_err("it is refused");
        assert!(said.contains(complaint), "{to}: {said}");
    }
    // The namespace's own rule: what is not restricted does not start.
    let overrides = r#"{"spec":{"containers":[{"name":"x","image":"localhost/simpul:test","securityContext":{"privileged":true}}]}}"#;
    let run = ["run", "x", "--image=localhost/simpul:test", "--overrides", overrides];
    let said = ask(&run).await.expect_err("it is refused");
    assert!(said.contains("violates PodSecurity"), "{said}");
    "refused by the API server: a mistyped field, a number out of range, a wrong kind; a privileged \
     pod by Pod Security"
        .to_owned()
}

/// Waits until the newest pod cannot start for a reason; the others must stay.
async fn stuck(reasons: &[&str]) -> Pod {
    let stuck = until("the new pod does not start", LONG, async || {
        pods().await.into_iter().find(|pod| reasons.contains(&pod.waiting.as_str()))
    })
    .await;
    let rollout = ask(&["rollout", "status", "statefulset/simpul", "--timeout=15s"]).await;
    assert!(rollout.is_err(), "the rollout must not come to its end");
    let now = pods().await;
    let old = now.iter().filter(|pod| pod.ready && pod.revision != stuck.revision).count();
    assert_eq!((now.len(), old), (NODES, NODES - 1), "the old pods go on: {now:?}");
    stuck
}

/// An image that is not there.
pub async fn bad_image(_: &Site, _: &Clients) -> String {
    kubectl(&["set", "image", "statefulset/simpul", "simpul=localhost/simpul:absent"]).await;
    let pod = stuck(&["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"]).await;
    kubectl(&["rollout", "undo", "statefulset/simpul"]).await;
    rolled_out().await;
    ready(NODES).await;
    format!(
        "{} waits ({}), two old pods serve; undo brings it back by itself",
        pod.name, pod.waiting
    )
}

/// A configuration that no node takes.
pub async fn bad_configuration(site: &Site, _: &Clients) -> String {
    let file = site.manifests().join("base/simpul.toml");
    let good = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, format!("{good}\n[chat]\npage_entrys = 5\n")).expect("written");
    site.apply().await;
    let pod = stuck(&["CrashLoopBackOff"]).await;
    let log = kubectl(&["logs", &pod.name, "--previous"]).await;
    assert!(log.contains("chat.page_entrys"), "it names the key: {log}");
    std::fs::write(&file, good).expect("written");
    site.apply().await;
    rolled_out().await;
    ready(NODES).await;
    format!(
        "{} does not start and names the key, two old pods serve; the good one rolls out",
        pod.name
    )
}
