//! Named points at which a test may count, hold and then kill the process.
//!
//! They exist only with the cargo feature `fault`, which releases do not have;
//! without it [`point`] is nothing. With it, and with SIMPUL_TEST_FAULT_DIR
//! set, passing the point `x` appends a byte to the file `x` in that directory
//! (its length counts the passes) and then waits while the file `x.hold`
//! exists.

/// Passes a point. Points are named after what has just become true. Example:
/// `payment.submitting`.
#[cfg(not(feature = "fault"))]
#[inline]
pub async fn point(_name: &'static str) {}

/// Passes a point. Points are named after what has just become true. Example:
/// `payment.submitting`.
#[cfg(feature = "fault")]
pub async fn point(name: &'static str) {
    use std::io::Write;
    use std::path::PathBuf;

    let Some(dir) = std::env::var_os("SIMPUL_TEST_FAULT_DIR").map(PathBuf::from) else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(dir.join(name));
    if let Err(error) = file.and_then(|mut file| file.write_all(b".")) {
        tracing::warn!(%error, name, "the fault point cannot be counted");
    }
    let hold = dir.join(format!("{name}.hold"));
    while hold.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
