use std::collections::BTreeSet;
use std::fs;

use secrecy::ExposeSecret;

use super::*;

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Loads with an empty folder in the place of the working directory.
fn load_alone(args: &LoadArgs) -> Result<Loaded, Problems> {
    let folder = tempfile::tempdir().expect("a folder");
    load_in(folder.path(), args)
}

fn loaded(pairs: &[(&str, &str)]) -> Loaded {
    load_alone(&LoadArgs { env: env(pairs), ..LoadArgs::default() }).expect("sound")
}

fn refused(args: &LoadArgs) -> Vec<(String, String)> {
    let problems = load_alone(args).expect_err("refused");
    problems.iter().map(|p| (p.key.clone(), p.source.clone())).collect()
}

#[test]
fn the_defaults_are_sound_and_name_every_key_of_the_schema() {
    let loaded = loaded(&[]);
    assert_eq!(loaded.config.profile, Profile::Development);
    let optional = [
        "node.id",
        "node.advertise_public",
        "node.advertise_mesh",
        "mesh.cert_file",
        "mesh.key_file",
        "mesh.ca_file",
        "mesh.trust_domain",
        "tls.cert_file",
        "tls.key_file",
    ];
    for setting in loaded.effective() {
        assert!(
            setting.source != "not set" || optional.contains(&setting.key.as_str()),
            "{} has no default",
            setting.key
        );
    }
    // The schema's fields, read from its text: `pub name:`.
    let fields: BTreeSet<_> = include_str!("schema.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("    pub "))
        .filter_map(|line| line.split_once(':').map(|(name, _)| name))
        .collect();
    assert!(fields.len() > 60, "the schema is read: {}", fields.len());
    let table = format!("{:?}", keys::KEYS);
    for field in fields {
        assert!(
            keys::KEYS.iter().any(|key| key.path.split('.').any(|part| part == field))
                || table.contains(&format!("{field:?}")),
            "{field} is not in the table of keys"
        );
    }
}

#[test]
fn later_sources_win_and_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("node.toml");
    fs::write(
        &file,
        "data_dir = \"of-file\"\n[listen]\npublic = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:2\"\n",
    )
    .expect("written");
    fs::write(
        folder.path().join(".env"),
        "# mine\nexport SIMPUL_LISTEN__ADMIN='127.0.0.1:3'\nSIMPUL_SHUTDOWN__GRACE=3s # short\n\
         SIMPUL_STORE__READERS=2\nOTEL_SERVICE_NAME=kedai\n",
    )
    .expect("written");
    let args = LoadArgs {
        files: vec![file.clone()],
        env: env(&[("SIMPUL_STORE__READERS", "7"), ("SIMPUL_DATA_DIR", "of-env")]),
        overrides: env(&[("data_dir", "of-flag")]),
        ..LoadArgs::default()
    };
    let loaded = load_in(folder.path(), &args).expect("sound");
    assert_eq!(loaded.config.listen.public.port(), 1);
    assert_eq!(loaded.config.listen.admin.port(), 3);
    assert_eq!(loaded.config.shutdown.grace.as_secs(), 3);
    assert_eq!(loaded.config.store.readers, 7);
    assert_eq!(loaded.config.data_dir, Path::new("of-flag"));
    assert_eq!(loaded.source("listen.public"), file.display().to_string());
    assert!(loaded.source("listen.admin").ends_with(".env, SIMPUL_LISTEN__ADMIN"));
    assert_eq!(loaded.source("store.readers"), "environment variable SIMPUL_STORE__READERS");
    assert_eq!(loaded.source("data_dir"), "a flag");
    assert_eq!(loaded.source("chat.partitions"), "the embedded default.toml");
    let otel = loaded.effective().into_iter().find(|s| s.key == "OTEL_SERVICE_NAME");
    assert_eq!(otel.expect("listed").value, "kedai");
}

