//! The demo overlay, deployed: its images, its secrets, its manifests.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::TempDir;

use crate::kit::{Kit, give, kubectl, not_run, run};
use crate::pods::{LONG, ready};

/// Ten nodes meet an empty database.
const CROWD: usize = 10;

/// How many nodes the demonstration has.
pub const NODES: usize = 3;

pub struct Site {
    kit: Kit,
    dir: TempDir,
    pub story: String,
    pub has_jaeger: bool,
}

/// The clone.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program under test.
pub fn simpul() -> &'static str {
    env!("CARGO_BIN_EXE_simpul")
}

/// Whether the image's program can be told to be the release before.
pub fn has_faults() -> bool {
    cfg!(feature = "fault") && std::env::var_os("SIMPUL_TEST_BINARY").is_none()
}

impl Site {
    /// Builds the images, makes the secrets, and applies everything to an empty
    /// cluster with ten nodes at once, three of which stay.
    pub async fn deploy(kit: Kit) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut site = Self { kit, dir, story: String::new(), has_jaeger: false };
        let image = site.images().await;
        // The demonstration's Prometheus takes the rules of the second.
        let copy = "cd \"$1\" && cp -r --parents k8s deploy/prometheus \"$2\"";
        run("sh", ["-c", copy, "sh", text(repository()), text(site.dir.path())], None)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        // Those of a demonstration by hand in the same clone are not ours.
        let _ = std::fs::remove_dir_all(site.demo().join("secrets"));
        site.secrets().await;
        let _ = run("kubectl", ["delete", "namespace", "simpul", "--ignore-not-found"], None).await;
        site.write_overlay(CROWD);
        let begun = Instant::now();
        site.apply().await;
        let crowd = ready(CROWD).await;
        let took = begun.elapsed();
        let restarts: u64 = crowd.iter().map(|pod| pod.restarts).sum();
        site.write_overlay(NODES);
        site.apply().await;
        ready(NODES).await;
        site.story = format!(
            "{image}; {CROWD} nodes at once on an empty database ready after {:.1} s with \
             {restarts} restarts, then {NODES}",
            took.as_secs_f64()
        );
        site
    }

    async fn images(&mut self) -> String {
        let binary = std::env::var("SIMPUL_TEST_BINARY").unwrap_or_else(|_| simpul().to_owned());
        let archive = self.dir.path().join("simpul.tar");
        let make = repository().join("deploy/image");
        let args = ["--binary", &binary, "--output", text(&archive), "localhost/simpul:test"];
        run(&make, args, None).await.unwrap_or_else(|error| panic!("{error}"));
        self.kit.image("localhost/simpul:test", &archive, &[]).await;
        let size = std::fs::metadata(&archive).expect("the archive").len();

        let servers = self.dir.path().join("servers");
        std::fs::create_dir(&servers).expect("a folder");
        let lay = repository().join("tests/kubernetes/servers.sh");
        let laid = run(&lay, [text(&servers)], None).await;
        let laid = laid.unwrap_or_else(|error| panic!("{error}"));
        for (name, entry) in [
            ("postgres", ["/bin/bash", "-c"].as_slice()),
            ("prometheus", &["/bin/prometheus"]),
            ("jaeger", &["/bin/jaeger"]),
        ] {
            if laid.lines().any(|line| line == name) {
                let image = format!("localhost/{name}:test");
                self.kit.image(&image, &servers.join(name), entry).await;
                self.has_jaeger |= name == "jaeger";
            } else {
                not_run(&format!("Kubernetes: {name} is not installed"));
                assert!(name == "jaeger", "the demonstration needs {name}");
            }
        }
        format!("image of {:.1} MB compressed", size as f64 / 1e6)
    }

    /// The folder of the manifests, which events may change.
    pub fn manifests(&self) -> PathBuf {
        self.dir.path().join("k8s")
    }

    pub fn demo(&self) -> PathBuf {
        self.manifests().join("overlays/demo")
    }

    /// Makes what is secret and not there yet.
    pub async fn secrets(&self) {
        let script = self.demo().join("secrets.sh");
        run(&script, [simpul()], None).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Makes a certificate of the demonstration's clients' authority.
    pub async fn issue(&self, user: &str) {
        let authority = self.demo().join("secrets/clients");
        if authority.join(format!("{user}.pem")).exists() {
            return;
        }
        let who = format!("user/{user}@demo.simpul");
        let args = ["cert", "issue", user, "--dir", text(&authority), "--principal", &who];
        run(simpul(), args, None).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The client's side of TLS for a user.
    pub async fn tls(&self, user: &str) -> std::sync::Arc<rustls::ClientConfig> {
        self.issue(user).await;
        let folder = self.demo().join("secrets/clients");
        let read = |name: String| std::fs::read(folder.join(name)).expect("a PEM file");
        let (chain, key) = (read(format!("{user}.pem")), read(format!("{user}-key.pem")));
        let config =
            simpul::client::dial::client_config(&read("ca.pem".to_owned()), Some((&chain, &key)));
        std::sync::Arc::new(config.expect("PEM"))
    }

    /// The demo overlay with the images of this machine, and so many nodes.
    fn write_overlay(&self, nodes: usize) {
        let mut overlay = format!(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n\
             namespace: simpul\nresources: [../overlays/demo]\n\
             replicas: [{{ name: simpul, count: {nodes} }}]\nimages:\n\
             - {{ name: localhost/simpul, newTag: test }}\n"
        );
        for (theirs, ours) in [
            ("docker.io/library/postgres", "postgres"),
            ("docker.io/prom/prometheus", "prometheus"),
            ("docker.io/jaegertracing/jaeger", "jaeger"),
        ] {
            overlay +=
                &format!("- {{ name: {theirs}, newName: localhost/{ours}, newTag: test }}\n");
        }
        if !self.has_jaeger {
            overlay += "patches:\n- target: { kind: Deployment, name: jaeger }\n  patch: |\n    \
                        - { op: replace, path: /spec/replicas, value: 0 }\n";
        }
        let folder = self.manifests().join("test");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("kustomization.yaml"), overlay).expect("written");
    }

    /// Applies the manifests as they stand.
    pub async fn apply(&self) {
        let folder = self.manifests().join("test");
        kubectl(&["apply", "--kustomize", text(&folder)]).await;
    }

    /// What an overlay renders to.
    pub async fn rendered(&self, overlay: &str) -> String {
        let folder = self.manifests().join("overlays").join(overlay);
        let rendered = run("kubectl", ["kustomize", text(&folder)], None).await;
        rendered.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Changes entries of a secret: names and contents.
    pub async fn change_secret(&self, name: &str, entries: &[(&str, Vec<u8>)]) {
        use base64::Engine as _;
        let encode = |bytes: &Vec<u8>| base64::engine::general_purpose::STANDARD.encode(bytes);
        let data: serde_json::Map<String, serde_json::Value> =
            entries.iter().map(|(key, bytes)| ((*key).to_owned(), encode(bytes).into())).collect();
        let patch = serde_json::json!({ "data": data }).to_string();
        kubectl(&["patch", "secret", name, "--type", "merge", "--patch", &patch]).await;
    }

    /// Takes everything away.
    pub async fn end(&self) {
        if std::env::var_os("SIMPUL_TEST_KEEP").is_some() {
            return;
        }
        let limit = format!("--timeout={}s", LONG.as_secs());
        let _ = run("kubectl", ["delete", "namespace", "simpul", TRIED, &limit], None).await;
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Asks for an eviction; what Kubernetes said against it.
pub async fn evict(pod: &str) -> Result<(), String> {
    let manifest = serde_json::json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod },
    });
    let path = format!("/api/v1/namespaces/simpul/pods/{pod}/eviction");
    give(&["create", "--raw", &path], manifest.to_string()).await.map(drop)
}

/// Where manifests are only tried: nothing of theirs is there yet.
const TRIED: &str = "simpul-tried";

/// What the API server says to manifests without taking them.
pub async fn dry_run(manifests: &str) -> Result<String, String> {
    let space = serde_json::json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": TRIED },
    });
    let _ = run("kubectl", ["create", "-f", "-"], Some(space.to_string())).await;
    let moved = manifests.replace("namespace: simpul\n", &format!("namespace: {TRIED}\n"));
    let args = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    run("kubectl", args, Some(moved)).await
}
