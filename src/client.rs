//! The Rust client of Simpul: what the command line, the tests and the
//! benchmarks call nodes with.
//!
//! [`dial`] makes one secure connection. [`servers`] knows several nodes of a
//! cluster and goes to the next one when a node cannot be reached. [`node`] has
//! the generated clients on top; their calls go through [`failover`], which
//! tries idempotent unary calls again elsewhere, within a budget. [`chat`] is a
//! conversation that outlives its connections.
//!
//! Nothing here knows the command line, prints, or reads files: a caller brings
//! its certificates as texts and its tokens as a callback.

pub mod chat;
pub mod dial;
pub mod failover;
pub mod node;
pub mod patience;
pub mod renewal;
pub mod servers;

pub use node::Client;
