//! Which files a certificate gets, and whether one that is there already is the
//! one that is wanted. Both are looked at before anything is made: half a set is
//! worse than none.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::security::issue::{self, CertificateRequest};

/// What the authority's own files begin with, and what the name of every key
/// ends with.
const AUTHORITY: &str = "ca";
const KEY: &str = "-key";

/// Refuses names that would share a file with each other, with the authority, or
/// with another one's key.
pub(super) fn apart<'a>(flag: &str, ids: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
    let mut names = BTreeSet::new();
    for id in ids {
        if id == AUTHORITY || id.ends_with(KEY) {
            let rule = "ca.pem is the authority, and NAME-key.pem the key of NAME";
            let wrong = format!("{flag}: {id} cannot be the name of a certificate's file: {rule}");
            return Err(Failure::usage(wrong));
        }
        if !names.insert(id) {
            let wrong = format!("{flag}: two have the id {id}, which names their files");
            return Err(Failure::usage(wrong)
                .hint("simpul cert issue makes one with another name for its files"));
        }
    }
    Ok(())
}

/// Whether a certificate is there; an error when it is and lacks a name that is
/// wanted.
pub(super) fn is_there(file: &Path, request: &CertificateRequest) -> Result<bool, Failure> {
    let pem = match std::fs::read(file) {
        Ok(pem) => pem,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(refused(file, &format!("cannot be read: {error}"))),
    };
    let Some(has) = names(&pem) else {
        return Err(refused(file, "is there and is no certificate"));
    };
    match wanted(request).into_iter().find(|name| !has.contains(name)) {
        None => Ok(true),
        Some(name) => Err(refused(file, &format!("is there and is not one for {name}"))),
    }
}

fn refused(file: &Path, why: &str) -> Failure {
    Failure::new(Exit::Refused, format!("{} {why}", file.display()))
        .hint("nothing is overwritten: move it and its key away to have them made anew")
}

fn wanted(request: &CertificateRequest) -> Vec<String> {
    let principal = request.principal.iter().map(issue::spiffe_id);
    let ips = request.ips.iter().map(IpAddr::to_string);
    let dns = request.dns.iter().map(|name| name.to_ascii_lowercase());
    principal.chain(ips).chain(dns).collect()
}

/// The alternative names of a certificate; `None` when it is none.
fn names(pem: &[u8]) -> Option<BTreeSet<String>> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(der.as_ref()).ok()?;
    let names = certificate.subject_alternative_name().ok()?;
    let all = names.iter().flat_map(|names| &names.value.general_names);
    Some(all.filter_map(text).collect())
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let ip = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            Some(ip.ok()?.to_string())
        }
        _ => None,
    }
}
