//! What Rust programs publish.

use base64::prelude::{BASE64_STANDARD, Engine};
use ergate_actors::submission::After;
#[cfg(feature = "kafka")]
use ergate_actors::submission::Extras;
use ergate_events::task::OnFailure;
use ergate_events::time::{Micros, Timestamp};
use serde::{Serialize, Serializer};
#[cfg(feature = "kafka")]
use serde_json::value::RawValue;

use super::after;
use super::policy::{RetryWish, TimeoutsWish, write_span};

/// A request in plain form, to be written with `serde_json` as the value of a record or as a line.
///
/// ```
/// use ergate::request::TaskRequested;
///
/// let request = TaskRequested { key: Some("order-17"), ..TaskRequested::new("thumbnail", ["a.png", "b.png"]) };
/// let value = serde_json::to_string(&request)?;
/// assert_eq!(value, r#"{"type":"thumbnail","payload":["a.png","b.png"],"key":"order-17"}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Serialize)]
pub struct TaskRequested<'a, P> {
    /// The name of the task type.
    #[serde(rename = "type")]
    pub task_type: &'a str,
    /// The payload, where it is JSON; `None` together with `payload_base64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<P>,
    /// The bytes of a payload that is not JSON.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_base64")]
    pub payload_base64: Option<&'a [u8]>,
    /// The media type of the payload, where it is not `application/json`; of others the payload has to be a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<&'a str>,
    /// The idempotency key: the same key again is the same task. It has nothing to do with the key of the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
    /// How long the key stays valid.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_span")]
    pub key_window: Option<Micros>,
    /// From 0 to 9; a higher one starts sooner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Not to be started before.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_moment")]
    pub not_before: Option<Timestamp>,
    /// Parts of a retry policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryWish>,
    /// Parts of the timeouts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TimeoutsWish>,
    /// Names and values to find the task by; every name once.
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "write_labels")]
    pub labels: &'a [(&'a str, &'a str)],
    /// W3C trace context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<&'a str>,
    /// Where the result is to be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<&'a str>,
    /// The requester's own id, to be sent back with the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<&'a str>,
    /// Tasks that have to succeed first.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub after: &'a [After],
    /// What becomes of the task when one of those ends without success.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "after::write_policy")]
    pub on_failure: Option<OnFailure>,
}

