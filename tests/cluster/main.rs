//! Clusters as users meet them: real processes on one PostgreSQL, real mutual
//! TLS between them, free ports.
#![allow(missing_docs, missing_debug_implementations, unreachable_pub)]

mod balanced;
mod cluster;
#[allow(dead_code)] // Shared with tests/node, which uses all of it.
#[path = "../node/collector.rs"]
mod collector;
mod deaths;
mod drains;
mod frozen;
mod jaeger;
mod local;
mod metrics;
mod operate;
mod payments;
mod pki;
mod refusals;
mod releases;
mod rooms;
mod rotation;
mod server;
mod starts;
mod stores;
mod strangers;
#[allow(dead_code)] // Shared with tests/node, which uses all of it.
#[path = "../node/support.rs"]
mod support;
#[allow(dead_code)] // Shared with tests/node, which uses all of it.
#[path = "../node/talk.rs"]
mod talk;
mod traces;
