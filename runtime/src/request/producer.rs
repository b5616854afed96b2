//! What Rust programs publish.

use ergate_events::time::{Micros, Timestamp};
use serde::{Serialize, Serializer};

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
    /// The payload.
    pub payload: P,
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
}

impl<'a, P> TaskRequested<'a, P> {
    /// A request for nothing but the work.
    pub fn new(task_type: &'a str, payload: P) -> TaskRequested<'a, P> {
        TaskRequested {
            task_type,
            payload,
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
        }
    }
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
