//! Proposals and their outcomes, as links and letters carry them.

use std::sync::Arc;
use std::time::Duration;

use crate::chat::{Content, Proposal, Published};
use crate::principal::Principal;
use crate::proto::chat::v1 as chat;
use crate::proto::cluster::v1 as pb;
use crate::refusal::{Reason, Refusal, Violation};
use crate::store::chat::RoomRole;

/// The reason of a Relayed whose Publish was sent on, and whose answer was lost:
/// whether it was appended is not known. No client ever sees it.
pub(in crate::cluster) const LOST: &str = "ANSWER_LOST";

/// Longer than any caller waits.
const LONGEST: Duration = Duration::from_secs(3_600);

/// What became of a Publish.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cluster) enum Outcome {
    /// Durable, or refused for good.
    Final(Result<Published, Refusal>),
    /// Not appended, because the node does not order the partition (any more).
    NotOwner,
    /// Sent, and whether it was appended is not known.
    Lost,
}

/// A proposal as a Publish.
pub(in crate::cluster) fn publish(
    id: u64,
    partition: u16,
    proposal: &Proposal,
    traceparent: Option<String>,
    left: Duration,
) -> pb::Publish {
    use pb::publish::Content as Wire;
    let member = |member: &Principal, role: RoomRole| pb::MemberChange {
        member: member.to_string(),
        role: crate::chat::wire::role(role).into(),
    };
    let content = match &proposal.content {
        Content::Text { body, reply_to } => Wire::Text(pb::Text {
            body: body.clone(),
            reply_to: *reply_to,
            after: proposal.after.as_deref().unwrap_or_default().to_owned(),
        }),
        Content::CreateRoom { title } => Wire::CreateRoom(title.clone()),
        Content::SetTitle { title } => Wire::SetTitle(title.clone()),
        Content::AddMember { member: who, role } => Wire::AddMember(member(who, *role)),
        Content::RemoveMember { member } => Wire::RemoveMember(member.to_string()),
        Content::SetRole { member: who, role } => Wire::SetRole(member(who, *role)),
        Content::Receipt(receipt) => Wire::Receipt(receipt.clone()),
        Content::DeleteRoom => Wire::DeleteRoom(true),
    };
    pb::Publish {
        id,
        partition: partition.into(),
        room_id: proposal.room.to_string(),
        sender: proposal.sender.to_string(),
        client_message_id: proposal.client_message_id.to_string(),
        traceparent: traceparent.unwrap_or_default(),
        deadline: duration(left),
        content: Some(content),
    }
}

/// A Publish as a proposal. `None` when it is not one.
pub(in crate::cluster) fn proposal(publish: pb::Publish) -> Option<Proposal> {
    use pb::publish::Content as Wire;
    let principal = |text: String| text.parse::<Principal>().ok();
    let role = |number: i32| {
        let role = chat::RoomRole::try_from(number).ok()?;
        RoomRole::from_number(i64::from(i32::from(role)))
    };
    let mut after = None;
    let content = match publish.content? {
        Wire::Text(text) => {
            after = (!text.after.is_empty()).then(|| Arc::from(text.after));
            Content::Text { body: text.body, reply_to: text.reply_to }
        }
        Wire::CreateRoom(title) => Content::CreateRoom { title },
        Wire::SetTitle(title) => Content::SetTitle { title },
        Wire::AddMember(change) => {
            Content::AddMember { member: principal(change.member)?, role: role(change.role)? }
        }
        Wire::RemoveMember(member) => Content::RemoveMember { member: principal(member)? },
        Wire::SetRole(change) => {
            Content::SetRole { member: principal(change.member)?, role: role(change.role)? }
        }
        Wire::Receipt(receipt) => Content::Receipt(receipt),
        Wire::DeleteRoom(true) => Content::DeleteRoom,
        Wire::DeleteRoom(false) => return None,
    };
    Some(Proposal {
        room: publish.room_id.into(),
        sender: principal(publish.sender)?,
        client_message_id: Arc::from(publish.client_message_id),
        after,
        content,
    })
}

/// An outcome as a Published.
pub(in crate::cluster) fn published(id: u64, result: Result<Published, Refusal>) -> pb::Published {
    use pb::published::Result as Wire;
    let result = match result {
        Ok(published) => Wire::Committed(pb::Committed {
            seq: published.seq,
            committed_at: published.committed_at,
            redactions: published.redactions,
        }),
        Err(refusal) => Wire::Refused(refused(refusal)),
    };
    pb::Published { id, result: Some(result) }
}

/// The answer to a Relay whose fate is not known.
pub(in crate::cluster) fn lost(id: u64) -> pb::Published {
    let refused = pb::Refused {
        reason: LOST.into(),
        message: "the answer was lost on the way".into(),
        ..pb::Refused::default()
    };
    pb::Published { id, result: Some(pb::published::Result::Refused(refused)) }
}

