use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { max_body_bytes: 32 };

const ROLES: [Option<RoomRole>; 5] = [
    Some(RoomRole::Owner),
    Some(RoomRole::Moderator),
    Some(RoomRole::Member),
    Some(RoomRole::Reader),
    None,
];

fn who(id: &str) -> Principal {
    format!("user/{id}@dev.simpul").parse().unwrap()
}

/// A room with one owner `o`, and those named.
fn room(members: &[(&str, RoomRole)]) -> RoomState {
    let mut room = RoomState {
        room: "lobby".into(),
        title: "Lobi".to_owned(),
        created_by: who("o"),
        created_at: 1,
        head: 7,
        members: HashMap::new(),
    };
    room.apply(&Change::CreateRoom { title: "Lobi".to_owned() });
    for (id, role) in members {
        room.apply(&Change::SetMember { member: who(id), role: Some(*role) });
    }
    room
}

fn propose(room: Option<&RoomState>, sender: &str, content: Content) -> Result<Decision, Refusal> {
    let client_message_id = Arc::from("m1");
    let proposal = Proposal {
        room: "lobby".into(),
        sender: who(sender),
        client_message_id,
        after: None,
        content,
    };
    decide(room, &proposal, &LIMITS)
}

fn text(body: &str) -> Content {
    Content::Text { body: body.to_owned(), reply_to: 0 }
}

/// `done`, `nothing`, or the reason.
fn outcome(result: &Result<Decision, Refusal>) -> &'static str {
    match result {
        Ok(Decision::Append { .. }) => "done",
        Ok(Decision::Nothing) => "nothing",
        Err(refusal) => refusal.reason.as_str(),
    }
}

fn append(result: Result<Decision, Refusal>) -> (EntryKind, Bytes, u32, Option<Change>, [u8; 32]) {
    match result.unwrap() {
        Decision::Append { kind, body, redactions, change, digest, .. } => {
            (kind, body, redactions, change, digest)
        }
        Decision::Nothing => panic!("nothing was decided"),
    }
}

/// The sender `s` with each role in turn; the answers in the order of `ROLES`.
fn by_role(others: &[(&str, RoomRole)], content: &Content) -> Vec<&'static str> {
    let one = |role: &Option<RoomRole>| {
        let mut room = room(others);
        if let Some(role) = role {
            room.apply(&Change::SetMember { member: who("s"), role: Some(*role) });
        }
        outcome(&propose(Some(&room), "s", content.clone()))
    };
    ROLES.iter().map(one).collect()
}

#[test]
fn who_may_what() {
    use RoomRole::{Member, Moderator, Owner, Reader};
    let add = |role| Content::AddMember { member: who("x"), role };
    let set = |role| Content::SetRole { member: who("x"), role };
    let remove = Content::RemoveMember { member: who("x") };
    let leave = Content::RemoveMember { member: who("s") };
    let title = |title: &str| Content::SetTitle { title: title.to_owned() };
    let receipt = Content::Receipt(receipt_of("s"));
    let create = Content::CreateRoom { title: String::new() };
    let (no, none, last) = ("NOT_ALLOWED", "NOT_FOUND", "LAST_OWNER");
    let (done, same, taken) = ("done", "nothing", "ALREADY_EXISTS");
    assert_eq!(last, Reason::LastOwner.as_str());
    type Row<'a> = (&'a str, Option<RoomRole>, Content, [&'a str; 5]);
    // Who `x` is before; what `s` asks for; as owner, moderator, member, reader
    // and stranger.
    let table: Vec<Row<'_>> = vec![
        ("text", None, text("halo"), [done, done, done, no, none]),
        ("receipt", None, receipt, [done, done, done, done, none]),
        ("create", None, create, [taken, taken, taken, taken, taken]),
        ("new title", None, title("Baru"), [done, done, no, no, none]),
        ("same title", None, title("Lobi"), [same, same, no, no, none]),
        ("add owner", None, add(Owner), [done, no, no, no, none]),
        ("add moderator", None, add(Moderator), [done, no, no, no, none]),
        ("add member", None, add(Member), [done, done, no, no, none]),
        ("add reader", None, add(Reader), [done, done, no, no, none]),
        ("add again", Some(Member), add(Member), [same, same, no, no, none]),
        ("add other", Some(Member), add(Reader), [taken, taken, no, no, none]),
        ("add over owner", Some(Owner), add(Member), [taken, taken, no, no, none]),
        ("remove owner", Some(Owner), remove.clone(), [done, no, no, no, none]),
        ("remove moderator", Some(Moderator), remove.clone(), [done, no, no, no, none]),
        ("remove member", Some(Member), remove.clone(), [done, done, no, no, none]),
        ("remove reader", Some(Reader), remove.clone(), [done, done, no, no, none]),
        ("remove stranger", None, remove, [none, none, no, no, none]),
        ("leave", None, leave, [done, done, done, done, none]),
        ("raise", Some(Reader), set(Owner), [done, no, no, no, none]),
        ("lower owner", Some(Owner), set(Reader), [done, no, no, no, none]),
        ("same role", Some(Member), set(Member), [same, no, no, no, none]),
        ("role of stranger", None, set(Member), [none, no, no, no, none]),
    ];
    for (name, x, content, expected) in table {
        let others: Vec<_> = x.map(|role| ("x", role)).into_iter().collect();
        assert_eq!(by_role(&others, &content), expected, "{name}");
    }
}

