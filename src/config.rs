//! The node's configuration: its schema, where its values come from, and what
//! is wrong with them, all at once.

pub mod schema;

pub use schema::Config;
