//! The metrics that a node shows, and those that docs/telemetry.md promises.

use std::collections::BTreeSet;

use crate::support::Node;

#[test]
fn the_table_of_metrics_is_what_a_node_shows() {
    let node = Node::start();
    let (status, shown) = node.admin("/metrics");
    assert_eq!(status, 200);
    // OpenMetrics names the family; a counter's sample ends in `_total`.
    let shown: BTreeSet<String> = shown
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| format!("{name}{}", if kind == "counter" { "_total" } else { "" }))
        .collect();
    let docs = include_str!("../../docs/telemetry.md");
    let written: BTreeSet<String> = docs
        .lines()
        .filter_map(|line| line.strip_prefix("| `simpul_")?.split_once('`'))
        .map(|(name, _)| format!("simpul_{name}"))
        .collect();
    assert!(shown.contains("simpul_rpc_calls_total"), "{shown:?}");
    let missing: Vec<_> = shown.difference(&written).collect();
    let stale: Vec<_> = written.difference(&shown).collect();
    assert!(missing.is_empty() && stale.is_empty(), "missing {missing:?}, stale {stale:?}");
}
