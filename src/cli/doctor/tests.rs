use super::super::facts::{CertificateFacts, DatabaseFacts, DirFacts, SecretFacts, ServerProblem};
use super::*;
use crate::client::dial::DialError;
use rustls::{AlertDescription, CertificateError, Error as TlsError};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(86_400);

/// A set-up with nothing wrong.
fn healthy() -> Facts {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    Facts {
        now,
        production: false,
        config_problems: Vec::new(),
        data_dir: Some(DirFacts { path: "d".into(), exists: true, mode: 0o40700, writable: true }),
        node: Some(Ok(())),
        ports_in_use: Vec::new(),
        dial: Some(Ok(())),
        certificate: Some(CertificateFacts {
            not_before: now - DAY,
            not_after: now + 60 * DAY,
            development: true,
        }),
        mesh_certificate: Some(CertificateFacts {
            not_before: now - DAY,
            not_after: now + 60 * DAY,
            development: false,
        }),
        certificate_problem: None,
        data_dir_problem: None,
        unfit: Vec::new(),
        partitions: Some(64),
        sandbox_books: true,
        secrets: vec![SecretFacts {
            path: "k".into(),
            problem: None,
            mode: 0o100_600,
            in_our_group: true,
        }],
        token_problem: None,
        clock_offset: Some(1),
        serving: Some(true),
        file_limit: Some(65_536),
        free_bytes: Some(1 << 40),
        audit_problem: None,
        database: Some(DatabaseFacts {
            writable: true,
            version: Some((4, 4)),
            partitions: 64,
            has_payments: true,
            last_write: Some(now - DAY),
            ..DatabaseFacts::default()
        }),
        server: None,
    }
}

/// What a change of a healthy set-up leads to.
fn found(change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, Severity)> {
    let mut facts = healthy();
    change(&mut facts);
    all(&facts).into_iter().map(|finding| (finding.id, finding.severity)).collect()
}

fn dialed(error: DialError) -> Vec<(&'static str, Severity)> {
    found(|facts| facts.dial = Some(Err(error)))
}

fn shaken(error: TlsError) -> Vec<(&'static str, Severity)> {
    dialed(DialError::Tls { server: "s:1".into(), error })
}

fn in_database(change: impl FnOnce(&mut DatabaseFacts)) -> Vec<(&'static str, Severity)> {
    found(|facts| change(facts.database.as_mut().expect("healthy has one")))
}

#[test]
fn health_has_no_finding() {
    assert_eq!(found(|_| {}), []);
}

#[test]
fn config_invalid() {
    let got = found(|facts| facts.config_problems = vec!["a".into(), "b".into()]);
    assert_eq!(got, [("config-invalid", Error), ("config-invalid", Error)]);
}

#[test]
fn a_database_server_that_cannot_be_used() {
    let why = "connection refused".to_owned();
    let got = |refused| {
        let server = Some(ServerProblem { refused, why: why.clone() });
        found(|facts| facts.server = server)
    };
    assert_eq!(got(false), [("database-unreachable", Error)]);
    assert_eq!(got(true), [("database-refused", Error)]);
}

#[test]
fn the_certificate_for_other_nodes() {
    let now = healthy().now;
    let got = |not_before, not_after| {
        let shown = CertificateFacts { not_before, not_after, development: false };
        found(|facts| facts.mesh_certificate = Some(shown))
    };
    assert_eq!(got(now - 9 * DAY, now - DAY), [("mesh-certificate-expired", Error)]);
    assert_eq!(got(now - 9 * DAY, now + DAY), [("mesh-certificate-expiring", Warning)]);
    assert_eq!(got(now + DAY, now + 9 * DAY), [("mesh-certificate-not-yet-valid", Error)]);
}

#[test]
fn start_refused() {
    let got = found(|facts| facts.unfit = vec!["tls.key_file: fits not".into()]);
    assert_eq!(got, [("start-refused", Error)]);
}

#[test]
fn partitions_differ() {
    assert_eq!(found(|facts| facts.partitions = Some(8)), [("partitions-differ", Error)]);
    assert_eq!(in_database(|db| db.partitions = 0), [], "not taken yet");
}

#[test]
fn sandbox_books_missing() {
    let got = found(|facts| facts.sandbox_books = false);
    assert_eq!(got, [("sandbox-books-missing", Error)]);
    let unpaid = found(|facts| {
        facts.sandbox_books = false;
        facts.database.as_mut().expect("one").has_payments = false;
    });
    assert_eq!(unpaid, []);
}

