use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::chat::{Chat, ChatMetrics, receipts, testing};
use crate::drain;
use crate::principal::{Role, Roles};
use crate::readiness::Readiness;
use crate::security::permit::{Caller, Proof, Validity};
use crate::store::sqlite::SqliteStore;

/// The calls over the real owner and store.
struct Bench {
    api: ChatApi,
    chat: Chat,
    _drain: drain::Drain,
    _dir: tempfile::TempDir,
}

async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("simpul.db"), 2).await.unwrap();
    let store: Arc<dyn ChatStore> = Arc::new(store);
    let config = testing::config();
    let (drain, watch) = drain::channel();
    let (metrics, readiness) = (ChatMetrics::unregistered(), Readiness::new());
    let chat =
        Chat::start(store.clone(), &config, 65_536, "n1", metrics, watch, &readiness, None, None);
    let chat = chat.await.unwrap();
    let limits = ApiLimits { max_body_bytes: 64, max_message_bytes: 65_536, page_entries: 3 };
    let api = ChatApi::new(chat.router(), chat.view(), store, config.partitions, limits);
    Bench { api, chat, _drain: drain, _dir: dir }
}

fn who(id: &str) -> Principal {
    format!("user/{id}@dev.simpul").parse().unwrap()
}

fn by<T>(id: &str, message: T) -> Request<T> {
    let caller = Caller {
        principal: who(id),
        roles: Roles::NONE.with(Role::Customer),
        acting_service: None,
        proof: Proof::Token,
    };
    let validity = Validity::until(SystemTime::now() + Duration::from_secs(60), None);
    let mut request = Request::new(message);
    request.extensions_mut().insert(Permit::new(caller, validity));
    request
}

fn reason<T>(result: Result<T, Status>) -> String {
    let Err(status) = result else { panic!("it was not refused") };
    status.get_details_error_info().unwrap().reason
}

fn violated<T>(result: Result<T, Status>) -> Vec<String> {
    let Err(status) = result else { panic!("it was not refused") };
    assert_eq!(status.code(), Code::InvalidArgument);
    let fields = status.get_details_bad_request().unwrap().field_violations;
    fields.into_iter().map(|violation| violation.field).collect()
}

fn lobby() -> String {
    "lobby".to_owned()
}

impl Bench {
    async fn create(&self, by_whom: &str, room: &str) -> pb::Room {
        let request = pb::CreateRoomRequest { room_id: room.to_owned(), title: "Lobi".to_owned() };
        self.api.create_room(by(by_whom, request)).await.unwrap().into_inner().room.unwrap()
    }

    async fn add(&self, by_whom: &str, whom: &str, role: i32) -> Result<pb::Member, Status> {
        let request = pb::AddMemberRequest { room_id: lobby(), principal: whom.to_owned(), role };
        let added = self.api.add_member(by(by_whom, request)).await?;
        Ok(added.into_inner().member.unwrap())
    }

    async fn send(&self, by_whom: &str, id: &str, body: &str) -> Result<u64, Status> {
        let request = pb::SendMessageRequest {
            room_id: lobby(),
            client_message_id: id.to_owned(),
            body: body.to_owned(),
            reply_to: 0,
        };
        Ok(self.api.send_message(by(by_whom, request)).await?.into_inner().seq)
    }

    async fn read(&self, by_whom: &str, after_seq: u64, limit: u32) -> Result<Messages, Status> {
        let request = pb::GetMessagesRequest { room_id: lobby(), after_seq, limit };
        Ok(self.api.get_messages(by(by_whom, request)).await?.into_inner())
    }

    async fn read_all(&self, by_whom: &str, after: u64, limit: u32) -> Vec<pb::Message> {
        let stream = self.read(by_whom, after, limit).await.unwrap();
        stream.map(|response| response.unwrap().message.unwrap()).collect().await
    }
}

type Messages = super::messages::Messages;

