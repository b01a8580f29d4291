//! Publishes that this node sends on, for a pair of nodes that reach it but not
//! each other. Only over a link of its own, so nothing goes round in circles.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::convert;
use super::incoming::Incoming;
use super::wire::Encoded;
use super::{Outgoing, Shared};
use crate::proto::cluster::v1 as pb;
use crate::refusal::{Reason, Refusal};

/// So many may be under way for all others together.
const RELAYS: usize = 4096;

/// Those under way, by the id that they have on this node's link.
#[derive(Debug, Default)]
pub(super) struct Relays(Mutex<BTreeMap<u64, Under>>);

/// One under way.
#[derive(Debug)]
struct Under {
    /// Who asked.
    link: Arc<Incoming>,
    /// The id that it has there.
    id: u64,
    /// The link over which it was sent on.
    over: u64,
}

impl Relays {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Under>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Sends a Publish on.
    pub(super) fn relay(&self, link: &Arc<Incoming>, relay: pb::Relay) {
        let Some(mut publish) = relay.publish else { return };
        let id = publish.id;
        let refuse = |reason, why: &str| {
            answer(link, convert::published(id, Err(Refusal::new(reason, why))));
        };
        let over = u16::try_from(publish.partition)
            .ok()
            .and_then(|partition| self.home_to(&relay.to, partition));
        let Some(over) = over else {
            return refuse(Reason::NotOwner, "no link leads to that node");
        };
        let own = self.next_attempt();
        {
            let mut relays = self.relays.all();
            if relays.len() >= RELAYS {
                drop(relays);
                return refuse(Reason::Overloaded, "too much is sent on for other nodes");
            }
            let under = Under { link: link.clone(), id, over: over.generation() };
            relays.insert(own, under);
        }
        publish.id = own;
        let frame = pb::request_frame::Frame::Publish(publish);
        if !over.outbox().push(Encoded::request(frame)) || !self.stands(&over) {
            self.relays_broken(over.generation());
        }
    }

    /// A link may have ended between finding it and noting what it carries.
    fn stands(&self, link: &Arc<Outgoing>) -> bool {
        let peer = self.peers().get(link.node()).cloned();
        let all = peer.map(|peer| peer.links()).unwrap_or_default();
        all.iter().any(|other| Arc::ptr_eq(other, link))
    }

    /// The answer to something that was sent on.
    pub(super) fn relayed(&self, published: pb::Published) {
        let under = self.relays.all().remove(&published.id);
        if let Some(Under { link, id, .. }) = under {
            answer(&link, pb::Published { id, ..published });
        }
    }

    /// A link broke: whether what it carried was appended is not known.
    pub(super) fn relays_broken(&self, generation: u64) {
        let broken: Vec<_> =
            self.relays.all().extract_if(.., |_, under| under.over == generation).collect();
        for (_, Under { link, id, .. }) in broken {
            answer(&link, convert::lost(id));
        }
    }

    /// Who asked is gone.
    pub(super) fn relays_unwanted(&self, link: &Arc<Incoming>) {
        self.relays.all().retain(|_, under| !Arc::ptr_eq(&under.link, link));
    }
}

fn answer(link: &Incoming, published: pb::Published) {
    let relayed = pb::Relayed { published: Some(published) };
    link.outbox().push(Encoded::response(pb::response_frame::Frame::Relayed(relayed)));
}
