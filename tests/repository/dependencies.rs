//! What the project may depend on: deny.toml's rules, held also where
//! cargo-deny is not installed. Sources are read from Cargo.lock, crates and
//! their licences from what cargo builds for this machine (the lock also names
//! crates of features that nobody switches on).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use toml::{Table, Value};

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn read(name: &str) -> Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    toml::from_str(&std::fs::read_to_string(path).expect("text")).expect("TOML")
}

/// The texts below a key of a list's tables, or the texts of the list itself.
fn texts<'a>(list: &'a Value, key: Option<&str>) -> Vec<&'a str> {
    let list = list.as_array().expect("a list");
    list.iter().filter_map(|each| key.map_or(Some(each), |key| each.get(key))?.as_str()).collect()
}

/// Crates of a lock file that come from anywhere but the registry.
fn strangers(lock: &Table) -> Vec<String> {
    let packages = lock["package"].as_array().expect("packages").iter();
    let text = |package: &Value, key: &str| Some(package.get(key)?.as_str()?.to_owned());
    packages
        .filter_map(|package| {
            let name = text(package, "name").expect("a name");
            match text(package, "source") {
                None if name == "simpul" => None,
                Some(source) if source == REGISTRY => None,
                source => Some(format!("{name} comes from {source:?}")),
            }
        })
        .collect()
}

/// Every crate that is built, with its licence.
fn built() -> BTreeSet<(String, String)> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--all-features", "--edges", "all"])
        .args(["--prefix", "none", "--format", "{p}\t{l}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let lines = String::from_utf8(tree.stdout).expect("UTF-8");
    let crates = lines.lines().filter_map(|line| line.split_once('\t'));
    crates
        .filter_map(|(package, licence)| {
            let licence = licence.trim_end_matches(" (*)").to_owned();
            Some((package.split_once(" v")?.0.to_owned(), licence))
        })
        .collect()
}

/// Whether a licence expression can be met with these licences.
fn met(expression: &str, allowed: &[&str]) -> bool {
    let expression = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = expression.split_whitespace().peekable();
    any(&mut words, allowed) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let mut found = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        found |= all(words, allowed);
    }
    found
}

fn all(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let mut found = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        found &= one(words, allowed);
    }
    found
}

fn one(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let Some(word) = words.next() else { return false };
    if word == "(" {
        return any(words, allowed) & (words.next() == Some(")"));
    }
    let mut licence = word.to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        licence = format!("{word} WITH {}", words.next().unwrap_or_default());
    }
    allowed.contains(&licence.as_str())
}

#[test]
fn crates_come_from_the_registry() {
    assert_eq!(strangers(&read("Cargo.lock")), Vec::<String>::new());
    let package = |name: &str, source: &str| -> Table {
        toml::from_str(&format!("[[package]]\nname = \"{name}\"\n{source}")).expect("TOML")
    };
    assert!(strangers(&package("bytes", &format!("source = \"{REGISTRY}\""))).is_empty());
    assert_eq!(strangers(&package("bytes", "source = \"git+https://example.org/a#1\"")).len(), 1);
    assert_eq!(strangers(&package("bytes", "")).len(), 1);
}

#[test]
fn no_banned_crate_is_built() {
    let deny = read("deny.toml");
    let banned = texts(&deny["bans"]["deny"], Some("crate"));
    assert!(banned.contains(&"ring") && banned.contains(&"openssl"), "{banned:?}");
    let built: BTreeSet<String> = built().into_iter().map(|(name, _)| name).collect();
    assert!(built.contains("aws-lc-rs") && built.contains("proptest"), "{built:?}");
    let found: Vec<_> = banned.iter().filter(|name| built.contains(**name)).collect();
    assert!(found.is_empty(), "banned: {found:?}");
}

#[test]
fn licences_are_those_of_deny_toml() {
    let deny = read("deny.toml");
    let allowed = texts(&deny["licenses"]["allow"], None);
    let built = built();
    assert!(built.len() > 200, "{} crates are read", built.len());
    let refused: Vec<_> = built.iter().filter(|(_, licence)| !met(licence, &allowed)).collect();
    assert!(refused.is_empty(), "not allowed: {refused:?}");
    // An entry that nothing needs any more goes.
    for one in &allowed {
        let fewer: Vec<_> = allowed.iter().copied().filter(|other| other != one).collect();
        assert!(built.iter().any(|(_, licence)| !met(licence, &fewer)), "not needed: {one}");
    }
}

#[test]
fn a_licence_expression_is_read_as_written() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"];
    for (expression, holds) in [
        ("MIT", true),
        ("MIT/GPL-3.0", true),
        ("GPL-3.0 OR MIT", true),
        ("MIT AND GPL-3.0", false),
        ("GPL-3.0 OR MIT AND ISC", true),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("(GPL-3.0 OR MIT) AND Zlib", false),
        ("Apache-2.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("MIT WITH LLVM-exception", false),
        ("", false),
        ("(MIT", false),
    ] {
        assert_eq!(met(expression, &allowed), holds, "{expression}");
    }
}
