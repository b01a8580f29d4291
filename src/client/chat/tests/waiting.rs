//! Rooms that cannot be joined for reasons that may pass.

use super::*;

fn told(core: &mut Core) -> Vec<&'static str> {
    let name = |event: Event| match event {
        Event::Waiting(_) => "waiting",
        Event::Refused(_) => "refused",
        Event::Joined { .. } => "joined",
        _ => "",
    };
    core.events.drain(..).map(name).filter(|name| !name.is_empty()).collect()
}

#[test]
fn a_room_that_has_no_owner_is_told_once_and_given_up_in_time() {
    let mut core = Core::new(settings_of(Some(Duration::from_secs(5))), half);
    let refused = || {
        let code = Code::Unavailable.into();
        Tell::Failed(Failed { room_id: "r".into(), code, ..Failed::default() })
    };
    core.join(Duration::ZERO, "r".into(), From::Latest);
    core.opened(Duration::ZERO, 1, "s:1".into());
    core.frame(Duration::from_secs(1), 1, refused());
    assert_eq!(told(&mut core), ["waiting"]);
    let mut now = Duration::from_secs(1);
    while now < Duration::from_secs(9) {
        now = core.wake_at().expect("it is asked again");
        core.tick(now);
        core.frame(now, 1, refused());
        if !core.rooms.contains_key("r") {
            break;
        }
    }
    assert!(now >= Duration::from_secs(6), "{now:?}");
    assert_eq!(told(&mut core), ["refused"]);
}