/// A Published as an outcome. One without a result is none of this release.
pub(in crate::cluster) fn outcome(published: pb::Published) -> Outcome {
    use pb::published::Result as Wire;
    match published.result {
        Some(Wire::Committed(committed)) => Outcome::Final(Ok(Published {
            seq: committed.seq,
            committed_at: committed.committed_at,
            redactions: committed.redactions,
        })),
        Some(Wire::Refused(refused)) => match refused.reason.as_str() {
            LOST => Outcome::Lost,
            reason if reason == Reason::NotOwner.as_str() => Outcome::NotOwner,
            // A node that stops has not appended what it says this of, or its
            // answer is lost: sent again it is found by its name.
            reason if reason == Reason::Draining.as_str() => Outcome::Lost,
            _ => Outcome::Final(Err(refusal(refused))),
        },
        None => Outcome::Final(Err(Refusal::new(
            Reason::Internal,
            "another node gave an answer that this release does not know",
        ))),
    }
}

fn refused(refusal: Refusal) -> pb::Refused {
    let violation =
        |violation: Violation| pb::Violation { field: violation.field, rule: violation.rule };
    pb::Refused {
        reason: refusal.reason.as_str().into(),
        message: refusal.message,
        violations: refusal.violations.into_iter().map(violation).collect(),
        retry_after: refusal.retry_after.and_then(duration),
    }
}

fn refusal(refused: pb::Refused) -> Refusal {
    let known = Reason::ALL.iter().copied().find(|reason| reason.as_str() == refused.reason);
    let violation =
        |violation: pb::Violation| Violation { field: violation.field, rule: violation.rule };
    Refusal {
        // A reason of a newer release: its sentence is all that there is.
        reason: known.unwrap_or(Reason::Internal),
        message: refused.message,
        violations: refused.violations.into_iter().map(violation).collect(),
        retry_after: refused.retry_after.map(span),
    }
}

/// A span of time as the contract has it.
pub(in crate::cluster) fn duration(span: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(span).ok()
}

/// A span of time of the contract; nothing for what is negative. Never so long
/// that it could not be added to a time: another node may say anything.
pub(in crate::cluster) fn span(duration: prost_types::Duration) -> Duration {
    // The library's own conversion negates the least number there is.
    let nanos = i128::from(duration.seconds) * 1_000_000_000 + i128::from(duration.nanos);
    u64::try_from(nanos.max(0)).map_or(LONGEST, Duration::from_nanos).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(text: &str) -> Principal {
        text.parse().expect("a principal")
    }

    #[test]
    fn every_content_comes_back_as_it_was() {
        let bob = who("user/bob@corp.test");
        let contents = [
            Content::Text { body: "b".into(), reply_to: 3 },
            Content::CreateRoom { title: "t".into() },
            Content::SetTitle { title: "t".into() },
            Content::AddMember { member: bob.clone(), role: RoomRole::Moderator },
            Content::RemoveMember { member: bob.clone() },
            Content::SetRole { member: bob.clone(), role: RoomRole::Reader },
            Content::Receipt(chat::PaymentReceipt { payment_id: "p".into(), ..Default::default() }),
            Content::DeleteRoom,
        ];
        for content in contents {
            let sent = Proposal {
                room: "r".into(),
                sender: who("service/shop@corp.test"),
                client_message_id: "m1".into(),
                after: matches!(content, Content::Text { .. }).then(|| "m0".into()),
                content,
            };
            let carried = publish(1, 7, &sent, None, Duration::from_millis(1500));
            assert_eq!(carried.deadline.map(span), Some(Duration::from_millis(1500)));
            let back = proposal(carried).expect("a proposal");
            assert_eq!(format!("{back:?}"), format!("{sent:?}"));
        }
        assert!(proposal(pb::Publish::default()).is_none());
    }

    #[test]
    fn any_span_can_be_added_to_a_time() {
        let ends = [i64::MIN, -1, 0, 1, 1 << 40, i64::MAX];
        for (seconds, nanos) in ends.into_iter().flat_map(|s| [(s, i32::MIN), (s, i32::MAX)]) {
            let left = span(prost_types::Duration { seconds, nanos });
            assert!(left <= LONGEST, "{seconds} {nanos}");
            assert!(tokio::time::Instant::now().checked_add(left).is_some());
        }
        let second = prost_types::Duration { seconds: 1, nanos: 0 };
        assert_eq!(span(second), Duration::from_secs(1));
    }

    #[test]
    fn outcomes_come_back_and_two_of_them_are_the_router_s_own() {
        let committed = Ok(Published { seq: 4, committed_at: 5, redactions: 1 });
        let refusal = Refusal {
            violations: vec![Violation { field: "body".into(), rule: "must be shorter".into() }],
            ..Refusal::new(Reason::InvalidArgument, "body").retry_after(Duration::from_secs(1))
        };
        for result in [committed, Err(refusal)] {
            assert_eq!(outcome(published(1, result.clone())), Outcome::Final(result));
        }
        let not_owner = Err(Refusal::new(Reason::NotOwner, "no"));
        assert_eq!(outcome(published(1, not_owner)), Outcome::NotOwner);
        assert_eq!(outcome(lost(1)), Outcome::Lost);
    }
}
