//! What chat asks of the links.

use super::wire::Encoded;
use super::{LinkEvent, Links};
use crate::chat::peers::{Delivery, Position};
use crate::chat::{Job, Peers};
use crate::proto::cluster::v1 as pb;
use crate::store::chat::RoomId;

pub(super) fn draining() -> Encoded {
    Encoded::request(pb::request_frame::Frame::Draining(pb::Draining {}))
}

pub(super) fn position(position: &Position) -> pb::Position {
    pb::Position {
        partition: position.partition.into(),
        epoch: position.epoch,
        commit_no: position.commit_no,
    }
}

impl Peers for Links {
    fn submit(&self, partition: u16, job: Job) {
        self.shared.router.submit(&self.shared, partition, job);
    }

    fn waits(&self, partition: u16) -> bool {
        self.shared.router.waits(partition)
    }

    fn follow(&self, partition: u16, room: &RoomId) {
        if let Some(link) = self.shared.link_to_owner(partition) {
            link.outbox().interest(partition, room, true);
        }
    }

    fn unfollow(&self, partition: u16, room: &RoomId) {
        if let Some(link) = self.shared.link_to_owner(partition) {
            link.outbox().interest(partition, room, false);
        }
    }

    fn is_followed(&self) -> bool {
        self.shared.interest.is_any()
    }

    fn appended(&self, delivery: &Delivery) {
        self.shared.interest.appended(delivery, &self.shared.metrics);
    }

    fn lost(&self, partition: u16, epoch: u64) {
        self.shared.directory.unsettle(partition, epoch);
        // What became of the append is not known: who follows reads the store.
        self.shared.let_go(partition);
        self.shared.events.tell(LinkEvent::Lost { partition, epoch });
    }
}
