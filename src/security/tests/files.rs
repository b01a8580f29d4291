//! What is made, what is refused, what is reloaded.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn development_makes_its_material_once_and_for_its_owner_alone() {
    let data = tempfile::tempdir().expect("a folder");
    let config = config(data.path());
    let security = load(&config).expect("nothing is needed in development");
    let dev = data.path().join("dev");
    assert_eq!(mode(&dev), 0o700);
    for name in ["ca-key.pem", "server-key.pem", "token-key.pem"] {
        assert_eq!(mode(&dev.join(name)), 0o600, "{name}");
    }
    assert_eq!(mode(&data.path().join("audit.log")), 0o600);
    assert_eq!(security.ca_file(), Some(dev.join("ca.pem")));
    let read = || std::fs::read(dev.join("ca.pem")).expect("it is there");
    let before = read();
    load(&config).expect("it is taken again");
    assert_eq!(before, read());
    assert!(!data.path().join("dev.making").exists());

    std::fs::remove_file(dev.join("jwks.json")).expect("removed");
    let problems = load(&config).expect_err("it is incomplete");
    assert!(keys(&problems).contains(&"data_dir"), "{problems:?}");
}

#[test]
fn the_development_server_certificate_is_renewed_with_its_key() {
    let data = tempfile::tempdir().expect("a folder");
    let now = SystemTime::now();
    let day = Duration::from_secs(24 * 3600);
    assert!(development::ensure(data.path(), None, now - 61 * day).expect("made"));
    let read = |name: &str| std::fs::read(data.path().join("dev").join(name)).expect("there");
    let (certificate, key) = (read("server.pem"), read("server-key.pem"));
    development::renew(data.path(), None, now - 2 * day).expect("looked at");
    assert_eq!(read("server.pem"), certificate, "enough is left");
    development::renew(data.path(), None, now).expect("renewed");
    assert_ne!(read("server.pem"), certificate);
    assert_eq!(read("server-key.pem"), key);
    load(&config(data.path())).expect("the new one fits the key");
}

#[test]
fn production_refuses_what_development_made() {
    let data = tempfile::tempdir().expect("a folder");
    load(&config(data.path())).expect("made");
    let dev = data.path().join("dev");
    let company = Company::new();
    let mut config = company.config();
    config.tls.cert_file = Some(dev.join("server.pem"));
    config.tls.key_file = Some(dev.join("server-key.pem"));
    config.auth.ca[0].file = dev.join("ca.pem");
    config.auth.issuer = vec![crate::config::schema::Issuer {
        issuer: "copied".into(),
        jwks_file: dev.join("jwks.json"),
        trust_domain: "corp.test".parse().expect("a trust domain"),
        kinds: vec![Kind::User],
        roles: vec![],
        audience: None,
    }];
    let problems = load(&config).expect_err("refused");
    let wanted = ["tls.cert_file", "auth.ca[0].file", "auth.issuer[0].jwks_file"];
    assert_eq!(keys(&problems), wanted);
    assert!(problems.iter().all(|p| p.message.contains("development")), "{problems:?}");
}

#[test]
fn every_problem_is_told_at_once() {
    let company = Company::new();
    let mut config = company.config();
    config.tls.key_file = Some(company.path("missing.pem"));
    config.auth.may_delegate = vec!["user/alice@corp.test".into(), "shop".into()];
    config.auth.delegated_roles = vec![Role::Node];
    config.auth.bindings.insert("alice".into(), vec![]);
    config.auth.ca[0].kinds = vec![Kind::Node];
    config.auth.ca[0].default_roles = vec![Role::Operator];
    config.auth.ca[0].paths.insert("user/<id>".into(), Kind::User);
    config.telemetry.audit_file = "no/such/folder/audit.log".into();
    let problems = load(&config).expect_err("nothing is right");
    let mut found = keys(&problems);
    found.sort_unstable();
    let wanted = [
        "auth.bindings.\"alice\"",
        "auth.ca[0].default_roles",
        "auth.ca[0].kinds",
        "auth.ca[0].paths",
        "auth.delegated_roles",
        "auth.may_delegate",
        "auth.may_delegate",
        "telemetry.audit_file",
        "tls.cert_file",
    ];
    assert_eq!(found, wanted, "{problems:#?}");

    let mut bare = company.config();
    bare.tls.cert_file = None;
    bare.tls.key_file = None;
    bare.auth.ca.clear();
    bare.tls.client_auth = ClientAuth::Required;
    let problems = load(&bare).expect_err("nothing is there");
    assert_eq!(keys(&problems), ["tls.cert_file", "auth", "tls.client_auth"]);
}

/// Whether the listener has another configuration after a look at the files.
fn reloads(security: &Security) -> bool {
    let before = security.server_config();
    security.poll(SystemTime::now());
    !Arc::ptr_eq(&before, &security.server_config())
}

