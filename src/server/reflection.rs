//! grpc.reflection, v1 and v1alpha, over the embedded descriptors.
//!
//! Files are served byte for byte as they were compiled: decoding and encoding
//! again would drop the option that carries the access policy. Files that hold
//! only services that are not mounted (the sandbox's, without the sandbox) are
//! left out.

use prost::Message;
use prost_types::FileDescriptorProto;
use tonic_reflection::server::{Builder, Error, v1, v1alpha};

use crate::traffic::methods::{HEALTH, REFLECTION};

/// A symbol's or file's name is all that a request holds.
const MAX_REQUEST: usize = 4 * 1024;

/// A FileDescriptorSet whose files stay encoded.
#[derive(Clone, PartialEq, Message)]
struct RawSet {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

/// The embedded set without the files of services that are not mounted.
fn mounted_files(services: &[&str]) -> Result<Vec<u8>, prost::DecodeError> {
    let mut set = RawSet::decode(crate::proto::DESCRIPTORS)?;
    let mut kept = Vec::with_capacity(set.file.len());
    for raw in set.file {
        let file = FileDescriptorProto::decode(raw.as_slice())?;
        let mut names =
            file.service.iter().map(|service| format!("{}.{}", file.package(), service.name()));
        if file.service.is_empty() || names.any(|name| services.contains(&name.as_str())) {
            kept.push(raw);
        }
    }
    set.file = kept;
    Ok(set.encode_to_vec())
}

fn builder(services: &[&str]) -> Result<Builder<'static>, Error> {
    // The services' types borrow what they are built from, for ever: they live
    // as long as the node, which builds them once.
    let files: &'static [u8] = mounted_files(services)?.leak();
    let builder = Builder::configure()
        .register_encoded_file_descriptor_set(files)
        // The details of errors, so that tools can show them.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
        .include_reflection_service(false);
    let always = [HEALTH, REFLECTION[0], REFLECTION[1]];
    let ours = services.iter().filter(|name| !always.contains(name)).copied();
    Ok(ours.chain(always).fold(builder, Builder::with_service_name))
}

/// The v1 service, showing the named services, health and itself.
pub fn v1(
    services: &[&str],
) -> Result<v1::ServerReflectionServer<impl v1::ServerReflection + use<>>, Error> {
    let server = builder(services)?.build_v1()?;
    Ok(server.max_decoding_message_size(MAX_REQUEST))
}

/// The v1alpha service, showing the same.
pub fn v1alpha(
    services: &[&str],
) -> Result<v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection + use<>>, Error> {
    let server = builder(services)?.build_v1alpha()?;
    Ok(server.max_decoding_message_size(MAX_REQUEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(services: &[&str]) -> Vec<(String, Vec<u8>)> {
        let set = mounted_files(services).expect("descriptors");
        let set = RawSet::decode(set.as_slice()).expect("a set");
        let name = |raw: &Vec<u8>| {
            FileDescriptorProto::decode(raw.as_slice()).expect("a file").name().to_owned()
        };
        set.file.into_iter().map(|raw| (name(&raw), raw)).collect()
    }

    #[test]
    fn a_service_that_is_not_mounted_is_not_shown() {
        let all = files(&["simpul.chat.v1.ChatService", "simpul.sandbox.v1.SandboxService"]);
        let sandbox = "simpul/sandbox/v1/sandbox.proto";
        assert!(all.iter().any(|(name, _)| name == sandbox));
        let without = files(&["simpul.chat.v1.ChatService"]);
        assert!(without.iter().all(|(name, _)| name != sandbox));
        assert!(without.iter().any(|(name, _)| name == "simpul/money/v1/money.proto"));
        assert!(v1(&["simpul.chat.v1.ChatService"]).is_ok());
        assert!(v1alpha(&["simpul.chat.v1.ChatService"]).is_ok());
    }

    #[test]
    fn the_access_option_survives() {
        let chat = files(&["simpul.chat.v1.ChatService"])
            .into_iter()
            .find(|(name, _)| name == "simpul/chat/v1/chat.proto")
            .expect("the chat contract");
        // Field 50443, length-delimited: (50443 << 3) | 2 as a varint.
        let tag = [0xda, 0xd0, 0x18];
        assert!(chat.1.windows(3).any(|window| window == tag));
    }
}