#[test]
fn data_dir_missing() {
    let got = found(|facts| facts.data_dir.as_mut().expect("one").exists = false);
    assert_eq!(got, [("data-dir-missing", Warning)]);
}

#[test]
fn data_dir_open() {
    let got = found(|facts| facts.data_dir.as_mut().expect("one").mode = 0o40750);
    assert_eq!(got, [("data-dir-open", Warning)]);
}

#[test]
fn data_dir_read_only() {
    let got = found(|facts| facts.data_dir.as_mut().expect("one").writable = false);
    assert_eq!(got, [("data-dir-read-only", Error)]);
}

#[test]
fn node_not_running() {
    let got = found(|facts| facts.node = Some(Err(NoNode::Absent)));
    assert_eq!(got, [("node-not-running", Note)]);
}

#[test]
fn node_gone() {
    let got = found(|facts| facts.node = Some(Err(NoNode::Stale(7))));
    assert_eq!(got, [("node-gone", Warning)]);
}

#[test]
fn node_file_unreadable() {
    let got = found(|facts| facts.node = Some(Err(NoNode::Unreadable("x".into()))));
    assert_eq!(got, [("node-file-unreadable", Error)]);
}

#[test]
fn port_in_use() {
    let got = found(|facts| facts.ports_in_use = vec!["127.0.0.1:7443".into()]);
    assert_eq!(got, [("port-in-use", Error)]);
}

#[test]
fn port_unreachable() {
    let error = DialError::Connect { server: "s:1".into(), why: "refused".into() };
    assert_eq!(dialed(error), [("port-unreachable", Error)]);
}

#[test]
fn node_silent() {
    assert_eq!(dialed(DialError::Timeout("s:1".into())), [("node-silent", Error)]);
}

#[test]
fn not_grpc() {
    assert_eq!(dialed(DialError::NotHttp2("s:1".into())), [("not-grpc", Error)]);
}

#[test]
fn server_name_invalid() {
    assert_eq!(dialed(DialError::Address("x".into())), [("server-name-invalid", Error)]);
}

#[test]
fn tls_files_invalid() {
    assert_eq!(dialed(DialError::Material("x".into())), [("tls-files-invalid", Error)]);
}

#[test]
fn tls_wrong_ca() {
    let error = TlsError::InvalidCertificate(CertificateError::UnknownIssuer);
    assert_eq!(shaken(error), [("tls-wrong-ca", Error)]);
}

#[test]
fn tls_expired() {
    let error = TlsError::InvalidCertificate(CertificateError::Expired);
    assert_eq!(shaken(error), [("tls-expired", Error)]);
}

#[test]
fn tls_not_yet_valid() {
    let error = TlsError::InvalidCertificate(CertificateError::NotValidYet);
    assert_eq!(shaken(error), [("tls-not-yet-valid", Error)]);
}

#[test]
fn tls_name_mismatch() {
    let error = TlsError::InvalidCertificate(CertificateError::NotValidForName);
    assert_eq!(shaken(error), [("tls-name-mismatch", Error)]);
}

#[test]
fn tls_certificate_invalid() {
    let error = TlsError::InvalidCertificate(CertificateError::BadEncoding);
    assert_eq!(shaken(error), [("tls-certificate-invalid", Error)]);
}

#[test]
fn tls_client_certificate() {
    let error = TlsError::AlertReceived(AlertDescription::CertificateRequired);
    assert_eq!(shaken(error), [("tls-client-certificate", Error)]);
}

#[test]
fn tls_failed() {
    assert_eq!(shaken(TlsError::HandshakeNotComplete), [("tls-failed", Error)]);
}

#[test]
fn certificate_expired() {
    let got = found(|f| f.certificate.as_mut().expect("one").not_after = f.now - DAY);
    assert_eq!(got, [("certificate-expired", Error)]);
}

#[test]
fn certificate_expiring() {
    let soon = |development: bool, left: Duration| {
        found(|facts| {
            let certificate = facts.certificate.as_mut().expect("one");
            certificate.development = development;
            certificate.not_after = facts.now + left;
        })
    };
    assert_eq!(soon(false, 10 * DAY), [("certificate-expiring", Warning)]);
    assert_eq!(soon(true, 10 * DAY), []);
    assert_eq!(soon(true, DAY / 2), [("certificate-expiring", Warning)]);
}

#[test]
fn certificate_not_yet_valid() {
    let got = found(|f| f.certificate.as_mut().expect("one").not_before = f.now + DAY);
    assert_eq!(got, [("certificate-not-yet-valid", Error)]);
}

