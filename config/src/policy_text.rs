//! Policies as the TOML that people would write: without what is a default anyway, spans with their seconds beside them.

use ergate_events::scaling::AnyPolicy;
use serde_json::{Map, Value};

/// Longest line that a small table stands in.
const INLINE_CHARS_MAX: usize = 60;
/// Settings that stand before others.
const FIRST: [&str; 7] = ["policy", "name", "signal", "source", "kind", "value", "side"];
/// Most settings that are looked at one by one.
const PRUNED_MAX: usize = 500;
/// Settings whose numbers are microseconds.
const SPANS: [&str; 22] = [
    "polling",
    "cooldown",
    "initial_cooldown",
    "stabilization",
    "period",
    "sync_period",
    "downscale_stabilization",
    "cpu_initialization",
    "initial_readiness",
    "scale_out_cooldown",
    "scale_in_cooldown",
    "stable_window",
    "panic_window",
    "scale_down_delay",
    "scale_to_zero_grace",
    "tick",
    "catch_up",
    "keep_alive",
    "keep_alive_unmeasured",
    "lasting",
    "spacing",
    "window",
];

/// A policy as TOML that [`policy`](crate::policy()) reads as the same policy.
pub fn policy_text(policy: &AnyPolicy) -> String {
    // A policy is made of texts, finite numbers, lists and tables.
    let mut value = serde_json::to_value(policy).unwrap_or_default();
    prune(&mut value, policy);
    let mut text = String::new();
    if let Value::Object(table) = &value {
        write_table(&mut text, "", table);
    }
    text
}

/// Takes away every setting without which the policy is the same.
fn prune(root: &mut Value, policy: &AnyPolicy) {
    let mut paths = Vec::new();
    collect(root, &mut Vec::new(), &mut paths);
    // Each setting costs a reading of all: where there are so many, they stand there in full.
    if paths.len() > PRUNED_MAX {
        return;
    }
    // What contains others comes first: a table that is the default as a whole goes as a whole.
    for path in paths {
        let Some(Value::Object(table)) = path.parent.iter().try_fold(&mut *root, step) else { continue };
        let Some(taken) = table.remove(&path.key) else { continue };
        let is_same = serde_json::from_value::<AnyPolicy>(root.clone()).is_ok_and(|without| without == *policy);
        if !is_same && let Some(Value::Object(table)) = path.parent.iter().try_fold(&mut *root, step) {
            table.insert(path.key, taken);
        }
    }
}

struct Path {
    parent: Vec<Part>,
    key: String,
}

#[derive(Clone)]
enum Part {
    Key(String),
    Index(usize),
}

fn step<'a>(value: &'a mut Value, part: &Part) -> Option<&'a mut Value> {
    match (value, part) {
        (Value::Object(table), Part::Key(key)) => table.get_mut(key),
        (Value::Array(list), Part::Index(index)) => list.get_mut(*index),
        (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_), _) => None,
    }
}

fn collect(value: &Value, at: &mut Vec<Part>, paths: &mut Vec<Path>) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                paths.push(Path { parent: at.clone(), key: key.clone() });
                at.push(Part::Key(key.clone()));
                collect(value, at, paths);
                at.pop();
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                at.push(Part::Index(index));
                collect(value, at, paths);
                at.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What is one line first, as TOML wants it, then tables, then lists of tables.
