//! The contracts against a committed baseline, and what each must have.
//!
//! `tests/repository/baseline.txt` holds one fact a line: every message, field,
//! enum value and method with its access rule. A fact may be added; one that
//! goes away or changes breaks somebody. `baseline.binpb` is the same for `buf
//! breaking`, as buf's image. After an addition, write both anew with
//! `SIMPUL_TEST_BLESS=1 tests/run --test repository`, which refuses to forget.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor,
    MethodDescriptor, Value,
};

use crate::not_run;

fn pool() -> DescriptorPool {
    DescriptorPool::decode(simpul::proto::DESCRIPTORS).expect("descriptors")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn ours(name: &str) -> bool {
    name.starts_with("simpul.")
}

/// The rule of a method as text; None when it has none.
fn access(pool: &DescriptorPool, method: &MethodDescriptor) -> Option<String> {
    let option = pool.get_extension_by_name("simpul.auth.v1.access").expect("the option");
    let options = method.options();
    if !options.has_extension(&option) {
        return None;
    }
    let value = options.get_extension(&option).into_owned();
    let Value::Message(rule) = value else { return None };
    let flag = |name| rule.get_field_by_name(name).and_then(|value| value.as_bool()) == Some(true);
    if flag("public") {
        return Some("public".into());
    }
    if flag("authenticated") {
        return Some("authenticated".into());
    }
    let roles = rule.get_field_by_name("any_of")?.into_owned();
    let roles: BTreeSet<i32> = roles.as_list()?.iter().filter_map(Value::as_enum_number).collect();
    (!roles.is_empty()).then(|| format!("any of {roles:?}"))
}

fn field_fact(field: &FieldDescriptor) -> (String, String) {
    let many = match field.cardinality() {
        Cardinality::Repeated => "repeated",
        _ if field.supports_presence() => "present",
        _ => "single",
    };
    let one_of =
        field.containing_oneof().map_or(String::new(), |one| format!(" of {}", one.name()));
    let key = format!("field {}.{}", field.parent_message().full_name(), field.number());
    (key, format!("{} {many} {:?}{one_of}", field.name(), field.kind()))
}

/// Every fact of a schema.
fn facts(pool: &DescriptorPool) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    for message in pool.all_messages().filter(|message| ours(message.full_name())) {
        facts.insert(format!("message {}", message.full_name()), String::new());
        facts.extend(message.fields().map(|field| field_fact(&field)));
    }
    for each in pool.all_enums().filter(|each| ours(each.full_name())) {
        for value in each.values() {
            let key = format!("value {}.{}", each.full_name(), value.number());
            facts.insert(key, value.name().to_owned());
        }
    }
    for method in methods(pool) {
        let side = |streams: bool, message: MessageDescriptor| {
            format!("{}{}", if streams { "stream " } else { "" }, message.full_name())
        };
        let fact = format!(
            "{} -> {}, access {}",
            side(method.is_client_streaming(), method.input()),
            side(method.is_server_streaming(), method.output()),
            access(pool, &method).unwrap_or_else(|| "missing".into()),
        );
        facts.insert(format!("method {}", method.full_name()), fact);
    }
    facts
}

