//! What an operator has of the demonstration: its Prometheus and the command line.

use std::time::Duration;

use serde_json::Value;

use crate::clients::Clients;
use crate::kit::{run, until};
use crate::pods::{get, ready};
use crate::site::{NODES, Site, simpul, text};

const PROMETHEUS: &str = "prometheus.simpul.svc:9090";

/// A few of its rounds.
const EVALUATED: Duration = Duration::from_secs(60);

async fn ask(path: &str) -> Option<Value> {
    let json: Value = serde_json::from_str(&get(PROMETHEUS, path).await?).ok()?;
    Some(json["data"].clone())
}

/// Prometheus scrapes every node and has every alert; none that would wake somebody
/// fires.
pub async fn alerts(_: &Site, _: &Clients) -> String {
    ready(NODES).await;
    until("Prometheus scrapes every node", EVALUATED, async || {
        let up = ask("/api/v1/query?query=sum(up)").await?;
        (up["result"][0]["value"][1].as_str()? == NODES.to_string()).then_some(())
    })
    .await;
    let rules = until("every rule has been evaluated", EVALUATED, async || {
        let data = ask("/api/v1/rules?type=alert").await?;
        let groups = data["groups"].as_array()?;
        let rules: Vec<Value> = groups
            .iter()
            .filter_map(|group| group["rules"].as_array())
            .flatten()
            .cloned()
            .collect();
        (!rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok")).then_some(rules)
    })
    .await;
    let written = include_str!("../../../deploy/prometheus/simpul.rules.yml");
    let written = written.lines().filter(|line| line.trim_start().starts_with("- alert:")).count();
    assert_eq!(rules.len(), written, "Prometheus has every alert");
    let wakes = |rule: &&Value| rule["state"] == "firing" && rule["labels"]["severity"] == "page";
    let fires: Vec<&Value> = rules.iter().filter(wakes).map(|rule| &rule["name"]).collect();
    assert!(fires.is_empty(), "a page without a reason: {fires:?}");
    format!("{written} alerts evaluated, no page")
}

/// A profile and a bundle of a node that runs in a pod with a read-only root.
pub async fn operator(site: &Site, _: &Clients) -> String {
    let folder = site.demo().join("secrets/clients");
    let file = |name: &str| text(&folder.join(name)).to_owned();
    let dir = tempfile::tempdir().expect("a directory");
    let (profile, bundle) = (dir.path().join("profile.pb.gz"), dir.path().join("bundle.tar.gz"));
    for asked in [
        ["profile", "--seconds=2", "--out", text(&profile)].as_slice(),
        &["bundle", "--out", text(&bundle)],
    ] {
        let (ca, cert, key) = (file("ca.pem"), file("olga.pem"), file("olga-key.pem"));
        let how = ["--server", "simpul:7443", "--ca", &ca, "--cert", &cert, "--key", &key];
        let args = [&["debug"], asked, &how].concat();
        run(simpul(), args, None).await.unwrap_or_else(|error| panic!("{error}"));
    }
    let size = |path| std::fs::metadata(path).expect("the file").len();
    let (profile, bundle) = (size(&profile), size(&bundle));
    assert!(profile > 100 && bundle > 1_000, "{profile} and {bundle} bytes");
    format!("a profile of {profile} bytes, a bundle of {bundle} bytes")
}
