//! What the value of a key looks like. A text, as the environment and flags
//! give it, is read by what the key wants, not by what it looks like: the
//! password `12345678` stays a text. What a file holds is typed already and is
//! checked against the same rules.

use std::net::SocketAddr;

use figment::value::{Dict, Value};

use crate::principal::TrustDomain;

/// The kind of a value.
#[derive(Debug)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// Any text, never shown. `KEY_file` may name a file that holds it.
    Secret,
    /// A path.
    Path,
    /// true or false.
    Bool,
    /// A whole number from 0 to a bound.
    Number(u64),
    /// A time with its unit.
    Duration,
    /// An address with its port.
    Socket,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A trust domain.
    Domain,
    /// A list.
    List(&'static Kind),
    /// Names of the user's own to values.
    Map(&'static Kind),
    /// A list of tables.
    Tables(&'static [Field]),
}

/// One field of a table in a list.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
}

/// Takes the path and the broken rule.
pub(super) type Note<'a> = &'a mut dyn FnMut(&str, String);

impl Kind {
    /// The rule, to be put after a key's name.
    fn rule(&self) -> String {
        match self {
            Kind::Text | Kind::Secret | Kind::Path => "must be a text".into(),
            Kind::Bool => "must be true or false".into(),
            Kind::Number(most) => format!("must be a whole number from 0 to {most}"),
            Kind::Duration => "must be a time with its unit, as in 500ms, 30s, 5m, 24h".into(),
            Kind::Socket => "must be an address with its port, as in 127.0.0.1:7443".into(),
            Kind::Choice(words) => format!("must be one of {}", words.join(", ")),
            Kind::Domain => {
                "must be a trust domain: 1 to 255 characters of a-z 0-9 . - _".to_owned()
            }
            Kind::List(_) => "must be a list, comma-separated or JSON".into(),
            Kind::Map(_) => "must be a table of names to values (JSON in a variable)".into(),
            Kind::Tables(_) => "must be a list of tables (JSON in a variable)".into(),
        }
    }

    /// Reads a text.
    pub(super) fn parse(&self, path: &str, text: &str, note: Note<'_>) -> Option<Value> {
        let sound = match self {
            Kind::Bool => text.parse::<bool>().ok().map(Value::from),
            Kind::Number(most) => {
                text.parse::<u64>().ok().filter(|number| number <= most).map(Value::from)
            }
            Kind::List(item) if !text.trim_start().starts_with('[') => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                let parsed: Vec<_> = parts.map(|part| item.parse(path, part, note)).collect();
                return parsed.into_iter().collect::<Option<Vec<_>>>().map(Value::from);
            }
            Kind::List(_) | Kind::Map(_) | Kind::Tables(_) => {
                let json = serde_json::from_str::<serde_json::Value>(text).ok();
                match json.and_then(|json| Value::serialize(json).ok()) {
                    Some(value) => return self.accept(path, value, note),
                    None => None,
                }
            }
            _ => self.holds(text).then(|| Value::from(text)),
        };
        if sound.is_none() {
            note(path, self.rule());
        }
        sound
    }

    /// Whether a text is sound for a kind whose values are texts.
    fn holds(&self, text: &str) -> bool {
        match self {
            Kind::Duration => humantime::parse_duration(text).is_ok(),
            Kind::Socket => text.parse::<SocketAddr>().is_ok(),
            Kind::Choice(words) => words.contains(&text),
            Kind::Domain => text.parse::<TrustDomain>().is_ok(),
            _ => true,
        }
    }

    /// Checks a typed value and hands on what is sound in it.
    pub(super) fn accept(&self, path: &str, value: Value, note: Note<'_>) -> Option<Value> {
        match (self, value) {
            (Kind::List(item), Value::Array(_, values)) => {
                let each = |(index, value)| item.accept(&format!("{path}[{index}]"), value, note);
                let sound: Vec<_> = values.into_iter().enumerate().map(each).collect();
                sound.into_iter().collect::<Option<Vec<_>>>().map(Value::from)
            }
            (Kind::Map(item), Value::Dict(_, entries)) => {
                let each = |(name, value)| {
                    let value = item.accept(&format!("{path}.\"{name}\""), value, note)?;
                    Some((name, value))
                };
                let sound: Vec<_> = entries.into_iter().map(each).collect();
                sound.into_iter().collect::<Option<Dict>>().map(Value::from)
            }
            (Kind::Tables(fields), Value::Array(_, tables)) => {
                let each =
                    |(index, table)| accept_table(fields, &format!("{path}[{index}]"), table, note);
                let sound: Vec<_> = tables.into_iter().enumerate().map(each).collect();
                sound.into_iter().collect::<Option<Vec<_>>>().map(Value::from)
            }
            (Kind::Bool, value @ Value::Bool(..)) => Some(value),
            (Kind::Number(most), value @ Value::Num(..))
                if whole(&value).is_some_and(|number| number <= u128::from(*most)) =>
            {
                Some(value)
            }
            (Kind::Bool | Kind::Number(_) | Kind::List(_) | Kind::Map(_) | Kind::Tables(_), _) => {
                note(path, self.rule());
                None
            }
            (_, Value::String(_, text)) if self.holds(&text) => Some(Value::from(text)),
            // A text of one character is a character to some formats.
            (_, Value::Char(_, one)) if self.holds(&one.to_string()) => {
                Some(Value::from(one.to_string()))
            }
            _ => {
                note(path, self.rule());
                None
            }
        }
    }
}

/// A whole number from zero on, whatever width its format gave it.
fn whole(value: &Value) -> Option<u128> {
    value.to_u128().or_else(|| u128::try_from(value.to_i128()?).ok())
}

/// Checks one table of a list: its fields, those that lack, those unknown.
fn accept_table(fields: &[Field], path: &str, table: Value, note: Note<'_>) -> Option<Value> {
    let Value::Dict(_, mut entries) = table else {
        note(path, "must be a table".into());
        return None;
    };
    let mut sound = Dict::new();
    let mut whole = true;
    for field in fields {
        let at = format!("{path}.{}", field.name);
        match entries.remove(field.name) {
            Some(value) => match field.kind.accept(&at, value, note) {
                Some(value) => {
                    sound.insert(field.name.to_owned(), value);
                }
                None => whole = false,
            },
            None if field.required => {
                note(&at, "must be given".into());
                whole = false;
            }
            None => {}
        }
    }
    for name in entries.keys() {
        note(&format!("{path}.{name}"), "is not a key".into());
        whole = false;
    }
    whole.then(|| Value::from(sound))
}
