//! A node under systemd's protocol: what it says, when, and when it falls silent.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{LONG, Node, Pipe};

/// What the node said next that is not a sign of life, or with `alive` the next
/// sign of life; `None` when there is silence for so long.
fn next(socket: &UnixDatagram, alive: bool, within: Duration) -> Option<String> {
    let until = Instant::now() + within;
    loop {
        let left = until.checked_duration_since(Instant::now())?;
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).expect("a timeout");
        let mut words = [0; 512];
        let Ok(length) = socket.recv(&mut words) else { continue };
        let words = String::from_utf8_lossy(&words[..length]).into_owned();
        if words.starts_with("WATCHDOG=1") == alive {
            return Some(words);
        }
    }
}

#[test]
fn it_says_that_it_is_ready_lives_reloads_and_stops() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let name = path.to_str().expect("UTF-8");
    let mut node = Node::start_with(&[("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "1500000")]);
    let ready = next(&socket, false, LONG).expect("a word");
    let serves = format!("READY=1\nSTATUS=serving on {}", node.address("public"));
    assert_eq!(ready, serves);
    assert!(next(&socket, true, LONG).is_some(), "no sign of life");

    node.signal(Signal::HUP);
    let reloading = next(&socket, false, LONG).expect("a word");
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(next(&socket, false, LONG).as_deref(), Some(serves.as_str()));

    // Frozen, it is silent for longer than the supervisor would wait.
    node.signal(Signal::STOP);
    while next(&socket, true, Duration::from_millis(300)).is_some() {}
    assert_eq!(next(&socket, true, Duration::from_millis(1_600)), None, "a frozen node lives");
    node.signal(Signal::CONT);
    assert!(next(&socket, true, LONG).is_some(), "a thawed node is silent");

    node.signal(Signal::TERM);
    let stopping = next(&socket, false, LONG).expect("a word");
    assert!(stopping.starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC="), "{stopping}");
    assert_eq!(node.wait(LONG), Some(0));
}

#[test]
fn a_look_at_a_file_that_does_not_answer_does_not_hold_up_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let name = path.to_str().expect("UTF-8");
    let mut node = Node::start_with(&[
        ("NOTIFY_SOCKET", name),
        ("SIMPUL_TLS__RELOAD_INTERVAL", "1h"),
        ("SIMPUL_SHUTDOWN__GRACE", "4s"),
    ]);
    assert!(next(&socket, false, LONG).is_some_and(|words| words.starts_with("READY=1")));
    let pipe = Pipe::in_place_of(&node.dir().join("dev/jwks.json"));
    node.signal(Signal::HUP);
    let _writer = pipe.read_by_somebody();
    assert!(next(&socket, false, LONG).is_some_and(|words| words.starts_with("RELOADING=1")));
    node.signal(Signal::TERM);
    let stopping = next(&socket, false, LONG).expect("a word");
    assert!(stopping.starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=5000000\n"), "{stopping}");
    assert_eq!(node.wait(Duration::from_secs(15)), Some(0));
}

#[test]
fn without_a_supervisor_a_lost_terminal_ends_it() {
    // What is ignored stays so in every process that is started from here.
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.expect("a mask").trim(), 16).expect("a number");
    if ignored & 1 == 1 {
        return crate::support::not_run("a lost terminal: SIGHUP is ignored, as below nohup");
    }
    let mut node = Node::start();
    node.signal(Signal::HUP);
    assert_eq!(node.wait(LONG), None, "by the signal");
}
