//! The generated contracts and their descriptors.
//!
//! The descriptor set is embedded as protox encoded it, custom options
//! included: [`crate::security`] reads the access policy from it and the
//! reflection service shows it to callers.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    missing_debug_implementations
)]

/// The encoded `google.protobuf.FileDescriptorSet` of every contract and import.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

macro_rules! contract {
    ($area:ident) => {
        pub mod $area {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/simpul.", stringify!($area), ".v1.rs"));
            }
        }
    };
}

contract!(auth);
contract!(chat);
contract!(cluster);
contract!(identity);
contract!(money);
contract!(operate);
contract!(payment);
contract!(sandbox);
contract!(transaction);