impl<'a, P> TaskRequested<'a, P> {
    /// A request for nothing but the work.
    pub fn new(task_type: &'a str, payload: P) -> TaskRequested<'a, P> {
        TaskRequested {
            task_type,
            payload: Some(payload),
            payload_base64: None,
            content_type: None,
            key: None,
            key_window: None,
            priority: None,
            not_before: None,
            retry: None,
            timeouts: None,
            labels: &[],
            traceparent: None,
            reply_to: None,
            correlation_id: None,
            after: &[],
            on_failure: None,
        }
    }
}

/// The value of a record that asks for what a request of a batch asks for. A payload is written as the JSON that it is, and as base64 where it
/// is none. The jitter of a retry policy has no name in a record: the task type's holds.
///
/// # Errors
/// When a moment cannot be written.
#[cfg(feature = "kafka")]
pub(crate) fn record(task_type: &str, payload: &[u8], extras: Option<&Extras>) -> Result<Vec<u8>, serde_json::Error> {
    let none = Extras::default();
    let extras = extras.unwrap_or(&none);
    let content_type = extras.content_type.as_deref();
    // Of another media type a payload that looks like JSON would be taken for a text.
    let is_json = content_type.is_none_or(super::scalar::is_json);
    let json = is_json.then(|| serde_json::from_slice::<&RawValue>(payload).ok()).flatten();
    let labels: Vec<(&str, &str)> = extras.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let request = TaskRequested {
        task_type,
        payload: json,
        payload_base64: json.is_none().then_some(payload),
        content_type,
        key: extras.key.as_deref(),
        key_window: extras.key_window,
        priority: extras.priority,
        not_before: extras.not_before,
        retry: extras.retry.map(RetryWish::of),
        timeouts: extras.timeouts.map(TimeoutsWish::of),
        labels: &labels,
        traceparent: extras.trace_parent.as_deref(),
        reply_to: extras.reply_to.as_deref(),
        correlation_id: extras.correlation_id.as_deref(),
        after: &extras.after,
        on_failure: extras.on_failure,
    };
    let mut value = Vec::with_capacity(payload.len() + 128);
    serde_json::to_writer(&mut value, &request)?;
    Ok(value)
}

#[allow(clippy::ref_option, reason = "serde calls it with a reference")]
fn write_base64<S: Serializer>(bytes: &Option<&[u8]>, to: S) -> Result<S::Ok, S::Error> {
    bytes.map(|bytes| BASE64_STANDARD.encode(bytes)).serialize(to)
}

#[allow(clippy::ref_option, reason = "serde calls it with a reference")]
fn write_moment<S: Serializer>(at: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    let micros = at.and_then(|Timestamp(micros)| i64::try_from(micros).ok());
    let moment = micros.and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
    moment
        .map(|moment| moment.to_string())
        .ok_or_else(|| serde::ser::Error::custom("a moment after the year 9999"))?
        .serialize(to)
}

fn write_labels<S: Serializer>(labels: &[(&str, &str)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(labels.iter().copied())
}

#[cfg(all(test, feature = "kafka"))]
mod tests {
    use ergate_events::id::TaskId;
    use ergate_events::task::{RetryPolicy, Timeouts, TypeSettings};

    use super::*;
    use crate::request::{Record, parse};

    fn read_back(payload: &[u8], extras: Option<&Extras>) -> (String, Vec<u8>, Option<Box<Extras>>) {
        let value = record("thumbnail", payload, extras).expect("it can be written");
        let mut request = parse(&Record { value: Some(&value), ..Record::default() }, Timestamp(0)).expect("it can be read");
        let extras = request.take_extras(&TypeSettings::default());
        (request.task_type.into_owned(), request.payload.into_owned(), extras)
    }

    #[test]
    fn what_is_written_is_read_back_as_it_was() {
        let base = TypeSettings::default();
        let extras = Extras {
            key: Some("order-17".to_owned()),
            key_window: Some(Micros::from_secs(3_600)),
            priority: Some(7),
            not_before: Some(Timestamp(1_900_000_000_000_001)),
            retry: Some(RetryPolicy { attempts: 3, coefficient_milli: 1_500, ..base.retry }),
            timeouts: Some(Timeouts { heartbeat: Some(Micros::from_secs(5)), ..base.timeouts }),
            content_type: None,
            trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            labels: vec![("tenant".to_owned(), "a".to_owned())],
            reply_to: Some("answers".to_owned()),
            correlation_id: Some("c-1".to_owned()),
            after: vec![After::Task(TaskId::default()), After::key("a"), After::key_of("fetch", "b")],
            on_failure: Some(OnFailure::Run),
        };
        let (name, payload, read) = read_back(br#"{"a": [1, 2.50]}"#, Some(&extras));
        assert_eq!((name.as_str(), payload.as_slice()), ("thumbnail", &br#"{"a": [1, 2.50]}"#[..]));
        assert_eq!(format!("{:?}", read.expect("it asks for much")), format!("{extras:?}"));
        assert!(read_back(b"1", None).2.is_none());
    }

    #[test]
    fn payloads_that_are_not_json_keep_their_bytes() {
        for payload in [&b"\xff\x00"[..], b"", b"plain words", b"{"] {
            assert_eq!(read_back(payload, None).1, payload);
        }
        let typed = Extras { content_type: Some("text/csv".to_owned()), ..Extras::default() };
        let (_, payload, extras) = read_back(b"1", Some(&typed));
        assert_eq!((payload.as_slice(), extras.expect("it has a media type").content_type), (&b"1"[..], typed.content_type));
    }
}
