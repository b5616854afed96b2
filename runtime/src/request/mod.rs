//! One reader of requests: a record of a topic, a line of NDJSON or the body of an HTTP request becomes a [`Request`] or a [`Refusal`].
//!
//! A record has one of three forms, which its headers tell apart (`docs/producing.md`):
//!
//! | form | told by | the request lies in |
//! |---|---|---|
//! | plain | neither of the two below | the value: `{"type": …, "payload": …}` |
//! | CloudEvents, structured | `content-type: application/cloudevents+json` | the value: attributes and `data` |
//! | CloudEvents, binary | headers `ce_*` | the headers; the value is the payload |
//!
//! Reading is pure: the clock is an argument, and no byte of the outside can make it panic. What is not understood is refused by name
//! instead of passed over, for a request whose `priorty` nobody reads is a request that runs at the wrong time.

mod after;
mod cloudevent;
mod headers;
mod json;
mod plain;
mod policy;
mod producer;
mod refusal;
mod scalar;

use std::borrow::Cow;

use ergate_actors::submission::Extras;
use ergate_events::task::{ASKS_MAX, PAYLOAD_BYTES_MAX, TypeSettings};
use ergate_events::time::{Micros, Timestamp};
#[cfg(feature = "http")]
use serde_json::value::RawValue;

pub use self::after::parse_after;
use self::headers::{Form, Headers};
pub use self::policy::{RetryWish, TimeoutsWish};
pub use self::producer::TaskRequested;
#[cfg(feature = "kafka")]
pub(crate) use self::producer::record;
pub use self::refusal::Refusal;
pub use self::scalar::{parse_moment, parse_span};

/// Longest value that is read: the largest payload in base64, and room for everything around it.
pub const VALUE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX.div_ceil(3) * 4 + (64 << 10);
/// Most headers of a record: those that CloudEvents and tracing know are a dozen, and every one costs a look.
pub const HEADERS_MAX: usize = 64;
/// Most bytes of all headers with their names: what HTTP servers usually allow.
pub const HEADER_BYTES_MAX: usize = 16 << 10;
/// Deepest nesting of a payload: serde_json, which task functions read it with, gives up at 128.
pub const DEPTH_MAX: usize = 100;
/// The label that a source gives its tasks, by which it knows them again; no request may have it.
pub(crate) const SOURCE_LABEL: &str = "ergate.source";
/// Longest span, and furthest moment ahead, that a request may name: a hundred years, beyond which lies a slip in the unit.
pub const AHEAD_MAX: Micros = Micros::from_secs(36_525 * 24 * 3_600);

/// What a client published, byte for byte.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record<'a> {
    /// The record's key. It chooses the partition and says nothing about the request: it is *not* the idempotency key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values, in the order of the record; names may repeat.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// A request as its record tells it; what the usual request has is borrowed from there.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    /// The name of the task type.
    pub task_type: Cow<'a, str>,
    /// The payload. JSON is kept as the producer wrote it.
    pub payload: Cow<'a, [u8]>,
    /// What few requests have, without a retry policy and timeouts; `None` where nothing was asked for.
    pub extras: Option<Box<Extras>>,
    /// Parts of a retry policy.
    pub retry: Option<RetryWish>,
    /// Parts of the timeouts.
    pub timeouts: Option<TimeoutsWish>,
    /// Where the result is to be sent.
    pub reply_to: Option<String>,
    /// The requester's own id, to be sent back with the result.
    pub correlation_id: Option<String>,
}

impl Request<'_> {
    /// Takes what the request asks for beyond its type's settings; what it leaves open in a policy is as the type has it.
    pub fn take_extras(&mut self, settings: &TypeSettings) -> Option<Box<Extras>> {
        if let Some(retry) = self.retry.take() {
            self.extras.get_or_insert_default().retry = Some(retry.over(settings.retry));
        }
        if let Some(timeouts) = self.timeouts.take() {
            self.extras.get_or_insert_default().timeouts = Some(timeouts.over(settings.timeouts));
        }
        if let Some(reply_to) = self.reply_to.take() {
            self.extras.get_or_insert_default().reply_to = Some(reply_to);
        }
        if let Some(correlation_id) = self.correlation_id.take() {
            self.extras.get_or_insert_default().correlation_id = Some(correlation_id);
        }
        self.extras.take()
    }
}

impl Request<'_> {
    /// Takes an idempotency key from a place of its own, such as a header, which `field` names.
    ///
    /// # Errors
    /// When it is no key, or the request names another one.
    pub fn set_key(&mut self, field: &str, key: &str) -> Result<(), Refusal> {
        let key = scalar::short(key).map_err(|reason| Refusal::new(field, reason))?;
        let extras = self.extras.get_or_insert_default();
        match &extras.key {
            Some(given) if given != key => {
                Err(Refusal::new(field, "is not the key that the request names; one of them is expected"))
            }
            Some(_) => Ok(()),
            None => {
                extras.key = Some(key.to_owned());
                Ok(())
            }
        }
    }
}

/// Takes a JSON object with these names apart; a name that is not among them, or is there twice, is refused.
///
/// # Errors
/// What is wrong, and where.
#[cfg(feature = "http")]
pub(crate) fn object<'a, const N: usize>(value: &'a [u8], names: &[&str; N]) -> Result<[Option<&'a RawValue>; N], Refusal> {
    json::split_value(json::utf8(value)?, names, &|name: &str, _: &RawValue| Err(Refusal::unknown(name, name, names)))
}

/// Reads a record. A delay counts from `now`, the moment of reading.
///
/// # Errors
/// The field that is wrong, what was found there and what is expected.
pub fn parse<'a>(record: &Record<'a>, now: Timestamp) -> Result<Request<'a>, Refusal> {
    let headers = Headers::read(record.headers)?;
    let form = headers.form()?;
    let Some(value) = record.value else {
        let reason = "is missing (a tombstone); a request without a payload still has a value";
        return Err(Refusal::new("value", reason));
    };
    if value.len() > VALUE_BYTES_MAX {
        let reason = format!("has {} bytes; at most {VALUE_BYTES_MAX} are expected", value.len());
        return Err(Refusal::new("value", reason));
    }
    match form {
        Form::Plain => plain::parse(value, &headers, now),
        Form::Structured => cloudevent::structured(value, &headers, now),
        Form::Binary => cloudevent::binary(value, &headers, now),
    }
}

/// What few requests have, where a request has it. `policies` of its own are counted, and are not in it yet.
fn boxed(extras: Extras, policies: usize, labels: &str) -> Result<Option<Box<Extras>>, Refusal> {
    let Extras {
        key,
        key_window,
        priority,
        not_before,
        retry,
        timeouts,
        content_type,
        trace_parent,
        labels: names,
        after,
        on_failure,
        reply_to: _,
        correlation_id: _,
    } = &extras;
    let given = [
        priority.is_some(),
        not_before.is_some(),
        retry.is_some(),
        timeouts.is_some(),
        content_type.is_some(),
        trace_parent.is_some(),
        on_failure.is_some(),
    ];
    let asks = names.len() + given.into_iter().filter(|given| *given).count();
    if asks + policies > ASKS_MAX {
        let (count, asks) = (names.len(), asks + policies);
        let reason = format!("has {count} names, which makes {asks} settings; at most {ASKS_MAX} in all are expected");
        return Err(Refusal::new(labels, reason));
    }
    Ok((asks > 0 || !after.is_empty() || key.is_some() || key_window.is_some()).then(|| Box::new(extras)))
}
