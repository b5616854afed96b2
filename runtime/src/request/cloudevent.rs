//! CloudEvents 1.0, binary and structured: `type` is the task type, `data` the payload, extensions are the rest.

use std::borrow::Cow;

use ergate_actors::submission::Extras;
use ergate_events::time::Timestamp;
use serde_json::value::RawValue;

use super::headers::{self, ATTRIBUTE, Headers};
use super::json;
use super::plain::{data, json_bytes, or_header, read, starting, unless_usual};
use super::policy::TimeoutsWish;
use super::refusal::{Refusal, instead, instead_text, nearest};
use super::{Request, after, boxed, scalar};

/// Attributes that mean something here: those of the specification, then extensions.
const NAMES: [&str; 16] = [
    "specversion",
    "type",
    "id",
    "source",
    "subject",
    "idempotencykey",
    "idempotencywindow",
    "priority",
    "notbefore",
    "delay",
    "expirytime",
    "traceparent",
    "correlationid",
    "replyto",
    "after",
    "onfailure",
];
/// Where those begin that may be left out, so that a slip in their names would go unseen.
const OPTIONAL: usize = 4;
/// Attributes that are known and say nothing about the task.
const IGNORED: [&str; 4] = ["time", "dataschema", "tracestate", "partitionkey"];

/// The attributes of an event as texts, in the order of [`NAMES`].
struct Attributes<'a> {
    /// What stands before a name in a record: `ce_` in headers, nothing in a value.
    prefix: &'static str,
    texts: [Option<Cow<'a, str>>; NAMES.len()],
}

/// Reads an event whose attributes are headers and whose data is the value.
pub(super) fn binary<'a>(value: &'a [u8], headers: &Headers<'a>, now: Timestamp) -> Result<Request<'a>, Refusal> {
    let mut attributes = Attributes { prefix: ATTRIBUTE, texts: Default::default() };
    for (name, value) in headers.attributes() {
        let Some(value) = value else { continue };
        let field = || format!("{ATTRIBUTE}{name}");
        match NAMES.iter().position(|known| *known == name) {
            Some(index) if attributes.texts[index].is_some() => {
                return Err(Refusal::new(&field(), "is given twice; one header of this name is expected"));
            }
            Some(index) => {
                let text = headers::text(value).map_err(|reason| Refusal::new(&field(), reason))?;
                attributes.texts[index] = Some(Cow::Borrowed(text));
            }
            None if name == "datacontenttype" => {
                return Err(Refusal::new(&field(), "is not a header in binary mode; the header content-type is expected"));
            }
            None => extension(ATTRIBUTE, name)?,
        }
    }
    let media_type = headers.content_type.map(scalar::media_type).transpose();
    let media_type = media_type.map_err(|reason| Refusal::new("content-type", reason))?;
    let checked = scalar::payload(value).and_then(|()| match media_type {
        Some(media_type) if !scalar::is_json(media_type) => Ok(()),
        _ if value.is_empty() => Err("is empty; JSON is expected, for example null".to_owned()),
        _ => json_bytes(value),
    });
    // The version comes first: what another version means by its data is not known here.
    attributes.version()?;
    checked.map_err(|reason| Refusal::new("value", reason))?;
    attributes.request(Cow::Borrowed(value), unless_usual(media_type.map(str::to_owned)), headers, now)
}

/// Reads an event that is a JSON object (JSON event format 1.0.2).
pub(super) fn structured<'a>(value: &'a [u8], headers: &Headers<'a>, now: Timestamp) -> Result<Request<'a>, Refusal> {
    const OWN: usize = NAMES.len();
    const ALL: [&str; OWN + 3] = {
        let mut all = [""; OWN + 3];
        let mut index = 0;
        while index < OWN {
            all[index] = NAMES[index];
            index += 1;
        }
        (all[OWN], all[OWN + 1], all[OWN + 2]) = ("data", "data_base64", "datacontenttype");
        all
    };
    let unknown = |name: &str, raw: &RawValue| {
        extension("", name)?;
        scalar_text(raw).map(drop).map_err(|reason| Refusal::new(name, reason))
    };
    let fields = json::split_value(json::utf8(value)?, &ALL, &unknown)?;
    let mut attributes = Attributes { prefix: "", texts: Default::default() };
    for ((text, name), raw) in attributes.texts.iter_mut().zip(NAMES).zip(fields) {
        // Libraries write a number as one, or as a text.
        *text = read(name, raw, if name == "priority" { scalar_text } else { json::text })?;
    }
    attributes.version()?;
    let [.., json, base64, media_type] = fields;
    let media_type = read("datacontenttype", media_type, |raw| scalar::media_type(&json::text(raw)?).map(str::to_owned))?;
    let (payload, content_type) = data(("data", json), ("data_base64", base64), media_type)?;
    attributes.request(payload, content_type, headers, now)
}

/// The text of an attribute, which may be a text, a number or a boolean.
fn scalar_text(raw: &RawValue) -> Result<Cow<'_, str>, String> {
    match raw.get().as_bytes().first() {
        Some(b'{' | b'[') => Err(instead(raw.get(), "a text, a number or a boolean")),
        Some(b'"') => json::text(raw),
        _ => Ok(Cow::Borrowed(raw.get())),
    }
}

