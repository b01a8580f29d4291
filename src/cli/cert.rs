//! `simpul cert`: a certificate authority and certificates, for those who have
//! none.

mod cluster;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;
use crate::principal::{Principal, TrustDomain};
use crate::security::issue::{self, CertificateRequest, IssueError};

/// Make a certificate authority and certificates
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  simpul cert init --dir pki\n  \
    simpul cert issue node-1 --dir pki --dns simpul.example --ip 10.0.0.5\n  \
    simpul cert issue shop --dir pki --principal service/shop@example.com\n  \
    simpul cert issue mesh-1 --dir mesh-pki --principal node/node-1@mesh.example")]
pub struct Cert {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(Init),
    Issue(Issue),
    Cluster(cluster::ClusterCerts),
}

/// Make an authority: ca.pem and ca-key.pem; nothing is overwritten
#[derive(Debug, Args)]
struct Init {
    /// The folder
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// The authority's name
    #[arg(long, value_name = "NAME", default_value = "Simpul CA")]
    name: String,
    /// How long it holds
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration,
          default_value = "3650days")]
    ttl: Duration,
}

/// Make a certificate: NAME.pem and NAME-key.pem; nothing is overwritten
#[derive(Debug, Args)]
struct Issue {
    /// The name of its files
    #[arg(value_name = "NAME")]
    name: String,
    /// The folder of the authority
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Whom it proves, as [kind/]id@trust-domain: a client's certificate
    #[arg(long, value_name = "WHO")]
    principal: Option<String>,
    /// Proves any node of a cluster to the others, in this trust domain; for
    /// one node alone: --principal node/ID@TRUST-DOMAIN
    #[arg(long, value_name = "TRUST-DOMAIN", conflicts_with = "principal")]
    any_node: Option<TrustDomain>,
    /// A DNS name of a server; may be repeated
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// An IP address of a server; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
    /// How long it holds
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration,
          default_value = "90days")]
    ttl: Duration,
}

impl Cert {
    /// Makes the files and names them.
    pub fn run(self, env: &Env) -> Result<Exit, Failure> {
        match self.command {
            Command::Init(init) => {
                issue::init(&init.dir, &init.name, init.ttl).map_err(refuse)?;
                show(env, &init.dir.join("ca.pem"), &init.dir.join("ca-key.pem"))
            }
            Command::Issue(wanted) => wanted.run(env),
            Command::Cluster(wanted) => wanted.run(env),
        }
    }
}

impl Issue {
    fn run(self, env: &Env) -> Result<Exit, Failure> {
        if !crate::id::is_client_key(&self.name) {
            return Err(Failure::usage(format!("NAME {}", crate::id::CLIENT_KEY_RULE)));
        }
        let principal = self.principal.as_deref().map(parse_full).transpose()?;
        let any_node = self.any_node;
        let names_nobody = principal.is_none() && any_node.is_none();
        if names_nobody && self.dns.is_empty() && self.ip.is_empty() {
            let needed = "a certificate needs --principal, --any-node, --dns or --ip";
            return Err(Failure::usage(needed));
        }
        let request = CertificateRequest {
            principal,
            any_node,
            dns: self.dns,
            ips: self.ip,
            ttl: self.ttl,
            development: false,
        };
        let (certificate, key) = issue::issue(&self.dir, &self.name, &request).map_err(refuse)?;
        show(env, &certificate, &key)
    }
}

/// A principal with its trust domain, which nothing here could fill in.
fn parse_full(text: &str) -> Result<Principal, Failure> {
    let wrong = |error| Failure::usage(format!("--principal {error}"));
    let (_, domain) = text.rsplit_once('@').ok_or_else(|| {
        Failure::usage("--principal needs its trust domain")
            .hint("for example user/alice@example.com")
    })?;
    let domain: TrustDomain = domain.parse().map_err(wrong)?;
    Principal::parse_in(text, &domain).map_err(wrong)
}

fn refuse(error: IssueError) -> Failure {
    match &error {
        IssueError::File { error: inner, .. }
            if inner.kind() == std::io::ErrorKind::AlreadyExists =>
        {
            Failure::new(Exit::Refused, error.to_string())
        }
        _ => Failure::usage(error.to_string()),
    }
}

fn show(env: &Env, certificate: &std::path::Path, key: &std::path::Path) -> Result<Exit, Failure> {
    let json = json!({
        "certificate": certificate.display().to_string(), "key": key.display().to_string(),
    });
    env.output.say(&json, || {
        format!("certificate  {}\nkey          {}", certificate.display(), key.display())
    })?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_needs_its_trust_domain() {
        assert!(parse_full("alice").is_err());
        let alice = parse_full("alice@example.com").expect("whole");
        assert_eq!(alice.as_str(), "user/alice@example.com");
    }
}
