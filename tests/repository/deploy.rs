//! The files of deploy/ that no node reads: whether those who do would take them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::not_run;

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

fn simpul(dir: &Path, args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_simpul"))
        .args(args)
        .env_clear()
        .env("HOME", dir)
        .current_dir(dir)
        .output()
        .expect("the binary starts")
}

#[test]
fn systemd_takes_the_unit_and_finds_it_closed() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return not_run("the unit against systemd: systemd-analyze is not installed");
    }
    // The unit with a binary that is there.
    let dir = tempfile::tempdir().expect("a directory");
    let unit = dir.path().join("simpul.service");
    let text = std::fs::read_to_string(deploy("systemd/simpul.service")).expect("the unit");
    let here = env!("CARGO_BIN_EXE_simpul");
    assert!(text.contains("ExecStart=/usr/local/bin/simpul "));
    let text = text.replace("/usr/local/bin/simpul ", &format!("{here} "));
    std::fs::write(&unit, &text).expect("written");
    let analyze = |args: &[&str]| {
        let output = Command::new("systemd-analyze").args(args).arg(&unit).output().expect("runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let (sound, said) = analyze(&["verify", "--man=no"]);
    assert!(sound && said.trim().is_empty(), "{said}");
    // Exposure from 0 to 10, in tenths.
    let (closed, said) = analyze(&["security", "--offline=true", "--threshold=12"]);
    assert!(closed, "{said}");
    // What the file says of the command, clap says too.
    for line in ["Type=notify", "WatchdogSec=", "ExecReload=/bin/kill -HUP $MAINPID"] {
        assert!(text.contains(line), "{line}");
    }
    let help = simpul(dir.path(), &["serve", "--profile", "production", "--config", "x", "--help"]);
    assert!(help.status.success());
}

#[test]
fn the_compose_file_is_what_compose_takes() {
    let file = deploy("compose/compose.yaml");
    let python = std::env::var("SIMPUL_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let knows = Command::new(&python).args(["-c", "import check_jsonschema"]).output();
    if !knows.is_ok_and(|output| output.status.success()) {
        return not_run("the compose file: no Python with check-jsonschema");
    }
    let schema = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"];
    let output = Command::new(&python).args(schema).arg(&file).output().expect("Python runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    let compose = ["compose", "--file"];
    let there = Command::new("docker").args(["compose", "version"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        return not_run("docker compose config: docker compose is not installed");
    }
    let args = [&compose[..], &[file.to_str().expect("UTF-8"), "config", "--quiet"]].concat();
    let output = Command::new("docker").args(args).output().expect("docker runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The composition's own one-shot makes the certificates, and with them the
/// nodes' configuration is sound.
#[test]
fn the_compositions_certificates_and_configuration_fit_each_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let compose = std::fs::read_to_string(deploy("compose/compose.yaml")).expect("the file");
    let wanted: Vec<String> = compose
        .lines()
        .skip_while(|line| *line != "      - cert")
        .map_while(|line| line.strip_prefix("      - "))
        .filter(|word| !word.starts_with("--owner"))
        .map(|word| word.replace("/pki", "pki"))
        .collect();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    assert_eq!(wanted.get(..2), Some(&["cert", "cluster"][..]));
    let made = simpul(dir.path(), &wanted);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let again = simpul(dir.path(), &wanted);
    assert!(String::from_utf8_lossy(&again.stdout).contains("everything is there"));

    let pki = dir.path().join("pki");
    let text = std::fs::read_to_string(deploy("compose/simpul.toml")).expect("the file");
    let text = text.replace("/pki", pki.to_str().expect("UTF-8"));
    std::fs::write(dir.path().join("simpul.toml"), text).expect("written");
    for node in ["a", "b", "c"] {
        let block = compose.split(&format!("\n  {node}:\n")).nth(1).expect("the node");
        let block = block.split("\n    ports:").next().expect("its environment");
        let variables = block.lines().filter_map(|line| line.trim().split_once(": "));
        let variables = variables.filter(|(name, _)| name.starts_with("SIMPUL_"));
        let url = ("SIMPUL_STORE__URL", "postgres://simpul:x@postgres/simpul");
        let output = Command::new(env!("CARGO_BIN_EXE_simpul"))
            .args(["config", "check", "--profile", "production", "--config", "simpul.toml"])
            .env_clear()
            .env("HOME", dir.path())
            .env(url.0, url.1)
            .env("SIMPUL_DATA_DIR", dir.path().join("data"))
            .envs(variables.map(|(k, v)| (k, v.replace("/pki", pki.to_str().expect("UTF-8")))))
            .current_dir(dir.path())
            .output()
            .expect("the binary starts");
        assert!(output.status.success(), "{node}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The container file takes the toolchain of its base: it must be the project's.
#[test]
fn the_container_files_base_is_of_the_projects_toolchain() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pinned = std::fs::read_to_string(root.join("rust-toolchain.toml")).expect("the toolchain");
    let pinned: toml::Table = toml::from_str(&pinned).expect("TOML");
    let channel = pinned["toolchain"]["channel"].as_str().expect("a channel");
    let recipe = std::fs::read_to_string(deploy("Containerfile")).expect("the container file");
    let base = recipe.lines().find_map(|line| line.strip_prefix("ARG RUST=")).expect("a base");
    assert_eq!(base, format!("docker.io/library/rust:{channel}-bookworm"));
}
