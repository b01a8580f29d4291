//! Where the database is, from `store.url`.

use std::path::{Path, PathBuf};

/// The database's name in the data directory.
pub const FILE: &str = "simpul.db";

/// Why a URL is not one of this engine. It never repeats the URL, which may
/// hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Another engine.
    #[error("the scheme `{0}` has no engine in this release; `sqlite:` and `postgres:` have")]
    Scheme(String),
    /// No scheme at all.
    #[error("must be `sqlite:`, `sqlite:PATH` or `postgres://…`")]
    Form,
}

/// The file of `sqlite:`, `sqlite:PATH` or `sqlite://PATH`; a relative path is
/// relative to the working directory, none at all means the data directory.
pub fn file(url: &str, data_dir: &Path) -> Result<PathBuf, LocationError> {
    let (scheme, rest) = url.split_once(':').ok_or(LocationError::Form)?;
    if scheme != "sqlite" {
        let named = !scheme.is_empty()
            && scheme.len() <= 32
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        return Err(match named {
            true => LocationError::Scheme(scheme.to_owned()),
            false => LocationError::Form,
        });
    }
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.contains('?') || path == ":memory:" {
        return Err(LocationError::Form);
    }
    Ok(if path.is_empty() { data_dir.join(FILE) } else { PathBuf::from(path) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_file_or_is_refused_without_being_repeated() {
        let at = |url| file(url, Path::new("/data"));
        assert_eq!(at("sqlite:"), Ok(PathBuf::from("/data/simpul.db")));
        assert_eq!(at("sqlite://"), Ok(PathBuf::from("/data/simpul.db")));
        assert_eq!(at("sqlite:/else/a.db"), Ok(PathBuf::from("/else/a.db")));
        assert_eq!(at("sqlite:///else/a.db"), Ok(PathBuf::from("/else/a.db")));
        assert_eq!(at("sqlite:a.db"), Ok(PathBuf::from("a.db")));
        let postgres = at("postgres://me:hunter2@db/x").expect_err("another engine");
        assert_eq!(postgres, LocationError::Scheme("postgres".to_owned()));
        assert!(!postgres.to_string().contains("hunter2"));
        for bad in ["", "hunter2", "a b:c", "sqlite::memory:", "sqlite:x?mode=ro"] {
            assert_eq!(at(bad), Err(LocationError::Form), "{bad}");
        }
    }
}
