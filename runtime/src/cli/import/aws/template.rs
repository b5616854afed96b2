//! Templates of CloudFormation: parameters are replaced by their defaults, before anything else is read.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::cli::import::refusal::Refusal;
use crate::cli::import::yaml::{Document, Entry, Node, Value};

/// The document with the defaults of its parameters in their places; one that is no template as it is.
pub(super) fn resolve(document: &Document) -> Result<Document, Refusal> {
    let parameters = document.root.get("Parameters").and_then(Node::entries).unwrap_or_default();
    // A default is one text or number; what else stands there replaces nothing.
    let default = |entry: &Entry| entry.value.get("Default").filter(|node| node.text().is_some()).cloned();
    let known = parameters.iter().filter_map(|entry| Some((&*entry.key, default(entry)?)));
    let known: BTreeMap<&str, Node> = known.collect();
    let names: BTreeSet<&str> = parameters.iter().map(|entry| &*entry.key).collect();
    let is_template = document.root.get("Resources").is_some();
    let root = if is_template { replaced(&document.root, &known, &names)? } else { document.root.clone() };
    Ok(Document { number: document.number, root })
}

fn replaced(node: &Node, known: &BTreeMap<&str, Node>, names: &BTreeSet<&str>) -> Result<Node, Refusal> {
    if let Some(name) = parameter(node) {
        if let Some(default) = known.get(name) {
            return Ok(default.in_line(node.line));
        }
        if names.contains(name) {
            let reason = format!(
                "is a parameter without a default: write `Default` with the number of this place under Parameters.{name}"
            );
            return Err(Refusal::of(node.line, name, reason));
        }
        return Ok(node.clone());
    }
    Ok(match &node.value {
        Value::Scalar { .. } => node.clone(),
        Value::List(list) => {
            let list: Result<Rc<[Node]>, _> = list.iter().map(|item| replaced(item, known, names)).collect();
            node.with(Value::List(list?))
        }
        Value::Map(entries) => {
            let entry = |entry: &Entry| Ok(Entry { key: entry.key.clone(), value: replaced(&entry.value, known, names)? });
            let entries: Result<Rc<[Entry]>, Refusal> = entries.iter().map(entry).collect();
            node.with(Value::Map(entries?))
        }
    })
}

/// What `!Ref NAME` and `{"Ref": "NAME"}` refer to.
fn parameter(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar { text, .. } if node.tag.as_deref() == Some("Ref") => Some(text),
        Value::Map(entries) => match &**entries {
            [Entry { key, value }] if **key == *"Ref" => value.text(),
            _ => None,
        },
        Value::Scalar { .. } | Value::List(_) => None,
    }
}

/// The text of a value, as far as a template says it: what it refers to by name, the pattern of a `Sub`, the parts of a `Join`.
pub(super) fn text(node: &Node) -> Option<String> {
    if let Some(name) = parameter(node) {
        return Some(name.to_owned());
    }
    match (&node.value, node.tag.as_deref()) {
        (Value::Scalar { text, .. }, None | Some("Sub" | "GetAtt")) => Some(text.to_string()),
        (Value::List(list), Some("Join" | "GetAtt" | "Sub")) => Some(joined(list)),
        (Value::Map(entries), None) => match &**entries {
            [Entry { key, value }] if key.starts_with("Fn::") => match &value.value {
                Value::List(list) => Some(joined(list)),
                Value::Scalar { .. } | Value::Map(_) => text(value),
            },
            _ => None,
        },
        (Value::Scalar { .. } | Value::List(_) | Value::Map(_), _) => None,
    }
}

/// `["/", ["service", "main", "api"]]` with its separator; of anything else the parts with dots between them.
fn joined(list: &[Node]) -> String {
    let texts = |nodes: &[Node]| nodes.iter().filter_map(text).collect::<Vec<_>>();
    match list {
        [separator, parts] if parts.list().is_some() => {
            texts(parts.list().unwrap_or_default()).join(&text(separator).unwrap_or_default())
        }
        _ => texts(list).join("."),
    }
}
