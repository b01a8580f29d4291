//! Which methods the node serves, and what the layers must know of each.
//!
//! Read once, from the embedded descriptors, for the services that are mounted:
//! a method that is not here is UNIMPLEMENTED before anything looks at it.

use prost_reflect::{DescriptorError, DescriptorPool};

use crate::path::PathMap;

/// The health service: never shed, so that an overloaded node is not taken for
/// a dead one.
pub const HEALTH: &str = "grpc.health.v1.Health";

/// The reflection services, both versions.
pub const REFLECTION: [&str; 2] =
    ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// A served method. Stands in the request's extensions behind the canonical
/// layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// Whether either side sends more than one message.
    pub streaming: bool,
    /// Whether the caller sends more than one message.
    pub takes_many: bool,
    /// Whether it is a method of [`HEALTH`].
    pub health: bool,
}

/// Every served method by its path. Example: `/grpc.health.v1.Health/Check`.
#[derive(Debug, Clone)]
pub struct Methods {
    table: PathMap<Box<str>, Method>,
}

impl Methods {
    /// The methods of the named services, ours and those of health and
    /// reflection. Fails when an embedded descriptor set does not decode, which
    /// a build that passed its tests does not do.
    pub fn mounted(services: &[&str]) -> Result<Self, DescriptorError> {
        let sets = [
            crate::proto::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut table = PathMap::default();
        for set in sets {
            let pool = DescriptorPool::decode(set)?;
            for service in pool.services().filter(|s| services.contains(&s.full_name())) {
                for method in service.methods() {
                    let path = format!("/{}/{}", service.full_name(), method.name());
                    let takes_many = method.is_client_streaming();
                    let streaming = takes_many || method.is_server_streaming();
                    let health = service.full_name() == HEALTH;
                    table.insert(path.into_boxed_str(), Method { streaming, takes_many, health });
                }
            }
        }
        Ok(Self { table })
    }

    /// The method of an exact path.
    pub fn get(&self, path: &str) -> Option<Method> {
        self.table.get(path).copied()
    }

    /// Every path, in no order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.table.keys().map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounted_services_are_known_and_streams_are_told_from_calls() {
        let chat = "simpul.chat.v1.ChatService";
        let methods = Methods::mounted(&[chat, HEALTH, REFLECTION[0]]).expect("descriptors");
        let streaming = |path| methods.get(path).map(|method| method.streaming);
        assert_eq!(streaming("/simpul.chat.v1.ChatService/Chat"), Some(true));
        assert_eq!(streaming("/simpul.chat.v1.ChatService/SendMessage"), Some(false));
        assert_eq!(streaming("/grpc.health.v1.Health/Watch"), Some(true));
        let takes_many = |path| methods.get(path).map(|method| method.takes_many);
        assert_eq!(takes_many("/simpul.chat.v1.ChatService/Chat"), Some(true));
        assert_eq!(takes_many("/grpc.health.v1.Health/Watch"), Some(false));
        assert!(methods.get("/grpc.health.v1.Health/Check").is_some_and(|method| method.health));
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        assert_eq!(streaming(reflection), Some(true));
        assert_eq!(streaming("/simpul.payment.v1.PaymentService/GetPayment"), None);
        assert_eq!(streaming("/simpul.chat.v1.chatservice/Chat"), None);
    }
}
