//! Checks of what proves who is who: the handshake, certificates, keys, tokens.

use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error as TlsError};

use super::Finding;
use super::Severity::{Error, Warning};
use super::checks::finding;
use super::facts::{CertificateFacts, Facts, SecretFacts};
use crate::client::dial::DialError;

/// A certificate that ends sooner is renewed late.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);
/// The development certificate is renewed by the node itself, at a start.
const SOON_IN_DEVELOPMENT: Duration = Duration::from_secs(24 * 3600);
pub(super) fn connection(facts: &Facts) -> Vec<Finding> {
    let Some(Err(error)) = &facts.dial else { return Vec::new() };
    let (id, remedy) = match error {
        DialError::Address(_) => ("server-name-invalid", "give HOST:PORT"),
        DialError::Material(_) => ("tls-files-invalid", "give PEM files that fit together"),
        DialError::Connect { .. } => {
            ("port-unreachable", "is the node up, the port right, a firewall in the way?")
        }
        DialError::Timeout(_) => ("node-silent", "is the node overloaded or stopped?"),
        DialError::NotHttp2(_) => ("not-grpc", "is this the port of the public listener?"),
        DialError::Tls { error, .. } => tls(error),
    };
    vec![finding(id, Error, error.to_string(), remedy)]
}

/// Each way in which a handshake fails has its own remedy.
fn tls(error: &TlsError) -> (&'static str, &'static str) {
    use CertificateError as Bad;
    match error {
        TlsError::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer | Bad::BadSignature => {
                ("tls-wrong-ca", "give the authority that made the node's certificate: --ca FILE")
            }
            Bad::Expired | Bad::ExpiredContext { .. } => {
                ("tls-expired", "renew the node's certificate; it reloads by itself")
            }
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                ("tls-not-yet-valid", "compare the clocks of both machines")
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => (
                "tls-name-mismatch",
                "use a name that is in the certificate: --server or --server-name",
            ),
            _ => ("tls-certificate-invalid", "make the node's certificate anew"),
        },
        TlsError::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown,
        ) => (
            "tls-client-certificate",
            "the node wants a client certificate that it believes: --cert and --key",
        ),
        _ => ("tls-failed", "is this the port of the public listener?"),
    }
}

pub(super) fn certificate(facts: &Facts) -> Vec<Finding> {
    let Some(certificate) = &facts.certificate else { return Vec::new() };
    let soon = soon(certificate);
    let remedy = "renew it; the node takes the new files by itself";
    if facts.now < certificate.not_before {
        return vec![finding(
            "certificate-not-yet-valid",
            Error,
            "the node's certificate is not valid yet",
            "compare the clocks of both machines",
        )];
    }
    match certificate.not_after.duration_since(facts.now) {
        Err(_) => {
            vec![finding("certificate-expired", Error, "the node's certificate is over", remedy)]
        }
        Ok(left) if left < soon => vec![finding(
            "certificate-expiring",
            Warning,
            format!("the node's certificate ends in {} hours", left.as_secs() / 3600),
            remedy,
        )],
        Ok(_) => Vec::new(),
    }
}

/// How little of a certificate's life is worth a warning.
pub(super) fn soon(certificate: &CertificateFacts) -> Duration {
    if certificate.development { SOON_IN_DEVELOPMENT } else { SOON }
}

pub(super) fn development_material(facts: &Facts) -> Vec<Finding> {
    let development = facts.certificate.as_ref().is_some_and(|c| c.development);
    if !(facts.production && development) {
        return Vec::new();
    }
    vec![finding(
        "development-material",
        Error,
        "production would run on a certificate or keys that development made",
        "give it its own: tls.cert_file, tls.key_file, auth.ca, auth.issuer",
    )]
}

pub(super) fn secrets(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for secret in &facts.secrets {
        let path = secret.path.display();
        if let Some(problem) = &secret.problem {
            found.push(finding(
                "key-unreadable",
                Error,
                format!("{path} cannot be read: {problem}"),
                "run as the user that owns it",
            ));
        } else if secret.mode & 0o777 & !may_be_open(secret) != 0 {
            found.push(finding(
                "key-open",
                Error,
                format!("other users may read {path} (mode {:03o})", secret.mode & 0o777),
                "chmod 600 it, or 640 with a group that only the node has, and replace the key if \
                 others had access",
            ));
        }
    }
    found
}

/// Its owner's rights, and reading for a group that is the reader's own: so
/// Kubernetes hands a secret to a process that is not root (`fsGroup`).
fn may_be_open(secret: &SecretFacts) -> u32 {
    if secret.in_our_group { 0o740 } else { 0o700 }
}

pub(super) fn token(facts: &Facts) -> Vec<Finding> {
    let problem = facts.token_problem.as_ref();
    problem
        .map(|problem| {
            finding(
                "token-key-missing",
                Warning,
                format!("--as cannot sign a token: {problem}"),
                "the first start of a development node makes the key",
            )
        })
        .into_iter()
        .collect()
}
