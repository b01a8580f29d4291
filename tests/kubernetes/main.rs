//! Simpul on a real Kubernetes: the demo overlay, with clients that never rest
//! connected through the Service, and everything that happens to a deployment.
//!
//! Runs where `SIMPUL_TEST_KUBE` names the folder of a Kubernetes kit (`up`,
//! `down`, `in`, `image`: a cluster of plain processes on this machine that pulls
//! nothing), and says so where it does not:
//!
//! ```text
//! SIMPUL_TEST_KUBE=<folder> cargo test --features fault --test kubernetes
//! SIMPUL_TEST_KUBE=<folder> cargo test --features fault --test kubernetes -- rollouts scale
//! ```
//!
//! | variable | what |
//! |---|---|
//! | `SIMPUL_TEST_BINARY` | this binary goes into the image, instead of the one under test |
//! | `SIMPUL_TEST_ROLLOUTS` | so many rollouts; 2 |
//! | `SIMPUL_TEST_JAEGER` | the binary of Jaeger, for an image of it |
//! | `SIMPUL_TEST_KEEP` | leaves the cluster up |
//!
//! PostgreSQL and Prometheus run from images of this machine's own packages.
//! Events follow each other on one cluster; each leaves it as it found it.

#![allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::unwrap_used)]
#![allow(clippy::print_stdout)] // It says how it went.

mod clients;
mod events;
#[path = "../history/mod.rs"]
mod history;
mod kit;
mod pods;
#[path = "../chaos/record.rs"]
mod record;
mod site;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;

use clients::Clients;
use events::EVENTS;
use kit::Kit;
use record::Record;
use site::Site;

fn main() -> ExitCode {
    let Some(kit) = Kit::find() else {
        return ended(0, 0);
    };
    if !kit::is_inside() {
        return kit.enter();
    }
    // The story tells what went wrong; the hook only where.
    std::panic::set_hook(Box::new(|panic| {
        if let Some(at) = panic.location() {
            eprintln!("at {}:{}", at.file(), at.line());
        }
    }));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (passed, failed) = runtime.block_on(story(kit));
    ended(passed, failed)
}

/// As libtest says it, for who counts.
fn ended(passed: usize, failed: usize) -> ExitCode {
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn story(kit: Kit) -> (usize, usize) {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let (mut passed, mut failed) = (0, 0);
    let mut tell = |name: &str, begun: Instant, outcome: std::thread::Result<String>| {
        let took = begun.elapsed().as_secs();
        match outcome {
            Ok(said) => {
                passed += 1;
                println!("ok    {name} ({took} s): {said}");
            }
            Err(panic) => {
                failed += 1;
                println!("FAIL  {name} ({took} s): {}", reason(&*panic));
            }
        }
    };
    let begun = Instant::now();
    let site = match AssertUnwindSafe(Site::deploy(kit)).catch_unwind().await {
        Ok(site) => Arc::new(site),
        Err(panic) => {
            tell("deploy", begun, Err(panic));
            return (passed, failed);
        }
    };
    tell("deploy", begun, Ok(site.story.clone()));
    let record = Arc::new(Record::new());
    let clients = Clients::start(&site, record).await;
    for event in EVENTS {
        if !wanted.is_empty() && !wanted.iter().any(|name| event.name.contains(name.as_str())) {
            continue;
        }
        let (from, begun) = (clients.now(), Instant::now());
        let outcome = AssertUnwindSafe(async {
            let said = (event.run)(&site, &clients).await;
            clients.going_on().await;
            let seen = clients.since(from);
            assert!(
                event.may_fail_calls || seen.failed.is_empty(),
                "{} of {} calls failed: {:?}",
                seen.failed.len(),
                seen.calls,
                seen.failed.iter().take(5).collect::<Vec<_>>()
            );
            format!("{said}; {seen}")
        });
        tell(event.name, begun, outcome.catch_unwind().await);
    }
    let begun = Instant::now();
    let judged = AssertUnwindSafe(clients.judged()).catch_unwind().await;
    tell("nothing lost, doubled or out of order", begun, judged);
    site.end().await;
    (passed, failed)
}

fn reason(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "it panicked".to_owned())
}