/// Passes over what others put into an event, for gateways and other readers of the same event may add any extension; what looks like a slip
/// of one of ours is refused.
fn extension(prefix: &str, name: &str) -> Result<(), Refusal> {
    let refused = |reason: String| Err(Refusal::new(&format!("{prefix}{name}"), reason));
    if IGNORED.contains(&name) {
        return Ok(());
    }
    if name == "dataref" {
        return refused("is not supported; the data itself is expected".to_owned());
    }
    if let Some(meant) = nearest(name, &NAMES[OPTIONAL..]) {
        return refused(format!("is not a known attribute; did you mean `{prefix}{meant}`?"));
    }
    if name.is_empty() || !name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9')) {
        return refused("is not a name of an attribute; lower-case letters and digits are expected".to_owned());
    }
    Ok(())
}

impl<'a> Attributes<'a> {
    fn refusal(&self, name: &str, reason: String) -> Refusal {
        Refusal::new(&format!("{}{name}", self.prefix), reason)
    }

    fn version(&self) -> Result<(), Refusal> {
        match self.texts[0].as_deref() {
            Some("1.0") => Ok(()),
            Some(other) => Err(self.refusal("specversion", instead(other, "1.0"))),
            None => Err(self.refusal("specversion", "is missing; 1.0 is expected".to_owned())),
        }
    }

    fn request(
        mut self,
        payload: Cow<'a, [u8]>,
        content_type: Option<String>,
        headers: &Headers<'a>,
        now: Timestamp,
    ) -> Result<Request<'a>, Refusal> {
        let [
            _,
            task_type,
            id,
            source,
            subject,
            key,
            window,
            priority,
            not_before,
            delay,
            expiry,
            trace,
            correlation,
            reply,
            after,
            on_failure,
        ] = std::mem::take(&mut self.texts);
        let task_type = self.required("type", task_type, "the name of a task type")?;
        self.read("type", Some(&task_type), scalar::task_type)?;
        let id = self.required("id", id, "the id of the event")?;
        let source = self.required("source", source, "the source of the event")?;
        let mut labels =
            vec![("ce-id".to_owned(), self.short("id", id)?), ("ce-source".to_owned(), self.short("source", source)?)];
        if let Some(subject) = subject {
            labels.push(("ce-subject".to_owned(), self.short("subject", subject)?));
        }
        let not_before = self.read("notbefore", not_before.as_ref(), |text| scalar::moment(text, now))?;
        let delay = self.read("delay", delay.as_ref(), scalar::span)?;
        let timeouts = self.read("expirytime", expiry.as_ref(), |text| expiring(text, now))?;
        let trace = self.read("traceparent", trace.as_ref(), |text| scalar::trace_parent(text).map(str::to_owned))?;
        let after = after.map_or(Ok(Vec::new()), |text| after::text(&format!("{}after", self.prefix), &text))?;
        let on_failure = self.read("onfailure", on_failure.as_ref(), after::on_failure)?;
        let extras = Extras {
            key: key.map(|key| self.short("idempotencykey", key)).transpose()?,
            key_window: self.read("idempotencywindow", window.as_ref(), scalar::limit)?,
            priority: self.read("priority", priority.as_ref(), scalar::priority)?,
            not_before: starting(
                (&format!("{}notbefore", self.prefix), not_before),
                (&format!("{}delay", self.prefix), delay),
                now,
            )?,
            retry: None,
            timeouts: None,
            content_type,
            trace_parent: trace.or(headers.trace_parent.map(str::to_owned)),
            labels,
            on_failure: after::needed(&format!("{}onfailure", self.prefix), on_failure, &after)?,
            after,
            ..Extras::default()
        };
        let reply = reply.map(|reply| self.short("replyto", reply)).transpose()?;
        let correlation = correlation.map(|id| self.short("correlationid", id)).transpose()?;
        Ok(Request {
            task_type,
            payload,
            extras: boxed(extras, usize::from(timeouts.is_some()), "subject")?,
            retry: None,
            timeouts,
            reply_to: or_header(reply, "reply-to", headers.reply_to)?,
            correlation_id: or_header(correlation, "correlation-id", headers.correlation_id)?,
        })
    }

    fn required(&self, name: &str, text: Option<Cow<'a, str>>, expected: &str) -> Result<Cow<'a, str>, Refusal> {
        text.ok_or_else(|| Refusal::missing(&format!("{}{name}", self.prefix), expected))
    }

    fn short(&self, name: &str, text: Cow<'a, str>) -> Result<String, Refusal> {
        scalar::short(&text).map_err(|reason| self.refusal(name, reason))?;
        Ok(text.into_owned())
    }

    fn read<T>(
        &self,
        name: &str,
        text: Option<&Cow<'a, str>>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Refusal> {
        text.map(|text| parse(text)).transpose().map_err(|reason| self.refusal(name, reason))
    }
}

/// The moment from which on the event is of no use (extension `expirytime`) as the time that is left from the request to the last attempt's
/// end. When none is left the record is refused, so that it is found among the dead letters instead of nowhere.
fn expiring(text: &str, now: Timestamp) -> Result<TimeoutsWish, String> {
    let expiry = scalar::parse_moment(text).ok_or_else(|| instead_text(text, "a moment such as 2030-01-31T12:00:00Z"))?;
    let left = expiry.since(now);
    if left.0 == 0 {
        return Err(instead_text(text, "a moment that has not passed"));
    }
    Ok(TimeoutsWish { schedule_to_close: Some(left), ..TimeoutsWish::default() })
}
