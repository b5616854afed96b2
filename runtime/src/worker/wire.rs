//! What goes over the wire: `docs/worker-protocol.md` as types.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ergate_events::id::AttemptId;
use ergate_events::ran::{self, CudaVersion, KernelDigest};
use ergate_events::time::Micros;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The version of the protocol that this build speaks.
pub(super) const PROTOCOL: u32 = 1;

/// What a worker says of itself.
#[derive(Serialize)]
pub(super) struct Registration<'a> {
    pub(super) protocol: u32,
    pub(super) pool: &'a str,
    pub(super) slots: u32,
    pub(super) types: Vec<&'a str>,
    pub(super) name: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) lease: String,
    pub(super) running: Vec<AttemptId>,
}

/// What every answer may say beside its own.
#[derive(Deserialize)]
pub(super) struct Told {
    #[serde(default)]
    pub(super) stop: Vec<Stop>,
    #[serde(default)]
    pub(super) drain: bool,
}

/// What a registration is answered with, and may be told later.
#[derive(Deserialize)]
pub(super) struct Registered {
    /// Where the engines are, whoever answers first; none where there is only that one.
    #[serde(default)]
    pub(super) engines: Vec<String>,
    /// How often the engine wants to hear what the worker uses; never without it.
    #[serde(default)]
    pub(super) usage_every: Option<String>,
    #[serde(flatten)]
    pub(super) told: Told,
}

/// An attempt that is not wanted any more.
#[derive(Clone, Copy, Deserialize)]
pub(super) struct Stop {
    pub(super) attempt: AttemptId,
    #[serde(default)]
    pub(super) hard: bool,
}

/// A question for attempts.
#[derive(Serialize)]
pub(super) struct Ask {
    pub(super) seq: u64,
    pub(super) slots: usize,
    pub(super) wait: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) again: bool,
}

/// The answer to it.
#[derive(Deserialize)]
pub(super) struct Leased<'a> {
    #[serde(default, borrow)]
    pub(super) attempts: Vec<Given<'a>>,
    /// Where the engines are, where that has changed.
    #[serde(default)]
    pub(super) engines: Vec<String>,
    #[serde(flatten)]
    pub(super) told: Told,
}

/// An attempt.
#[derive(Deserialize)]
pub(super) struct Given<'a> {
    pub(super) attempt: AttemptId,
    #[serde(borrow)]
    pub(super) fence: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    pub(super) task_type: Cow<'a, str>,
    #[serde(default, borrow, deserialize_with = "present")]
    pub(super) payload: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) payload_base64: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub(super) payload_url: Option<Cow<'a, str>>,
    pub(super) timeout_ms: u64,
    #[serde(default)]
    pub(super) heartbeat_ms: Option<u64>,
    #[serde(default, borrow, deserialize_with = "present")]
    pub(super) checkpoint: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) checkpoint_base64: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub(super) traceparent: Option<Cow<'a, str>>,
}

/// JSON that is there, `null` among it.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// The answer to a report.
#[derive(Deserialize)]
pub(super) struct Reported {
    #[serde(default)]
    pub(super) refused: Vec<Refused>,
    #[serde(default)]
    pub(super) elsewhere: Vec<Elsewhere>,
    #[serde(flatten)]
    pub(super) told: Told,
}

/// News that did not count.
#[derive(Deserialize)]
pub(super) struct Refused {
    pub(super) attempt: AttemptId,
    pub(super) reason: String,
    #[serde(default)]
    pub(super) detail: String,
}

/// News that nobody has recorded who leads its task.
#[derive(Deserialize)]
pub(super) struct Elsewhere {
    pub(super) attempt: AttemptId,
    /// Who may lead it.
    #[serde(default)]
    pub(super) engine: Option<String>,
}

/// A failure as it is reported.
#[derive(Serialize)]
pub(super) struct Failure<'a> {
    pub(super) class: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) message: &'a str,
    pub(super) retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retry_after: Option<String>,
}

/// How many attempts at a time the worker does best with.
#[derive(Serialize)]
pub(super) struct Concurrency<'a> {
    pub(super) limit: u32,
    pub(super) was: u32,
    pub(super) reason: &'a str,
}

/// A sign of life, with what the worker uses.
#[derive(Serialize)]
pub(super) struct Sign {
    pub(super) usage: Used,
}

/// What a worker uses.
#[derive(Serialize)]
pub(super) struct Used {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_cores: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory_bytes: Option<u64>,
    pub(super) over: String,
}

/// How far an attempt is.
#[derive(Serialize)]
pub(super) struct Progress<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) percent: Option<u8>,
    pub(super) stage: &'a str,
    pub(super) message: &'a str,
}