#[tokio::test]
async fn a_room_is_created_read_changed_and_deleted() {
    let bench = bench().await;
    let made = bench.create("alice", "lobby").await;
    assert_eq!((made.head, made.role), (1, pb::RoomRole::Owner as i32));
    assert_eq!(made.created_by, "user/alice@dev.simpul");
    let get = pb::GetRoomRequest { room_id: lobby() };
    let got = bench.api.get_room(by("alice", get.clone())).await.unwrap().into_inner();
    assert_eq!(got.room.unwrap(), made);
    assert_eq!(reason(bench.api.get_room(by("bob", get.clone())).await), "NOT_FOUND");
    let again = pb::CreateRoomRequest { room_id: lobby(), title: String::new() };
    assert_eq!(reason(bench.api.create_room(by("bob", again)).await), "ALREADY_EXISTS");
    let update =
        pb::UpdateRoomRequest { room_id: lobby(), title: "4111 1111 1111 1111".to_owned() };
    let updated = bench.api.update_room(by("alice", update)).await.unwrap().into_inner();
    let updated = updated.room.unwrap();
    assert_eq!((updated.title.as_str(), updated.head), ("[card number]", 2));
    let delete = pb::DeleteRoomRequest { room_id: lobby() };
    assert_eq!(reason(bench.api.delete_room(by("bob", delete.clone())).await), "NOT_FOUND");
    bench.api.delete_room(by("alice", delete)).await.unwrap();
    assert_eq!(reason(bench.api.get_room(by("alice", get)).await), "NOT_FOUND");
    // The id stays taken.
    let again = pb::CreateRoomRequest { room_id: lobby(), title: String::new() };
    assert_eq!(reason(bench.api.create_room(by("alice", again)).await), "ALREADY_EXISTS");
}

#[tokio::test]
async fn an_absent_id_is_made() {
    let bench = bench().await;
    let one = bench.create("alice", "").await.room_id;
    let other = bench.create("alice", "").await.room_id;
    assert_ne!(one, other);
    assert!(crate::id::is_short_name(&one));
}

#[tokio::test]
async fn every_violated_field_is_named_at_once() {
    let bench = bench().await;
    let send = pb::SendMessageRequest {
        room_id: "Lobby!".to_owned(),
        client_message_id: "a b".to_owned(),
        body: "x".repeat(65),
        reply_to: 0,
    };
    let refused = bench.api.send_message(by("alice", send)).await;
    assert_eq!(violated(refused), ["room_id", "client_message_id", "body"]);
    let card = pb::SendMessageRequest {
        room_id: "r4111111111111111".to_owned(),
        client_message_id: "4111-1111-1111-1111".to_owned(),
        body: "4111111111111111".to_owned(),
        reply_to: 0,
    };
    let refused = bench.api.send_message(by("alice", card)).await;
    assert_eq!(violated(refused), ["room_id", "client_message_id"]);
    let create = pb::CreateRoomRequest { room_id: "-".to_owned(), title: "é".repeat(129) };
    assert_eq!(violated(bench.api.create_room(by("alice", create)).await), ["room_id", "title"]);
    let add = pb::AddMemberRequest { room_id: String::new(), principal: "a/b".to_owned(), role: 9 };
    let fields = ["room_id", "principal", "role"];
    assert_eq!(violated(bench.api.add_member(by("alice", add)).await), fields);
    let set = pb::SetMemberRoleRequest { room_id: String::new(), ..Default::default() };
    assert_eq!(violated(bench.api.set_member_role(by("alice", set)).await), fields);
    let list = pb::ListMembersRequest {
        room_id: String::new(),
        page_size: 501,
        page_token: "lobby".to_owned(),
    };
    let fields = ["room_id", "page_size", "page_token"];
    assert_eq!(violated(bench.api.list_members(by("alice", list)).await), fields);
    let list = pb::ListRoomsRequest { page_size: 501, page_token: "?".to_owned() };
    let fields = ["page_size", "page_token"];
    assert_eq!(violated(bench.api.list_rooms(by("alice", list)).await), fields);
    let get = pb::GetMessagesRequest { room_id: String::new(), after_seq: 0, limit: 10_001 };
    let fields = ["room_id", "limit"];
    assert_eq!(violated(bench.api.get_messages(by("alice", get)).await), fields);
}

