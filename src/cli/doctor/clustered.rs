//! Checks of what a cluster's node needs beside a lone one: a database server, and
//! a certificate that other nodes believe.

use super::Finding;
use super::Severity::{Error, Warning};
use super::checks::finding;
use super::facts::Facts;
use super::proofs::soon;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    server(facts).into_iter().chain(mesh_certificate(facts)).collect()
}

fn server(facts: &Facts) -> Option<Finding> {
    let problem = facts.server.as_ref()?;
    Some(if problem.refused {
        finding(
            "database-refused",
            Error,
            format!("no node starts on the database of store.url: {}", problem.why),
            "waiting does not help: put the server, the database or the user right",
        )
    } else {
        finding(
            "database-unreachable",
            Error,
            format!("the database of store.url cannot be reached: {}", problem.why),
            "is the server up, store.url right, a firewall in the way? Nodes that run wait for it",
        )
    })
}

fn mesh_certificate(facts: &Facts) -> Option<Finding> {
    let certificate = facts.mesh_certificate.as_ref()?;
    let remedy = "renew it; the node takes the new files by itself: mesh.cert_file, mesh.key_file";
    if facts.now < certificate.not_before {
        return Some(finding(
            "mesh-certificate-not-yet-valid",
            Error,
            "the certificate for other nodes is not valid yet",
            "compare the clocks of both machines",
        ));
    }
    match certificate.not_after.duration_since(facts.now) {
        Err(_) => Some(finding(
            "mesh-certificate-expired",
            Error,
            "the certificate for other nodes is over: none of them links with this one",
            remedy,
        )),
        Ok(left) if left < soon(certificate) => Some(finding(
            "mesh-certificate-expiring",
            Warning,
            format!("the certificate for other nodes ends in {} hours", left.as_secs() / 3600),
            remedy,
        )),
        Ok(_) => None,
    }
}
