//! Many nodes as one: who lives, who owns which partition, and what they carry
//! to each other.
//!
//! *The store decides; the mesh carries.* Two pure cores, [`membership`] and
//! [`ownership`], draw the conclusions; what surrounds them reads, writes and
//! sends. Neither core reads a clock: times are given to them, and both can be
//! wrong about the world without harm, since every step that they propose is a
//! compare-and-set in the store.

pub mod directory;
pub mod driver;
pub mod link;
pub mod membership;
pub mod ownership;
mod router;
pub mod service;
