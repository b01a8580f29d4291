//! How the command's chat reaches its nodes: as the flags say, read afresh for
//! each stream, since a local node may come back at another port and a token
//! file may have another token.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::target::Target;
use crate::client::chat::{Open, OpenError, Opened, Why};
use crate::client::dial::Address;
use crate::proto::chat::v1::ChatRequest;

/// Opens streams at what the flags name.
#[derive(Debug)]
pub(super) struct Opener(pub(super) Env);

#[async_trait]
impl Open for Opener {
    fn servers(&self) -> Result<Vec<Address>, OpenError> {
        Ok(Target::resolve(&self.0.global).map_err(local)?.servers)
    }

    async fn open(
        &self,
        server: &Address,
        outgoing: mpsc::Receiver<ChatRequest>,
    ) -> Result<Opened, OpenError> {
        let target = Target::resolve(&self.0.global).map_err(local)?;
        let token = target.credential.token().map_err(local)?;
        let only = std::slice::from_ref(server);
        let client = target.connect_to(only, token.as_ref()).await.map_err(local)?;
        let request = Request::new(ReceiverStream::new(outgoing));
        let incoming = client.chat().chat(request).await?.into_inner();
        Ok(Opened::new(incoming).renewed_from(Arc::new(target.credential), token.as_ref()))
    }
}

/// The failure itself is kept: it says more than a status.
fn local(failure: Failure) -> OpenError {
    let is_final = !is_lost(&failure);
    OpenError { why: Why::Local(Arc::new(failure)), is_final }
}

/// The failure that ended or interrupted a chat.
pub(super) fn failure_of(why: Why) -> Failure {
    match why {
        Why::Status(status) => status.into(),
        Why::Dial(error) => error.into(),
        Why::Local(error) => match error.downcast_ref::<Failure>() {
            Some(failure) => failure.clone(),
            None => Failure::unavailable(error.to_string()),
        },
    }
}

/// Whether another connection may get further. An expired token is read or
/// signed afresh with it.
fn is_lost(failure: &Failure) -> bool {
    match failure.code() {
        Some(Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal) => true,
        Some(Code::Unauthenticated) => failure.reason() == Some("TOKEN_EXPIRED"),
        Some(_) => false,
        None => failure.exit() == Exit::Unavailable && !failure.is_ours(),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;
    use crate::refusal::{Reason, Refusal};

    #[test]
    fn what_another_connection_cannot_mend_is_final() {
        let lost = |status: Status| is_lost(&status.into());
        assert!(lost(Status::unavailable("x")));
        assert!(lost(Refusal::new(Reason::TokenExpired, "x").into()));
        assert!(!lost(Refusal::new(Reason::TokenInvalid, "x").into()));
        assert!(!lost(Status::not_found("x")));
        assert!(!lost(Status::permission_denied("x")));
        assert!(is_lost(&Failure::unavailable("nobody listens")));
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert!(!is_lost(&Failure::from(full)), "our own output is no matter of the node");
    }

    #[test]
    fn a_failure_comes_back_as_it_went() {
        let error = local(Failure::usage("no").hint("yes"));
        assert!(error.is_final);
        let back = failure_of(error.why);
        assert_eq!(back.exit(), Exit::Usage);
        assert!(back.render(false).is_some_and(|text| text.contains("hint: yes")));
    }
}
