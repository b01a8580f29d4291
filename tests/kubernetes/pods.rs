//! The nodes' pods: what Kubernetes says of them and what they say themselves.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use simpul::client::dial::{self, Address};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kit::{kubectl, until};

/// Longer than any rollout here takes.
pub const LONG: Duration = Duration::from_secs(240);

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub uid: String,
    pub address: String,
    pub ready: bool,
    pub restarts: u64,
    /// The generation of the set that it is made from.
    pub revision: String,
    /// Why its container does not run, if so.
    pub waiting: String,
}

/// The nodes' pods by name.
pub async fn pods() -> Vec<Pod> {
    let selector = "app.kubernetes.io/name=simpul,app.kubernetes.io/component=node";
    let json = kubectl(&["get", "pods", "--selector", selector, "--output", "json"]).await;
    let list: Value = serde_json::from_str(&json).expect("JSON");
    let mut pods: Vec<Pod> = list["items"].as_array().expect("a list").iter().map(pod).collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods
}

fn pod(json: &Value) -> Pod {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let container = &json["status"]["containerStatuses"][0];
    let leaving = json["metadata"]["deletionTimestamp"].is_string();
    Pod {
        name: text(&json["metadata"]["name"]),
        uid: text(&json["metadata"]["uid"]),
        address: text(&json["status"]["podIP"]),
        ready: container["ready"].as_bool().unwrap_or(false) && !leaving,
        restarts: container["restartCount"].as_u64().unwrap_or(0),
        revision: text(&json["metadata"]["labels"]["controller-revision-hash"]),
        waiting: text(&container["state"]["waiting"]["reason"]),
    }
}

/// Waits until there are exactly so many pods and all are ready.
pub async fn ready(count: usize) -> Vec<Pod> {
    until(&format!("{count} nodes are ready"), LONG, async || {
        let pods = pods().await;
        (pods.len() == count && pods.iter().all(|pod| pod.ready)).then_some(pods)
    })
    .await
}

/// Waits until a rollout is over.
pub async fn rolled_out() {
    kubectl(&["rollout", "status", "statefulset/simpul", "--timeout=300s"]).await;
}

impl Pod {
    /// The samples of a metric: the labels' text and the value.
    pub async fn metric(&self, name: &str) -> Vec<(String, f64)> {
        let Some(text) = get(&format!("{}:7445", self.address), "/metrics").await else {
            return Vec::new();
        };
        let samples = text.lines().filter_map(|line| {
            let (head, value) = line.rsplit_once(' ')?;
            let (found, labels) = head.split_once('{').unwrap_or((head, ""));
            (found == name).then(|| (labels.trim_end_matches('}').to_owned(), value.parse().ok()))
        });
        samples.filter_map(|(labels, value)| Some((labels, value?))).collect()
    }

    /// The value of a metric for the labels that contain a text.
    pub async fn value(&self, name: &str, label: &str) -> Option<f64> {
        let samples = self.metric(name).await;
        samples.into_iter().find(|(labels, _)| labels.contains(label)).map(|(_, value)| value)
    }

    /// The certificate that its public port shows.
    pub async fn certificate(&self, tls: Arc<rustls::ClientConfig>) -> Option<Vec<u8>> {
        let address = Address { host: self.address.clone(), port: 7443 };
        let stream = dial::dial(&address, Some("simpul"), tls).await.ok()?;
        let (_, connection) = stream.get_ref();
        connection.peer_certificates()?.first().map(|leaf| leaf.to_vec())
    }

    /// The process of its node on this machine: kubelet names the pod in the path
    /// of its control group.
    pub fn process(&self) -> Option<i32> {
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        processes.into_iter().find_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).ok();
            let name = read("comm")?;
            (name.trim() == "simpul" && read("cgroup")?.contains(&self.uid)).then_some(pid)
        })
    }
}

/// A GET's body, when it is answered with 200.
pub async fn get(address: &str, path: &str) -> Option<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        // 1.0: whole, never in chunks.
        let ask = format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        head.split(' ').nth(1).filter(|code| *code == "200")?;
        Some(body.to_owned())
    };
    tokio::time::timeout(Duration::from_secs(5), exchange).await.ok()?
}