/// Where an attempt ran.
#[derive(Serialize)]
pub(super) struct Ran<'a> {
    pub(super) device: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) driver: Option<CudaVersion>,
    pub(super) kernel: KernelDigest,
    pub(super) batch_size: u32,
    pub(super) queue: String,
    pub(super) copy: String,
    pub(super) compute: String,
    pub(super) memory_bytes: u64,
}

impl<'a> From<&'a ran::Ran> for Ran<'a> {
    fn from(ran: &'a ran::Ran) -> Ran<'a> {
        let ran::Ran { ref device, driver, kernel, batch_size, queue, copy, compute, memory_bytes } = *ran;
        let (queue, copy, compute) = (queue.to_string(), copy.to_string(), compute.to_string());
        Ran { device, driver, kernel, batch_size, queue, copy, compute, memory_bytes }
    }
}

/// A span as the protocol writes it.
pub(super) fn span(span: Duration) -> String {
    Micros::from(span).to_string()
}

/// Bytes that were given as JSON or in base64; `None` where they were given as neither, or as what is no base64.
pub(super) fn bytes<'a>(json: Option<&'a RawValue>, base64: Option<&str>) -> Option<Cow<'a, [u8]>> {
    match (json, base64) {
        (Some(json), _) => Some(Cow::Borrowed(json.get().as_bytes())),
        (None, Some(text)) => STANDARD.decode(text).ok().map(Cow::Owned),
        (None, None) => None,
    }
}

/// Appends `,"NAME":JSON`, or `,"NAME_base64":"…"` for bytes that are no JSON.
pub(super) fn push_bytes(into: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    into.extend_from_slice(b",\"");
    into.extend_from_slice(name.as_bytes());
    if is_json(bytes) {
        into.extend_from_slice(b"\":");
        into.extend_from_slice(bytes);
    } else {
        into.extend_from_slice(b"_base64\":\"");
        into.extend_from_slice(STANDARD.encode(bytes).as_bytes());
        into.push(b'"');
    }
}

/// Appends `,"NAME":` and a value.
pub(super) fn push_value(into: &mut Vec<u8>, name: &str, value: &impl Serialize) {
    into.extend_from_slice(b",\"");
    into.extend_from_slice(name.as_bytes());
    into.extend_from_slice(b"\":");
    // Texts and numbers can always be written, and to memory.
    let _ = serde_json::to_writer(into, value);
}

fn is_json(bytes: &[u8]) -> bool {
    bytes == b"null" || serde_json::from_slice::<&RawValue>(bytes).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_without_copies_and_with_everything_that_may_be_in_it() {
        let text = r#"{"seq":1,"attempts":[{"attempt":"0-17.2","task":"0-17","number":2,"fence":"1.2","type":"resize",
            "payload":{"image": "a.png"},"deadline":"2026-03-01T12:00:30Z","timeout_ms":30000,"heartbeat_ms":5000,
            "checkpoint_base64":"/wA=","traceparent":"00-1-2-01","more":1}],"stop":[{"attempt":"0-9.1","hard":true}],"drain":false}"#;
        let Leased { attempts, told, .. } = serde_json::from_str(text).unwrap();
        assert_eq!((told.stop[0].attempt.to_string().as_str(), told.stop[0].hard, told.drain), ("0-9.1", true, false));
        let one = &attempts[0];
        assert!(matches!(one.task_type, Cow::Borrowed("resize")));
        assert_eq!(bytes(one.payload, None).unwrap(), &br#"{"image": "a.png"}"#[..]);
        assert_eq!(bytes(one.checkpoint, one.checkpoint_base64.as_deref()).unwrap(), &[255, 0][..]);
        assert_eq!((one.timeout_ms, one.heartbeat_ms), (30_000, Some(5_000)));
        let one: Given<'_> =
            serde_json::from_str(r#"{"attempt":"0-1.1","fence":"1.1","type":"a","payload":null,"timeout_ms":1}"#).unwrap();
        assert_eq!(bytes(one.payload, None).unwrap(), &b"null"[..]);
    }

    #[test]
    fn bytes_are_json_where_they_are_that() {
        for (bytes, expected) in [
            (&b"{\"a\":[1]}"[..], r#","result":{"a":[1]}"#),
            (b"null", r#","result":null"#),
            (b"", r#","result_base64":"""#),
            (b"\xff", r#","result_base64":"/w==""#),
            (b"1 2", r#","result_base64":"MSAy""#),
        ] {
            let mut text = Vec::new();
            push_bytes(&mut text, "result", bytes);
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
    }
}
