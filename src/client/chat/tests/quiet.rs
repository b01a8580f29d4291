//! Nodes that say nothing, and callers who want to be elsewhere.

use std::time::Duration;

use super::*;

/// How long it takes until a frozen node is left, after a rest.
fn left_after(rest: Duration, quiet: Duration) -> Duration {
    let settings = Settings { quiet, ..settings_of(None) };
    let mut core = Core::new(settings, half);
    core.join(Duration::ZERO, "r".into(), From::Latest);
    core.opened(Duration::ZERO, 1, "frozen:1".into());
    let joined = Joined { room_id: "r".into(), ..Joined::default() };
    core.frame(Duration::ZERO, 1, Tell::Joined(joined));
    core.actions.clear();
    let mut asks = 0;
    loop {
        let now = core.wake_at().expect("it looks after its node");
        core.tick(now);
        for action in std::mem::take(&mut core.actions) {
            match action {
                Action::Write(_, Ask::Ping(ping)) if now < rest => {
                    asks += 1;
                    assert!(asks < 300, "a chat at rest pings all the time");
                    core.frame(now, 1, Tell::Pong(Pong { nonce: ping.nonce }));
                }
                Action::Close(1) => {
                    core.tick(now + Duration::from_secs(1));
                    let opened = core.actions.pop_front();
                    let avoid = Some("frozen:1".to_owned());
                    assert!(matches!(opened, Some(Action::Open { avoid: a, .. }) if a == avoid));
                    return now.saturating_sub(rest);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_frozen_node_is_left_soon_and_a_chat_at_rest_asks_seldom() {
    let (second, quiet) = (Duration::from_secs(1), Duration::from_secs(15));
    assert!(left_after(second, quiet) <= 3 * second);
    assert!(left_after(8 * second, quiet) <= 4 * second);
    assert!(left_after(40 * second, second) <= 3 * second);
    let rested = left_after(3600 * second, quiet);
    assert!(rested <= 17 * second, "{rested:?}");
}

#[test]
fn whoever_wants_to_goes_where_it_wants() {
    let mut world = World::new();
    world.step(&Step::OpenWell);
    run(&mut world);
    world.core.go(world.now, vec!["home:1".to_owned()]);
    world.act();
    assert_eq!(world.preferred.last(), Some(&vec!["home:1".to_owned()]));
    assert!(world.opening.is_some() && world.sessions.len() == 1, "the old stream goes on");
    world.step(&Step::OpenWell);
    run(&mut world);
    world.core.go(world.now, vec!["s2:1".to_owned()]);
    world.act();
    assert!(world.opening.is_none(), "it is there already");
    world.settle();
    world.check(true);
}
