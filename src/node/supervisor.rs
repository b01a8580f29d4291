//! What the node says to systemd, when that asks (`Type=notify`, `WatchdogSec=`):
//! that it is ready, that it reloads, that it stops, and again and again that it
//! lives.
//!
//! It says that it lives only when a whole way through it has just worked: a
//! connection to its own admin listener, accepted, read and answered. That is
//! what a liveness probe sees elsewhere. An unreachable store is no reason to be
//! restarted and is not part of it.
//!
//! The words go over a datagram socket that the environment names. Nobody
//! listens elsewhere: then nothing is said.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::drain::Watch;
use crate::task;

/// The shortest time between two signs of life.
const LEAST: Duration = Duration::from_millis(100);

/// Whoever supervises the process.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    socket: Option<(UnixDatagram, UnixAddr)>,
    /// It wants a sign of life this often.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// As the environment says. What it says wrongly is logged and left.
    pub(super) fn of(env: &[(String, String)]) -> Self {
        let variable = |name: &str| {
            let found = env.iter().rev().find(|(known, value)| known == name && !value.is_empty());
            found.map(|(_, value)| value.as_str())
        };
        let Some(name) = variable("NOTIFY_SOCKET") else { return Self::default() };
        let address = match name.strip_prefix('@') {
            Some(name) => UnixAddr::from_abstract_name(name),
            None => UnixAddr::from_pathname(name),
        };
        let socket = address.and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok((socket, address))
        });
        let socket = socket
            .inspect_err(|error| tracing::warn!(%error, "NOTIFY_SOCKET names no socket"))
            .ok();
        // The variables may be another process's, handed down.
        let ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let micros = variable("WATCHDOG_USEC").filter(|_| ours).and_then(|text| text.parse().ok());
        Self { socket, watchdog: micros.filter(|it| *it > 0).map(Duration::from_micros) }
    }

    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// It serves.
    pub(super) fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    /// It takes its files anew; [`Supervisor::ready`] ends it.
    pub(super) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=taking its files anew"));
    }

    /// It ends, and may take this long.
    pub(super) fn stopping(&self, within: Duration) {
        let micros = within.as_micros();
        self.say(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\nSTATUS=ending"));
    }

    /// Says that the node lives for as long as its admin listener answers.
    pub(super) fn watch(self: &Arc<Self>, admin: SocketAddr, mut ended: Watch) {
        let Some(every) = self.watchdog.filter(|_| self.socket.is_some()) else { return };
        let supervisor = self.clone();
        // Three signs in the time in which one must come.
        let every = (every / 3).max(LEAST);
        task::spawn("signs of life", async move {
            loop {
                match tokio::time::timeout(every, alive(reached(admin))).await {
                    Ok(Ok(true)) => supervisor.say("WATCHDOG=1"),
                    _ => tracing::warn!("the node does not answer itself"),
                }
                tokio::select! {
                    // To the end: a stop that hangs is to be seen too.
                    () = ended.forced() => return,
                    () = tokio::time::sleep(every) => {}
                }
            }
        });
    }

    /// Never waits: who does not read hears nothing.
    fn say(&self, words: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(words.as_bytes(), address) {
            tracing::debug!(%error, "the supervisor cannot be told");
        }
    }
}

/// Where a listener on this address is reached from here.
fn reached(listener: SocketAddr) -> SocketAddr {
    match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, listener.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            (std::net::Ipv6Addr::LOCALHOST, listener.port()).into()
        }
        _ => listener,
    }
}

/// Whether the admin listener answers as a live one does.
async fn alive(admin: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(admin).await?;
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::with_capacity(256);
    (&mut stream).take(4096).read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn it_speaks_to_the_socket_that_is_named_and_else_to_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let name = path.to_str().expect("UTF-8");
        let pid = std::process::id().to_string();
        let supervisor = Supervisor::of(&env(&[
            ("NOTIFY_SOCKET", name),
            ("WATCHDOG_USEC", "3000000"),
            ("WATCHDOG_PID", &pid),
        ]));
        assert_eq!(supervisor.watchdog, Some(Duration::from_secs(3)));
        supervisor.ready("here");
        supervisor.stopping(Duration::from_secs(2));
        let mut words = [0; 128];
        let heard: Vec<String> = (0..2)
            .map(|_| {
                let length = socket.recv(&mut words).expect("words");
                String::from_utf8_lossy(&words[..length]).into_owned()
            })
            .collect();
        assert_eq!(heard[0], "READY=1\nSTATUS=here");
        assert!(heard[1].starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000\n"), "{heard:?}");

        let other = Supervisor::of(&env(&[
            ("NOTIFY_SOCKET", "@simpul-nobody"),
            ("WATCHDOG_USEC", "3000000"),
            ("WATCHDOG_PID", "1"),
        ]));
        assert_eq!(other.watchdog, None, "meant for another process");
        other.ready("nobody listens");
        assert!(Supervisor::of(&[]).socket.is_none());
    }

    #[test]
    fn a_listener_on_every_address_is_reached_on_this_machine() {
        let at = |text: &str| reached(text.parse().expect("an address")).to_string();
        assert_eq!(at("0.0.0.0:7445"), "127.0.0.1:7445");
        assert_eq!(at("[::]:7445"), "[::1]:7445");
        assert_eq!(at("10.1.2.3:1"), "10.1.2.3:1");
    }
}
