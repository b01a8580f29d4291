//! Hosts of their own: a network namespace each, joined by a bridge. What is cut
//! is cut by a firewall in them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// Runs of one test process count up, so that none meets another's leftovers.
static NETS: AtomicU16 = AtomicU16::new(0);

/// The host of the caller: of clients, and of those who look after the run.
const OUTSIDE: u8 = 1;

/// Hosts that reach each other. Taken down when dropped.
#[derive(Debug)]
pub struct Net {
    subnet: String,
    /// Where hosts are namespaces at a bridge; else they are loopback addresses.
    bridged: Option<Bridged>,
}

#[derive(Debug)]
struct Bridged {
    prefix: String,
    bridge: String,
    hosts: Vec<String>,
}

/// How packets are treated that are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// They vanish.
    Drop,
    /// The sender is told that nobody listens.
    Reject,
}

/// Whose connections are diverted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The other hosts'.
    Hosts,
    /// The caller's, which are the clients'.
    Outside,
}

/// Whether namespaces and a firewall can be had here.
pub fn available() -> bool {
    let runs = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let number = NETS.fetch_add(1, Ordering::Relaxed);
    let name = format!("simpul-try-{}-{number}", std::process::id());
    let made = runs("ip", &["netns", "add", &name]);
    let walled = made && runs("ip", &["netns", "exec", &name, "nft", "list", "ruleset"]);
    if made {
        runs("ip", &["netns", "del", &name]);
    }
    walled
}

impl Net {
    /// A bridge with nobody at it; the caller has the address `.1`.
    pub fn new() -> Net {
        let number = NETS.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id() as u16;
        let prefix = format!("sp{id}x{number}");
        let bridge = format!("b{prefix}");
        // 10.x.y.0/24, by process and run.
        let subnet = format!("10.{}.{}", 100 + id % 100, (id / 100 + number * 7) % 250);
        ip(&format!("link add {bridge} type bridge"));
        ip(&format!("addr add {subnet}.1/24 dev {bridge}"));
        ip(&format!("link set {bridge} up"));
        Net { subnet, bridged: Some(Bridged { prefix, bridge, hosts: Vec::new() }) }
    }

    /// Hosts that are addresses of the loopback interface: nothing can be cut,
    /// and nothing stands between them.
    pub fn loopback() -> Net {
        let number = NETS.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id() as u16;
        let subnet = format!("127.{}.{}", 1 + id % 250, (id / 250 + number * 7) % 250);
        Net { subnet, bridged: None }
    }

    /// The address of a host.
    pub fn address(&self, host: u8) -> String {
        format!("{}.{host}", self.subnet)
    }

    fn namespace(&self, host: u8) -> Option<String> {
        self.bridged.as_ref().map(|bridged| format!("{}h{host}", bridged.prefix))
    }

    /// Adds a host, by its number in the subnet (2 to 254).
    pub fn add(&mut self, host: u8) {
        let address = self.address(host);
        let Some(namespace) = self.namespace(host) else { return };
        let Some(bridged) = &mut self.bridged else { return };
        let (out, inside) = (format!("{namespace}o"), format!("{namespace}i"));
        ip(&format!("netns add {namespace}"));
        ip(&format!("link add {out} type veth peer name {inside}"));
        ip(&format!("link set {inside} netns {namespace}"));
        ip(&format!("link set {out} master {} up", bridged.bridge));
        for words in [
            format!("link set {inside} name eth0"),
            "link set lo up".to_owned(),
            format!("addr add {address}/24 dev eth0"),
            "link set eth0 up".to_owned(),
        ] {
            ip(&format!("-n {namespace} {words}"));
        }
        bridged.hosts.push(namespace);
        self.nft(host, "add table inet cut");
        self.nft(host, "add chain inet cut in { type filter hook input priority 0 ; }");
    }

    /// A command that runs on the host.
    pub fn command(&self, host: u8, program: &str) -> Command {
        let Some(namespace) = self.namespace(host) else { return Command::new(program) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace, program]);
        command
    }

    /// Nothing that `from` sends arrives at `to`.
    pub fn cut(&self, from: u8, to: u8, how: Cut) {
        let address = self.address(from);
        match how {
            Cut::Drop => self.nft(to, &format!("add rule inet cut in ip saddr {address} drop")),
            Cut::Reject => self.nft(
                to,
                &format!(
                    "add rule inet cut in ip saddr {address} tcp flags syn reject with tcp reset"
                ),
            ),
        }
    }

    /// Everything arrives at `to` again.
    pub fn heal(&self, to: u8) {
        self.nft(to, "flush chain inet cut in");
    }

    /// Where a thread finds a host's namespace.
    pub fn namespace_file(&self, host: u8) -> Option<PathBuf> {
        self.namespace(host).map(|name| Path::new("/run/netns").join(name))
    }

    /// New connections to a port of a host come to another one of its ports, and
    /// those that stand are reset when something comes on them. What the host
    /// sends to itself is left alone.
    pub fn divert(&self, host: u8, port: u16, to: u16, who: Who) {
        let not = if who == Who::Outside { "" } else { "!= " };
        let who = format!("iifname eth0 ip saddr {not}{} tcp dport {port}", self.address(OUTSIDE));
        self.nft(host, "add table ip way");
        self.nft(host, "add chain ip way first { type nat hook prerouting priority -100 ; }");
        self.nft(host, "add chain ip way last { type filter hook input priority 10 ; }");
        let fresh = "tcp flags & ( syn | ack ) == syn";
        self.nft(host, &format!("add rule ip way first {who} {fresh} redirect to :{to}"));
        self.nft(host, &format!("add rule ip way last {who} reject with tcp reset"));
    }

    /// Everything comes where it was sent to. The table stays: connections that
    /// were diverted need it to the end.
    pub fn straighten(&self, host: u8) {
        self.nft(host, "flush table ip way");
    }

    fn nft(&self, host: u8, rule: &str) {
        assert!(self.bridged.is_some(), "loopback cannot be cut");
        let mut command = self.command(host, "nft");
        run(command.arg(rule));
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let Some(bridged) = &self.bridged else { return };
        for host in &bridged.hosts {
            let _ = Command::new("ip").args(["netns", "del", host]).status();
        }
        let _ = Command::new("ip").args(["link", "del", &bridged.bridge]).status();
    }
}

fn ip(words: &str) {
    run(Command::new("ip").args(words.split(' ')));
}

fn run(command: &mut Command) {
    let output = command.output().expect("the command is there");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
