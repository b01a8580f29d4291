//! `simpul cert cluster`: everything that a few nodes and their clients need to
//! prove themselves, in one go.

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
use crate::principal::TrustDomain;
use crate::security::issue::{self, CertificateRequest, IssueError};

/// How long the authorities hold.
const AUTHORITY: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// Make three authorities (servers, mesh, clients) and a certificate for each node and client
#[derive(Debug, Args)]
#[command(after_help = "Files in DIR:\n  servers/ca.pem servers/NODE.pem servers/NODE-key.pem\n  \
    mesh/ca.pem    mesh/NODE.pem    mesh/NODE-key.pem\n  \
    clients/ca.pem clients/ID.pem   clients/ID-key.pem\n\n\
    What is there stays as it is: a second run makes what is missing. The authorities' keys \
    (ca-key.pem) are not needed by nodes: keep them elsewhere.\n\nExamples:\n  \
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

/// A folder with an authority in it.
struct Folder<'a> {
    path: PathBuf,
    owner: Option<(u32, u32)>,
    made: &'a mut usize,
}

impl ClusterCerts {
    /// Makes what is missing.
    pub(super) fn run(self, env: &Env) -> Result<Exit, Failure> {
        let named = |text: &String| id::is_short_name(text);
        if !self.nodes.iter().all(named) {
            return Err(Failure::usage(format!("--node {}", id::SHORT_NAME_RULE)));
        }
        let clients = self.clients.iter().map(|text| parse_full(text));
        let clients = clients.collect::<Result<Vec<_>, Failure>>()?;
        let mut made = 0;
        let mut servers = self.folder("servers", "Simpul servers", &mut made)?;
        for node in &self.nodes {
            let (ips, mut dns) = split(&self.alt);
            dns.push(node.clone());
            servers.certificate(node, CertificateRequest { dns, ips, ..self.request() })?;
        }
        let mut mesh = self.folder("mesh", "Simpul mesh", &mut made)?;
        for node in &self.nodes {
            let whose = parse_full(&format!("node/{node}@{}", self.mesh_domain))?;
            let principal = Some(whose);
            mesh.certificate(node, CertificateRequest { principal, ..self.request() })?;
        }
        let mut folder = self.folder("clients", "Simpul clients", &mut made)?;
        for client in clients {
            let (name, principal) = (client.id().to_owned(), Some(client));
            folder.certificate(&name, CertificateRequest { principal, ..self.request() })?;
        }
        let json = json!({"dir": self.dir, "made": made});
        env.output.say(&json, || match made {
            0 => format!("{}: everything is there", self.dir.display()),
            made => format!("{}: {made} certificate(s) made", self.dir.display()),
        })?;
        Ok(Exit::Done)
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
    fn certificate(&mut self, name: &str, request: CertificateRequest) -> Result<(), Failure> {
        let file = self.path.join(format!("{name}.pem"));
        if !file.exists() {
            issue::issue(&self.path, name, &request).map_err(refuse)?;
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
}
