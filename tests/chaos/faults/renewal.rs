//! All nodes' certificates are changed while they run.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::certificates::{BUNDLE, MESH, PUBLIC};
use crate::node::Node;
use crate::world::{LONG, World};

/// What is given to all nodes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Other certificates of the same authority.
    Renew,
    /// Both authorities are to be believed.
    BelieveBoth,
    /// Certificates of the other authority.
    Change,
    /// The authority before is to be believed no more.
    BelieveOne,
}

/// The order in which an authority is changed so that nobody is ever refused.
pub const NEW_AUTHORITY: [Step; 3] = [Step::BelieveBoth, Step::Change, Step::BelieveOne];

/// Waits after each step until all nodes have taken it, and at the end until all
/// have links to all others.
pub async fn run(world: &mut World, steps: &[Step]) {
    for step in steps {
        give(world, *step).taken(world).await;
    }
    links_stand(world).await;
}

/// What was given to the nodes, when, and what they had said until then.
pub struct Given {
    step: Step,
    at: Instant,
    said: Vec<usize>,
}

/// Gives all nodes the next thing.
pub fn give(world: &mut World, step: Step) -> Given {
    let said = world.nodes.iter().map(|node| node.log().len()).collect();
    let given = Given { step, at: Instant::now(), said };
    let World { certificates, nodes, .. } = world;
    let certificates = certificates.as_mut().expect("certificates that can be changed");
    if step == Step::Change {
        certificates.change_authority();
    }
    for node in nodes {
        match step {
            Step::Renew | Step::Change => certificates.renew(node),
            Step::BelieveBoth => certificates.believe_both(node),
            Step::BelieveOne => certificates.believe_current(node),
        }
    }
    given
}

impl Given {
    /// Waits until every node has taken it: it says so, unless it was started
    /// with it.
    pub async fn taken(&self, world: &World) {
        for (node, said) in world.nodes.iter().zip(&self.said) {
            while !self.is_taken_by(node, *said) {
                assert!(self.at.elapsed() < LONG, "{} does not take {:?}", node.id, self.step);
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    fn is_taken_by(&self, node: &Node, said: usize) -> bool {
        let sources: &[&str] = match self.step {
            Step::Renew | Step::Change => &[PUBLIC, MESH],
            Step::BelieveBoth | Step::BelieveOne => &[BUNDLE],
        };
        let log = node.log();
        let since = log.get(said..).unwrap_or_default();
        let tells = |source: &&str| {
            let quoted = format!("\"{source}\"");
            since.lines().any(|line| line.contains("\"reloaded\"") && line.contains(&quoted))
        };
        node.started() > self.at || sources.iter().all(tells)
    }
}

/// Waits until every node has links to all others.
pub async fn links_stand(world: &World) {
    let others = world.nodes.len() - 1;
    let begun = Instant::now();
    for node in &world.nodes {
        while links(node) != Some(others) {
            let open = links(node);
            assert!(begun.elapsed() < LONG, "{} has {open:?} links of {others}", node.id);
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// How many links a node has, by its own metric.
fn links(node: &Node) -> Option<usize> {
    let mut stream = TcpStream::connect((node.address.as_str(), 7445)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let host = &node.address;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().find_map(|line| line.strip_prefix("simpul_link_open ")?.trim().parse().ok())
}
