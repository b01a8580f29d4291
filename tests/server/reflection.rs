//! What reflection shows, in both versions (their messages are the same).

use prost::Message;
use tonic::Code;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::harness::{Client, Node, call, framed};

/// The library ends the stream with NOT_FOUND for what it does not know.
async fn ask(client: &Client, version: &str, question: MessageRequest) -> Option<MessageResponse> {
    let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let answer = client.call(call(&path), framed(&request.encode_to_vec())).await.expect("answer");
    if answer.code() == Some(Code::NotFound) {
        return None;
    }
    assert_eq!(answer.code(), Some(Code::Ok));
    let message = answer.data.get(5..).expect("a message");
    let response = ServerReflectionResponse::decode(message).expect("a response");
    response.message_response
}

#[tokio::test]
async fn it_lists_what_is_mounted_and_hides_what_is_not() {
    let node = Node::defaults().await;
    let client = node.connect().await;
    for version in ["v1", "v1alpha"] {
        let list = ask(&client, version, MessageRequest::ListServices("*".to_owned())).await;
        let Some(MessageResponse::ListServicesResponse(list)) = list else { panic!("{list:?}") };
        let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
        names.sort();
        assert_eq!(
            names,
            [
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
                "simpul.identity.v1.IdentityService",
                "simpul.transaction.v1.TransactionService",
            ]
        );
        for (name, shown) in [
            ("simpul.identity.v1.IdentityService", true),
            ("grpc.health.v1.Health", true),
            ("simpul.sandbox.v1.SandboxService", false),
        ] {
            let question = MessageRequest::FileContainingSymbol(name.to_owned());
            let answer = ask(&client, version, question).await;
            let file = matches!(answer, Some(MessageResponse::FileDescriptorResponse(_)));
            assert_eq!((file, answer.is_some()), (shown, shown), "{version} {name}");
        }
    }
}
