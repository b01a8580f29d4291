//! What is wrong with the configured files and names, each under the key that
//! must be changed.

/// One thing that keeps the node from starting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct SecurityProblem {
    /// The configuration key. Example: `tls.cert_file`.
    pub key: String,
    /// What is wrong and what would be right; never the contents of a file.
    pub message: String,
}

impl SecurityProblem {
    /// Under a key.
    pub fn new(key: impl Into<String>, message: impl ToString) -> Self {
        Self { key: key.into(), message: message.to_string() }
    }
}
