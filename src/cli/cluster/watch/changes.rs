//! What has changed from one picture of the cluster to the next.

use std::collections::{BTreeMap, VecDeque};

use crate::cli::text::{plain, time};
use crate::cluster::service::json::state;
use crate::proto::cluster::v1::{Cluster, Node};

/// How many are shown.
const KEPT: usize = 8;

/// One change.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    /// When, as hours, minutes and seconds.
    at: String,
    what: What,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    /// In words.
    Said(String),
    /// So many partitions, from an owner to another; they go a few a second.
    Moved { from: String, to: String, count: u32 },
}

/// The newest changes, and the picture before.
#[derive(Debug, Default)]
pub(in crate::cli::cluster) struct Changes {
    newest: VecDeque<Change>,
    before: Option<Cluster>,
    /// Pictures in a row that were taken by the same read of the store.
    stale: u32,
}

impl Changes {
    /// Takes the next picture.
    pub(in crate::cli::cluster) fn see(&mut self, now: &Cluster) {
        if let Some(before) = &self.before {
            let same =
                before.answered_by == now.answered_by && before.observed_at == now.observed_at;
            self.stale = if same { self.stale.saturating_add(1) } else { 0 };
            let at = time(now.observed_at.as_ref());
            let at = at.get(11..19).unwrap_or("-").to_owned();
            for what in between(before, now) {
                add(&mut self.newest, Change { at: at.clone(), what });
            }
            self.newest.truncate(KEPT);
        }
        self.before = Some(now.clone());
    }

    /// Whether no picture was seen yet.
    pub(in crate::cli::cluster) fn is_new(&self) -> bool {
        self.before.is_none()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }

    /// Newest first.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.newest.iter().map(|Change { at, what }| match what {
            What::Said(words) => format!("{at}  {words}"),
            What::Moved { from, to, count } => {
                format!("{at}  {count} partition(s) went from {from} to {to}")
            }
        })
    }

    /// For how many seconds the store was not read; pictures come once a second.
    pub(super) fn stale_seconds(&self) -> u32 {
        self.stale
    }
}

/// A move goes on while nothing but moves came after it.
fn add(newest: &mut VecDeque<Change>, change: Change) {
    if let What::Moved { from, to, count: more } = &change.what {
        let moves = newest.iter_mut().take_while(|it| matches!(it.what, What::Moved { .. }));
        for same in moves {
            if let What::Moved { from: was_from, to: was_to, count } = &mut same.what
                && (&*was_from, &*was_to) == (from, to)
            {
                *count += more;
                same.at = change.at;
                return;
            }
        }
    }
    newest.push_front(change);
}

fn between(before: &Cluster, now: &Cluster) -> Vec<What> {
    let mut out = Vec::new();
    if before.answered_by != now.answered_by {
        out.push(format!("{} answers now", plain(&now.answered_by)));
    }
    nodes(before, now, &mut out);
    if before.answered_by == now.answered_by {
        links(before, now, &mut out);
    }
    let mut out: Vec<What> = out.into_iter().map(What::Said).collect();
    partitions(before, now, &mut out);
    out
}

fn nodes(before: &Cluster, now: &Cluster, out: &mut Vec<String>) {
    let old: BTreeMap<&str, &Node> =
        before.nodes.iter().map(|node| (node.node_id.as_str(), node)).collect();
    for node in &now.nodes {
        let (name, is) = (plain(&node.node_id), state(node).to_ascii_lowercase());
        match old.get(node.node_id.as_str()) {
            None => out.push(format!("{name} joined, release {}", plain(&node.release))),
            Some(was) if was.incarnation != node.incarnation => {
                out.push(format!("{name} started anew, release {}", plain(&node.release)));
            }
            Some(was) if was.state != node.state => out.push(format!("{name} is {is}")),
            Some(_) => {}
        }
    }
}

/// Moves drawn together by from and to.
fn partitions(before: &Cluster, now: &Cluster, out: &mut Vec<What>) {
    let old: BTreeMap<u32, &str> =
        before.partitions.iter().map(|row| (row.partition, row.owner.as_str())).collect();
    let mut moved: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for row in &now.partitions {
        if let Some(was) = old.get(&row.partition)
            && *was != row.owner
        {
            *moved.entry((was, &row.owner)).or_default() += 1;
        }
    }
    let name = |node: &str| if node.is_empty() { "nobody".to_owned() } else { plain(node) };
    for ((from, to), count) in moved {
        out.push(What::Moved { from: name(from), to: name(to), count });
    }
}

fn links(before: &Cluster, now: &Cluster, out: &mut Vec<String>) {
    for link in &now.links {
        let was = before.links.iter().find(|was| was.node_id == link.node_id);
        let (up, was_up) = (link.connections > 0, was.is_some_and(|was| was.connections > 0));
        let name = plain(&link.node_id);
        match (was_up, up) {
            (false, true) => out.push(format!("the link to {name} stands")),
            (true, false) => {
                out.push(format!("the link to {name} is gone: {}", plain(&link.problem)))
            }
            _ => {}
        }
    }
}
