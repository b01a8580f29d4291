//! `simpul cert cluster`: everything that a few nodes and their clients need to
//! prove themselves, in one go.

mod files;

use std::net::IpAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{parse_full, refuse};
use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::id;
use crate::principal::{Principal, TrustDomain};
use crate::security::issue::{self, CertificateRequest, IssueError};

/// How long the authorities hold.
const AUTHORITY: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// Make three authorities (servers, mesh, clients) and a certificate for each node and client
#[derive(Debug, Args)]
#[command(after_help = "Files in DIR:\n  servers/ca.pem servers/NODE.pem servers/NODE-key.pem\n  \
    mesh/ca.pem    mesh/NODE.pem    mesh/NODE-key.pem\n  \
    clients/ca.pem clients/ID.pem   clients/ID-key.pem\n\n\
    What is there stays as it is: a second run makes what is missing, and none at all if a \
    certificate is there that lacks a name. ID is the one of WHO, without kind and domain. The \
    authorities' keys (ca-key.pem) are not needed by nodes: keep them elsewhere.\n\nExamples:\n  \
    simpul cert cluster --dir pki --node a --node b --node c --client user/olga@example.com\n  \
    simpul cert cluster --dir pki --node a --alt localhost --alt 10.0.0.5")]
pub(super) struct ClusterCerts {
    /// The folder
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// A node by its id, which is also its name on the network; may be repeated
    #[arg(long = "node", value_name = "ID", required = true)]
    nodes: Vec<String>,
    /// One more name or address at which every node serves; may be repeated
    #[arg(long, value_name = "NAME")]
    alt: Vec<String>,
    /// The trust domain of the nodes
    #[arg(long, value_name = "TRUST-DOMAIN", default_value = "mesh.simpul")]
    mesh_domain: TrustDomain,
    /// A client, as [kind/]id@trust-domain; may be repeated
    #[arg(long = "client", value_name = "WHO")]
    clients: Vec<String>,
    /// How long the certificates hold
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration,
          default_value = "90days")]
    ttl: Duration,
    /// Give the files to this user and group, as numbers; for root alone
    #[arg(long, value_name = "UID:GID", value_parser = owner)]
    owner: Option<(u32, u32)>,
}

/// What a folder is to hold.
struct Set {
    part: &'static str,
    /// The authority's name.
    authority: &'static str,
    /// By the names of their files.
    certificates: Vec<(String, CertificateRequest)>,
}

/// A folder with an authority in it.
struct Folder<'a> {
    path: PathBuf,
    owner: Option<(u32, u32)>,
    made: &'a mut usize,
}

impl ClusterCerts {
    /// Makes what is missing, and says how much that was.
    pub(super) fn run(self, env: &Env) -> Result<Exit, Failure> {
        let made = self.make()?;
        let json = json!({"dir": self.dir, "made": made});
        env.output.say(&json, || match made {
            0 => format!("{}: everything is there", self.dir.display()),
            made => format!("{}: {made} certificate(s) made", self.dir.display()),
        })?;
        Ok(Exit::Done)
    }

    /// How many were made. All is checked before the first is.
    fn make(&self) -> Result<usize, Failure> {
        let mut made = 0;
        let sets = self.sets()?;
        for set in &sets {
            let folder = self.dir.join(set.part);
            for (name, request) in &set.certificates {
                files::is_there(&folder.join(format!("{name}.pem")), request)?;
            }
        }
        for set in sets {
            let mut folder = self.folder(set.part, set.authority, &mut made)?;
            for (name, request) in set.certificates {
                folder.certificate(&name, &request)?;
            }
        }
        Ok(made)
    }

    /// What there must be.
    fn sets(&self) -> Result<[Set; 3], Failure> {
        let named = |text: &String| id::is_short_name(text);
        if !self.nodes.iter().all(named) {
            return Err(Failure::usage(format!("--node {}", id::SHORT_NAME_RULE)));
        }
        let clients = self.clients.iter().map(|text| parse_full(text));
        let clients = clients.collect::<Result<Vec<_>, Failure>>()?;
        files::apart("--node", self.nodes.iter().map(String::as_str))?;
        files::apart("--client", clients.iter().map(Principal::id))?;
        let serves = |node: &String| {
            let (ips, mut dns) = split(&self.alt);
            dns.push(node.clone());
            (node.clone(), CertificateRequest { dns, ips, ..self.request() })
        };
        let proves = |name: String, principal| {
            let principal = Some(principal);
            (name, CertificateRequest { principal, ..self.request() })
        };
        let whose = |node: &String| {
            let principal = parse_full(&format!("node/{node}@{}", self.mesh_domain))?;
            Ok(proves(node.clone(), principal))
        };
        let set = |part, authority, certificates| Set { part, authority, certificates };
        let mesh = self.nodes.iter().map(whose).collect::<Result<_, Failure>>()?;
        let clients = clients.into_iter().map(|client| proves(client.id().to_owned(), client));
        Ok([
            set("servers", "Simpul servers", self.nodes.iter().map(serves).collect()),
            set("mesh", "Simpul mesh", mesh),
            set("clients", "Simpul clients", clients.collect()),
        ])
    }

