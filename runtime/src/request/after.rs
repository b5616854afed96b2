//! The tasks that a request comes after: a list of ids, such as `"0-17"`, and of keys, such as `{"key": "order-17"}` or `{"type": "fetch", "key": "a"}`.

use ergate_actors::submission::After;
use ergate_events::task::{AFTER_MAX, OnFailure};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::plain::read;
use super::refusal::{Refusal, instead, instead_text};
use super::{json, scalar};

const EXPECTED: &str = "the id of a task, such as \"0-17\", or an object with its key";

/// Reads the list in a field.
pub(super) fn list(field: &str, raw: &RawValue) -> Result<Vec<After>, Refusal> {
    let refused = |reason: String| Refusal::new(field, reason);
    let items: Vec<&RawValue> =
        serde_json::from_str(raw.get()).map_err(|_| refused(instead(raw.get(), "a list of ids and keys of tasks")))?;
    if items.len() > AFTER_MAX {
        return Err(refused(format!("has {} names; at most {AFTER_MAX} are expected", items.len())));
    }
    items.iter().enumerate().map(|(index, item)| one(&format!("{field}[{index}]"), item)).collect()
}

/// Reads one name as people write it: an id such as `0-17`, or an object such as `{"key": "order-17"}`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_after(text: &str) -> Result<After, String> {
    let json = if text.starts_with('{') { text.to_owned() } else { serde_json::Value::from(text).to_string() };
    let raw = serde_json::from_str::<&RawValue>(&json).map_err(|_| instead(text, EXPECTED))?;
    one("after", raw).map_err(|refusal| refusal.to_string())
}

/// Reads the list in an attribute of a CloudEvent, which is a text that holds it.
pub(super) fn text(field: &str, text: &str) -> Result<Vec<After>, Refusal> {
    let raw = serde_json::from_str::<&RawValue>(text);
    let raw = raw.map_err(|_| Refusal::new(field, instead_text(text, "a list in JSON, such as [\"0-17\"],")))?;
    list(field, raw)
}

/// What becomes of a request when a task fails that it comes after.
pub(super) fn on_failure(text: &str) -> Result<OnFailure, String> {
    OnFailure::from_name(text).ok_or_else(|| instead_text(text, "cancel or run"))
}

/// Refuses a policy without anything that it could be about.
pub(super) fn needed(field: &str, policy: Option<OnFailure>, after: &[After]) -> Result<Option<OnFailure>, Refusal> {
    match policy {
        Some(_) if after.is_empty() => Err(Refusal::new(field, "is given without `after`; both are expected, or none")),
        policy => Ok(policy),
    }
}

fn one(field: &str, raw: &RawValue) -> Result<After, Refusal> {
    let refused = |reason: String| Refusal::new(field, reason);
    match raw.get().as_bytes().first() {
        Some(b'"') => {
            let id = json::text(raw).map_err(refused)?;
            id.parse().map(After::Task).map_err(|_| refused(instead(raw.get(), EXPECTED)))
        }
        Some(b'{') => {
            let [task_type, key] = json::split_field(field, raw, &["type", "key"])?;
            let short = |raw| {
                let text = json::text(raw)?;
                scalar::short(&text)?;
                Ok(text.into_owned())
            };
            let (type_field, key_field) = (format!("{field}.type"), format!("{field}.key"));
            let task_type = read(&type_field, task_type, short)?;
            let key = read(&key_field, key, short)?.ok_or_else(|| Refusal::missing(&key_field, "the key of a request"))?;
            Ok(After::Key { task_type, key })
        }
        _ => Err(refused(instead(raw.get(), EXPECTED))),
    }
}

#[allow(clippy::ref_option, reason = "serde calls it with a reference")]
pub(super) fn write_policy<S: Serializer>(policy: &Option<OnFailure>, to: S) -> Result<S::Ok, S::Error> {
    policy.map(OnFailure::name).serialize(to)
}
