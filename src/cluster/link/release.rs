//! Two releases side by side: what this process speaks, and which frames the
//! release before it did not know.
//!
//! A node speaks with those of one protocol more and one less. What is not known
//! is passed over, so whatever a release adds must have a slower way: a node that
//! does not hear `Touched` looks again after a while, one that does not hear
//! `Draining` reads it in the membership.

use super::PROTOCOL;
use crate::fault;
use crate::proto::cluster::v1::request_frame::Frame as Request;

/// The protocol of this process: [`PROTOCOL`], but where a test has the binary be
/// an earlier release.
pub(super) fn spoken() -> u32 {
    PROTOCOL.saturating_sub(fault::releases_before())
}

/// Whether this process does not know the frame.
pub(super) fn passes_over(frame: &Request) -> bool {
    matches!(frame, Request::Touched(_) | Request::Draining(_)) && fault::releases_before() > 0
}
