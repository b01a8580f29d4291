//! The parts together, on real files and real handshakes.

mod files;
mod layers;
mod tls;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::registry::Registry;
use secrecy::ExposeSecret;

use super::issue::{self, CertificateRequest, Issued};
use super::*;
use crate::clock;
use crate::config::schema::{CaBundle, Profile};
use crate::principal::{Kind, Principal, Role};

/// The defaults, in development.
fn config(data_dir: &Path) -> Config {
    let mut config: Config =
        toml::from_str(include_str!("../../config/default.toml")).expect("good defaults");
    config.data_dir = data_dir.to_path_buf();
    config
}

fn load(config: &Config) -> Result<Arc<Security>, Vec<SecurityProblem>> {
    let mut registry = Registry::default();
    Security::load(config, &config.data_dir, Arc::new(clock::System), &mut registry)
}

/// A folder with a certificate authority and what it issued, as a company has.
struct Company {
    dir: tempfile::TempDir,
    authority: Issued,
}

impl Company {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let company = Self { dir, authority: authority() };
        company.write("ca.pem", &company.authority.certificate);
        company.serve_with(&company.authority);
        company
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).expect("written");
    }

    fn serve_with(&self, authority: &Issued) {
        let request = CertificateRequest {
            dns: vec!["localhost".into()],
            ttl: Duration::from_secs(3600),
            ..CertificateRequest::default()
        };
        let issued = sign(authority, &request);
        self.write("server.pem", &issued.certificate);
        self.write("server-key.pem", issued.key.expose_secret());
    }

    /// Production, with these files.
    fn config(&self) -> Config {
        let mut config = config(self.dir.path());
        config.profile = Profile::Production;
        config.tls.cert_file = Some(self.path("server.pem"));
        config.tls.key_file = Some(self.path("server-key.pem"));
        config.auth.ca = vec![CaBundle {
            file: self.path("ca.pem"),
            trust_domain: "corp.test".parse().expect("a trust domain"),
            kinds: vec![Kind::User],
            roles: vec![Role::Customer],
            default_roles: vec![Role::Customer],
            paths: Default::default(),
        }];
        config
    }
}

fn authority() -> Issued {
    issue::authority("Corp CA", Duration::from_secs(3600), false, SystemTime::now())
        .expect("an authority")
}

fn sign(authority: &Issued, request: &CertificateRequest) -> Issued {
    issue::sign(&authority.certificate, &authority.key, request, SystemTime::now())
        .expect("a certificate")
}

fn client_certificate(authority: &Issued, principal: &str) -> Issued {
    let principal: Principal = principal.parse().expect("a principal");
    let request = CertificateRequest {
        principal: Some(principal),
        ttl: Duration::from_secs(600),
        ..CertificateRequest::default()
    };
    sign(authority, &request)
}

fn keys(problems: &[SecurityProblem]) -> Vec<&str> {
    problems.iter().map(|problem| problem.key.as_str()).collect()
}
