//! The plain form: `{"type": "thumbnail", "payload": {…}, …}`, in a record or on a line.

use std::borrow::Cow;

use ergate_actors::submission::Extras;
use ergate_events::time::{Micros, Timestamp};
use serde_json::value::RawValue;

use super::headers::Headers;
use super::json;
use super::policy::{RetryWish, TimeoutsWish, limit, span};
use super::refusal::{Refusal, instead};
use super::{Request, SOURCE_LABEL, after, boxed, scalar};

/// Everything that a request may say. A name that is not here is refused, one that begins with `x-` too: one's own names belong into
/// `labels`, where they are kept and found again, and a field of a later version must not be lost on an earlier engine.
const NAMES: [&str; 17] = [
    "type",
    "payload",
    "payload_base64",
    "content_type",
    "key",
    "key_window",
    "priority",
    "not_before",
    "delay",
    "retry",
    "timeouts",
    "labels",
    "traceparent",
    "reply_to",
    "correlation_id",
    "after",
    "on_failure",
];

/// Reads a record in plain form.
pub(super) fn parse<'a>(value: &'a [u8], headers: &Headers<'a>, now: Timestamp) -> Result<Request<'a>, Refusal> {
    let fields = json::split_value(json::utf8(value)?, &NAMES, &unknown)?;
    let [
        task_type,
        payload,
        payload_base64,
        content_type,
        key,
        key_window,
        priority,
        not_before,
        delay,
        retry,
        timeouts,
        labels,
        traceparent,
        reply_to,
        correlation_id,
        after,
        on_failure,
    ] = fields;
    let task_type = read("type", task_type, json::text)?.ok_or_else(|| Refusal::missing("type", "the name of a task type"))?;
    scalar::task_type(&task_type).map_err(|reason| Refusal::new("type", reason))?;
    let media_type = read("content_type", content_type, owned(scalar::media_type))?;
    let (payload, content_type) = data(("payload", payload), ("payload_base64", payload_base64), media_type)?;
    let not_before = read("not_before", not_before, |raw| scalar::moment(&moment_text(raw)?, now))?;
    let delay = read("delay", delay, span)?;
    let retry = retry.map(RetryWish::read).transpose()?;
    let timeouts = timeouts.map(TimeoutsWish::read).transpose()?;
    let after = after.map_or(Ok(Vec::new()), |raw| after::list("after", raw))?;
    let on_failure = read("on_failure", on_failure, |raw| after::on_failure(&json::text(raw)?))?;
    let extras = Extras {
        key: read("key", key, owned(scalar::short))?,
        key_window: read("key_window", key_window, limit)?,
        priority: read("priority", priority, |raw| scalar::priority(raw.get()))?,
        not_before: starting(("not_before", not_before), ("delay", delay), now)?,
        retry: None,
        timeouts: None,
        content_type,
        trace_parent: read("traceparent", traceparent, owned(scalar::trace_parent))?.or(headers.trace_parent.map(str::to_owned)),
        labels: labels.map_or(Ok(Vec::new()), label_list)?,
        on_failure: after::needed("on_failure", on_failure, &after)?,
        after,
        ..Extras::default()
    };
    Ok(Request {
        task_type,
        payload,
        extras: boxed(extras, usize::from(retry.is_some()) + usize::from(timeouts.is_some()), "labels")?,
        retry,
        timeouts,
        reply_to: or_header(read("reply_to", reply_to, owned(scalar::short))?, "reply-to", headers.reply_to)?,
        correlation_id: or_header(
            read("correlation_id", correlation_id, owned(scalar::short))?,
            "correlation-id",
            headers.correlation_id,
        )?,
    })
}

fn unknown(name: &str, _: &RawValue) -> Result<(), Refusal> {
    if name == "specversion" {
        let reason =
            "belongs to a CloudEvent; such a record is expected to have the header content-type: application/cloudevents+json";
        return Err(Refusal::new(name, reason));
    }
    Err(Refusal::unknown(name, name, &NAMES))
}

/// Reads a field where it is given.
pub(super) fn read<'a, T>(
    field: &str,
    raw: Option<&'a RawValue>,
    parse: impl FnOnce(&'a RawValue) -> Result<T, String>,
) -> Result<Option<T>, Refusal> {
    raw.map(parse).transpose().map_err(|reason| Refusal::new(field, reason))
}

