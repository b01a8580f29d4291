//! Where the servers are, from `store.url`: one PostgreSQL URL or several,
//! separated by commas or white space; a URL may also name several hosts
//! (`postgres://user@a:5432,b:5433/db`), as libpq has it.
//!
//! Nothing here repeats a URL or a part of it: it may hold a password.

use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;

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
    if known { Ok(()) } else { Err(AddressError::Parameter { at }) }
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
    fn what_is_wrong_is_told_without_repeating_it() {
        for text in ["", "hunter2", "postgres:", "postgres://me:hunter2@a:port/db"] {
            let error = parse(text).expect_err(text);
            assert_eq!(error, AddressError::Form { at: 1 }, "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
        let error = parse("postgres://a/db,postgres://a/db?passwd=hunter2").expect_err("unknown");
        assert_eq!(error, AddressError::Parameter { at: 2 });
        assert!(!error.to_string().contains("hunter2"));
        assert!(!is_postgres("sqlite:") && is_postgres("postgresql://a/b"));
    }
}