fn write_table(text: &mut String, path: &str, table: &Map<String, Value>) {
    let inside = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    // What says what a table is stands first in it.
    let first = FIRST.iter().filter_map(|key| table.get_key_value(*key));
    for (key, value) in first.chain(table.iter().filter(|(key, _)| !FIRST.contains(&key.as_str()))) {
        if let Some(line) = inline(value) {
            text.push_str(&format!("{key} = {line}{}\n", comment(key, value)));
        }
    }
    for (key, value) in table {
        match value {
            _ if inline(value).is_some() => {}
            Value::Object(inner) => {
                let path = inside(key);
                if inner.values().any(|value| inline(value).is_some()) {
                    text.push_str(&format!("\n[{path}]\n"));
                }
                write_table(text, &path, inner);
            }
            Value::Array(list) => {
                for inner in list.iter().filter_map(Value::as_object) {
                    let path = inside(key);
                    text.push_str(&format!("\n[[{path}]]\n"));
                    write_table(text, &path, inner);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// A value as it stands behind its key; `None` for what has lines of its own, and for nothing.
fn inline(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::String(text) => Some(quoted(text)),
        Value::Array(list) if list.iter().all(|value| !value.is_object() && !value.is_array()) => {
            Some(format!("[{}]", list.iter().filter_map(inline).collect::<Vec<_>>().join(", ")))
        }
        Value::Array(_) => None,
        Value::Object(table) => {
            let has_list = table.values().any(|value| value.as_array().is_some_and(|list| list.iter().any(Value::is_object)));
            if has_list {
                return None;
            }
            let mut parts = Vec::new();
            for (key, value) in table.iter().filter(|(_, value)| !value.is_null()) {
                parts.push(format!("{key} = {}", inline(value)?));
            }
            let text = if parts.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", parts.join(", ")) };
            // Spans have their seconds beside them, which no inline table has room for.
            let has_span = table.keys().any(|key| SPANS.contains(&key.as_str()));
            (text.chars().count() <= INLINE_CHARS_MAX && !has_span).then_some(text)
        }
    }
}

/// The seconds of a span.
fn comment(key: &str, value: &Value) -> String {
    match value.as_u64().filter(|_| SPANS.contains(&key)) {
        Some(micros) => format!(" # {} s", micros as f64 / 1e6),
        None => String::new(),
    }
}

/// A text of TOML: the escapes of JSON, which it has as well, and the one control character that JSON leaves.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_written_as_it_was_meant_and_shorter_than_in_full() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/policies");
        for file in std::fs::read_dir(folder).unwrap() {
            let policy = crate::policy(&std::fs::read_to_string(file.unwrap().path()).unwrap()).unwrap();
            let text = policy_text(&policy);
            assert_eq!(crate::policy(&text).unwrap(), policy, "{text}");
        }
        let stt = crate::policy(include_str!("../examples/policies/stt.toml")).unwrap();
        let text = policy_text(&stt);
        assert!(text.starts_with("policy = \"hpa\"\n\n[[") && text.contains("\n[[metrics]]\n"), "{text}");
        assert!(text.contains("period = 120000000 # 120 s\n") && !text.contains("controller"), "{text}");
    }

    #[test]
    fn tables_texts_and_nothing_are_written_as_they_are() {
        let text = r#"{"policy": "composite", "formula": "(a + b) / 2", "members": [
            {"name": "a \"b\"\n\u007f", "rule": {"policy": "step", "parts": [{"signal": "ready", "side": "above", "threshold": 5.5,
                "points": 1, "adjustment": "change", "steps": [{"lower": 0, "upper": 10, "by": -1}, {"lower": 10, "by": 5}]}]}},
            {"name": "b", "rule": {"policy": "keda", "pause": {"at": 3}, "behavior": {}, "triggers": [
                {"signal": "x", "target": {"value_milli": 1}, "activation": 0.25}], "controller": {"tolerance": 0}}},
            {"name": "c", "rule": {"policy": "hpa", "metrics": [{"source": {"external": {"selector": "nil"}}, "name": "x",
                "target": {"value_milli": 1}}], "behavior": {"scale_down": {"select": "Disabled"}}}}]}"#;
        let policy = crate::policy(text).unwrap();
        let text = policy_text(&policy);
        assert_eq!(crate::policy(&text).unwrap(), policy, "{text}");
        assert!(text.contains("behavior = {}\n"), "{text}");
    }
}
