//! What a bad configuration gets: everything that is wrong, at once, before
//! anything binds.

use crate::support::command;

fn serve(env: &[(&str, &str)], args: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let output = command(dir.path())
        .env("SIMPUL_LISTEN__PUBLIC", "127.0.0.1:0")
        .env("SIMPUL_LISTEN__ADMIN", "127.0.0.1:0")
        .envs(env.iter().copied())
        .args(args)
        .output()
        .expect("it ran");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn every_problem_is_told_at_once_with_its_key_and_never_its_value() {
    let (code, said) = serve(
        &[
            ("SIMPUL_LISTEN__PUBIC", "127.0.0.1:0"),
            ("SIMPUL_CHAT__PARTITIONS", "manyhundreds"),
            ("SIMPUL_TLS__CERT_FILE", "/does/not/exist.pem"),
            ("SIMPUL_STORE__URL", "postgres://simpul:hunter2@db/simpul"),
        ],
        &["serve"],
    );
    assert_eq!(code, Some(64), "{said}");
    for key in ["listen.pubic", "chat.partitions"] {
        assert!(said.contains(key), "{key} is missing:\n{said}");
    }
    for value in ["manyhundreds", "hunter2"] {
        assert!(!said.contains(value), "{value} is shown:\n{said}");
    }
}

#[test]
fn kubernetes_service_links_are_not_keys_and_numbers_may_be_strings() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = command(dir.path())
        .env("SIMPUL_PORT", "tcp://10.0.0.1:7443")
        .env("SIMPUL_SERVICE_HOST", "10.0.0.1")
        .env("SIMPUL_NODE__ID", "12345678")
        .args(["config", "check"])
        .output()
        .expect("it ran");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_taken_port_is_69_and_a_newer_data_directory_is_64() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let (code, said) = serve(&[("SIMPUL_LISTEN__PUBLIC", &address)], &["serve"]);
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("listen.public"), "{said}");

    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("version"), "999\n").expect("written");
    let output = command(dir.path()).arg("serve").output().expect("it ran");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("newer"), "{said}");
}

#[test]
fn production_refuses_what_development_makes_easy() {
    let (code, said) =
        serve(&[("SIMPUL_PROFILE", "production"), ("SIMPUL_DATA_DIR", "d")], &["serve"]);
    assert_eq!(code, Some(64), "{said}");
    for key in ["tls.cert_file", "payment.sandbox"] {
        assert!(said.contains(key), "{key} is missing:\n{said}");
    }
}
