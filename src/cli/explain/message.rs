//! `simpul explain message`.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render::time_json;
use crate::cli::text::{pairs, plain, table, time};
use crate::proto::operate::v1::explain_message_request::Which;
use crate::proto::operate::v1::{ExplainMessageRequest, ExplainMessageResponse, Placement};

/// Who sent a message, when it was committed, who may read it, where it stands
#[derive(Debug, Args)]
pub(super) struct Message {
    /// The room
    #[arg(value_name = "ROOM")]
    room: String,
    /// The message: its seq, or its sender's client message id
    #[arg(value_name = "SEQ|ID")]
    message: String,
    /// Take a number for a client message id
    #[arg(long)]
    by_id: bool,
    /// With an id: who sent it, as `[kind/]id[@trust-domain]`. Without it the
    /// room's members are looked through
    #[arg(long, value_name = "WHO")]
    sender: Option<String>,
}

impl Message {
    /// Asks and prints.
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let which = match self.message.parse::<u64>() {
            Ok(seq) if !self.by_id && self.sender.is_some() => {
                let rule = format!("--sender goes with an id, and {seq} is a seq: --by-id");
                return Err(Failure::usage(rule));
            }
            Ok(seq) if !self.by_id => Which::Seq(seq),
            _ => Which::ClientMessageId(self.message),
        };
        let request = ExplainMessageRequest {
            room_id: self.room,
            which: Some(which),
            sender: self.sender.unwrap_or_default(),
        };
        let client = env.connect().await?;
        let answer = client.operator().explain_message(client.unary(request)).await?.into_inner();
        env.output.say(&as_json(&answer), || as_text(&answer))?;
        Ok(Exit::Done)
    }
}

fn as_json(m: &ExplainMessageResponse) -> Value {
    let place = m.placement.clone().unwrap_or_default();
    let readers = m.readers.iter().map(|reader| {
        json!({
            "member": reader.member, "role": reader.role,
            "joined_at": time_json(reader.joined_at.as_ref()),
        })
    });
    json!({
        "room_id": m.room_id, "seq": m.seq, "kind": m.kind, "sender": m.sender,
        "client_message_id": m.client_message_id, "reply_to": m.reply_to,
        "body_bytes": m.body_bytes, "redactions": m.redactions,
        "committed_at": time_json(m.committed_at.as_ref()),
        "key_kept_until": time_json(m.key_kept_until.as_ref()),
        "room_head": m.room_head,
        "readers": readers.collect::<Value>(), "more_readers": m.more_readers,
        "placement": {
            "partition": place.partition, "owner": place.owner, "epoch": place.epoch,
            "commit_no": place.commit_no, "answered_by": place.answered_by,
            "in_memory": place.in_memory, "readers_here": place.readers_here,
            "followers": place.followers,
        },
    })
}

fn as_text(m: &ExplainMessageResponse) -> String {
    let place = m.placement.clone().unwrap_or_default();
    let key = match (&m.key_kept_until, m.client_message_id.is_empty()) {
        (_, true) => "none".to_owned(),
        (Some(until), false) => {
            format!("{}, kept until {}", plain(&m.client_message_id), time(Some(until)))
        }
        (None, false) => format!("{}, forgotten", plain(&m.client_message_id)),
    };
    let mut rows = vec![
        ("message", format!("{} {} of {}", plain(&m.room_id), m.seq, m.room_head)),
        ("kind", plain(&m.kind)),
        ("sender", plain(&m.sender)),
        ("key", key),
        ("committed", time(m.committed_at.as_ref())),
        ("text", format!("{} bytes, not shown", m.body_bytes)),
    ];
    if m.redactions > 0 {
        rows.push(("redacted", format!("{} card number(s)", m.redactions)));
    }
    if m.reply_to > 0 {
        rows.push(("answers", m.reply_to.to_string()));
    }
    rows.extend(placed(&place));
    let mut out = pairs(&rows);
    out.push_str("\n\n");
    let readers: Vec<Vec<String>> = m
        .readers
        .iter()
        .map(|r| vec![plain(&r.member), r.role.to_ascii_lowercase(), time(r.joined_at.as_ref())])
        .collect();
    out.push_str(&table(&["MAY READ IT", "AS", "SINCE"], &readers));
    if m.more_readers {
        out.push_str("\n… and more");
    }
    out
}

fn placed(place: &Placement) -> Vec<(&'static str, String)> {
    let owner = if place.owner.is_empty() { "nobody".to_owned() } else { plain(&place.owner) };
    let here = match (place.in_memory, place.readers_here) {
        (false, _) => "not in memory".to_owned(),
        (true, readers) => format!("in memory, read by {readers} stream(s)"),
    };
    let mut rows = vec![
        ("partition", format!("{}, committed to {} times", place.partition, place.commit_no)),
        ("owner now", format!("{owner}, epoch {}", place.epoch)),
        ("on", format!("{}: {here}", plain(&place.answered_by))),
    ];
    if !place.followers.is_empty() {
        let followers: Vec<String> = place.followers.iter().map(|node| plain(node)).collect();
        rows.push(("sent on to", followers.join(", ")));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_told_without_its_text_and_without_control_characters() {
        let answer = ExplainMessageResponse {
            room_id: "lobby".into(),
            seq: 3,
            kind: "TEXT".into(),
            sender: "user/alice\u{1b}[2J@x".into(),
            client_message_id: "m-1".into(),
            body_bytes: 11,
            room_head: 9,
            placement: Some(Placement {
                owner: "n1".into(),
                epoch: 4,
                followers: vec!["n2".into(), "n3".into()],
                in_memory: true,
                ..Placement::default()
            }),
            ..ExplainMessageResponse::default()
        };
        let text = as_text(&answer);
        for part in ["lobby 3 of 9", "11 bytes, not shown", "n1, epoch 4", "n2, n3", "forgotten"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\u{1b}'));
        let json = as_json(&answer);
        assert_eq!(json["placement"]["followers"][1], "n3");
        assert_eq!(json["key_kept_until"], Value::Null);
    }
}