fn methods(pool: &DescriptorPool) -> Vec<MethodDescriptor> {
    let services = pool.services().filter(|service| ours(service.full_name()));
    services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

fn written(facts: &BTreeMap<String, String>) -> String {
    facts.iter().map(|(key, fact)| format!("{key}: {fact}\n")).collect()
}

fn read(text: &str) -> BTreeMap<String, String> {
    let line = |line: &str| line.split_once(": ").map(|(k, f)| (k.to_owned(), f.to_owned()));
    text.lines().filter_map(line).collect()
}

/// What of the baseline no longer holds.
fn broken(baseline: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let holds = |key: &String, fact: &String| now.get(key) == Some(fact);
    let lost = baseline.iter().filter(|(key, fact)| !holds(key, fact));
    lost.map(|(key, fact)| match now.get(key) {
        None => format!("{key} is gone"),
        Some(now) => format!("{key} was {fact:?} and is {now:?}"),
    })
    .collect()
}

#[test]
fn nothing_of_the_baseline_is_gone_or_changed() {
    let path = root().join("tests/repository/baseline.txt");
    let now = facts(&pool());
    let baseline = read(&std::fs::read_to_string(&path).unwrap_or_default());
    let broken = broken(&baseline, &now);
    assert!(broken.is_empty(), "breaks callers:\n{}", broken.join("\n"));
    if std::env::var_os("SIMPUL_TEST_BLESS").is_some() {
        std::fs::write(&path, written(&now)).expect("written");
        return;
    }
    assert!(baseline.len() > 100, "the baseline is read");
    let fresh: Vec<_> = now.keys().filter(|key| !baseline.contains_key(*key)).collect();
    assert!(fresh.is_empty(), "not in the baseline yet (SIMPUL_TEST_BLESS=1): {fresh:?}");
}

#[test]
fn every_kind_of_breaking_change_is_seen() {
    let now = facts(&pool());
    for prefix in ["message ", "field ", "value ", "method "] {
        let key = now.keys().find(|key| key.starts_with(prefix)).expect("one").clone();
        let mut gone = now.clone();
        gone.remove(&key);
        assert_eq!(broken(&now, &gone), [format!("{key} is gone")]);
        let mut changed = now.clone();
        changed.insert(key.clone(), "int32".into());
        assert_eq!(broken(&now, &changed).len(), 1, "{key}");
        assert!(broken(&gone, &now).is_empty(), "an addition breaks nobody");
    }
    let loosened = now.iter().map(|(key, fact)| (key.clone(), fact.replace("any of", "public")));
    assert!(!broken(&now, &loosened.collect()).is_empty());
}

#[test]
fn every_method_says_who_may_call_it() {
    let pool = pool();
    let methods = methods(&pool);
    assert!(methods.len() > 15, "the services are read");
    for method in methods {
        assert!(access(&pool, &method).is_some(), "{} has no access rule", method.full_name());
    }
}

#[test]
fn everything_has_a_comment() {
    let pool = pool();
    let mut bare = Vec::new();
    for file in pool.files().filter(|file| ours(file.package_name())) {
        let proto = file.file_descriptor_proto();
        let info = proto.source_code_info.as_ref().expect("source info");
        let said: BTreeSet<&[i32]> = info
            .location
            .iter()
            .filter(|place| !place.leading_comments().trim().is_empty())
            .map(|place| place.path.as_slice())
            .collect();
        let mut need = |path: &[i32], name: &str| {
            if !said.contains(path) {
                bare.push(name.to_owned());
            }
        };
        for message in file.messages() {
            of_message(&message, &mut need);
        }
        for each in file.enums() {
            of_enum(&each, &mut need);
        }
        for service in file.services() {
            need(service.path(), service.full_name());
            for method in service.methods() {
                need(method.path(), method.full_name());
            }
        }
    }
    assert!(bare.is_empty(), "without a comment: {bare:?}");
}

fn of_message(message: &MessageDescriptor, need: &mut dyn FnMut(&[i32], &str)) {
    if message.is_map_entry() {
        return;
    }
    need(message.path(), message.full_name());
    for field in message.fields() {
        need(field.path(), field.full_name());
    }
    for child in message.child_messages() {
        of_message(&child, need);
    }
    for child in message.child_enums() {
        of_enum(&child, need);
    }
}

fn of_enum(each: &EnumDescriptor, need: &mut dyn FnMut(&[i32], &str)) {
    need(each.path(), each.full_name());
    for value in each.values() {
        need(value.path(), value.full_name());
    }
}

/// Runs buf in proto/; None where it is not installed.
fn buf(arguments: &[&str]) -> Option<(bool, String)> {
    let run = Command::new("buf").args(arguments).current_dir(root().join("proto")).output();
    let run = match run {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            not_run(&format!("buf {arguments:?}: it is not on PATH"));
            return None;
        }
        run => run.expect("buf runs"),
    };
    let said = [run.stdout, run.stderr].concat();
    Some((run.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn buf_finds_nothing_to_say_of_the_style() {
    if let Some((clean, said)) = buf(&["lint"]) {
        assert!(clean, "{said}");
    }
}

/// buf's own judgement, against an image of the contracts.
#[test]
fn buf_finds_nothing_that_breaks_callers() {
    let image = root().join("tests/repository/baseline.binpb");
    let image = image.to_str().expect("UTF-8");
    if std::env::var_os("SIMPUL_TEST_BLESS").is_some() {
        let made = buf(&["build", "--exclude-source-info", "-o", image]);
        assert!(made.is_none_or(|(clean, _)| clean), "no image was made");
        return;
    }
    if let Some((clean, said)) = buf(&["breaking", "--against", image]) {
        assert!(clean, "{said}");
    }
}

#[test]
fn the_table_of_reasons_is_the_one_of_the_code() {
    let path: &Path = &root().join("docs/errors.md");
    let docs = std::fs::read_to_string(path).expect("docs/errors.md");
    let rows: BTreeSet<&str> = docs.lines().filter(|line| line.starts_with("| `")).collect();
    let written: BTreeSet<String> = simpul::refusal::Reason::ALL
        .iter()
        .map(|reason| {
            let code = format!("{:?}", reason.code());
            let mut name = String::new();
            for (at, letter) in code.char_indices() {
                if at > 0 && letter.is_uppercase() {
                    name.push('_');
                }
                name.push(letter.to_ascii_uppercase());
            }
            format!("| `{}` | `{name}` | {} |", reason.as_str(), reason.meaning())
        })
        .collect();
    let written: BTreeSet<&str> = written.iter().map(String::as_str).collect();
    assert!(!written.is_empty());
    let missing: Vec<_> = written.difference(&rows).collect();
    let stale: Vec<_> = rows.difference(&written).collect();
    assert!(missing.is_empty() && stale.is_empty(), "missing {missing:?}, stale {stale:?}");
}