#[test]
fn values_of_the_environment_are_typed_by_the_schema() {
    let loaded = loaded(&[
        ("SIMPUL_AUTH__AUDIENCE", "12345678"),
        ("SIMPUL_NODE__ID", "7"),
        ("SIMPUL_PAYMENT__REFUND_BELOW_ZERO", "true"),
        ("SIMPUL_TRAFFIC__MAX_WAIT", "250ms"),
        ("SIMPUL_AUTH__DELEGATED_ROLES", "customer, merchant"),
        ("SIMPUL_AUTH__MAY_DELEGATE", r#"["service/shop@dev.simpul"]"#),
        ("SIMPUL_AUTH__BINDINGS", r#"{"user/ani@dev.simpul": ["auditor"]}"#),
    ]);
    assert_eq!(loaded.config.auth.audience, "12345678");
    assert_eq!(loaded.config.node.id.as_deref(), Some("7"));
    assert!(loaded.config.payment.refund_below_zero);
    assert_eq!(loaded.config.traffic.max_wait.as_millis(), 250);
    assert_eq!(loaded.config.auth.delegated_roles.len(), 2);
    assert_eq!(loaded.config.auth.may_delegate, ["service/shop@dev.simpul"]);
    assert_eq!(loaded.config.auth.bindings.len(), 1);
}

#[test]
fn variables_of_kubernetes_and_of_tests_are_not_keys() {
    loaded(&[
        ("SIMPUL_PORT", "tcp://10.0.0.1:7443"),
        ("SIMPUL_SERVICE_HOST", "10.0.0.1"),
        ("SIMPUL_SERVICE_PORT_GRPC", "7443"),
        ("SIMPUL_PORT_7443_TCP", "tcp://10.0.0.1:7443"),
        ("SIMPUL_PORT_7443_TCP_ADDR", "10.0.0.1"),
        ("SIMPUL_ADMIN_SERVICE_HOST", "10.0.0.2"),
        ("SIMPUL_ADMIN_PORT_7445_TCP_PROTO", "tcp"),
        ("SIMPUL_PROFILE", "development"),
        ("SIMPUL_TEST_KEEP__FILES", "1"),
        ("OTHER__KEY", "1"),
    ]);
}

#[test]
fn a_variable_that_is_meant_as_a_key_and_is_none_does_not_pass() {
    let names = ["SIMPUL_DATADIR", "SIMPUL_LISTEN_PUBLIC", "SIMPUL_PORT_X_TCP", "SIMPUL_PORTS"];
    let args = LoadArgs { env: env(&names.map(|name| (name, "planted"))), ..LoadArgs::default() };
    let folder = tempfile::tempdir().expect("a folder");
    let problems = load_in(folder.path(), &args).expect_err("none is a key");
    assert_eq!(problems.iter().count(), names.len(), "{problems}");
    let first = problems.iter().next().map(ToString::to_string);
    assert_eq!(
        first.as_deref(),
        Some("datadir (environment variable SIMPUL_DATADIR): is not a key; data_dir is")
    );
}

#[test]
fn every_problem_is_told_at_once_with_key_and_source_and_without_the_value() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("node.toml");
    fs::write(
        &file,
        "[listen]\npublik = \"planted-1\"\nadmin = \"planted-2\"\n[chat]\npartitions = \"planted-3\"\n\
         [[auth.ca]]\nfile = \"planted-4\"\nkinds = [\"planted-5\"]\nroles = []\nplanted = 1\n\
         [traffic]\nmax_handshakes = 0\n",
    )
    .expect("written");
    let args = LoadArgs {
        files: vec![file.clone(), folder.path().join("absent.toml")],
        env: env(&[
            ("SIMPUL_STORE__READERS", "planted-6"),
            ("SIMPUL_NO__SUCH_KEY", "planted-7"),
            ("SIMPUL_STORE__URL", "mysql://planted-8"),
        ]),
        ..LoadArgs::default()
    };
    let problems = load_alone(&args).expect_err("refused");
    let text = problems.to_string();
    assert!(!text.contains("planted-"), "{text}");
    let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
    for key in [
        "listen.publik",
        "listen.admin",
        "chat.partitions",
        "auth.ca[0].trust_domain",
        "auth.ca[0].kinds[0]",
        "auth.ca[0].planted",
        "traffic.max_handshakes",
        "store.readers",
        "no.such_key",
        "store.url",
    ] {
        assert!(keys.contains(&key), "{key} in {text}");
    }
    assert!(text.contains("absent.toml): the file does not exist"), "{text}");
    assert!(text.contains("listen.public is"), "{text}");
    assert!(text.contains("store.url (environment variable SIMPUL_STORE__URL)"), "{text}");
    assert!(text.contains(&format!("traffic.max_handshakes ({})", file.display())), "{text}");
}

#[test]
fn a_secret_may_stand_in_a_file_and_is_never_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("url");
    fs::write(&file, "sqlite:planted.db\n").expect("written");
    let path = file.display().to_string();
    let loaded = loaded(&[("SIMPUL_STORE__URL_FILE", &path)]);
    assert_eq!(loaded.config.store.url.expose_secret(), "sqlite:planted.db");
    let shown = format!("{:?}{:?}", loaded.effective(), loaded.config);
    assert!(!shown.contains("planted"), "{shown}");

    let both = folder.path().join("both.toml");
    fs::write(&both, format!("[store]\nurl = \"sqlite:\"\nurl_file = \"{path}\"\n"))
        .expect("written");
    let problems = refused(&LoadArgs { files: vec![both], ..LoadArgs::default() });
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].0, "store.url_file");
}