#[test]
fn the_last_owner_stays() {
    let alone = room(&[("m", RoomRole::Moderator)]);
    let leave = Content::RemoveMember { member: who("o") };
    let lower = Content::SetRole { member: who("o"), role: RoomRole::Member };
    let same = Content::SetRole { member: who("o"), role: RoomRole::Owner };
    assert_eq!(outcome(&propose(Some(&alone), "o", leave.clone())), "LAST_OWNER");
    assert_eq!(outcome(&propose(Some(&alone), "o", lower.clone())), "LAST_OWNER");
    assert_eq!(outcome(&propose(Some(&alone), "o", same)), "nothing");
    let two = room(&[("p", RoomRole::Owner)]);
    assert_eq!(outcome(&propose(Some(&two), "o", leave)), "done");
    assert_eq!(outcome(&propose(Some(&two), "o", lower)), "done");
}

#[test]
fn without_a_room_only_creating_works() {
    assert_eq!(outcome(&propose(None, "o", text("halo"))), "NOT_FOUND");
    let created = propose(None, "o", Content::CreateRoom { title: "Lobi".to_owned() });
    let (kind, body, _, change, _) = append(created);
    assert_eq!(kind, EntryKind::Room);
    let event = pb::Message::decode(body).unwrap().event;
    assert_eq!(event, Some(Event::Room(pb::RoomChange { title: "Lobi".to_owned() })));
    assert!(matches!(change, Some(Change::CreateRoom { title }) if title == "Lobi"));
}

#[test]
fn deleting_is_for_owners() {
    let room = room(&[("m", RoomRole::Moderator)]);
    let reason = |sender| may_delete(Some(&room), &who(sender)).map_err(|refusal| refusal.reason);
    assert_eq!(reason("o"), Ok(()));
    assert_eq!(reason("m"), Err(Reason::NotAllowed));
    assert_eq!(reason("x"), Err(Reason::NotFound));
    assert_eq!(may_delete(None, &who("o")).unwrap_err().reason, Reason::NotFound);
}

#[test]
fn every_violated_field_is_named() {
    let room = room(&[]);
    let fields = |body: &str, reply_to| {
        let content = Content::Text { body: body.to_owned(), reply_to };
        let refused = propose(Some(&room), "o", content).err();
        refused.map_or(vec![], |r| r.violations.into_iter().map(|v| v.field).collect())
    };
    assert_eq!(fields("", 8), ["body", "reply_to"]);
    assert_eq!(fields(&"é".repeat(17), 0), ["body"]);
    assert!(fields(&"é".repeat(16), 7).is_empty());
    let long = Content::SetTitle { title: "x".repeat(MAX_TITLE_BYTES + 1) };
    assert_eq!(outcome(&propose(Some(&room), "o", long)), "INVALID_ARGUMENT");
}

#[test]
fn card_numbers_are_redacted_before_hashing() {
    let room = room(&[]);
    let one = append(propose(Some(&room), "o", text("kartu 4111111111111111!")));
    let other = append(propose(Some(&room), "o", text("kartu 5555555555554444!")));
    assert_eq!(one.1, "kartu [card number]!");
    assert_eq!(one.2, 1);
    assert_eq!(one.4, other.4);
    let title = Content::SetTitle { title: "4111111111111111".to_owned() };
    let (_, body, redactions, change, _) = append(propose(Some(&room), "o", title));
    assert_eq!(redactions, 1);
    assert!(!String::from_utf8_lossy(&body).contains("4111"));
    assert!(matches!(change, Some(Change::SetTitle { title }) if title == card::REDACTED));
}

