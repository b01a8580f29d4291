use super::*;
use crate::store::cluster::NodeInfo;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn node(id: &str, incarnation: &str, beat: u64) -> NodeRecord {
    NodeRecord {
        info: NodeInfo {
            id: id.to_owned(),
            incarnation: incarnation.to_owned(),
            public_address: String::new(),
            mesh_address: String::new(),
            zone: String::new(),
            release: String::new(),
            started_at: 0,
        },
        state: NodeState::Live,
        beat,
        sessions: 0,
        locked: None,
    }
}

fn observer() -> Membership {
    Membership::new("a", "a1", Rules::default())
}

/// Reads every 250 ms from `from` to `to`, each taking 10 ms; `beat` says what
/// b's row shows at a time.
fn watch(membership: &mut Membership, from: u64, to: u64, beat: impl Fn(u64) -> u64) {
    for at in (from..=to).step_by(250) {
        let rows = [node("a", "a1", at), node("b", "b1", beat(at))];
        membership.observed(ms(at), ms(at + 10), &rows);
    }
}

fn names(suspects: Vec<Suspect>) -> Vec<String> {
    suspects.into_iter().map(|suspect| format!("{}@{}", suspect.id, suspect.beat)).collect()
}

#[test]
fn a_beat_that_changes_is_that_of_a_living_node() {
    let mut membership = observer();
    watch(&mut membership, 0, 60_000, |at| at / 500);
    assert!(membership.suspects(ms(60_010)).is_empty());
    assert_eq!(membership.live().count(), 2);
    assert_eq!(membership.fate(), Fate::Fine);
}

#[test]
fn two_seconds_of_silence_are_death_and_no_less() {
    let mut membership = observer();
    watch(&mut membership, 0, 2_000, |_| 7);
    // First seen by the read that ended at 10, still the same at 2,000.
    assert!(membership.suspects(ms(2_010)).is_empty());
    watch(&mut membership, 2_250, 2_250, |_| 7);
    assert_eq!(names(membership.suspects(ms(2_260))), ["b@7"]);
    watch(&mut membership, 2_500, 2_500, |_| 8);
    assert!(membership.suspects(ms(2_510)).is_empty(), "it beat after all");
}

#[test]
fn a_refused_redial_hastens_it() {
    let mut membership = observer();
    watch(&mut membership, 0, 1_000, |at| at / 500);
    membership.link_refused("b", "b1", ms(1_100));
    assert_eq!(membership.look_at(), Some(ms(1_800)));
    watch(&mut membership, 1_250, 1_750, |_| 2);
    assert!(membership.suspects(ms(1_760)).is_empty());
    watch(&mut membership, 1_800, 1_800, |_| 2);
    assert_eq!(names(membership.suspects(ms(1_810))), ["b@2"]);
}

#[test]
fn a_refusal_that_a_beat_disproves_hastens_nothing() {
    let mut membership = observer();
    watch(&mut membership, 0, 1_000, |at| at / 500);
    membership.link_refused("b", "b1", ms(1_100));
    watch(&mut membership, 1_250, 1_500, |at| at / 500);
    // The redials go on being refused.
    membership.link_refused("b", "b1", ms(1_600));
    assert_eq!(membership.look_at(), None);
    watch(&mut membership, 1_750, 3_250, |_| 3);
    assert!(membership.suspects(ms(3_260)).is_empty(), "silent for less than two seconds");
    // A link and another break count again.
    membership.link_up("b", "b1");
    membership.link_refused("b", "b1", ms(2_500));
    assert_eq!(names(membership.suspects(ms(3_260))), ["b@3"]);
}

#[test]
fn a_beat_from_before_the_refusal_disproves_nothing() {
    let mut membership = observer();
    watch(&mut membership, 0, 1_000, |at| at / 500);
    membership.link_refused("b", "b1", ms(1_100));
    // Raised at 1,090, say, and seen at 1,250: the read before began at 1,000.
    watch(&mut membership, 1_250, 2_000, |_| 9);
    assert_eq!(names(membership.suspects(ms(2_010))), ["b@9"]);
}

#[test]
fn a_refusal_of_another_incarnation_is_nothing() {
    let mut membership = observer();
    watch(&mut membership, 0, 0, |_| 1);
    membership.link_refused("b", "b0", ms(5));
    membership.link_refused("c", "c1", ms(5));
    watch(&mut membership, 250, 1_000, |_| 1);
    assert!(membership.suspects(ms(1_010)).is_empty());
}

