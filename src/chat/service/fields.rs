//! The fields that several requests share. Each notes what is violated and goes
//! on, so that a request is refused with all of it.

use crate::chat::rules;
use crate::principal::Principal;
use crate::proto::chat::v1 as pb;
use crate::refusal::Violations;
use crate::store::chat::{RoomId, RoomRole};

pub(super) fn room(violations: &mut Violations, text: &str) -> RoomId {
    rules::check_room_id(violations, text);
    text.into()
}

/// In the caller's trust domain when the text has none. `None` was noted.
pub(super) fn principal(
    violations: &mut Violations,
    caller: &Principal,
    text: &str,
) -> Option<Principal> {
    violations.take("principal", Principal::parse_in(text, &caller.trust_domain()))
}

/// `None` was noted, or is `unspecified` when that is allowed.
pub(super) fn role(
    violations: &mut Violations,
    number: i32,
    unspecified: Option<RoomRole>,
) -> Option<RoomRole> {
    if number == pb::RoomRole::Unspecified as i32 && unspecified.is_some() {
        return unspecified;
    }
    let role = RoomRole::from_number(number.into());
    violations
        .check(role.is_some(), "role", || "must be OWNER, MODERATOR, MEMBER or READER".to_owned());
    role
}

pub(super) fn title(violations: &mut Violations, text: &str) {
    let max = rules::MAX_TITLE_BYTES;
    violations.check(text.len() <= max, "title", || {
        format!("must have at most {max} bytes; it has {}", text.len())
    });
}

/// A number of things asked for: `default` when 0.
pub(super) fn count(
    violations: &mut Violations,
    field: &str,
    asked: u32,
    default: u32,
    max: u32,
) -> u32 {
    violations.check(asked <= max, field, || format!("must be 0 to {max}; it is {asked}"));
    if asked == 0 { default } else { asked.min(max) }
}