#[test]
fn membership_entries_say_before_and_after() {
    let room = room(&[("m", RoomRole::Member)]);
    let content = Content::SetRole { member: who("m"), role: RoomRole::Reader };
    let (kind, body, ..) = append(propose(Some(&room), "o", content));
    assert_eq!(kind, EntryKind::Membership);
    let Some(Event::Membership(change)) = pb::Message::decode(body).unwrap().event else {
        panic!("not a change of members");
    };
    assert_eq!(change.member, "user/m@dev.simpul");
    assert_eq!(change.before, pb::RoomRole::Member as i32);
    assert_eq!(change.after, pb::RoomRole::Reader as i32);
}

fn receipt_of(payer: &str) -> pb::PaymentReceipt {
    pb::PaymentReceipt {
        payment_id: "p1".to_owned(),
        payer: who(payer).to_string(),
        payee: who("toko").to_string(),
        amount: Some(crate::proto::money::v1::Money {
            currency: "IDR".to_owned(),
            minor_units: 5_000_000,
        }),
        status: "SUCCEEDED".to_owned(),
    }
}

#[test]
fn a_receipt_is_posted_by_its_payer() {
    let room = room(&[]);
    let (kind, body, _, change, digest) =
        append(propose(Some(&room), "o", Content::Receipt(receipt_of("o"))));
    assert_eq!(kind, EntryKind::Payment);
    assert!(change.is_none());
    assert_eq!(pb::Message::decode(body).unwrap().event, Some(Event::Payment(receipt_of("o"))));
    let mut dearer = receipt_of("o");
    dearer.amount.as_mut().unwrap().minor_units += 1;
    assert_ne!(append(propose(Some(&room), "o", Content::Receipt(dearer))).4, digest);
    let foreign = propose(Some(&room), "o", Content::Receipt(receipt_of("x"))).unwrap_err();
    assert_eq!(foreign.violations.len(), 1);
    let empty = Content::Receipt(pb::PaymentReceipt::default());
    assert_eq!(propose(Some(&room), "o", empty).unwrap_err().violations.len(), 3);
}

#[test]
fn the_digest_is_what_it_was() {
    // Keys in stores hold it: another value refuses honest repetitions.
    let hex: String = digest::text("halo", 0).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "bcaf812cc3b25e68501cbe9d5a00ea224b4ac772fe426a091f9fb9f8e1534290");
    assert_ne!(digest::text("halo", 0), digest::text("halo", 1));
    assert_ne!(digest::text("halo", 0), digest::room("halo"));
}

fn any_role() -> impl Strategy<Value = RoomRole> {
    (1i64..=4).prop_map(|number| RoomRole::from_number(number).unwrap())
}

fn any_content() -> impl Strategy<Value = Content> {
    let member = || (0..4u8).prop_map(|id| who(&format!("p{id}")));
    prop_oneof![
        (member(), any_role()).prop_map(|(member, role)| Content::AddMember { member, role }),
        (member(), any_role()).prop_map(|(member, role)| Content::SetRole { member, role }),
        member().prop_map(|member| Content::RemoveMember { member }),
    ]
}

proptest! {
    /// Whatever is asked in whatever order, an owner stays, and nobody below
    /// changes who is above.
    #[test]
    fn an_owner_always_stays(steps in proptest::collection::vec((0..4u8, any_content()), 0..60)) {
        let mut room = room(&[]);
        room.apply(&Change::SetMember { member: who("p0"), role: Some(RoomRole::Owner) });
        room.apply(&Change::SetMember { member: who("o"), role: None });
        for (sender, content) in steps {
            let sender = format!("p{sender}");
            let by = room.role(&who(&sender));
            let before = room.clone();
            let Ok(Decision::Append { change: Some(change), .. }) =
                propose(Some(&room), &sender, content) else { continue };
            room.apply(&change);
            prop_assert!(room.members.values().any(|role| *role == RoomRole::Owner));
            for (member, role) in &before.members {
                let changed = room.role(member) != Some(*role);
                let own = *member == who(&sender);
                let high = *role <= RoomRole::Moderator;
                prop_assert!(!changed || own || !high || by == Some(RoomRole::Owner));
            }
        }
    }
}
