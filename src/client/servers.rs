//! Several nodes of one cluster behind one name.
//!
//! A connection is tried with each of them, from a random one on, so that many
//! clients do not all go to the first; only when all have failed does dialing
//! fail. One that is silent for `NEXT`, as a frozen one is, is not waited for:
//! the next is tried beside it. The channel dials again by itself when its connection ends, in the
//! same way. [`Servers::elsewhere`] leaves a node that is reached but cannot
//! serve.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::dial::{self, Address, DialError};

/// Reads `HOST:PORT,HOST:PORT`; at least one.
pub fn parse(text: &str) -> Result<Vec<Address>, DialError> {
    let mut servers: Vec<Address> = Vec::new();
    for part in text.split(',') {
        let address: Address = part.trim().parse()?;
        if !servers.contains(&address) {
            servers.push(address);
        }
    }
    Ok(servers)
}

/// How long a node may be silent until another one is tried beside it.
const NEXT: Duration = Duration::from_secs(1);

/// The first try that succeeds. Each begins when the one before it has failed, or
/// has been silent for [`NEXT`]; those under way when one succeeds are given up.
/// The errors are in the order in which they came.
pub(super) async fn first<T, E, F>(tries: impl IntoIterator<Item = F>) -> Result<T, Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut tries = tries.into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut failed = Vec::new();
    loop {
        let begun = tries.next().map(|next| under_way.push(next)).is_some();
        tokio::select! {
            biased;
            ended = under_way.next() => match ended {
                Some(Ok(first)) => return Ok(first),
                Some(Err(error)) => failed.push(error),
                None => return Err(failed),
            },
            () = tokio::time::sleep(NEXT), if begun => {}
        }
    }
}

/// The positions of a list from `start` on, once around.
pub(super) fn around(start: usize, length: usize) -> impl Iterator<Item = usize> {
    (0..length).map(move |step| start.wrapping_add(step) % length)
}

/// The nodes of one cluster, and a channel to one of them. Cheap to clone; all
/// clones share the channel.
#[derive(Debug, Clone)]
pub struct Servers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// How HTTP/2 is spoken.
    endpoint: fn(&Address) -> Result<Endpoint, DialError>,
    list: Vec<Address>,
    name: Option<String>,
    tls: Arc<ClientConfig>,
    /// Where the next dialing begins.
    turn: Arc<AtomicUsize>,
    channel: ArcSwapOption<Channel>,
}

impl Servers {
    /// Connects to one of them. The name is what each node's certificate must
    /// have; its host when absent. Fails with what the last one tried said.
    pub async fn connect(
        list: Vec<Address>,
        name: Option<&str>,
        tls: Arc<ClientConfig>,
    ) -> Result<Self, DialError> {
        Self::connect_through(list, name, tls, dial::endpoint).await
    }

    /// The same for a chat, which looks after its node itself.
    pub(super) async fn connect_for_chat(
        list: Vec<Address>,
        name: Option<&str>,
        tls: Arc<ClientConfig>,
    ) -> Result<Self, DialError> {
        Self::connect_through(list, name, tls, dial::quiet_endpoint).await
    }

    async fn connect_through(
        list: Vec<Address>,
        name: Option<&str>,
        tls: Arc<ClientConfig>,
        endpoint: fn(&Address) -> Result<Endpoint, DialError>,
    ) -> Result<Self, DialError> {
        let start = crate::chance::below(list.len());
        let shared = Shared {
            endpoint,
            list,
            name: name.map(str::to_owned),
            tls,
            turn: Arc::new(AtomicUsize::new(start)),
            channel: ArcSwapOption::empty(),
        };
        let first = shared.first()?;
        let dialed = endpoint(first)?.connect_with_connector(connector(&shared)).await;
        let channel = dialed.map_err(|error| dial::dial_error(first, &error))?;
        shared.channel.store(Some(Arc::new(channel)));
        Ok(Self(Arc::new(shared)))
    }

    /// How many nodes there are to go to.
    pub fn count(&self) -> usize {
        self.0.list.len()
    }

