//! What operators are given, against what a node shows: rules, their tests, the
//! runbook and the dashboards.
//!
//! The list of metrics is the table in docs/telemetry.md; that it is what a node
//! shows, another test holds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::not_run;

/// Of Prometheus itself.
const FOREIGN: [&str; 1] = ["up"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The metrics of the table.
fn metrics() -> BTreeSet<String> {
    let table = read("docs/telemetry.md");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `simpul_")?.split_once('`'));
    rows.map(|(name, _)| format!("simpul_{name}")).collect()
}

/// What follows such a key on the lines of the rules.
fn values<'a>(rules: &'a str, key: &str) -> BTreeSet<&'a str> {
    let lines = rules.lines().map(|line| line.trim_start().trim_start_matches("- "));
    lines.filter_map(|line| line.strip_prefix(key)).map(str::trim).collect()
}

/// The names in an expression that are metrics of ours, or recorded from them.
fn names(expression: &str) -> Vec<&str> {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    expression.split(|c| !part(c)).filter(|name| name.contains("simpul_")).collect()
}

/// Those that neither a node nor a rule has.
fn unknown(expression: &str, metrics: &BTreeSet<String>, recorded: &BTreeSet<&str>) -> Vec<String> {
    let known = |name: &str| {
        let series = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        recorded.contains(name)
            || metrics.contains(name)
            || series.is_some_and(|family| metrics.contains(family))
    };
    names(expression).into_iter().filter(|name| !known(name)).map(str::to_owned).collect()
}

/// The rules without their comments.
fn rules() -> String {
    let rules = read("deploy/prometheus/simpul.rules.yml");
    let said = rules.lines().filter(|line| !line.trim_start().starts_with('#'));
    said.collect::<Vec<_>>().join("\n")
}

#[test]
fn rules_name_what_a_node_shows_and_every_alert_is_tested() {
    let (rules, metrics) = (rules(), metrics());
    let recorded = values(&rules, "record:");
    let unknown = unknown(&rules.replace("name: simpul.", ""), &metrics, &recorded);
    assert!(unknown.is_empty(), "{unknown:?} are in no node's metrics");
    assert!(FOREIGN.iter().all(|name| rules.contains(name)), "no more foreign ones than there are");
    let alerts = values(&rules, "alert:");
    let tests = read("deploy/prometheus/simpul.rules.test.yml");
    let fired = |alert: &&str| {
        tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n          - exp_labels"))
    };
    let untested: Vec<_> = alerts.iter().filter(|alert| !fired(alert)).collect();
    assert!(untested.is_empty() && alerts.len() > 30, "no test lets these fire: {untested:?}");
}

#[test]
fn the_runbook_has_a_section_for_each_alert_and_no_other() {
    let (rules, runbook) = (rules(), read("docs/runbook.md"));
    let alerts = values(&rules, "alert:");
    let sections = values(&runbook, "### ");
    let without: Vec<_> = alerts.difference(&sections).collect();
    let gone: Vec<_> = sections.difference(&alerts).collect();
    assert!(without.is_empty() && gone.is_empty(), "missing {without:?}, not alerts {gone:?}");
    let named = runbook.split(|c: char| !c.is_ascii_alphanumeric());
    let named: BTreeSet<_> =
        named.filter(|word| word.starts_with("Simpul") && word.len() > 6).collect();
    let gone: Vec<_> = named.difference(&alerts).collect();
    assert!(gone.is_empty(), "the runbook speaks of {gone:?}");
    for section in runbook.split("\n### ").skip(1) {
        let name = section.lines().next().unwrap_or_default();
        for part in ["**Means.**", "**Do.**", "**Tried.**"] {
            assert!(section.contains(part), "{name}: {part}");
        }
    }
}

/// The expressions of a dashboard's panels, wherever they stand.
fn expressions<'a>(dashboard: &'a Value, found: &mut Vec<&'a str>) {
    match dashboard {
        Value::Object(object) => {
            if let Some(Value::String(expression)) = object.get("expr") {
                found.push(expression);
            }
            object.values().for_each(|value| expressions(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// Each dashboard's file, and its content.
fn dashboards() -> Vec<(PathBuf, Value)> {
    let files = std::fs::read_dir(root().join("deploy/grafana")).expect("a folder").flatten();
    let files = files
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"));
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a file");
        let value = serde_json::from_str(&text);
        (path.clone(), value.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    };
    files.map(read).collect()
}

#[test]
fn dashboards_name_what_a_node_shows() {
    let (metrics, rules) = (metrics(), rules());
    let recorded = values(&rules, "record:");
    let mut uids = BTreeSet::new();
    for (path, dashboard) in dashboards() {
        let shown = path.display();
        let mut found = Vec::new();
        expressions(&dashboard, &mut found);
        assert!(found.len() > 3, "{shown} shows little");
        for expression in found {
            let unknown = unknown(expression, &metrics, &recorded);
            assert!(unknown.is_empty(), "{shown}: {unknown:?} in {expression}");
        }
        let uid = dashboard["uid"].as_str().unwrap_or_default().to_owned();
        assert!(!uid.is_empty() && uids.insert(uid), "{shown}: a uid of its own");
        let panels = dashboard["panels"].as_array().expect("panels");
        let ids: BTreeSet<_> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
        assert_eq!(ids.len(), panels.len(), "{shown}: each panel has an id");
        for panel in panels {
            assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        }
    }
    assert!(uids.len() >= 3, "there are dashboards");
}

/// What promtool says; `None`, and a line that says so, where there is none.
fn promtool(arguments: &[&str], of: &Path) -> Option<String> {
    match Command::new("promtool").args(arguments).arg(of).output() {
        Ok(done) => {
            let said = [done.stdout, done.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            assert!(done.status.success(), "promtool {arguments:?}: {said}");
            Some(said)
        }
        Err(_) => {
            not_run(&format!("promtool {arguments:?}: it is not on PATH"));
            None
        }
    }
}

#[test]
fn promtool_takes_the_rules_and_their_tests() {
    let folder = root().join("deploy/prometheus");
    let Some(said) = promtool(&["check", "rules"], &folder.join("simpul.rules.yml")) else {
        return;
    };
    assert!(said.contains("rules found"), "{said}");
    promtool(&["test", "rules"], &folder.join("simpul.rules.test.yml"));
}

/// Each panel's expression becomes a rule, with Grafana's own variables filled
/// in; promtool parses rules.
#[test]
fn promtool_can_parse_every_panel() {
    let scratch = tempfile::tempdir().expect("a folder");
    for (path, dashboard) in dashboards() {
        let mut found = Vec::new();
        expressions(&dashboard, &mut found);
        let rule = |(at, expression): (usize, &&str)| {
            let filled = expression.replace("$__rate_interval", "5m").replace("$__range", "1h");
            let rule = [("record", format!("panel:{at}")), ("expr", filled)];
            Value::Object(
                rule.map(|(key, text)| (key.to_owned(), Value::from(text))).into_iter().collect(),
            )
        };
        let rules: Vec<_> = found.iter().enumerate().map(rule).collect();
        let file = serde_json::json!({ "groups": [{ "name": "panels", "rules": rules }] });
        let written = scratch.path().join("panels.yml");
        // YAML takes JSON as it is.
        std::fs::write(&written, file.to_string()).expect("written");
        let Some(said) = promtool(&["check", "rules"], &written) else { return };
        assert!(
            said.contains(&format!("{} rules found", rules.len())),
            "{}: {said}",
            path.display()
        );
    }
}
