//! The overlay of one node: what it was told stands on its volume.

use simpul::client::Client;
use simpul::client::dial::Address;
use simpul::client::servers::Servers;
use simpul::proto::chat::v1::{CreateRoomRequest, GetRoomRequest};
use std::time::Duration;

use crate::clients::Clients;
use crate::kit::{give, run, until};
use crate::pods::LONG;
use crate::site::{Site, text};

const SPACE: &str = "simpul-single";

/// Its own namespace; the secrets and the image of the demonstration.
pub async fn on_a_volume(site: &Site, _: &Clients) -> String {
    let folder = site.manifests().join("test-single");
    std::fs::create_dir_all(&folder).expect("a folder");
    let overlay = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: {SPACE}\n\
         resources: [../overlays/single]\nimages:\n- {{ name: localhost/simpul, newTag: test }}\n"
    );
    std::fs::write(folder.join("kustomization.yaml"), overlay).expect("written");
    kubectl(&["apply", "--kustomize", text(&folder)]).await;
    let secrets = site.demo().join("secrets");
    let file =
        |key: &str, name: &str| format!("--from-file={key}={}", secrets.join(name).display());
    for (name, files) in [
        ("simpul-tls", vec![file("tls.crt", "tls.crt"), file("tls.key", "tls.key")]),
        ("simpul-clients", vec![file("ca.crt", "clients/ca.pem")]),
    ] {
        let mut args = vec!["create", "secret", "generic", name, "--dry-run=client", "-o", "yaml"];
        args.extend(files.iter().map(String::as_str));
        let secret = kubectl(&args).await;
        give(&["--namespace", SPACE, "apply"], secret).await.unwrap_or_else(|e| panic!("{e}"));
    }
    open_volume().await;
    rolled_out().await;
    let client = reach(site).await;
    let request = CreateRoomRequest { room_id: "kept".to_owned(), title: String::new() };
    client.chat().create_room(client.unary(request)).await.expect("a room");
    kubectl(&["delete", "pod", "simpul-0"]).await;
    rolled_out().await;
    let client = reach(site).await;
    let request = GetRoomRequest { room_id: "kept".to_owned() };
    client.chat().get_room(client.unary(request)).await.expect("the room is there");
    run("kubectl", ["delete", "namespace", SPACE, "--timeout=120s"], None).await.expect("deleted");
    "a room stands after its pod was replaced".to_owned()
}

/// The kit's volumes are folders that only root may enter, and fsGroup does not
/// reach those; on a real cluster's storage it does.
async fn open_volume() {
    use std::os::unix::fs::PermissionsExt;
    until("the volume is there", LONG, async || {
        let name = "jsonpath={.spec.volumeName}";
        let volume = ask(&["get", "pvc", "data-simpul-0", "--output", name]).await.ok()?;
        (!volume.trim().is_empty()).then_some(())?;
        let folder = "jsonpath={.spec.hostPath.path}";
        let folder = kubectl(&["get", "pv", volume.trim(), "--output", folder]).await;
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(folder.trim(), open).ok()
    })
    .await;
}

async fn ask(args: &[&str]) -> Result<String, String> {
    let args = ["--namespace", SPACE].iter().chain(args).map(|arg| (*arg).to_owned());
    run("kubectl", args, None).await
}

async fn kubectl(args: &[&str]) -> String {
    ask(args).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn rolled_out() {
    kubectl(&["rollout", "status", "statefulset/simpul", "--timeout=120s"]).await;
}

/// A client of the one node, at its pod's address.
async fn reach(site: &Site) -> Client {
    let tls = site.tls("u0").await;
    until("the node answers", LONG, async || {
        let host = ask(&["get", "pod", "simpul-0", "-o", "jsonpath={.status.podIP}"]).await.ok()?;
        let at = vec![Address { host, port: 7443 }];
        let servers = Servers::connect(at, Some("simpul"), tls.clone()).await.ok()?;
        Some(Client::new(servers, None, None, Duration::from_secs(10)))
    })
    .await
}