#[test]
fn a_good_file_is_taken_over_and_a_bad_one_is_not() {
    let company = Company::new();
    let security = load(&company.config()).expect("all is well");
    assert!(!reloads(&security), "nothing changed");
    let certificate = std::fs::read_to_string(company.path("server.pem")).expect("there");
    let key = std::fs::read_to_string(company.path("server-key.pem")).expect("there");

    company.write("server.pem", &certificate[..certificate.len() / 2]);
    assert!(!reloads(&security), "torn");
    company.write("server.pem", "");
    assert!(!reloads(&security), "empty");
    std::fs::remove_file(company.path("server.pem")).expect("removed");
    assert!(!reloads(&security), "gone");
    company.serve_with(&company.authority);
    let other = std::fs::read_to_string(company.path("server.pem")).expect("there");
    company.write("server-key.pem", &key);
    assert!(!reloads(&security), "the key is another certificate's");
    company.write("server.pem", &certificate);
    assert!(!reloads(&security), "as it was");
    let request = CertificateRequest {
        dns: vec!["localhost".into()],
        ttl: Duration::from_secs(60),
        ..CertificateRequest::default()
    };
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let authority = &company.authority;
    let old = issue::sign(&authority.certificate, &authority.key, &request, hour_ago);
    let old = old.expect("a certificate");
    company.write("server.pem", &old.certificate);
    company.write("server-key.pem", old.key.expose_secret());
    assert!(!reloads(&security), "its time is over");

    company.serve_with(&company.authority);
    assert_ne!(std::fs::read_to_string(company.path("server.pem")).expect("there"), other);
    assert!(reloads(&security), "a good one at last");
    assert_eq!(*security.trust().borrow(), 0, "whom is believed did not change");
}

#[test]
fn a_swapped_symlink_is_a_change() {
    use std::os::unix::fs::symlink;

    // As Kubernetes does it: files link into a folder that is itself a link.
    let company = Company::new();
    for version in ["v1", "v2"] {
        std::fs::create_dir(company.path(version)).expect("made");
        company.write(&format!("{version}/ca.pem"), &authority().certificate);
    }
    let link = company.path("data");
    symlink("v1", &link).expect("linked");
    let mut config = company.config();
    config.auth.ca[0].file = company.path("data/ca.pem");
    let security = load(&config).expect("all is well");
    let mut trust = security.trust();
    symlink("v2", company.path("data.new")).expect("linked");
    std::fs::rename(company.path("data.new"), &link).expect("swapped");
    assert!(reloads(&security));
    assert!(trust.has_changed().expect("the sender lives"));
    assert_eq!(*trust.borrow_and_update(), 1);
    assert!(!reloads(&security));
}

#[tokio::test]
async fn the_files_are_looked_after_until_the_stop() {
    let company = Company::new();
    let mut config = company.config();
    config.tls.reload_interval = Duration::from_millis(5);
    let security = load(&config).expect("all is well");
    let mut trust = security.trust();
    let (drain, watch) = drain::channel();
    let task = crate::task::spawn("reload", security.clone().watch(watch));
    company.write("ca.pem", &authority().certificate);
    let changed = tokio::time::timeout(Duration::from_secs(20), trust.changed()).await;
    changed.expect("it is seen").expect("the sender lives");
    drain.drain(Duration::ZERO).await;
    let ended = tokio::time::timeout(Duration::from_secs(20), task).await;
    ended.expect("it ends").expect("it did not panic");
}

#[test]
fn of_nodes_that_start_together_one_makes_the_material() {
    let data = tempfile::tempdir().expect("a folder");
    let start = || development::ensure(data.path(), None, SystemTime::now()).expect("made");
    let made: usize = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
        starting.into_iter().map(|thread| usize::from(thread.join().expect("ended"))).sum()
    });
    assert_eq!(made, 1);
    load(&config(data.path())).expect("it is whole");
}

#[test]
fn an_authority_in_a_folder_issues_and_overwrites_nothing() {
    let company = Company::new();
    let dir = company.path("authority");
    let hour = Duration::from_secs(3600);
    issue::init(&dir, "Corp CA", hour).expect("made");
    assert_eq!(mode(&dir.join("ca-key.pem")), 0o600);
    assert!(issue::init(&dir, "Corp CA", hour).is_err());
    let request = CertificateRequest {
        dns: vec!["localhost".into()],
        ips: vec![std::net::Ipv4Addr::LOCALHOST.into()],
        principal: Some("node/n1@corp.test".parse().expect("a principal")),
        ttl: hour,
        ..CertificateRequest::default()
    };
    let (certificate, key) = issue::issue(&dir, "n1", &request).expect("issued");
    assert_eq!(mode(&key), 0o600);
    assert!(issue::issue(&dir, "n1", &request).is_err());
    let mut config = company.config();
    config.tls.cert_file = Some(certificate);
    config.tls.key_file = Some(key);
    config.auth.ca[0].file = dir.join("ca.pem");
    load(&config).expect("production takes them");
}
