use prost_reflect::prost::Message;
use prost_reflect::prost_types::{
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};

use super::*;
use crate::principal::Principal;
use crate::security::permit::Proof;

fn caller(roles: &[Role]) -> Caller {
    let principal: Principal = "user/alice@corp.test".parse().expect("a principal");
    let roles = roles.iter().copied().collect();
    Caller { principal, roles, acting_service: None, proof: Proof::Token }
}

fn outcome(policy: &Policy, path: &str, caller: Option<&Caller>) -> Result<(), Reason> {
    match policy.decide(path, caller) {
        Decision::Allowed(_) => Ok(()),
        Decision::Denied(_, refusal) => Err(refusal.reason),
    }
}

#[test]
fn each_caller_gets_what_the_contracts_say_and_nothing_else() {
    let policy = Policy::embedded(false).expect("the contracts are a policy");
    let customer = caller(&[Role::Customer]);
    let auditor = caller(&[Role::Auditor]);
    let nobody = caller(&[]);
    let whoami = "/simpul.identity.v1.IdentityService/WhoAmI";
    let chat = "/simpul.chat.v1.ChatService/Chat";
    let health = "/grpc.health.v1.Health/Check";
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let missing = Err(Reason::CredentialsMissing);
    let role = Err(Reason::RoleMissing);
    for (path, given, wanted) in [
        (whoami, None, missing),
        (whoami, Some(&nobody), Ok(())),
        (chat, None, missing),
        (chat, Some(&nobody), role),
        (chat, Some(&auditor), role),
        (chat, Some(&customer), Ok(())),
        (health, None, Ok(())),
        (reflection, None, missing),
        (reflection, Some(&nobody), Ok(())),
        ("/simpul.chat.v1.ChatService/chat", Some(&customer), Err(Reason::UnknownMethod)),
        ("/simpul.chat.v1.ChatService/Chat/", Some(&customer), Err(Reason::UnknownMethod)),
        ("//simpul.chat.v1.ChatService/Chat", Some(&customer), Err(Reason::UnknownMethod)),
        ("", None, Err(Reason::UnknownMethod)),
    ] {
        assert_eq!(outcome(&policy, path, given), wanted, "{path} {given:?}");
    }
    let development = Policy::embedded(true).expect("the contracts are a policy");
    assert_eq!(outcome(&development, reflection, None), Ok(()));
}

#[test]
fn streams_and_changes_are_known_as_such() {
    let policy = Policy::embedded(false).expect("the contracts are a policy");
    let find = |path: &str| policy.find(path).cloned().expect(path);
    let chat = find("/simpul.chat.v1.ChatService/Chat");
    assert!(chat.streams && chat.mutates && chat.audited);
    let whoami = find("/simpul.identity.v1.IdentityService/WhoAmI");
    assert!(!whoami.streams && !whoami.mutates && whoami.audited);
    assert!(find("/simpul.payment.v1.PaymentService/ProcessPayment").mutates);
    assert!(find("/simpul.payment.v1.PaymentService/WatchPayment").streams);
    assert!(!find("/grpc.health.v1.Health/Watch").audited);
    // None of our methods is open to everyone.
    assert!(policy.methods().iter().all(|m| !m.audited || m.rule != Rule::Public));
}

/// The embedded contracts with one more service, whose method has these options
/// on the wire.
fn with_method(name: &str, options: Option<&[u8]>) -> Vec<u8> {
    let mut set = FileDescriptorSet::default().encode_to_vec();
    set.extend_from_slice(crate::proto::DESCRIPTORS);
    let method = MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(".simpul.identity.v1.WhoAmIRequest".to_owned()),
        output_type: Some(".simpul.identity.v1.WhoAmIResponse".to_owned()),
        ..MethodDescriptorProto::default()
    };
    let mut method = method.encode_to_vec();
    if let Some(options) = options {
        // Field 4 of MethodDescriptorProto: the typed form would drop the
        // extension.
        method.push(4 << 3 | 2);
        method.push(options.len() as u8);
        method.extend_from_slice(options);
    }
    let service = ServiceDescriptorProto {
        name: Some("Extra".to_owned()),
        ..ServiceDescriptorProto::default()
    };
    let mut service = service.encode_to_vec();
    service.push(2 << 3 | 2);
    service.push(method.len() as u8);
    service.extend_from_slice(&method);
    let file = FileDescriptorProto {
        name: Some("extra.proto".to_owned()),
        package: Some("simpul.extra.v1".to_owned()),
        dependency: vec!["simpul/identity/v1/identity.proto".to_owned()],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    };
    let mut file = file.encode_to_vec();
    file.push(6 << 3 | 2);
    prost_reflect::prost::encoding::encode_varint(service.len() as u64, &mut file);
    file.extend_from_slice(&service);
    set.push(1 << 3 | 2);
    prost_reflect::prost::encoding::encode_varint(file.len() as u64, &mut set);
    set.extend_from_slice(&file);
    set
}

/// The option `access` with this content, as MethodOptions on the wire.
fn access(content: &[u8]) -> Vec<u8> {
    let mut options = Vec::new();
    prost_reflect::prost::encoding::encode_varint(50443 << 3 | 2, &mut options);
    options.push(content.len() as u8);
    options.extend_from_slice(content);
    options
}

#[test]
fn a_method_without_one_rule_is_named() {
    let path = "/simpul.extra.v1.Extra/Poke".to_owned();
    let public: &[u8] = &[1 << 3, 1];
    let both: &[u8] = &[1 << 3, 1, 2 << 3, 1];
    let unspecified: &[u8] = &[3 << 3 | 2, 1, 0];
    let unknown: &[u8] = &[3 << 3 | 2, 1, 99];
    let read = |options: Option<Vec<u8>>| {
        Policy::read(&with_method("Poke", options.as_deref()), false).map(|_| ())
    };
    assert_eq!(read(Some(access(public))), Ok(()));
    assert_eq!(read(None), Err(vec![PolicyError::Missing(path.clone())]));
    assert_eq!(read(Some(access(&[]))), Err(vec![PolicyError::Ambiguous(path.clone())]));
    assert_eq!(read(Some(access(both))), Err(vec![PolicyError::Ambiguous(path.clone())]));
    assert_eq!(read(Some(access(unspecified))), Err(vec![PolicyError::Role(path.clone())]));
    assert_eq!(read(Some(access(unknown))), Err(vec![PolicyError::Role(path)]));
}