    fn request(&self) -> CertificateRequest {
        CertificateRequest { ttl: self.ttl, ..CertificateRequest::default() }
    }

    fn folder<'a>(
        &self,
        part: &str,
        name: &str,
        made: &'a mut usize,
    ) -> Result<Folder<'a>, Failure> {
        let mut folder = Folder { path: self.dir.join(part), owner: self.owner, made };
        if !folder.path.join("ca.pem").exists() {
            issue::init(&folder.path, name, AUTHORITY).map_err(refuse)?;
            *folder.made += 1;
        }
        folder.give(&self.dir)?;
        let own = folder.path.clone();
        folder.give(&own)?;
        folder.give(&own.join("ca.pem"))?;
        Ok(folder)
    }
}

impl Folder<'_> {
    /// Makes a certificate unless it is there.
    fn certificate(&mut self, name: &str, request: &CertificateRequest) -> Result<(), Failure> {
        let file = self.path.join(format!("{name}.pem"));
        if !files::is_there(&file, request)? {
            issue::issue(&self.path, name, request).map_err(refuse)?;
            *self.made += 1;
        }
        self.give(&file)?;
        self.give(&self.path.join(format!("{name}-key.pem")))
    }

    fn give(&mut self, path: &Path) -> Result<(), Failure> {
        let Some((user, group)) = self.owner else { return Ok(()) };
        chown(path, Some(user), Some(group))
            .map_err(|error| refuse(IssueError::File { path: path.to_owned(), error }))
    }
}

/// Addresses and names apart.
fn split(names: &[String]) -> (Vec<IpAddr>, Vec<String>) {
    let (mut ips, mut dns) = (Vec::new(), Vec::new());
    for name in names {
        match name.parse() {
            Ok(ip) => ips.push(ip),
            Err(_) => dns.push(name.clone()),
        }
    }
    (ips, dns)
}

fn owner(text: &str) -> Result<(u32, u32), String> {
    let numbers = text
        .split_once(':')
        .and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)));
    numbers.ok_or_else(|| "must be UID:GID, two numbers".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_apart() {
        let names = ["localhost", "10.0.0.5", "::1"].map(str::to_owned);
        let (ips, dns) = split(&names);
        assert_eq!((ips.len(), dns), (2, vec!["localhost".to_owned()]));
        assert_eq!(owner("65532:65532"), Ok((65532, 65532)));
        assert!(owner("nobody").is_err() && owner("1:").is_err());
    }

    fn wanted(dir: &Path, nodes: &[&str], alt: &[&str], clients: &[&str]) -> ClusterCerts {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        ClusterCerts {
            dir: dir.to_owned(),
            nodes: own(nodes),
            alt: own(alt),
            mesh_domain: "mesh.simpul".parse().expect("a trust domain"),
            clients: own(clients),
            ttl: Duration::from_secs(3600),
            owner: None,
        }
    }

    #[test]
    fn names_that_would_share_a_file_are_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let pki = dir.path().join("pki");
        for (nodes, clients) in [
            (&["ca"][..], &[][..]),
            (&["a", "a-key"], &[]),
            (&["a", "b", "a"], &[]),
            (&["a"], &["ca@x"]),
            (&["a"], &["bob-key@x"]),
            (&["a"], &["user/bob@x", "service/bob@x"]),
            (&["a"], &["bob@x", "bob@y"]),
        ] {
            let refused = wanted(&pki, nodes, &[], clients).make().expect_err("refused");
            assert_eq!(refused.exit(), Exit::Usage, "{nodes:?} {clients:?}");
            assert!(!pki.exists(), "{nodes:?} {clients:?}");
        }
    }

    #[test]
    fn a_second_run_makes_what_is_missing_and_takes_no_other_for_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        let make = |nodes: &[&str], alt: &[&str], clients: &[&str]| {
            wanted(dir, nodes, alt, clients).make()
        };
        let alt = ["localhost", "10.0.0.5", "::1"];
        assert_eq!(make(&["a"], &alt, &["bob@x"]).expect("made"), 6);
        assert_eq!(make(&["a"], &alt, &["bob@x"]).expect("there"), 0);
        assert_eq!(make(&["a"], &alt[..1], &["eve@x"]).expect("made"), 1, "fewer names are there");
        for (alt, clients, lacks) in [
            (&["10.0.0.6"][..], &[][..], "servers/a.pem"),
            (&["other"], &[], "servers/a.pem"),
            (&[], &["service/bob@x"], "clients/bob.pem"),
            (&[], &["bob@y"], "clients/bob.pem"),
        ] {
            let refused = make(&["a", "b"], alt, clients).expect_err("refused");
            assert_eq!(refused.exit(), Exit::Refused, "{lacks}");
            assert!(refused.message().contains(lacks), "{}", refused.message());
            assert!(!dir.join("servers/b.pem").exists(), "nothing is made before");
        }
        std::fs::write(dir.join("clients/torn.pem"), "torn").expect("written");
        assert!(make(&["a"], &[], &["torn@x"]).is_err());
    }
}
