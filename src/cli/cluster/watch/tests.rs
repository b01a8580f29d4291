use super::*;
use crate::proto::cluster::v1::{Link, Node, Partition};

fn node(id: &str, state: NodeState) -> Node {
    Node {
        node_id: id.into(),
        incarnation: format!("{id}-1"),
        state: state.into(),
        beat: 9,
        last_beat: Some(prost_types::Duration { seconds: 0, nanos: 250_000_000 }),
        sessions: 7,
        ..Node::default()
    }
}

fn cluster(second: i64) -> Cluster {
    let partition = |partition: u32, owner: &str| Partition {
        partition,
        owner: owner.into(),
        ..Partition::default()
    };
    Cluster {
        name: "simpul".into(),
        answered_by: "a".into(),
        observed_at: Some(prost_types::Timestamp { seconds: second, nanos: 0 }),
        nodes: vec![node("a", NodeState::Live), node("b", NodeState::Live)],
        links: vec![Link { node_id: "b".into(), connections: 1, ..Link::default() }],
        partitions: vec![partition(0, "a"), partition(1, "b"), partition(2, "b")],
    }
}

fn paper(columns: usize, rows: usize) -> Paper {
    Paper { columns, rows, colour: true }
}

/// The lines without what moves and colours them.
fn lines(screen: &str) -> Vec<String> {
    let mut text = screen.replace("\u{1b}[H", "").replace("\u{1b}[K", "").replace("\u{1b}[J", "");
    for code in ["1m", "32m", "33m", "1;31m", "0m"] {
        text = text.replace(&format!("\u{1b}[{code}"), "");
    }
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_quiet_cluster_is_well_and_nothing_changes() {
    let mut changes = Changes::default();
    for second in 0..5 {
        changes.see(&cluster(second));
    }
    let shown = lines(&screen(&cluster(5), &changes, paper(120, 50)));
    assert!(
        shown[0].starts_with("simpul: 2 live, 3 partitions, 14 sessions; as a saw it"),
        "{shown:?}"
    );
    assert_eq!(shown[1], "all is well");
    assert!(!shown.iter().any(|line| line == "LAST CHANGES"));
}

#[test]
fn a_death_is_told_as_a_problem_and_as_a_change_until_it_is_mended() {
    let mut changes = Changes::default();
    changes.see(&cluster(0));
    let mut dead = cluster(1);
    dead.nodes[1].state = NodeState::Dead.into();
    dead.links[0] =
        Link { node_id: "b".into(), problem: "refused\u{1b}[2J".into(), ..Link::default() };
    changes.see(&dead);
    let shown = lines(&screen(&dead, &changes, paper(120, 50))).join("\n");
    for part in [
        "b died and has not come back",
        "2 partition(s) have no living owner",
        "00:00:01  b is dead",
        "00:00:01  the link to b is gone: refused",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains('\u{1b}'), "a node moves the cursor: {shown:?}");
    assert!(!shown.contains("no link to b"), "a dead node needs none");

    let mut mended = cluster(2);
    mended.nodes[1] = Node { incarnation: "b-2".into(), ..node("b", NodeState::Live) };
    mended.partitions[1].owner = "a".into();
    changes.see(&mended);
    let shown = lines(&screen(&mended, &changes, paper(120, 50)));
    assert_eq!(shown[1], "all is well");
    let shown = shown.join("\n");
    for part in ["b started anew", "1 partition(s) went from b to a", "the link to b stands"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn partitions_that_go_a_few_a_second_are_one_change() {
    let mut changes = Changes::default();
    let mut now = cluster(0);
    changes.see(&now);
    for (second, partition) in [(1, 1), (2, 2)] {
        now.observed_at = Some(prost_types::Timestamp { seconds: second, nanos: 0 });
        now.partitions[partition].owner = "a".into();
        changes.see(&now);
    }
    let told: Vec<String> = changes.lines().collect();
    assert_eq!(told, ["00:00:02  2 partition(s) went from b to a"]);
}

#[test]
fn a_store_that_is_not_read_and_a_late_beat_are_problems() {
    let mut changes = Changes::default();
    for _ in 0..5 {
        changes.see(&cluster(7));
    }
    let mut late = cluster(7);
    late.nodes[1].last_beat = Some(prost_types::Duration { seconds: 1, nanos: 900_000_000 });
    late.nodes[0].state = NodeState::Draining.into();
    let shown = lines(&screen(&late, &changes, paper(120, 50)));
    assert_eq!(problems(&late, &changes)[0], "a has not read the store for 4 s");
    assert_eq!(shown[1], "a has not read the store for 4 s");
    assert_eq!(shown[2], "b has not said for 1.9 s that it lives");
    assert_eq!(shown[3], "a drains: 0 partition(s) and 7 session(s) left");
}

#[test]
fn it_never_has_more_lines_or_columns_than_the_terminal() {
    let mut wide = cluster(0);
    for n in 0..40 {
        wide.nodes.push(Node { zone: "é".repeat(200), ..node(&format!("n{n}"), NodeState::Dead) });
    }
    for (columns, rows) in [(80, 24), (20, 5), (1, 1), (200, 100)] {
        let drawn = screen(&wide, &Changes::default(), paper(columns, rows));
        let shown = lines(&drawn);
        assert!(shown.len() < rows.max(2), "{rows}: {}", shown.len());
        assert!(shown.iter().all(|line| line.chars().count() <= columns), "{columns}");
        // Each line clears what stood behind it, and the end what stood below.
        assert_eq!(drawn.matches("\u{1b}[K").count(), shown.len());
        assert!(drawn.starts_with("\u{1b}[H") && drawn.ends_with("\u{1b}[J"));
    }
    let grey = Paper { colour: false, ..paper(80, 24) };
    let drawn = screen(&wide, &Changes::default(), grey);
    assert!(!drawn.contains("\u{1b}[0m") && !drawn.contains("\u{1b}[1;31m"));
}
