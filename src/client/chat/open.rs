//! How streams are opened: pluggable, so that the same chat runs over TLS, over
//! a simulated network, and against a peer in memory.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt;

use super::event::Why;
use crate::client::Client;
use crate::client::dial::{Address, DialError};
use crate::client::renewal::{Renewal, Tokens};
use crate::client::servers::{Servers, around, first};
use crate::proto::chat::v1::{ChatRequest, ChatResponse};
use secrecy::{ExposeSecret, SecretString};

/// Frames that wait to be written. More than the rooms and messages that can
/// be under way: a full one is a broken stream.
pub(super) const OUTGOING: usize = 1024;

/// Opens `Chat` streams.
#[async_trait]
pub trait Open: Send + Sync + 'static {
    /// The chat's own servers, as they are now.
    fn servers(&self) -> Result<Vec<Address>, OpenError>;

    /// Opens a stream at one server, within bounded time. Dropping the future
    /// gives it up.
    async fn open(
        &self,
        server: &Address,
        outgoing: mpsc::Receiver<ChatRequest>,
    ) -> Result<Opened, OpenError>;
}

/// A stream that is open.
pub struct Opened {
    /// What the node says. Its end without an error counts as a lost stream.
    pub incoming: BoxStream<'static, Result<ChatResponse, Status>>,
    /// Fresh tokens for this stream, each when it is time; may never give any.
    pub tokens: BoxStream<'static, SecretString>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}

impl Opened {
    /// A stream of the generated client, without fresh tokens.
    pub fn new(incoming: Streaming<ChatResponse>) -> Self {
        Self { incoming: incoming.boxed(), tokens: futures_util::stream::pending().boxed() }
    }

    /// Goes on with fresh tokens from a source; `token` is the one in use.
    #[must_use]
    pub fn renewed_from(mut self, source: Arc<dyn Tokens>, token: Option<&SecretString>) -> Self {
        let renewal = Renewal::new(source, token);
        self.tokens = futures_util::stream::unfold(renewal, async |mut renewal| {
            let token = renewal.fresh().await;
            Some((token, renewal))
        })
        .boxed();
        self
    }
}

/// Why a stream was not opened.
#[derive(Debug, Clone)]
pub struct OpenError {
    /// The cause.
    pub why: Why,
    /// Whether trying again, anywhere, gets no further.
    pub is_final: bool,
}

impl From<DialError> for OpenError {
    fn from(error: DialError) -> Self {
        let is_final = matches!(error, DialError::Address(_) | DialError::Material(_));
        Self { why: Why::Dial(error), is_final }
    }
}

impl From<Status> for OpenError {
    fn from(status: Status) -> Self {
        let is_final = is_final(&status);
        Self { why: Why::Status(status), is_final }
    }
}

/// Whether a status ends a chat: another stream would get no further. With an
/// expired token it gets further once there is a fresh one.
pub fn is_final(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable
        | Code::Unknown
        | Code::Cancelled
        | Code::Internal
        | Code::DataLoss
        | Code::DeadlineExceeded => false,
        Code::Unauthenticated => {
            status.get_details_error_info().is_none_or(|info| info.reason != "TOKEN_EXPIRED")
        }
        Code::ResourceExhausted => status.get_details_retry_info().is_none(),
        _ => true,
    }
}

/// Opens streams over TLS at a list of servers.
pub struct Remote {
    /// The servers.
    pub servers: Vec<Address>,
    /// The name that their certificates must have; each one's host when absent.
    pub server_name: Option<String>,
    /// The client's side of TLS.
    pub tls: Arc<ClientConfig>,
    /// Where tokens come from.
    pub tokens: Arc<dyn Tokens>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("servers", &self.servers).finish_non_exhaustive()
    }
}

#[async_trait]
impl Open for Remote {
    fn servers(&self) -> Result<Vec<Address>, OpenError> {
        Ok(self.servers.clone())
    }

    async fn open(
        &self,
        server: &Address,
        outgoing: mpsc::Receiver<ChatRequest>,
    ) -> Result<Opened, OpenError> {
        let token = self.tokens.token();
        let bearer = token.as_ref().map(bearer).transpose()?;
        let (name, tls) = (self.server_name.as_deref(), self.tls.clone());
        let nodes = Servers::connect_for_chat(vec![server.clone()], name, tls).await?;
        let client = Client::new(nodes, bearer, None, std::time::Duration::from_secs(30));
        let request = Request::new(ReceiverStream::new(outgoing));
        let incoming = client.chat().chat(request).await?.into_inner();
        Ok(Opened::new(incoming).renewed_from(self.tokens.clone(), token.as_ref()))
    }
}

fn bearer(token: &SecretString) -> Result<MetadataValue<Ascii>, OpenError> {
    let header = format!("Bearer {}", token.expose_secret().trim());
    let mut value: MetadataValue<Ascii> = header
        .parse()
        .map_err(|_| Status::invalid_argument("the token has characters that no token has"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// An open stream with the way to write to it, and where it is.
pub(super) type Found = (Address, mpsc::Sender<ChatRequest>, Opened);

/// Tries everyone once: those that are preferred first, then one's own from a
/// random one on, whom to avoid last; beside one that is silent the next. The
/// error is the last one that came, and final when every one was.
pub(super) async fn anywhere(
    opener: Arc<dyn Open>,
    prefer: Vec<String>,
    avoid: Option<String>,
    random: f64,
) -> Result<Found, OpenError> {
    let own = opener.servers();
    let mut order: Vec<Address> = Vec::new();
    let preferred: Vec<Address> = prefer.iter().filter_map(|text| text.parse().ok()).collect();
    for list in [preferred.as_slice(), own.as_deref().unwrap_or_default()] {
        // Positions are few: the product is exact and below the length.
        let start = (random * list.len() as f64) as usize;
        let turned = around(start, list.len()).filter_map(|at| list.get(at));
        let fresh: Vec<_> = turned.filter(|address| !order.contains(address)).cloned().collect();
        order.extend(fresh);
    }
    order.sort_by_key(|address| avoid.as_ref().is_some_and(|avoid| *avoid == address.to_string()));
    let opener = &opener;
    let opens = order.into_iter().map(|server| async move {
        let (frames, outgoing) = mpsc::channel(OUTGOING);
        let opened = opener.open(&server, outgoing).await?;
        Ok((server, frames, opened))
    });
    let mut errors: Vec<OpenError> = match first(opens).await {
        Ok(found) => return Ok(found),
        Err(errors) => errors,
    };
    let all_final = errors.iter().all(|error| error.is_final);
    match (errors.pop(), own) {
        (Some(error), _) => Err(OpenError { is_final: all_final, ..error }),
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => Err(DialError::Address("there is no server".to_owned()).into()),
    }
}
