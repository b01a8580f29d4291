//! The accept loop, health, reflection and the admin listener.
//!
//! [`bind`] takes the addresses, [`accept`] serves the public one over TLS and
//! [`admin`] the plaintext one; [`stack`] puts the layers in their
//! order around [`routes`]. Nothing here knows a service of ours: `node` hands
//! them in.

pub mod accept;
pub mod admin;
pub mod bind;
mod connection;
mod exposition;
mod gather;
pub mod health;
pub mod metrics;
pub mod reflection;
pub mod routes;
pub mod stack;
pub mod tls;