#[test]
fn a_stalled_store_makes_nobody_dead() {
    let mut membership = observer();
    watch(&mut membership, 0, 1_750, |_| 7);
    membership.read_failed();
    assert!(membership.suspects(ms(2_000)).is_empty());
    watch(&mut membership, 2_000, 3_750, |_| 7);
    assert!(membership.suspects(ms(3_760)).is_empty(), "afresh from 2,010");
    watch(&mut membership, 4_250, 4_250, |_| 7);
    assert_eq!(names(membership.suspects(ms(4_260))), ["b@7"]);
}

#[test]
fn a_hole_between_reads_makes_nobody_dead() {
    let mut membership = observer();
    watch(&mut membership, 0, 1_750, |_| 7);
    // This process was stopped for ten seconds.
    watch(&mut membership, 12_000, 13_750, |_| 7);
    assert!(membership.suspects(ms(13_760)).is_empty());
    // A read that took long shows an unknown moment.
    let rows = [node("a", "a1", 1), node("b", "b1", 7)];
    membership.observed(ms(14_000), ms(15_000), &rows);
    assert!(membership.suspects(ms(15_000)).is_empty());
}

#[test]
fn an_old_read_makes_nobody_dead() {
    let mut membership = observer();
    watch(&mut membership, 0, 2_250, |_| 7);
    assert!(membership.suspects(ms(9_000)).is_empty());
}

#[test]
fn a_new_incarnation_starts_afresh() {
    let mut membership = observer();
    watch(&mut membership, 0, 2_250, |_| 7);
    let rows = [node("a", "a1", 1), node("b", "b2", 7)];
    membership.observed(ms(2_500), ms(2_510), &rows);
    assert!(membership.suspects(ms(2_510)).is_empty());
    assert_eq!(membership.changed(), ms(2_510));
    assert_eq!(membership.beat_age("b", ms(2_600)), Some(ms(90)));
}

#[test]
fn a_lock_decides_where_there_is_one() {
    let mut membership = observer();
    let read = |membership: &mut Membership, at: u64, held: bool| {
        let locked = NodeRecord { locked: Some(held), ..node("b", "b1", 7) };
        membership.observed(ms(at), ms(at + 1), &[node("a", "a1", 1), locked]);
        names(membership.suspects(ms(at + 1)))
    };
    for at in (0..10_000).step_by(250) {
        assert!(read(&mut membership, at, true).is_empty(), "held: alive, whatever the beat");
    }
    assert!(read(&mut membership, 10_000, false).is_empty());
    assert!(read(&mut membership, 10_250, true).is_empty());
    assert!(read(&mut membership, 10_500, false).is_empty(), "once is not twice in a row");
    assert_eq!(read(&mut membership, 10_750, false), ["b@7"]);
}

#[test]
fn it_never_suspects_itself_nor_the_dead() {
    let mut membership = observer();
    for at in (0..5_000).step_by(250) {
        let dead = NodeRecord { state: NodeState::Dead, ..node("c", "c1", 1) };
        membership.observed(ms(at), ms(at + 1), &[node("a", "a1", 1), dead]);
    }
    assert!(membership.suspects(ms(4_751)).is_empty());
    assert_eq!(membership.live().count(), 1);
    assert_eq!(membership.nodes().count(), 2);
    assert!(membership.node("c").is_some());
}

#[test]
fn it_learns_of_its_own_end() {
    let mut membership = observer();
    let dead = NodeRecord { state: NodeState::Dead, ..node("a", "a1", 1) };
    membership.observed(ms(0), ms(1), &[dead]);
    assert_eq!(membership.fate(), Fate::Dead);
    membership.observed(ms(250), ms(251), &[node("a", "a2", 1)]);
    assert_eq!(membership.fate(), Fate::Replaced);
    membership.observed(ms(500), ms(501), &[]);
    assert_eq!(membership.fate(), Fate::Dead);
}

#[test]
fn a_change_of_state_is_a_change_of_the_live_nodes() {
    let mut membership = observer();
    watch(&mut membership, 0, 1_000, |at| at / 500);
    assert_eq!(membership.changed(), ms(10));
    let drains = NodeRecord { state: NodeState::Draining, ..node("b", "b1", 3) };
    membership.observed(ms(1_250), ms(1_260), &[node("a", "a1", 3), drains]);
    assert_eq!(membership.changed(), ms(1_260));
}
