//! Which engine, and where, from `store.url`. Nothing here repeats the URL,
//! which may hold a password.

use std::path::{Path, PathBuf};

use super::postgres::addresses::{self, AddressError};
use super::sqlite::location as sqlite;

/// What `store.url` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// The embedded engine's file.
    Sqlite(PathBuf),
    /// One or several PostgreSQL servers; the URL goes into
    /// [`PgSettings`](super::postgres::PgSettings) as it is.
    Postgres,
}

/// Why it names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Neither engine's, or not a file's.
    #[error(transparent)]
    Sqlite(#[from] sqlite::LocationError),
    /// PostgreSQL, but not as it must be.
    #[error(transparent)]
    Postgres(#[from] AddressError),
}

/// What the URL names; `sqlite:` alone is a file in the data directory.
pub fn of(url: &str, data_dir: &Path) -> Result<Location, LocationError> {
    if addresses::is_postgres(url) {
        addresses::parse(url)?;
        return Ok(Location::Postgres);
    }
    Ok(Location::Sqlite(sqlite::file(url, data_dir)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_engine_is_told_by_its_scheme() {
        let at = |url| of(url, Path::new("/data"));
        assert_eq!(at("sqlite:"), Ok(Location::Sqlite("/data/simpul.db".into())));
        assert_eq!(at("postgres://me:hunter2@a,b/db"), Ok(Location::Postgres));
        for wrong in ["postgres://me:hunter2@a:x/db", "mysql://me:hunter2@a/db", "hunter2"] {
            let refused = at(wrong).expect_err(wrong);
            assert!(!refused.to_string().contains("hunter2"), "{refused}");
        }
    }
}
