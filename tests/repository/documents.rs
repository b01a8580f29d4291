//! The documents against what they tell of: defaults, and files they point to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every key of a table with its value as the documents write it. Tables of
/// free keys and lists are values.
fn values(table: &toml::Table, above: &str, into: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        match value {
            toml::Value::Table(inner) if above.is_empty() => values(inner, &key, into),
            toml::Value::Table(inner) => drop(into.insert(key, format!("{{{inner}}}"))),
            toml::Value::String(text) => drop(into.insert(key, text.clone())),
            toml::Value::Array(list) if !list.is_empty() => {
                let words: Vec<_> = list.iter().filter_map(toml::Value::as_str).collect();
                into.insert(key, words.join(","));
            }
            other => drop(into.insert(key, other.to_string())),
        }
    }
}

fn defaults(file: &str) -> BTreeMap<String, String> {
    let table = toml::from_str(&read(&root().join("config").join(file))).expect("TOML");
    let mut found = BTreeMap::new();
    values(&table, "", &mut found);
    found
}

#[test]
fn the_table_of_keys_has_the_defaults() {
    let (all, production) = (defaults("default.toml"), defaults("production.toml"));
    let expected = |key: &str| {
        let Some(default) = all.get(key) else { return String::new() };
        match production.get(key).filter(|_| key != "profile") {
            Some(other) => format!("`{default}` (production: `{other}`)"),
            None => format!("`{default}`"),
        }
    };
    let docs = read(&root().join("docs/configuration.md"));
    let mut seen = BTreeMap::new();
    for line in docs.lines().skip_while(|line| *line != "## Keys") {
        if line.starts_with("### ") {
            break;
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if let [_, key, default, ..] = cells[..]
            && let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`'))
        {
            seen.insert(key.to_owned(), default.to_owned());
            assert_eq!(default, expected(key), "{key}");
        }
    }
    let missing: Vec<_> = all.keys().filter(|key| !seen.contains_key(*key)).collect();
    assert!(missing.is_empty() && seen.len() > 50, "missing {missing:?} of {}", seen.len());
}

/// The targets of a document's links that are files.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    files.map(|target| target.split('#').next().unwrap_or(target)).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut documents: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"]
        .into_iter()
        .map(|name| root().join(name))
        .collect();
    let docs = std::fs::read_dir(root().join("docs")).expect("a folder").flatten();
    documents.extend(docs.map(|entry| entry.path()));
    let (mut seen, mut dead) = (0, Vec::new());
    for document in documents.iter().filter(|path| path.extension().is_some_and(|e| e == "md")) {
        let text = read(document);
        for link in links(&text) {
            seen += 1;
            if !document.with_file_name(link).exists() {
                dead.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(seen > 3, "links are read");
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}