#[tokio::test]
async fn members_are_added_listed_changed_and_removed() {
    let bench = bench().await;
    bench.create("alice", "lobby").await;
    let bob = bench.add("alice", "bob", 0).await.unwrap();
    assert_eq!(bob.principal, "user/bob@dev.simpul");
    assert_eq!(bob.role, pb::RoomRole::Member as i32);
    // Adding again changes nothing and says what is.
    assert_eq!(bench.add("alice", "user/bob@dev.simpul", 3).await.unwrap(), bob);
    assert_eq!(reason(bench.add("alice", "bob", 4).await), "ALREADY_EXISTS");
    assert_eq!(reason(bench.add("bob", "carol", 0).await), "NOT_ALLOWED");
    bench.add("alice", "service/shop@corp", 4).await.unwrap();
    let mut token = String::new();
    let mut names = Vec::new();
    loop {
        let list = pb::ListMembersRequest { room_id: lobby(), page_size: 1, page_token: token };
        let page = bench.api.list_members(by("bob", list)).await.unwrap().into_inner();
        names.extend(page.members.into_iter().map(|member| member.principal));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["service/shop@corp", "user/alice@dev.simpul", "user/bob@dev.simpul"]);
    let set = pb::SetMemberRoleRequest {
        room_id: lobby(),
        principal: "bob".to_owned(),
        role: pb::RoomRole::Owner as i32,
    };
    let set = bench.api.set_member_role(by("alice", set)).await.unwrap().into_inner();
    let owner = set.member.unwrap();
    assert_eq!((owner.role, owner.joined_at), (pb::RoomRole::Owner as i32, bob.joined_at));
    let leave = pb::LeaveRoomRequest { room_id: lobby() };
    bench.api.leave_room(by("alice", leave.clone())).await.unwrap();
    assert_eq!(reason(bench.api.leave_room(by("alice", leave.clone())).await), "NOT_FOUND");
    assert_eq!(reason(bench.api.leave_room(by("bob", leave)).await), "LAST_OWNER");
    let remove =
        pb::RemoveMemberRequest { room_id: lobby(), principal: "service/shop@corp".to_owned() };
    bench.api.remove_member(by("bob", remove.clone())).await.unwrap();
    assert_eq!(reason(bench.api.remove_member(by("bob", remove)).await), "NOT_FOUND");
}

#[tokio::test]
async fn rooms_are_listed_in_pages() {
    let bench = bench().await;
    for room in ["c", "a", "b"] {
        bench.create("alice", room).await;
    }
    bench.create("bob", "d").await;
    let list = async |page_token: String| {
        let request = pb::ListRoomsRequest { page_size: 2, page_token };
        bench.api.list_rooms(by("alice", request)).await.unwrap().into_inner()
    };
    let ids = |page: &pb::ListRoomsResponse| {
        page.rooms.iter().map(|room| room.room_id.clone()).collect::<Vec<_>>()
    };
    let first = list(String::new()).await;
    assert_eq!(ids(&first), ["a", "b"]);
    let last = list(first.next_page_token).await;
    assert_eq!(ids(&last), ["c"]);
    assert_eq!(last.next_page_token, "");
    assert_eq!(last.rooms.first().unwrap().role, pb::RoomRole::Owner as i32);
}

