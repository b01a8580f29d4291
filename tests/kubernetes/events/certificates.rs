//! Certificates that change under running nodes, and ones that no node takes.

use std::time::Duration;

use crate::clients::Clients;
use crate::kit::{run, until};
use crate::pods::{LONG, Pod, ready};
use crate::site::{NODES, Site, simpul, text};

/// How long kubelet takes to bring a changed Secret, on any Kubernetes: its sync
/// period and its cache.
const BROUGHT: Duration = Duration::from_secs(150);

/// The lifetime of what the pod has in use from a source.
async fn lifetime(pod: &Pod, source: &str) -> Option<f64> {
    let label = format!("source=\"{source}");
    pod.value("simpul_certificate_lifetime_seconds", &label).await
}

/// New certificates for the public port and the mesh arrive in every pod, without
/// a restart.
pub async fn rotated(site: &Site, _: &Clients) -> String {
    let before = ready(NODES).await;
    let tls = site.tls("u0").await;
    let old = before[0].certificate(tls.clone()).await.expect("a certificate");
    let mut mesh = Vec::new();
    for pod in &before {
        let what = format!("{} tells its certificate's lifetime", pod.name);
        mesh.push(until(&what, LONG, async || lifetime(pod, "mesh.cert_file").await).await);
    }
    let secrets = site.demo().join("secrets");
    for file in ["tls.crt", "tls.key", "mesh.crt", "mesh.key"] {
        std::fs::remove_file(secrets.join(file)).expect("removed");
    }
    site.secrets().await;
    let begun = std::time::Instant::now();
    site.apply().await;
    for (at, pod) in before.iter().enumerate() {
        until(&format!("{} shows the new certificate", pod.name), BROUGHT, async || {
            (pod.certificate(tls.clone()).await? != old).then_some(())
        })
        .await;
        until(&format!("{} has the new one for links", pod.name), BROUGHT, async || {
            (lifetime(pod, "mesh.cert_file").await? > mesh[at]).then_some(())
        })
        .await;
    }
    let took = begun.elapsed();
    assert_eq!(before, ready(NODES).await, "no pod was restarted");
    format!("in use in all pods {:.0} s after the Secrets changed, no restart", took.as_secs_f64())
}

/// How many of the sources that begin with a text are refused, when the pod says.
async fn failing(pod: &Pod, source: &str) -> Option<usize> {
    let begins = format!("source=\"{source}");
    let samples = pod.metric("simpul_reload_failing").await;
    let failing =
        samples.iter().filter(|(labels, value)| labels.contains(&begins) && *value > 0.0).count();
    (!samples.is_empty()).then_some(failing)
}

/// A certificate with another's key, and one that names another node: refused,
/// told by a metric, and the old ones go on.
pub async fn wrong(site: &Site, _: &Clients) -> String {
    let before = ready(NODES).await;
    let tls = site.tls("u0").await;
    let old = before[0].certificate(tls.clone()).await.expect("a certificate");
    let secrets = site.demo().join("secrets");
    let read = |name: &str| std::fs::read(secrets.join(name)).expect("a PEM file");
    site.change_secret("simpul-tls", &[("tls.crt", read("mesh.crt"))]).await;
    let mesh = secrets.join("mesh");
    let who = "node/nobody@mesh.simpul";
    let args = ["cert", "issue", "nobody", "--dir", text(&mesh), "--principal", who];
    run(simpul(), args, None).await.unwrap_or_else(|error| panic!("{error}"));
    let other = [("tls.crt", read("mesh/nobody.pem")), ("tls.key", read("mesh/nobody-key.pem"))];
    site.change_secret("simpul-mesh", &other).await;
    for pod in &before {
        for source in ["tls", "mesh"] {
            until(&format!("{} refuses {source}", pod.name), BROUGHT, async || {
                (failing(pod, source).await? > 0).then_some(())
            })
            .await;
        }
        assert_eq!(pod.certificate(tls.clone()).await.expect("it serves"), old, "the good one");
    }
    site.apply().await;
    for pod in &before {
        until(&format!("{} is content again", pod.name), BROUGHT, async || {
            (failing(pod, "").await? == 0).then_some(())
        })
        .await;
    }
    assert_eq!(before, ready(NODES).await, "no pod was restarted");
    "a foreign key and another node's name: refused by all pods, simpul_reload_failing 1, the good \
     ones stay in use; 0 when put right"
        .to_owned()
}
