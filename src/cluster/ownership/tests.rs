use proptest::prelude::*;

use super::*;
use crate::store::cluster::NodeInfo;

fn node(id: &str, state: NodeState) -> NodeRecord {
    NodeRecord {
        info: NodeInfo {
            id: id.to_owned(),
            incarnation: format!("{id}-run"),
            public_address: String::new(),
            mesh_address: String::new(),
            zone: String::new(),
            release: String::new(),
            started_at: 0,
        },
        state,
        beat: 1,
        sessions: 0,
        locked: None,
    }
}

fn live(ids: &[&str]) -> Vec<NodeRecord> {
    ids.iter().map(|id| node(id, NodeState::Live)).collect()
}

fn row(partition: u16, owner: &str, epoch: u64) -> PartitionState {
    PartitionState { partition, owner: owner.to_owned(), epoch, commit_no: 0 }
}

/// A view of the node "a", as a case fills it in.
struct Case {
    nodes: Vec<NodeRecord>,
    rows: Vec<PartitionState>,
    held: BTreeMap<u16, u64>,
    busy: BTreeSet<u16>,
    orphans: Orphans,
    draining: bool,
    now: Duration,
    moves: usize,
}

impl Case {
    fn new(nodes: Vec<NodeRecord>, rows: Vec<PartitionState>) -> Self {
        let mut orphans = Orphans::default();
        orphans.observed(&nodes, &rows, Duration::ZERO);
        Self {
            nodes,
            rows,
            held: BTreeMap::new(),
            busy: BTreeSet::new(),
            orphans,
            draining: false,
            now: Duration::ZERO,
            moves: usize::MAX,
        }
    }

    fn holding(mut self) -> Self {
        let mine = self.rows.iter().filter(|row| row.owner == "a");
        self.held = mine.map(|row| (row.partition, row.epoch)).collect();
        self
    }

    fn plan(&self) -> Vec<Action> {
        self.plan_as("a")
    }

    fn plan_as(&self, me: &str) -> Vec<Action> {
        plan(&View {
            me,
            incarnation: "this",
            draining: self.draining,
            nodes: &self.nodes,
            rows: &self.rows,
            held: &self.held,
            busy: &self.busy,
            orphans: &self.orphans,
            changed: Duration::ZERO,
            now: self.now,
            moves: self.moves,
        })
    }
}

