//! The Kubernetes manifests, without a cluster: every overlay renders, and what it
//! renders to is right by Kubernetes' own schemas and by our rules
//! (`tests/python/manifests.py`).
//!
//! Needs kubectl or kustomize, and a Python with kubernetes-validate; says so where
//! they are missing. `tests/run` brings both.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::not_run;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What renders a folder: a command and its first arguments.
fn renderer() -> Option<&'static [&'static str]> {
    let works = |command: &[&str]| {
        let (program, args) = command.split_first().expect("a program");
        Command::new(program).args(args).arg("--help").output().is_ok_and(|o| o.status.success())
    };
    [["kubectl", "kustomize"].as_slice(), &["kustomize", "build"]]
        .into_iter()
        .find(|command| works(command))
}

/// A Python that has the schemas.
fn python() -> Option<String> {
    let python = std::env::var("SIMPUL_TEST_PYTHON").ok()?;
    let imports = Command::new(&python).args(["-c", "import kubernetes_validate, yaml"]).output();
    imports.is_ok_and(|output| output.status.success()).then_some(python)
}

/// Runs a command that must succeed; what it printed.
fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}: {printed}{said}");
    output.stdout
}

/// A copy of the manifests with the demonstration's secrets in it.
fn manifests() -> TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    // Its Prometheus takes the rules that stand there.
    for folder in ["k8s", "deploy/prometheus"] {
        run(Command::new("cp")
            .args(["-r", "--parents", folder])
            .arg(copy.path())
            .current_dir(root()));
    }
    let demo = copy.path().join("k8s/overlays/demo");
    let _ = std::fs::remove_dir_all(demo.join("secrets"));
    run(Command::new(demo.join("secrets.sh")).arg(env!("CARGO_BIN_EXE_simpul")));
    copy
}

#[test]
fn every_overlay_renders_to_manifests_that_are_right() {
    let Some(renderer) = renderer() else {
        return not_run("manifests: neither kubectl nor kustomize is here");
    };
    let copy = manifests();
    let folder = copy.path().join("k8s");
    let mut files: Vec<PathBuf> = vec![folder.join("examples/gateway.yaml")];
    for overlay in ["single", "cluster", "cert-manager", "demo"] {
        let (program, args) = renderer.split_first().expect("a program");
        let mut render = Command::new(program);
        let rendered = run(render.args(args).arg(folder.join("overlays").join(overlay)));
        let file = copy.path().join(format!("{overlay}.yaml"));
        std::fs::write(&file, rendered).expect("written");
        files.push(file);
    }
    let Some(python) = python() else {
        return not_run("manifests: the schemas: no Python with kubernetes-validate");
    };
    let check = root().join("tests/python/manifests.py");
    let said = run(Command::new(&python).arg(&check).args(&files));
    assert!(String::from_utf8_lossy(&said).ends_with("manifests are right\n"));
    // The check itself finds what is wrong.
    let single = std::fs::read_to_string(&files[1]).expect("the overlay");
    for (right, wrong) in [
        ("readinessProbe:", "readynessProbe:"),
        ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
        ("drop:", "add:"),
        ("name: data\n", "name: date\n"),
        ("value: $(POD_NAME)\n", "value: $(POD_NAMES)\n"),
        ("targetPort: public\n", "targetPort: publik\n"),
        ("key: simpul.dev/scrapes\n", "key: simpul.dev/scraped\n"),
    ] {
        assert!(single.contains(right), "{right}");
        std::fs::write(&files[1], single.replacen(right, wrong, 1)).expect("written");
        let output = Command::new(&python).arg(&check).arg(&files[1]).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{wrong} is found");
    }
}

/// What the manifests say of the program is what the program says.
#[test]
fn the_times_of_a_pods_end_fit_the_drain() {
    let nodes = std::fs::read_to_string(root().join("k8s/base/nodes.yaml")).expect("the set");
    let config = std::fs::read_to_string(root().join("k8s/base/simpul.toml")).expect("its file");
    let end = std::fs::read_to_string(root().join("src/node/end.rs")).expect("the end's times");
    let number = |text: &str, before: &str, after: &str| -> u64 {
        let rest = text.split_once(before).expect(before).1;
        rest.split_once(after).expect(after).0.trim().parse().expect("a number")
    };
    let ends = number(&nodes, "terminationGracePeriodSeconds: ", "\n");
    let sleeps = number(&nodes, "sleep: { seconds: ", " }");
    let delay = number(&config, "delay = \"", "s\"");
    let grace = number(&config, "grace = \"", "s\"");
    // All steps of the end have one deadline together; late ones take this more.
    let late = number(&end, "const LATE: Duration = Duration::from_secs(", ")");
    assert!(ends > sleeps + delay + grace + late, "{ends} s for {sleeps} + {delay} + {grace}");
}