/// Reads a text that is kept.
fn owned(check: fn(&str) -> Result<&str, String>) -> impl Fn(&RawValue) -> Result<String, String> {
    move |raw| {
        let text = json::text(raw)?;
        check(&text)?;
        Ok(text.into_owned())
    }
}

fn moment_text(raw: &RawValue) -> Result<Cow<'_, str>, String> {
    json::text(raw).map_err(|_| instead(raw.get(), "a moment such as \"2030-01-31T12:00:00Z\""))
}

fn label_list(raw: &RawValue) -> Result<Vec<(String, String)>, Refusal> {
    let labels = json::texts("labels", raw)?;
    for (name, value) in &labels {
        let checked = scalar::short(name).and_then(|_| if value.is_empty() { Ok("") } else { scalar::short(value) });
        let free = checked.and_then(|_| {
            if name == SOURCE_LABEL { Err("is what sources name their lines by; leave it out".to_owned()) } else { Ok(()) }
        });
        free.map_err(|reason| Refusal::new(&format!("labels.{name}"), reason))?;
    }
    Ok(labels)
}

/// What a header says where the value says nothing.
pub(super) fn or_header(given: Option<String>, name: &str, header: Option<&str>) -> Result<Option<String>, Refusal> {
    match (given, header) {
        (None, Some(text)) => {
            let text = scalar::short(text).map_err(|reason| Refusal::new(name, reason))?;
            Ok(Some(text.to_owned()))
        }
        (given, _) => Ok(given),
    }
}

/// The moment before which a task does not start.
pub(super) fn starting(
    (moment, at): (&str, Option<Timestamp>),
    (field, delay): (&str, Option<Micros>),
    now: Timestamp,
) -> Result<Option<Timestamp>, Refusal> {
    match (at, delay) {
        (Some(_), Some(_)) => Err(Refusal::new(field, format!("is given together with `{moment}`; one of them is expected"))),
        (at, delay) => Ok(at.or(delay.map(|delay| now.after(delay)))),
    }
}

/// The payload and its media type, which is left out for JSON.
///
/// JSON is kept as it was written. Of another media type, a text stands for its characters and base64 for its bytes.
pub(super) fn data<'a>(
    (name, json): (&str, Option<&'a RawValue>),
    (name_base64, base64): (&str, Option<&'a RawValue>),
    media_type: Option<String>,
) -> Result<(Cow<'a, [u8]>, Option<String>), Refusal> {
    let refused = |reason| Refusal::new(name, reason);
    match (json, base64) {
        (Some(_), Some(_)) => Err(Refusal::new(name_base64, format!("is given together with `{name}`; one of them is expected"))),
        (None, Some(base64)) => {
            let of = |reason| Refusal::new(name_base64, reason);
            let bytes = scalar::bytes(&json::text(base64).map_err(of)?).map_err(of)?;
            scalar::payload(&bytes).map_err(of)?;
            let media_type = media_type.unwrap_or_else(|| "application/octet-stream".to_owned());
            if scalar::is_json(&media_type) {
                json_bytes(&bytes).map_err(of)?;
            }
            Ok((Cow::Owned(bytes), unless_usual(Some(media_type))))
        }
        (Some(raw), None) if media_type.as_deref().is_some_and(|media_type| !scalar::is_json(media_type)) => {
            let expected = "a text, or base64 in another field, for the payload is not JSON";
            let text = json::text(raw).map_err(|_| refused(instead(raw.get(), expected)))?;
            scalar::payload(text.as_bytes()).map_err(refused)?;
            let bytes = match text {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            };
            Ok((bytes, media_type))
        }
        (raw, None) => {
            let json = raw.map_or("null", RawValue::get).as_bytes();
            scalar::payload(json).and_then(|()| json::shallow(json)).map_err(refused)?;
            Ok((Cow::Borrowed(json), unless_usual(media_type)))
        }
    }
}

/// Checks bytes that are said to be JSON.
pub(super) fn json_bytes(bytes: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("is not UTF-8 from byte {} on; JSON in UTF-8 is expected", error.valid_up_to() + 1))?;
    json::check(text).and_then(|()| json::shallow(bytes))
}

/// A media type that says something: JSON is what every payload is taken for.
pub(super) fn unless_usual(media_type: Option<String>) -> Option<String> {
    media_type.filter(|media_type| !scalar::essence(media_type).eq_ignore_ascii_case("application/json"))
}