fn taken(actions: &[Action]) -> Vec<u16> {
    let of = |action: &Action| match action {
        Action::Take { seen, .. } => Some(seen.partition),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

fn handed(actions: &[Action]) -> Vec<(u16, String)> {
    let of = |action: &Action| match action {
        Action::HandOver { partition, successor } => Some((*partition, successor.clone())),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

#[test]
fn the_weight_is_the_contract() {
    // Nodes of other releases compute the same.
    let seen = [weight(0, "a"), weight(1, "a"), weight(255, "node-2")];
    let known = [0x565e_25cb_db1b_0d6e, 0x1e29_4378_b45c_3f93, 0x7f50_f30d_085a_f689];
    assert_eq!(seen, known);
}

#[test]
fn every_orphan_is_taken_by_its_desired_owner_at_once() {
    let nodes = live(&["a", "b", "c"]);
    let case = Case::new(nodes, (0..64).map(|partition| row(partition, "", 0)).collect());
    let mut all: Vec<u16> =
        ["a", "b", "c"].iter().flat_map(|me| taken(&case.plan_as(me))).collect();
    all.sort_unstable();
    assert_eq!(all, (0..64).collect::<Vec<_>>());
}

#[test]
fn nothing_is_taken_from_the_living() {
    for state in [NodeState::Live, NodeState::Draining] {
        let nodes = vec![node("a", NodeState::Live), node("b", state)];
        let mut case = Case::new(nodes, (0..64).map(|at| row(at, "b", 3)).collect());
        case.now = Duration::from_secs(3_600);
        assert_eq!(case.plan(), []);
    }
}

#[test]
fn what_the_dead_owned_is_taken_with_the_name_of_their_run() {
    let nodes = vec![node("a", NodeState::Live), node("b", NodeState::Dead)];
    let case = Case::new(nodes, vec![row(0, "b", 3), row(1, "gone", 2)]);
    let expected = [("b-run", row(0, "b", 3)), ("", row(1, "gone", 2))]
        .map(|(from, seen)| Action::Take { seen, from_incarnation: from.to_owned() });
    assert_eq!(case.plan(), expected);
}

#[test]
fn what_names_this_node_and_is_not_held_is_taken() {
    let mut case = Case::new(live(&["a", "b"]), (0..8).map(|at| row(at, "a", 3)).collect());
    assert_eq!(taken(&case.plan()).len(), 8, "whoever is desired");
    case.held = (0..8).map(|at| (at, 4)).collect();
    assert_eq!(case.plan(), [], "the read is older than the take");
}

#[test]
fn what_was_taken_away_is_lost() {
    let mut case = Case::new(live(&["a", "b"]), vec![row(0, "b", 5)]);
    case.held = BTreeMap::from([(0, 4)]);
    assert_eq!(case.plan(), [Action::Lose { partition: 0 }]);
}

#[test]
fn what_is_under_way_is_left_alone() {
    let mut case = Case::new(live(&["a"]), vec![row(0, "", 5), row(1, "", 5)]);
    case.busy = BTreeSet::from([0]);
    assert_eq!(taken(&case.plan()), [1]);
}

#[test]
fn a_second_choice_waits_and_then_takes() {
    let nodes = live(&["a", "b", "c"]);
    let rows: Vec<_> = (0..64).map(|at| row(at, "", 0)).collect();
    let mut case = Case::new(nodes, rows);
    let first = taken(&case.plan()).len();
    case.now = PATIENCE;
    let second = taken(&case.plan()).len();
    case.now = PATIENCE * 2;
    assert!(first < second && second < 64, "{first} {second}");
    assert_eq!(taken(&case.plan()).len(), 64);
    // Somebody owned them in between: the patience starts afresh.
    let owned: Vec<_> = case.rows.iter().map(|seen| row(seen.partition, "c", 1)).collect();
    case.orphans.observed(&case.nodes, &owned, case.now);
    case.orphans.observed(&case.nodes, &case.rows, case.now);
    assert_eq!(taken(&case.plan()).len(), first);
}

#[test]
fn a_join_moves_a_few_at_a_time_when_things_have_settled() {
    let rows: Vec<_> = (0..64).map(|at| row(at, "a", 1)).collect();
    let mut case = Case::new(live(&["a", "b"]), rows).holding();
    case.moves = 4;
    assert_eq!(case.plan(), [], "the nodes changed just now");
    case.now = SETTLED;
    let moved = handed(&case.plan());
    assert_eq!(moved.len(), 4);
    assert!(moved.iter().all(|(at, to)| to == "b" && desired(*at, &case.nodes) == Some("b")));
}

#[test]
fn who_drains_hands_over_everything_at_once() {
    let rows: Vec<_> = (0..64).map(|at| row(at, "a", 1)).collect();
    let mut case = Case::new(live(&["a", "b", "c"]), rows).holding();
    case.draining = true;
    case.moves = 1;
    let moved = handed(&case.plan());
    assert_eq!(moved.len(), 64, "also before its own row says so");
    assert!(moved.iter().any(|(_, to)| to == "b") && moved.iter().any(|(_, to)| to == "c"));
    // Nobody who stays: it keeps them.
    case.nodes = vec![node("a", NodeState::Draining), node("b", NodeState::Draining)];
    assert_eq!(case.plan(), []);
    // It takes nothing that others could have.
    for state in [NodeState::Draining, NodeState::Live] {
        case.nodes = vec![node("a", state), node("b", NodeState::Live)];
        case.rows = (0..8).map(|at| row(at, "", 7)).collect();
        case.held = BTreeMap::new();
        assert_eq!(case.plan(), []);
    }
}

/// Short names, each once.
fn ids() -> impl Strategy<Value = BTreeSet<String>> {
    proptest::collection::btree_set("[a-z]{1,4}(-[0-9]{1,2})?", 1..9)
}

proptest! {
    #[test]
    fn no_two_observers_desire_different_owners(ids in ids(), partition: u16) {
        let forward: Vec<_> = ids.iter().map(String::as_str).collect();
        let backward: Vec<_> = ids.iter().rev().map(String::as_str).collect();
        let ranked = ranking(partition, &forward);
        prop_assert_eq!(&ranked, &ranking(partition, &backward));
        prop_assert_eq!(ranked.len(), ids.len());
    }

    #[test]
    fn who_goes_moves_only_what_it_had(ids in ids(), partition: u16) {
        let all: Vec<_> = ids.iter().map(String::as_str).collect();
        let ranked = ranking(partition, &all);
        for gone in &all {
            let left: Vec<_> = all.iter().copied().filter(|id| id != gone).collect();
            let expected: Vec<_> = ranked.iter().copied().filter(|id| id != gone).collect();
            prop_assert_eq!(ranking(partition, &left), expected);
        }
    }

    #[test]
    fn the_load_is_even(ids in ids()) {
        let all: Vec<_> = ids.iter().map(String::as_str).collect();
        let mut owned: BTreeMap<&str, u32> = BTreeMap::new();
        for partition in 0..4_096 {
            *owned.entry(ranking(partition, &all)[0]).or_default() += 1;
        }
        let mean = 4_096.0 / all.len() as f64;
        for id in &all {
            let share = f64::from(owned.get(id).copied().unwrap_or(0)) / mean;
            prop_assert!((0.75..1.25).contains(&share), "{id}: {share}");
        }
    }
}

#[test]
fn what_a_dead_node_leaves_is_taken_by_nodes_that_drain_when_there_are_no_others() {
    let states = [("a", NodeState::Draining), ("b", NodeState::Draining), ("c", NodeState::Dead)];
    let nodes = states.map(|(id, state)| node(id, state)).to_vec();
    let rows = (0..32).map(|partition| row(partition, "c", 3)).collect();
    let mut case = Case::new(nodes, rows);
    case.draining = true;
    let taken = |me| case.plan_as(me).len();
    assert_eq!(taken("a") + taken("b"), 32, "each by the one whose turn it is");
    assert!(taken("a") > 0 && taken("b") > 0);
}