    /// The channel to the node that is in use.
    pub fn channel(&self) -> Result<Channel, DialError> {
        match self.0.channel.load_full() {
            Some(channel) => Ok(Channel::clone(&channel)),
            None => self.0.lazy(),
        }
    }

    /// Goes to another node with what is asked from now on; what is under way
    /// ends where it is. Does nothing when there is no other.
    pub fn elsewhere(&self) {
        if self.count() > 1
            && let Ok(channel) = self.0.lazy()
        {
            self.0.turn.fetch_add(1, Ordering::Relaxed);
            self.0.channel.store(Some(Arc::new(channel)));
        }
    }
}

impl Shared {
    fn first(&self) -> Result<&Address, DialError> {
        self.list.first().ok_or_else(|| DialError::Address("there is no server".to_owned()))
    }

    /// A channel that dials when it is first used.
    fn lazy(&self) -> Result<Channel, DialError> {
        Ok((self.endpoint)(self.first()?)?.connect_with_connector_lazy(connector(self)))
    }
}

/// What dials for a channel.
fn connector(
    shared: &Shared,
) -> impl tower::Service<Uri, Response = TokioIo<TlsStream<TcpStream>>, Error = DialError, Future: Send>
+ Send
+ use<> {
    let list: Arc<[Address]> = shared.list.clone().into();
    let (name, tls, turn) = (shared.name.clone(), shared.tls.clone(), shared.turn.clone());
    tower::service_fn(move |_: Uri| {
        let (list, name, tls) = (list.clone(), name.clone(), tls.clone());
        let turn = turn.clone();
        async move { dial_any(&list, name.as_deref(), &tls, &turn).await.map(TokioIo::new) }
    })
}

/// The first that answers, from the turn on; the turn stays with it, so that a
/// node that is left is not come back to at once.
async fn dial_any(
    list: &[Address],
    name: Option<&str>,
    tls: &Arc<ClientConfig>,
    turn: &AtomicUsize,
) -> Result<TlsStream<TcpStream>, DialError> {
    let places = around(turn.load(Ordering::Relaxed), list.len());
    let tries = places.filter_map(|at| list.get(at).map(|address| (at, address.clone())));
    let dials = tries.map(|(at, address): (usize, Address)| async move {
        dial::dial(&address, name, tls.clone()).await.map(|stream| (at, stream))
    });
    match first(dials).await {
        Ok((at, stream)) => {
            turn.store(at, Ordering::Relaxed);
            Ok(stream)
        }
        Err(mut errors) => {
            Err(errors.pop().unwrap_or_else(|| DialError::Address("there is no server".to_owned())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_once_each() {
        let read = parse("a:1, b:2,a:1").expect("a list");
        let texts: Vec<String> = read.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["a:1", "b:2"]);
        for bad in ["", "a:1,", "a:1,,b:2", "a"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    /// Fails or succeeds after so many seconds.
    async fn after(seconds: u64, outcome: Result<u8, u8>) -> Result<u8, u8> {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        outcome
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_not_waited_for_and_may_still_be_the_first() {
        let begun = tokio::time::Instant::now();
        let took = || begun.elapsed().as_secs();
        assert_eq!(first([after(60, Ok(1)), after(1, Ok(2))]).await, Ok(2));
        assert_eq!(took(), 2, "the second began after a second of silence");
        assert_eq!(first([after(3, Ok(1)), after(60, Ok(2))]).await, Ok(1));
        assert_eq!(took(), 5);
        assert_eq!(first([after(0, Err(1)), after(0, Err(2)), after(1, Ok(3))]).await, Ok(3));
        assert_eq!(took(), 6, "after a failure the next begins at once");
        assert_eq!(first([after(9, Err(1)), after(1, Err(2))]).await, Err(vec![2, 1]));
        assert_eq!(first::<u8, u8, std::future::Ready<_>>([]).await, Err(Vec::new()));
    }

    #[test]
    fn everybody_is_tried_once_from_anywhere() {
        assert_eq!(around(2, 3).collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!(around(7, 3).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(around(0, 0).count(), 0);
    }
}
