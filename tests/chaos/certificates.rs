//! The nodes' certificates, of authorities of the run's own, and how all of them
//! are changed while the nodes run.
//!
//! Each node has two, one for clients and one for other nodes, in files that it
//! looks at often. Clients believe both authorities from the beginning.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::node::Node;

/// The two authorities. All certificates are of one of them at a time.
const NAMES: [&str; 2] = ["first", "second"];

/// The authorities, and whose certificates are in use.
#[derive(Debug)]
pub struct Certificates {
    dir: PathBuf,
    /// The one in use.
    current: usize,
    /// Certificates have names that are never used again.
    issued: u32,
}

/// What a node reads, by its configuration's keys.
pub const PUBLIC: &str = "tls.cert_file";
/// Its certificate for other nodes.
pub const MESH: &str = "mesh.cert_file";
/// The authorities of other nodes' certificates.
pub const BUNDLE: &str = "mesh.ca_file";

impl Certificates {
    /// Makes both authorities.
    pub fn new(dir: &Path) -> Certificates {
        let made = Certificates { dir: dir.join("pki"), current: 0, issued: 0 };
        std::fs::create_dir_all(&made.dir).expect("a folder");
        NAMES.iter().for_each(|name| made.run(name, &["init", "--name", name]));
        std::fs::write(made.believed(), made.bundle(&[0, 1])).expect("written");
        made
    }

    /// What clients believe.
    pub fn believed(&self) -> PathBuf {
        self.dir.join("believed.pem")
    }

    /// Gives a node that does not run yet its first ones.
    pub fn equip(&mut self, node: &mut Node) {
        for (key, file) in [
            ("SIMPUL_TLS__CERT_FILE", "public.pem"),
            ("SIMPUL_TLS__KEY_FILE", "public-key.pem"),
            ("SIMPUL_MESH__CERT_FILE", "mesh.pem"),
            ("SIMPUL_MESH__KEY_FILE", "mesh-key.pem"),
            ("SIMPUL_MESH__CA_FILE", "mesh-ca.pem"),
        ] {
            node.set_env(key, node.dir().join(file).to_str().expect("UTF-8"));
        }
        node.set_env("SIMPUL_TLS__RELOAD_INTERVAL", "200ms");
        self.believe(node, &[self.current]);
        self.renew(node);
    }

    /// Gives a node new certificates of the authority in use.
    pub fn renew(&mut self, node: &Node) {
        let principal = format!("node/{}@dev.simpul", node.id);
        self.put(node, "public", &["--dns", "localhost", "--ip", &node.address]);
        self.put(node, "mesh", &["--principal", &principal]);
    }

    /// A node believes other nodes with a certificate of these, and no others.
    fn believe(&self, node: &Node, authorities: &[usize]) {
        replace(&node.dir().join("mesh-ca.pem"), self.bundle(authorities).as_bytes());
    }

    /// A node believes both authorities.
    pub fn believe_both(&self, node: &Node) {
        self.believe(node, &[0, 1]);
    }

    /// A node believes the authority in use, and no other.
    pub fn believe_current(&self, node: &Node) {
        self.believe(node, &[self.current]);
    }

    /// Certificates are of the other authority from now on.
    pub fn change_authority(&mut self) {
        self.current = 1 - self.current;
    }

    fn bundle(&self, authorities: &[usize]) -> String {
        let file = |at: &usize| self.dir.join(NAMES[*at]).join("ca.pem");
        authorities.iter().map(|at| std::fs::read_to_string(file(at)).expect("a CA")).collect()
    }

    /// Issues a certificate and puts it in its place. The key comes first: torn
    /// in between, the two do not fit and are not taken.
    fn put(&mut self, node: &Node, file: &str, whom: &[&str]) {
        self.issued += 1;
        let (authority, name) = (NAMES[self.current], format!("c{}", self.issued));
        self.run(authority, &[&["issue", &name][..], whom].concat());
        for kind in ["-key", ""] {
            let made = self.dir.join(authority).join(format!("{name}{kind}.pem"));
            let content = std::fs::read(made).expect("it was issued");
            replace(&node.dir().join(format!("{file}{kind}.pem")), &content);
        }
    }

    fn run(&self, authority: &str, args: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_simpul"));
        command.env_clear().arg("cert").args(args).arg("--dir").arg(self.dir.join(authority));
        let output = command.stdin(Stdio::null()).output().expect("the binary starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Writes a file whole or not at all.
fn replace(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).expect("written");
    std::fs::rename(new, path).expect("in its place");
}
