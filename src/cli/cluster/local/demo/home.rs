//! Where the speakers' nodes are, which changes with each start.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tonic::Status;

use crate::client::chat::{Open, OpenError, Opened, Remote};
use crate::client::dial::Address;
use crate::proto::chat::v1::ChatRequest;

/// Where the nodes are now, by their place; absent while one is down.
pub(super) type Places = Arc<Mutex<Vec<Option<Address>>>>;

/// A client whose own node is the one at its place; any other while that is
/// down.
pub(super) struct Home {
    pub(super) place: usize,
    pub(super) places: Places,
    pub(super) remote: Remote,
}

#[async_trait]
impl Open for Home {
    fn servers(&self) -> Result<Vec<Address>, OpenError> {
        let places = self.places.lock().map_err(|_| Status::internal("a thread panicked"))?;
        if let Some(Some(home)) = places.get(self.place) {
            return Ok(vec![home.clone()]);
        }
        let up: Vec<Address> = places.iter().flatten().cloned().collect();
        if up.is_empty() { Err(Status::unavailable("no node is up").into()) } else { Ok(up) }
    }

    async fn open(
        &self,
        server: &Address,
        outgoing: mpsc::Receiver<ChatRequest>,
    ) -> Result<Opened, OpenError> {
        self.remote.open(server, outgoing).await
    }
}
