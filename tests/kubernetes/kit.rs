//! The Kubernetes kit: found, started, and entered.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// The variable that names its folder.
const FOLDER: &str = "SIMPUL_TEST_KUBE";

/// Set in the process that runs inside the cluster's network.
const INSIDE: &str = "SIMPUL_TEST_KUBE_INSIDE";

/// What names are asked of, there. (And addresses of Services need some route before
/// they are replaced by a pod's.)
const RESOLVER: &str = "nameserver 10.244.0.1\n\
    search simpul.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";

#[derive(Debug, Clone)]
pub struct Kit {
    folder: PathBuf,
}

/// Says that something was not tested.
pub fn not_run(what: &str) {
    println!("NOT RUN: {what}");
}

pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

impl Kit {
    /// The kit, built; or a word about what is missing.
    pub fn find() -> Option<Self> {
        let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
            not_run(&format!("Kubernetes: {FOLDER} names no Kubernetes kit"));
            return None;
        };
        if !folder.join("bin/kube").exists() {
            not_run("Kubernetes: the kit is not built: run its ./build");
            return None;
        }
        for tool in ["kubectl", "buildah", "unshare"] {
            if !on_path(tool) {
                not_run(&format!("Kubernetes: {tool} is not installed"));
                return None;
            }
        }
        if !rustix::process::geteuid().is_root() {
            not_run("Kubernetes: the kit needs root");
            return None;
        }
        Some(Self { folder })
    }

    /// Runs this program again inside the cluster's network, with the cluster's
    /// names; brings the cluster up, and down again unless it was up.
    pub fn enter(&self) -> ExitCode {
        let was_up = self.answers();
        if !was_up {
            let up = Command::new(self.folder.join("up")).stdout(Stdio::null()).status();
            assert!(up.expect("up").success(), "the kit does not come up");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let resolver = dir.path().join("resolv.conf");
        std::fs::write(&resolver, RESOLVER).expect("written");
        let script = "mount --bind \"$1\" /etc/resolv.conf && shift && { ip route get 10.96.0.1 \
            >/dev/null 2>&1 || ip route add 10.96.0.0/16 dev kube-kit0; } && exec \"$@\"";
        let mut inside = Command::new(self.folder.join("in"));
        inside.args(["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
        inside.arg(&resolver).arg(std::env::current_exe().expect("this program"));
        inside.args(std::env::args_os().skip(1)).env(INSIDE, "1");
        let status = inside.status().expect("it runs");
        if !was_up && std::env::var_os("SIMPUL_TEST_KEEP").is_none() {
            let _ = Command::new(self.folder.join("down")).status();
        }
        if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn answers(&self) -> bool {
        let mut asked = Command::new(self.folder.join("in"));
        asked.args(["kubectl", "get", "--raw", "/readyz", "--request-timeout=3s"]);
        asked.stdout(Stdio::null()).stderr(Stdio::null());
        Path::new("/run/netns").join("kube-kit").exists()
            && asked.status().is_ok_and(|status| status.success())
    }

    /// Puts an image into the cluster: a folder with its entry point, or an archive.
    pub async fn image(&self, name: &str, source: &Path, entry: &[&str]) {
        let mut args: Vec<OsString> = vec![name.into(), source.into()];
        args.extend(entry.iter().map(OsString::from));
        let put = run(self.folder.join("image"), args, None).await;
        put.unwrap_or_else(|error| panic!("the image {name}: {error}"));
    }
}

fn on_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(tool).exists())
}

/// Runs a command; what it printed, or what it complained about.
pub async fn run(
    program: impl Into<PathBuf>,
    args: impl IntoIterator<Item = impl Into<OsString>>,
    input: Option<String>,
) -> Result<String, String> {
    let program = program.into();
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    tokio::task::spawn_blocking(move || run_blocking(&program, &args, input.as_deref()))
        .await
        .expect("the command's thread")
}

fn run_blocking(program: &Path, args: &[OsString], input: Option<&str>) -> Result<String, String> {
    use std::io::Write;
    let mut command = Command::new(program);
    command.args(args).stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        // One that does not read everything says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{} {args:?}: {said}", program.display()))
    }
}

/// Asks Kubernetes, in the namespace of the demonstration.
pub async fn ask(args: &[&str]) -> Result<String, String> {
    let args = ["--namespace", "simpul"].iter().chain(args).map(|arg| (*arg).to_owned());
    run("kubectl", args, None).await
}

/// The same, of what must work.
pub async fn kubectl(args: &[&str]) -> String {
    ask(args).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Gives Kubernetes a manifest in JSON or YAML.
pub async fn give(command: &[&str], manifest: String) -> Result<String, String> {
    let args = [&["--namespace", "simpul"], command, &["-f", "-"]].concat();
    run("kubectl", args, Some(manifest)).await
}

/// Waits until something is there.
pub async fn until<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
