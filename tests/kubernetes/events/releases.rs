//! Two releases side by side, there and back. The binary is told to be the release
//! before: one migration less, an older protocol.

use crate::clients::Clients;
use crate::kit::{kubectl, not_run};
use crate::pods::{ready, rolled_out};
use crate::site::{NODES, Site, has_faults};

/// Rolls every pod back to the release before, on the store that this one has
/// migrated, and forward again.
pub async fn roll(_: &Site, _: &Clients) -> String {
    if !has_faults() {
        not_run("Kubernetes: the release before: the image's binary has no feature `fault`");
        return "not run".to_owned();
    }
    for value in ["SIMPUL_TEST_RELEASE_BEFORE=1", "SIMPUL_TEST_RELEASE_BEFORE-"] {
        kubectl(&["set", "env", "statefulset/simpul", value]).await;
        rolled_out().await;
        let pods = ready(NODES).await;
        assert_eq!(pods.iter().map(|pod| pod.restarts).sum::<u64>(), 0, "each starts");
    }
    "rolled back to the release before, one pod at a time beside the present one, and forward"
        .to_owned()
}
