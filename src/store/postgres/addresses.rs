//! Where the servers are, from `store.url`: one PostgreSQL URL or several,
//! separated by commas or white space; a URL may also name several hosts
//! (`postgres://user@a:5432,b:5433/db`), as libpq has it.
//!
//! No error repeats a URL: it may hold a password. What is told of a server that
//! was understood is its host and port, and the files that it names.

use std::str::FromStr as _;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// What a URL may say after `?`.
const PARAMETERS: [&str; 9] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "port", "dbname", "user", "password"];

/// Why a `store.url` names no servers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Address `at` (from 1) is not a URL of PostgreSQL.
    #[error("address {at} is not a PostgreSQL URL (`postgres://user@host:port/database`)")]
    Form {
        /// Which, from 1.
        at: usize,
    },
    /// Address `at` has a parameter that is not known here.
    #[error(
        "address {at} has an unknown parameter; known are sslmode, sslrootcert, sslcert, sslkey, \
         host, port, dbname, user and password"
    )]
    Parameter {
        /// Which, from 1.
        at: usize,
    },
    /// Address `at` has an `sslmode` that there is not.
    #[error(
        "address {at} has an unknown sslmode; known are disable, prefer, require, verify-ca and \
         verify-full"
    )]
    Mode {
        /// Which, from 1.
        at: usize,
    },
}

/// The server for logs and errors: its host and port or its socket's directory,
/// without user and password.
pub(super) fn place(server: &PgConnectOptions) -> String {
    match server.get_socket() {
        Some(socket) => format!("{}:{}", socket.display(), server.get_port()),
        None => format!("{}:{}", server.get_host(), server.get_port()),
    }
}

/// The first file that a server's parameters name and that cannot be read, with
/// the reason.
pub(super) fn unreadable_file(server: &PgConnectOptions) -> Option<String> {
    if matches!(server.get_ssl_mode(), PgSslMode::Disable) {
        return None;
    }
    let url = server.to_url_lossy();
    url.query_pairs().find_map(|(name, path)| {
        let is_file = matches!(&*name, "sslrootcert" | "sslcert" | "sslkey");
        // The library writes a path so; what is no path may be the key itself.
        let path = path.strip_prefix("file: ").filter(|_| is_file)?;
        let error = std::fs::File::open(path).err()?;
        Some(format!("{name} {path}: {error}"))
    })
}

/// Whether the text is for this engine at all.
pub fn is_postgres(url: &str) -> bool {
    let url = url.trim_start();
    url.starts_with("postgres:") || url.starts_with("postgresql:")
}

/// The servers, in the order in which they are tried.
pub fn parse(text: &str) -> Result<Vec<PgConnectOptions>, AddressError> {
    let mut servers = Vec::new();
    for (index, url) in split(text).iter().enumerate() {
        let at = index + 1;
        for single in hosts(url).ok_or(AddressError::Form { at })? {
            check_parameters(&single, at)?;
            let options = PgConnectOptions::from_str(&single);
            servers.push(options.map_err(|_| AddressError::Form { at })?);
        }
    }
    if servers.is_empty() { Err(AddressError::Form { at: 1 }) } else { Ok(servers) }
}

/// A comma that no new URL follows belongs to the URL before it.
fn split(text: &str) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    for piece in text.split_whitespace().flat_map(|word| word.split(',')) {
        match urls.last_mut() {
            Some(last) if !is_postgres(piece) && !piece.is_empty() => {
                last.push(',');
                last.push_str(piece);
            }
            _ if piece.is_empty() => {}
            _ => urls.push(piece.to_owned()),
        }
    }
    urls
}

/// One URL for each host of a URL.
fn hosts(url: &str) -> Option<Vec<String>> {
    let (scheme, rest) = url.split_once("://").filter(|_| is_postgres(url))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    // A password with a bare `/` or `#`: a part of it would be read as the host.
    let path = tail.split('?').next().unwrap_or_default();
    if path.contains('@') || url.contains('#') {
        return None;
    }
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    Some(hosts.split(',').map(|host| format!("{scheme}://{user}{host}{tail}")).collect())
}

/// The library would log the value of one that it does not know.
fn check_parameters(url: &str, at: usize) -> Result<(), AddressError> {
    let Some((_, query)) = url.split_once('?') else { return Ok(()) };
    let known = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .all(|pair| PARAMETERS.contains(&pair.split('=').next().unwrap_or("")));
    if !known {
        return Err(AddressError::Parameter { at });
    }
    let mode = query.split('&').find_map(|pair| pair.strip_prefix("sslmode="));
    match mode {
        Some(mode) if !mode.contains('%') && PgSslMode::from_str(mode).is_err() => {
            Err(AddressError::Mode { at })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<(String, u16)> {
        let servers = parse(text).expect("parsed");
        servers.iter().map(|one| (one.get_host().to_owned(), one.get_port())).collect()
    }

    #[test]
    fn one_text_names_many_servers() {
        let two = [("a".to_owned(), 5432), ("b".to_owned(), 5433)];
        assert_eq!(places("postgres://me@a:5432,b:5433/db"), two);
        assert_eq!(places("postgres://me@a:5432/db,postgres://me@b:5433/db"), two);
        assert_eq!(places(" postgres://me@a:5432/db\n postgresql://me@b:5433/db "), two);
        assert_eq!(places("postgres://me:x%2C,y@a:5432/db , postgres://me@b:5433/db"), two);
        assert_eq!(places("postgres://me@a:5432/db").len(), 1);
        let all = parse("postgres://me@a,b/db?sslmode=verify-full").expect("parsed");
        for server in all {
            assert_eq!(server.get_database(), Some("db"));
            assert!(matches!(server.get_ssl_mode(), sqlx::postgres::PgSslMode::VerifyFull));
        }
    }

    #[test]
    fn a_server_is_told_without_its_password_and_its_files_by_path() {
        let text = "postgres://me:hunter2@a:5433/db?sslmode=verify-full&sslrootcert=/no/such.pem";
        let servers = parse(text).expect("parsed");
        assert_eq!(place(&servers[0]), "a:5433");
        let why = unreadable_file(&servers[0]).expect("it is not there");
        assert!(why.starts_with("sslrootcert /no/such.pem: ") && !why.contains("hunter2"), "{why}");
        let servers = parse("postgres://me@a/db").expect("parsed");
        assert_eq!(unreadable_file(&servers[0]), None);
    }

    #[test]
    fn what_is_wrong_is_told_without_repeating_it() {
        for text in ["", "hunter2", "postgres:", "postgres://me:hunter2@a:port/db"] {
            let error = parse(text).expect_err(text);
            assert_eq!(error, AddressError::Form { at: 1 }, "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
        let error = parse("postgres://a/db,postgres://a/db?passwd=hunter2").expect_err("unknown");
        assert_eq!(error, AddressError::Parameter { at: 2 });
        assert!(!error.to_string().contains("hunter2"));
        let error = parse("postgres://a/db?sslmode=verifyfull").expect_err("unknown");
        assert_eq!(error, AddressError::Mode { at: 1 });
        for text in ["postgres://me:12/hunter2@a/db", "postgres://me:12#hunter2@a/db"] {
            assert_eq!(parse(text).expect_err(text), AddressError::Form { at: 1 });
        }
        assert!(!is_postgres("sqlite:") && is_postgres("postgresql://a/b"));
    }
}