#[tokio::test]
async fn sending_is_idempotent_and_messages_are_read_in_pages() {
    let bench = bench().await;
    bench.create("alice", "lobby").await;
    for index in 0..8 {
        let seq = bench.send("alice", &format!("m{index}"), &format!("no {index}")).await.unwrap();
        assert_eq!(seq, index + 2);
    }
    assert_eq!(bench.send("alice", "m3", "no 3").await.unwrap(), 5);
    assert_eq!(reason(bench.send("alice", "m3", "no 4").await), "KEY_REUSED");
    // More than one page of three.
    let all = bench.read_all("alice", 0, 0).await;
    assert_eq!(
        all.iter().map(|message| message.seq).collect::<Vec<_>>(),
        (1..=9).collect::<Vec<_>>()
    );
    let third = all.get(2).unwrap();
    assert_eq!((third.body.as_str(), third.client_message_id.as_str()), ("no 1", "m1"));
    assert!(matches!(
        all.first().unwrap().event,
        Some(pb::message::Event::Room(pb::RoomChange { ref title })) if title == "Lobi"
    ));
    let part = bench.read_all("alice", 2, 4).await;
    assert_eq!(part.iter().map(|message| message.seq).collect::<Vec<_>>(), [3, 4, 5, 6]);
    assert!(bench.read_all("alice", 9, 0).await.is_empty());
    assert_eq!(reason(bench.read("alice", 10, 0).await), "CURSOR_AHEAD");
    assert_eq!(reason(bench.read("bob", 0, 0).await), "NOT_FOUND");
}

#[tokio::test]
async fn reading_ends_with_the_membership() {
    let bench = bench().await;
    bench.create("alice", "lobby").await;
    bench.add("alice", "bob", 4).await.unwrap();
    for index in 0..8 {
        bench.send("alice", &format!("m{index}"), "halo").await.unwrap();
    }
    let mut stream = bench.read("bob", 0, 0).await.unwrap();
    stream.next().await.unwrap().unwrap();
    let remove = pb::RemoveMemberRequest { room_id: lobby(), principal: "bob".to_owned() };
    bench.api.remove_member(by("alice", remove)).await.unwrap();
    // The page that was read already, and no further one.
    let rest: Vec<_> = stream.collect().await;
    assert_eq!(rest.len(), 3);
    assert_eq!(reason(rest.into_iter().next_back().unwrap()), "ACCESS_ENDED");
}

#[tokio::test]
async fn a_receipt_is_posted_once_and_nobody_takes_its_place() {
    let bench = bench().await;
    bench.create("alice", "lobby").await;
    let receipt = pb::PaymentReceipt {
        payment_id: "p1".to_owned(),
        payer: who("alice").to_string(),
        payee: who("toko").to_string(),
        amount: None,
        status: "SUCCEEDED".to_owned(),
    };
    let post = async |payer: &str, receipt: &pb::PaymentReceipt| {
        receipts::post(&*bench.chat.router(), "lobby".into(), who(payer), receipt.clone()).await
    };
    post("alice", &receipt).await.unwrap();
    post("alice", &receipt).await.unwrap();
    let refunded = pb::PaymentReceipt { status: "REFUNDED".to_owned(), ..receipt.clone() };
    post("alice", &refunded).await.unwrap();
    let posted = bench.read_all("alice", 1, 0).await;
    let events: Vec<_> = posted.iter().map(|message| message.event.clone()).collect();
    let expected = [receipt.clone(), refunded].map(|r| Some(pb::message::Event::Payment(r)));
    assert_eq!(events, expected);
    assert!(posted.iter().all(|message| message.client_message_id.is_empty()));
    let strangers = pb::PaymentReceipt { payer: who("bob").to_string(), ..receipt };
    let refused = post("bob", &strangers).await.unwrap_err();
    assert_eq!(refused.reason, crate::refusal::Reason::NotFound);
}

#[tokio::test]
async fn without_a_permit_nothing_is_answered() {
    let bench = bench().await;
    let refused = bench.api.list_rooms(Request::new(pb::ListRoomsRequest::default())).await;
    assert_eq!(reason(refused), "INTERNAL");
}