#[test]
fn production_refuses_what_development_makes_easy() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join(".env"), "SIMPUL_PAYMENT__SANDBOX=true\n").expect("written");
    let args = LoadArgs { profile: Some("production".into()), ..LoadArgs::default() };
    let problems = load_in(folder.path(), &args).expect_err("refused");
    let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["tls.cert_file", "tls.key_file", "auth.ca", "payment.provider"]);

    let pem = folder.path().join("some.pem");
    fs::write(&pem, "x").expect("written");
    let toml = format!(
        "[tls]\ncert_file = {pem:?}\nkey_file = {pem:?}\n[[auth.issuer]]\nissuer = \"i\"\n\
         jwks_file = {pem:?}\ntrust_domain = \"toko.example\"\nkinds = [\"user\"]\nroles = [\"customer\"]\n"
    );
    let file = folder.path().join("node.toml");
    fs::write(&file, toml).expect("written");
    let args = LoadArgs {
        files: vec![file],
        env_file: Some(folder.path().join(".env")),
        env: env(&[("SIMPUL_PROFILE", "production")]),
        ..LoadArgs::default()
    };
    let loaded = load_in(folder.path(), &args).expect("sound");
    assert_eq!(loaded.config.profile, Profile::Production);
    assert_eq!(loaded.config.listen.public.ip().to_string(), "0.0.0.0");
}

#[test]
fn numbers_and_names_must_fit_together() {
    for (key, value) in [
        ("chat.room_tail_bytes", "999999999999"),
        ("chat.max_body_bytes", "65536"),
        ("payment.lease", "1s"),
        ("traffic.default_deadline", "1h"),
        ("listen.admin", "127.0.0.1:7443"),
        ("node.id", "No Name"),
        ("telemetry.log", "simpul=nonsense=x"),
        ("auth.may_delegate", "user/ani@dev.simpul"),
        ("auth.bindings", r#"{"user/ani@dev.simpul": ["node"]}"#),
        ("tls.cert_file", "no-such-file.pem"),
        ("shutdown.grace", "2h"),
        ("shutdown.grace", "0s"),
        ("cluster.name", ""),
        ("cluster.name", "Bad Name!"),
        ("cluster.connections", "0"),
        ("cluster.connections", "100"),
        ("cluster.moves_per_second", "0"),
        ("cluster.backlog_bytes", "1"),
        ("node.advertise_public", "foo"),
        ("node.advertise_mesh", "0.0.0.0:0"),
        ("node.zone", "a\nb"),
        ("store.connections", "0"),
        ("store.connections", "3"),
        ("store.statement_timeout", "0s"),
        ("store.connect_timeout", "0s"),
        ("store.url", "postgres://me@a/db,sqlite:x"),
    ] {
        let args = LoadArgs { overrides: env(&[(key, value)]), ..LoadArgs::default() };
        let problems = refused(&args);
        assert!(
            problems.iter().any(|(at, source)| at.starts_with(key) && source == "a flag"),
            "{key}: {problems:?}"
        );
    }
    let args = LoadArgs { profile: Some("staging".into()), ..LoadArgs::default() };
    assert_eq!(refused(&args), [("profile".into(), "--profile".into())]);
}

#[test]
fn every_key_stands_in_the_docs() {
    let docs = include_str!("../../docs/configuration.md");
    for key in keys::KEYS {
        let name = key.path;
        assert!(docs.contains(&format!("| `{name}` |")), "{name} is not in docs/configuration.md");
    }
    let telemetry = include_str!("../../docs/telemetry.md");
    for name in show::OTEL_VARIABLES {
        assert!(telemetry.contains(&format!("`{name}`")), "{name} is not in docs/telemetry.md");
    }
}
