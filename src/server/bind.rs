//! Taking an address, and saying clearly why it cannot be taken.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// A bound address.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: TcpListener,
    address: SocketAddr,
}

/// The address cannot be taken.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {}", why(.source))]
pub struct BindError {
    /// The configuration key that names the address. Example: `listen.public`.
    pub key: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    pub source: io::Error,
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => "another process listens there".to_owned(),
        ErrorKind::AddrNotAvailable => "this machine does not have the address".to_owned(),
        ErrorKind::PermissionDenied => "the system does not permit it".to_owned(),
        _ => error.to_string(),
    }
}

impl Listener {
    /// Binds and listens. Port 0 takes any free port. `key` is the
    /// configuration key, for the error.
    pub async fn bind(key: &'static str, address: SocketAddr) -> Result<Self, BindError> {
        let bound = async {
            let socket = TcpListener::bind(address).await?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        bound.await.map_err(|source| BindError { key, address, source })
    }

    /// The address that was really bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_told_with_its_key() {
        let any = "127.0.0.1:0".parse().expect("address");
        let first = Listener::bind("listen.public", any).await.expect("a free port");
        assert_ne!(first.address().port(), 0);
        let second = Listener::bind("listen.public", first.address()).await;
        let told = second.expect_err("the port is taken").to_string();
        assert!(told.starts_with("listen.public: cannot listen on 127.0.0.1:"), "{told}");
        assert!(told.ends_with("another process listens there"), "{told}");
    }
}
