//! Imports run downward only, and no file grows too long. Reads the sources as
//! text, comments and literals taken out, tests included.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules by level; each may import lower levels, and its own level where
/// no cycle comes of it.
const LEVELS: &[&[&str]] = &[
    &[
        "backoff",
        "card",
        "chance",
        "path",
        "clock",
        "cut",
        "drain",
        "fault",
        "id",
        "money",
        "principal",
        "proto",
        "readiness",
        "refusal",
        "task",
        "trace_context",
    ],
    &["config"],
    &["security", "store", "telemetry", "traffic"],
    &["chat", "payment", "transaction"],
    &["cluster", "client"],
    &["operate", "server", "web"],
    &["node"],
    &["cli"],
    &["main"],
];

/// They meet through traits that `node` wires.
const SERVICES: [&str; 3] = ["chat", "payment", "transaction"];

const HARD: usize = 500;
const SOFT: usize = 400;

fn level(module: &str) -> Option<usize> {
    LEVELS.iter().position(|level| level.contains(&module))
}

/// Every Rust file below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The code without comments and without what stands in literals.
fn stripped(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let skip = literal(bytes, at);
        if skip == 0 {
            code.push(bytes[at]);
            at += 1;
        } else {
            code.push(b' ');
            at += skip;
        }
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// The length of the comment or literal that begins here; 0 when none does.
fn literal(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let in_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return block_comment(rest);
    }
    if rest[0] == b'"' {
        return quoted(rest, b'"');
    }
    if !in_word || (at > 0 && bytes[at - 1] == b'b') {
        let hashes = rest.iter().skip(1).take_while(|b| **b == b'#').count();
        if rest[0] == b'r' && rest.get(1 + hashes) == Some(&b'"') {
            let mut end = vec![b'"'];
            end.extend(std::iter::repeat_n(b'#', hashes));
            let body = &rest[2 + hashes..];
            let length = body.windows(end.len()).position(|window| window == end);
            return length.map_or(rest.len(), |length| 2 + hashes + length + end.len());
        }
    }
    // A character, not a lifetime.
    if rest[0] == b'\'' && (rest.get(1) == Some(&b'\\') || rest.get(2) == Some(&b'\'')) {
        return quoted(rest, b'\'');
    }
    0
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at + 1 < rest.len() {
        match &rest[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The top-level modules that code names through `crate::` (or, in the binary,
/// `simpul::`), groups in braces included.
fn imports(code: &str, root: &str) -> BTreeSet<String> {
    let compact: String =
        code.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ::", "::");
    let compact = compact.replace(":: ", "::");
    let mut found = BTreeSet::new();
    for (start, _) in compact.match_indices(&format!("{root}::")) {
        let before = compact[..start].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &compact[start + root.len() + 2..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(members(group)),
            None => {
                found.insert(word(rest).to_owned());
            }
        }
    }
    found.retain(|name| name != "self" && !name.is_empty());
    found
}

/// The first words of a brace group's members.
fn members(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut fresh) = (1, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            ' ' => {}
            _ if fresh => {
                names.push(word(&group[at..]).to_owned());
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// The top-level module of a file.
fn module(path: &Path) -> String {
    let first = path.components().next().expect("a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Every import that goes up, or joins two services, or is unknown.
fn breaches(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut found = Vec::new();
    for (from, targets) in graph {
        for to in targets {
            let (Some(here), Some(there)) = (level(from), level(to)) else {
                found.push(format!("{from} -> {to}: not in the table of modules"));
                continue;
            };
            let between = SERVICES.contains(&from.as_str()) && SERVICES.contains(&to.as_str());
            if there > here || between {
                found.push(format!("{from} -> {to}: imports run downward only"));
            } else if reaches(graph, to, from, &mut BTreeSet::new()) {
                found.push(format!("{from} -> {to}: a cycle"));
            }
        }
    }
    found
}

fn reaches<'a>(
    graph: &'a BTreeMap<String, BTreeSet<String>>,
    from: &'a str,
    goal: &str,
    seen: &mut BTreeSet<&'a str>,
) -> bool {
    seen.insert(from)
        && graph.get(from).is_some_and(|targets| {
            targets.iter().any(|to| to == goal || reaches(graph, to, goal, seen))
        })
}

fn graph() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources(&root) {
        let module = module(path.strip_prefix(&root).expect("below src"));
        let code = stripped(&fs::read_to_string(&path).expect("text"));
        let crate_name = if module == "main" { "simpul" } else { "crate" };
        let mut targets = imports(&code, crate_name);
        targets.remove(&module);
        if module != "lib" {
            graph.entry(module).or_default().extend(targets);
        }
    }
    graph
}

#[test]
fn imports_run_downward_only() {
    let graph = graph();
    assert!(graph.len() >= 15, "the sources are read: {graph:?}");
    assert!(graph["store"].contains("refusal"), "imports are seen: {graph:?}");
    let breaches = breaches(&graph);
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn no_file_is_too_long() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut over = Vec::new();
    for folder in ["src", "tests", "benches"] {
        let folder = root.join(folder);
        let paths = if folder.is_dir() { sources(&folder) } else { Vec::new() };
        for path in paths {
            let lines = fs::read_to_string(&path).expect("text").lines().count();
            if lines > SOFT {
                println!("{lines} lines, asks to be split: {}", path.display());
            }
            if lines > HARD {
                over.push(format!("{lines} lines: {}", path.display()));
            }
        }
    }
    assert!(over.is_empty(), "{}", over.join("\n"));
}

/// Elsewhere two of them could share a key by accident.
#[test]
fn advisory_locks_are_taken_in_one_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let takes = |path: &PathBuf| fs::read_to_string(path).expect("text").contains("pg_advisory");
    let places: Vec<PathBuf> = sources(&root).into_iter().filter(takes).collect();
    assert_eq!(places, [root.join("store/postgres/advisory.rs")]);
}

#[test]
fn a_breach_is_seen_wherever_it_hides() {
    let code = stripped(
        "// use crate::cli;\n/* crate::cli /* nested */ crate::cli */ let a = \"crate::cli\";\n\
         let b = r#\"crate::cli \" \"#; let c = '\"'; let d: &'static str = \"\\\"crate::cli\";\n\
         use crate::{chat::{Room, log}, store,\n  payment as pay}; fn f(_: crate :: task::X) {}\n\
         macro_rules! m { () => { $crate::cli } } mod t { use crate::node::x; }",
    );
    let found = imports(&code, "crate");
    let found: Vec<_> = found.iter().map(String::as_str).collect();
    assert_eq!(found, ["chat", "node", "payment", "store", "task"]);

    let edge = |from: &str, to: &str| (from.to_owned(), BTreeSet::from([to.to_owned()]));
    for edges in [
        vec![edge("store", "chat")],
        vec![edge("chat", "payment")],
        vec![edge("id", "config")],
        vec![edge("store", "security"), edge("security", "store")],
        vec![edge("store", "nowhere")],
    ] {
        assert!(!breaches(&edges.iter().cloned().collect()).is_empty(), "{edges:?}");
    }
    assert!(breaches(&[edge("chat", "store")].into_iter().collect()).is_empty());
}
