//! Who is calling, and what they may do.

pub mod accounts;
pub mod connection;
pub mod permit;