#[test]
fn development_material_in_production() {
    let got = found(|facts| facts.production = true);
    assert_eq!(got, [("development-material", Error)]);
}

#[test]
fn key_open() {
    let of = |mode, in_our_group| {
        found(|facts| {
            facts.secrets[0].mode = mode;
            facts.secrets[0].in_our_group = in_our_group;
        })
    };
    // As Kubernetes mounts one, for a group of the process's own.
    for mode in [0o100_440, 0o100_640] {
        assert_eq!(of(mode, true), [], "{mode:o}");
        assert_eq!(of(mode, false), [("key-open", Error)], "{mode:o}");
    }
    for mode in [0o100_660, 0o100_650, 0o100_604, 0o100_644] {
        assert_eq!(of(mode, true), [("key-open", Error)], "{mode:o}");
    }
}

#[test]
fn key_unreadable() {
    let got = found(|facts| facts.secrets[0].problem = Some("denied".into()));
    assert_eq!(got, [("key-unreadable", Error)]);
}

#[test]
fn token_key_missing() {
    let got = found(|facts| facts.token_problem = Some("absent".into()));
    assert_eq!(got, [("token-key-missing", Warning)]);
}

#[test]
fn clock_skew_in_both_directions() {
    assert_eq!(found(|facts| facts.clock_offset = Some(3)), [("clock-skew", Warning)]);
    assert_eq!(found(|facts| facts.clock_offset = Some(-3)), [("clock-skew", Warning)]);
}

#[test]
fn not_serving() {
    assert_eq!(found(|facts| facts.serving = Some(false)), [("not-serving", Error)]);
}

#[test]
fn file_limit_low() {
    assert_eq!(found(|facts| facts.file_limit = Some(1024)), [("file-limit-low", Warning)]);
}

#[test]
fn disk_nearly_full() {
    assert_eq!(found(|facts| facts.free_bytes = Some(1 << 20)), [("disk-nearly-full", Error)]);
}

#[test]
fn audit_log_unwritable() {
    let got = found(|facts| facts.audit_problem = Some("denied".into()));
    assert_eq!(got, [("audit-log-unwritable", Error)]);
}

#[test]
fn database_unreadable_says_nothing_else() {
    let got = in_database(|db| {
        db.problem = Some("not a database".into());
        db.writable = false;
    });
    assert_eq!(got, [("database-unreadable", Error)]);
}

#[test]
fn database_read_only() {
    assert_eq!(in_database(|db| db.writable = false), [("database-read-only", Error)]);
}

#[test]
fn database_damaged() {
    let got = in_database(|db| db.damage = vec!["page 3".into()]);
    assert_eq!(got, [("database-damaged", Error)]);
}

#[test]
fn database_newer_but_not_older() {
    let at = |theirs| in_database(|db| db.version = Some((theirs, 4)));
    assert_eq!(at(5), [("database-newer", Error)]);
    assert_eq!(at(3), []);
}

#[test]
fn ledger_wrong() {
    let got = in_database(|db| db.ledger = vec!["IDR".into()]);
    assert_eq!(got, [("ledger-wrong", Error)]);
}

#[test]
fn payments_unknown() {
    assert_eq!(in_database(|db| db.stuck_payments = 2), [("payments-unknown", Warning)]);
}

#[test]
fn outbox_overdue() {
    assert_eq!(in_database(|db| db.overdue_tasks = 2), [("outbox-overdue", Warning)]);
}

#[test]
fn database_at_rest() {
    let now = healthy().now;
    let got = in_database(|db| db.last_write = Some(now - 40 * DAY));
    assert_eq!(got, [("database-at-rest", Note)]);
}

#[test]
fn the_worst_comes_first() {
    let got = found(|facts| {
        facts.node = Some(Err(NoNode::Absent));
        facts.clock_offset = Some(9);
        facts.serving = Some(false);
    });
    let severities: Vec<Severity> = got.into_iter().map(|(_, severity)| severity).collect();
    assert_eq!(severities, [Error, Warning, Note]);
}

#[test]
fn files_that_are_there_and_of_no_use_are_found() {
    let torn = found(|facts| facts.certificate_problem = Some("server.pem: cut short".into()));
    assert_eq!(torn, [("certificate-unreadable", Severity::Error)]);
    let newer = found(|facts| facts.data_dir_problem = Some("version 999".into()));
    assert_eq!(newer, [("data-dir-unusable", Severity::Error)]);
}
