//! Connections whose other end has gone silent.

use std::time::Duration;

use tokio::net::TcpStream;

/// Has the system end a connection whose other end acknowledges nothing for that
/// long: it would send again for many minutes, and hold what waits.
pub fn end_when_silent(tcp: &TcpStream, after: Duration) -> std::io::Result<()> {
    let millis = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(tcp, millis)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_end_is_noticed_by_the_system() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (dialed, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        for tcp in [dialed.expect("connected"), accepted.expect("accepted").0] {
            end_when_silent(&tcp, Duration::from_secs(2)).expect("set");
            let millis = rustix::net::sockopt::tcp_user_timeout(&tcp).expect("asked");
            assert_eq!(millis, 2_000);
        }
    }
}
