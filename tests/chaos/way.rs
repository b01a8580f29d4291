//! A bad way to a host's port: slow, lossy, or both. The kernel's own means for
//! that are not on every machine, so it is a proxy.
//!
//! The proxy is a thread in the host's namespace. The host's firewall sends it
//! every connection that is opened while the way is bad, and resets those that
//! are older: neither end is configured for it, nothing stands between them while
//! the way is good, and what is cut by address stays cut. On TCP, loss shows as
//! stalls (a packet is sent again after the retransmission's time-out) and as
//! connections that are reset.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::net::{Net, Who};

/// How bad it is. All times are milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// What every byte takes, in each direction.
    pub delay: u64,
    /// At most so much more.
    pub jitter: u64,
    /// Bytes a second in each direction, of each connection.
    pub rate: u64,
    /// One chunk in so many, and everything behind it, is held up for 0.2 to 1.5
    /// seconds.
    pub stall_one_in: Option<u32>,
    /// Connections are reset at most so long after they were opened.
    pub life: Option<u64>,
}

/// What is read at once, and how many such chunks are on their way.
const CHUNK: usize = 16 << 10;
const UNDER_WAY: usize = 256;

/// A way that is bad until it ends.
#[derive(Debug)]
pub struct Way {
    host: u8,
    counts: Arc<Counts>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What went over it.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections.
    pub opened: AtomicUsize,
    /// Bytes, in both directions.
    pub bytes: AtomicUsize,
    /// Connections that it reset.
    pub reset: AtomicUsize,
}

impl Way {
    /// What some send to a port of a host goes a bad way from now on.
    pub fn begin(net: &Net, host: u8, port: u16, who: Who, weather: Weather) -> Way {
        let namespace = net.namespace_file(host).expect("a namespace");
        let counts = Arc::new(Counts::default());
        let (end, ended) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let target = SocketAddr::new(net.address(host).parse().expect("an address"), port);
        let proxy = Proxy { target, weather, counts: counts.clone() };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let file = std::fs::File::open(namespace).expect("the namespace");
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind).expect("root");
            runtime.expect("a runtime").block_on(async move {
                let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await;
                let listener = listener.expect("a free port");
                tell.send(listener.local_addr().expect("bound").port()).expect("awaited");
                tokio::select! {
                    biased;
                    _ = ended => {}
                    () = proxy.run(listener) => {}
                }
            });
        });
        let at = told.recv().expect("the proxy listens");
        net.divert(host, port, at, who);
        Way { host, counts, end: Some(end), thread: Some(thread) }
    }

    /// What went over it so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The way is good again: what went over it is reset, what comes goes
    /// straight.
    pub fn end(mut self, net: &Net) {
        // First the firewall: nobody is to find the proxy's port closed.
        net.straighten(self.host);
        self.stop();
    }

    fn stop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Debug, Clone)]
struct Proxy {
    target: SocketAddr,
    weather: Weather,
    counts: Arc<Counts>,
}

impl Proxy {
    async fn run(self, listener: TcpListener) {
        // Dropped with what they carry when the way ends.
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let Ok((near, _)) = listener.accept().await else { continue };
            self.counts.opened.fetch_add(1, Ordering::Relaxed);
            let proxy = self.clone();
            connections.spawn(async move {
                let _ = near.set_zero_linger();
                // Who is not there is not there: the caller is reset.
                let Ok(far) = TcpStream::connect(proxy.target).await else { return };
                let _ = far.set_zero_linger();
                proxy.carry(near, far).await;
            });
            while connections.try_join_next().is_some() {}
        }
    }

    /// Until both ends are done, one is gone, or the connection's time is over.
    async fn carry(&self, near: TcpStream, far: TcpStream) {
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let life = self.weather.life.map(|most| rand::random_range(most / 10..=most));
        let life = life.map_or(Duration::MAX, Duration::from_millis);
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        let there = self.pump(near_in, far_out);
        let back = self.pump(far_in, near_out);
        let both = async { tokio::try_join!(there, back) };
        if tokio::time::timeout(life, both).await.is_err() {
            self.counts.reset.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One direction: reads at once, writes when each chunk's time has come.
    async fn pump(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut chance = StdRng::from_rng(&mut rand::rng());
        let mut under_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
        let (mut last, mut over) = (Instant::now(), false);
        let mut buffer = vec![0; CHUNK];
        while !(over && under_way.is_empty()) {
            let due = under_way.front().map(|(due, _)| *due);
            tokio::select! {
                biased;
                () = sleep_until(due.unwrap_or(last)), if due.is_some() => {
                    let Some((_, chunk)) = under_way.pop_front() else { continue };
                    to.write_all(&chunk).await?;
                    self.counts.bytes.fetch_add(chunk.len(), Ordering::Relaxed);
                }
                read = from.read(&mut buffer), if !over && under_way.len() < UNDER_WAY => {
                    let read = read?;
                    over = read == 0;
                    last = last.max(Instant::now() + self.weather.delay(&mut chance));
                    last += Duration::from_micros(read as u64 * 1_000_000 / self.weather.rate);
                    under_way.push_back((last, buffer[..read].to_vec()));
                }
            }
        }
        to.shutdown().await
    }
}

impl Weather {
    fn delay(&self, chance: &mut StdRng) -> Duration {
        let mut delay = self.delay + chance.random_range(0..=self.jitter);
        if self.stall_one_in.is_some_and(|many| chance.random_ratio(1, many)) {
            delay += chance.random_range(200..=1500);
        }
        Duration::from_millis(delay)
    }
}
