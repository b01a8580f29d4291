//! Simpul: chat, payments and transaction history over gRPC, with the service
//! mesh inside. One binary, many nodes.
//!
//! ARCHITECTURE.md tells how the parts fit; `tests/repository/layering.rs` holds the
//! direction of the imports between them.

pub mod backoff;
pub mod card;
pub mod chance;
pub mod chat;
pub mod cli;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod cut;
pub mod drain;
pub mod fault;
pub mod id;
pub mod money;
pub mod node;
pub mod operate;
pub mod path;
pub mod payment;
pub mod principal;
pub mod proto;
pub mod readiness;
pub mod refusal;
pub mod security;
pub mod server;
pub mod store;
pub mod task;
pub mod telemetry;
pub mod trace_context;
pub mod traffic;
pub mod transaction;
