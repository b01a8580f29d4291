//! What does not belong to the cluster does not get in.

use std::process::Command;

use crate::cluster::{Cluster, refused_by};
use crate::support::{command, not_run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_at_start_with_the_key_and_the_reason() {
    let Some(cluster) = Cluster::start("refusals", 1).await else { return };
    let twin = cluster.refused("twin", "n0", &[]);
    assert!(twin.contains("node.id: another node with the id n0 is alive at 127.0.0.1:"), "{twin}");
    let split = cluster.refused("split", "n7", &[("SIMPUL_CHAT__PARTITIONS", "64")]);
    assert!(split.contains("partition"), "{split}");
    let other = cluster.refused("other", "n7", &[("SIMPUL_CLUSTER__NAME", "another")]);
    let reason = "cluster.name: another here, but the store is that of simpul; every node of a \
                  cluster has the same name";
    assert!(other.contains(reason), "{other}");
    let shared = cluster.refused("shared", "n8", &[("SIMPUL_CLUSTER__SHARED_FILE", "true")]);
    assert!(shared.contains("cluster.shared_file"), "{shared}");
    let seen = cluster.seen_by(0).await;
    assert_eq!(seen.nodes.len(), 1, "nothing was damaged");
    assert_eq!(seen.nodes[0].partitions, 32);
    cluster.end().await;
}

/// The kernel says what file system a folder is on, before it asks whoever
/// serves that: nobody has to. In a mount namespace of the test's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_on_a_network_path_cannot_be_shared() {
    const MOUNT: &str = "exec 3<>/dev/fuse && mount -i -t fuse -o \
        fd=3,rootmode=40000,user_id=65534,group_id=65534 simpul-test \"$0\"";
    let dir = tempfile::tempdir().expect("a directory");
    let mounted = dir.path().join("far");
    std::fs::create_dir(&mounted).expect("a folder");
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(&mounted);
        command
    };
    let tried = unshare(MOUNT).output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return not_run("a file on a network path: mounting a FUSE takes root and /dev/fuse");
    }
    let url = format!("sqlite:{}", mounted.join("shared.db").display());
    let node = command(dir.path());
    let mut inside = unshare(&format!("{MOUNT} && exec \"$1\""));
    inside.arg(node.get_program()).env_clear();
    inside.envs(node.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let env = [("SIMPUL_STORE__URL", url.as_str()), ("SIMPUL_CLUSTER__SHARED_FILE", "true")];
    let (code, said) = refused_by(inside, &env);
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("cluster.shared_file: ") && said.contains("is on FUSE"), "{said}");
}
