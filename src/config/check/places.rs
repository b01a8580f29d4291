//! Names and addresses: of the cluster, of where the node is reached, of its
//! databases. A problem tells a value's shape, never the value.

use super::Broken;
use crate::config::schema::Config;
use crate::id;

/// The longest `node.zone`, characters.
const MAX_ZONE: usize = 64;

pub(super) fn check(config: &Config, broken: &mut Broken) {
    let name = &config.cluster.name;
    broken.unless(id::is_short_name(name), "cluster.name", id::short_name_rule(name));
    let node = &config.node;
    for (key, address) in [
        ("node.advertise_public", &node.advertise_public),
        ("node.advertise_mesh", &node.advertise_mesh),
    ] {
        if let Some(wrong) = address.as_deref().and_then(unreachable) {
            let rule = format!("must be HOST:PORT where others reach the node; {wrong}");
            broken.unless(false, key, rule);
        }
    }
    zone(&node.zone, broken);
}

fn zone(zone: &str, broken: &mut Broken) {
    let length = zone.chars().count();
    broken.unless(
        length <= MAX_ZONE,
        "node.zone",
        format!("must have at most {MAX_ZONE} characters; it has {length}"),
    );
    if let Some(at) = zone.chars().position(char::is_control) {
        let rule = format!("must have no control characters; number {} is one", at + 1);
        broken.unless(false, "node.zone", rule);
    }
}

/// Why nobody can connect to `HOST:PORT`.
fn unreachable(address: &str) -> Option<&'static str> {
    let Some((host, port)) = address.rsplit_once(':') else { return Some("it has no port") };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let inner = bracketed.unwrap_or(host);
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let address = inner.parse::<std::net::IpAddr>().ok();
    match port.parse::<u16>() {
        Err(_) => return Some("its port is not a number of 1 to 65535"),
        Ok(0) => return Some("its port is 0"),
        Ok(_) => {}
    }
    match address {
        _ if inner.is_empty() => Some("it has no host"),
        Some(ip) if ip.is_unspecified() => Some("its host is every address, which is no place"),
        Some(ip) if ip.is_ipv6() != bracketed.is_some() => {
            Some("an IPv6 address, and nothing else, stands in brackets")
        }
        Some(_) => None,
        None if bracketed.is_some() || !inner.chars().all(known) => {
            Some("its host is neither a name nor an address")
        }
        None => None,
    }
}

/// Whether every URL of the text is one of PostgreSQL. What has no scheme
/// belongs to the URL before it.
pub(super) fn are_of_postgres(urls: &str) -> bool {
    let others = |piece: &str| {
        let scheme = piece.split_once(':').map_or("", |(scheme, _)| scheme);
        matches!(scheme, "sqlite" | "file")
            || (piece.contains("://") && !matches!(scheme, "postgres" | "postgresql"))
    };
    !urls.split_whitespace().flat_map(|word| word.split(',')).any(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_one_to_which_others_can_connect() {
        for good in ["a:7444", "10.0.0.1:1", "[::1]:7444", "n-0.simpul.svc:65535"] {
            assert_eq!(unreachable(good), None, "{good}");
        }
        for bad in [
            "",
            "foo",
            "foo:",
            "foo:x",
            "foo:0",
            "foo:70000",
            ":7444",
            "0.0.0.0:7444",
            "[::]:7444",
            "::1:7444",
            "[a]:7444",
            "a b:7444",
            "https://a:7444",
            "[10.0.0.1]:7444",
        ] {
            assert!(unreachable(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn urls_of_two_engines_do_not_stand_together() {
        for good in [
            "postgres://me@a/db",
            "postgres://me@a:1,b:2/db",
            "postgres://me@a/db, postgresql://me@b/db",
            "postgres://me:x,y@a/db",
        ] {
            assert!(are_of_postgres(good), "{good}");
        }
        for bad in ["postgres://me@a/db,sqlite:x", "postgres://me@a/db mysql://b/db"] {
            assert!(!are_of_postgres(bad), "{bad}");
        }
    }
}
