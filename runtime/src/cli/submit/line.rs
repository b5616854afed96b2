//! One request as a user writes it: the object on a line of NDJSON, or the flags of the command.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ergate::events::time::{Micros, Timestamp};
use ergate::{Extras, RetryPolicy, Timeouts, TypeSettings, tasks};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::cli::embedded::parse_span;

/// A request. The payload is kept as it was written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) task_type: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) payload: Option<&'a RawValue>,
    pub(super) key: Option<String>,
    pub(super) key_window: Option<Span>,
    pub(super) priority: Option<u8>,
    pub(super) not_before: Option<Moment>,
    pub(super) delay: Option<Span>,
    pub(super) retry: Option<Retry>,
    pub(super) timeouts: Option<Limits>,
    pub(super) content_type: Option<String>,
    pub(super) trace_parent: Option<String>,
    #[serde(default, deserialize_with = "labels")]
    pub(super) labels: Vec<(String, String)>,
}

/// Parts of a retry policy; what is not said is as the type has it.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retry {
    pub(super) attempts: Option<u32>,
    initial: Option<Span>,
    coefficient: Option<f64>,
    max: Option<Span>,
}

/// Parts of the timeouts; what is not said is as the type has it.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    schedule_to_start: Option<Span>,
    pub(super) start_to_close: Option<Span>,
    schedule_to_close: Option<Span>,
    heartbeat: Option<Span>,
}

/// A span such as `"10s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Span(pub(super) Micros);

/// A moment such as `"2030-01-31T12:00:00Z"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Moment(pub(super) Timestamp);

impl From<Duration> for Span {
    fn from(span: Duration) -> Span {
        Span(Micros::from(span))
    }
}

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> Result<Span, String> {
        parse_span(&text).map(Span::from)
    }
}

impl TryFrom<String> for Moment {
    type Error = String;
    fn try_from(text: String) -> Result<Moment, String> {
        parse_moment(&text)
    }
}

/// Reads a moment in RFC 3339 form.
pub(super) fn parse_moment(text: &str) -> Result<Moment, String> {
    let moment = text.parse::<jiff::Timestamp>().ok().and_then(|moment| u64::try_from(moment.as_microsecond()).ok());
    moment.map(|micros| Moment(Timestamp(micros))).ok_or_else(|| "use a moment such as `2030-01-31T12:00:00Z`".to_owned())
}

/// The task types that can be asked for, with what they promise.
pub(super) struct Types(BTreeMap<&'static str, TypeSettings>);

impl Types {
    pub(super) fn built_in() -> Types {
        Types(tasks::all().into_iter().map(|known| (known.name, known.settings)).collect())
    }

    fn get(&self, name: &str) -> Result<&TypeSettings, String> {
        let known = || self.0.keys().copied().collect::<Vec<_>>().join(", ");
        self.0.get(name).ok_or_else(|| format!("task type {:?} is not known; known are: {}", start(name), known()))
    }
}

/// The first characters of a text that may be long.
fn start(text: &str) -> String {
    text.chars().take(64).collect()
}

impl<'a> Line<'a> {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Line<'a>, String> {
        let text =
            std::str::from_utf8(bytes).map_err(|error| format!("it is not UTF-8 from byte {} on", error.valid_up_to() + 1))?;
        if !text.trim_start().starts_with('{') {
            return Err(format!("a JSON object was expected and it begins with {:?}", text.chars().take(16).collect::<String>()));
        }
        serde_json::from_str(text).map_err(|error| reason(&error))
    }

    /// The payload, `null` where there is none.
    pub(super) fn payload(&self) -> &[u8] {
        self.payload.map_or("null", RawValue::get).as_bytes()
    }

    /// What the request asks for beyond its type's settings.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub(super) fn extras(self, types: &Types) -> Result<Option<Box<Extras>>, String> {
        let settings = types.get(&self.task_type)?;
        if self.delay.is_some() && self.not_before.is_some() {
            return Err("give either a delay or a moment not to start before".to_owned());
        }
        let after = self.delay.map(|Span(delay)| now().after(delay));
        let extras = Extras {
            key: self.key,
            key_window: self.key_window.map(|Span(span)| span),
            priority: self.priority,
            not_before: self.not_before.map(|Moment(at)| at).or(after),
            retry: self.retry.map(|retry| retry.over(settings.retry)).transpose()?,
            timeouts: self.timeouts.map(|limits| limits.over(settings.timeouts)),
            content_type: self.content_type,
            trace_parent: self.trace_parent,
            labels: self.labels,
            ..Extras::default()
        };
        Ok((!is_plain(&extras)).then(|| Box::new(extras)))
    }
}

/// Whether it asks for nothing; the usual request costs no allocation.
fn is_plain(extras: &Extras) -> bool {
    let Extras { key, key_window, priority, not_before, retry, timeouts, content_type, trace_parent, labels, .. } = extras;
    key.is_none()
        && key_window.is_none()
        && priority.is_none()
        && not_before.is_none()
        && retry.is_none()
        && timeouts.is_none()
        && content_type.is_none()
        && trace_parent.is_none()
        && labels.is_empty()
}

fn now() -> Timestamp {
    Timestamp(u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or(0))
}

impl Retry {
    /// A policy of at most so many attempts.
    pub(super) fn attempts(attempts: u32) -> Retry {
        Retry { attempts: Some(attempts), ..Retry::default() }
    }

    fn over(self, base: RetryPolicy) -> Result<RetryPolicy, String> {
        let milli = self.coefficient.map(|factor| factor * 1_000.0);
        if milli.is_some_and(|milli| !(1_000.0..=1e6).contains(&milli)) {
            return Err("the coefficient of a retry policy is from 1 to 1000".to_owned());
        }
        let span = |span: Option<Span>, base| span.map_or(base, |Span(span)| span);
        Ok(RetryPolicy {
            attempts: self.attempts.unwrap_or(base.attempts),
            initial: span(self.initial, base.initial),
            coefficient_milli: milli.map_or(base.coefficient_milli, |milli| milli as u32),
            max: span(self.max, base.max),
            ..base
        })
    }
}

impl Limits {
    /// A limit on one attempt.
    pub(super) fn start_to_close(limit: Duration) -> Limits {
        Limits { start_to_close: Some(limit.into()), ..Limits::default() }
    }

    fn over(self, base: Timeouts) -> Timeouts {
        let span = |span: Option<Span>| span.map(|Span(span)| span);
        Timeouts {
            schedule_to_start: span(self.schedule_to_start).or(base.schedule_to_start),
            start_to_close: span(self.start_to_close).unwrap_or(base.start_to_close),
            schedule_to_close: span(self.schedule_to_close).or(base.schedule_to_close),
            heartbeat: span(self.heartbeat).or(base.heartbeat),
        }
    }
}

/// What serde says; its line number is left out, for it is always 1.
pub(super) fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line 1 column ") {
        Some((what, column)) => format!("{what} at column {column}"),
        None => text,
    }
}

fn labels<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, String)>, D::Error> {
    struct Labels;
    impl<'de> Visitor<'de> for Labels {
        type Value = Vec<(String, String)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut labels: Self::Value = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, String>()? {
                if labels.iter().any(|(known, _)| *known == name) {
                    return Err(A::Error::custom(format!("label {name:?} is given twice")));
                }
                labels.push((name, value));
            }
            Ok(labels)
        }
    }
    from.deserialize_map(Labels)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_everything_is_read() {
        let text = r#"{"type":"fail","payload":{"a":[1, 2]},"key":"k","key_window":"1h","priority":9,"delay":"2s",
            "retry":{"attempts":3,"initial":"10ms","coefficient":1.5},"timeouts":{"start_to_close":"1m"},"labels":{"a":"b"}}"#;
        let line = Line::parse(text.as_bytes()).unwrap();
        assert_eq!(line.payload(), br#"{"a":[1, 2]}"#);
        let extras = line.extras(&Types::built_in()).unwrap().unwrap();
        assert_eq!((extras.key.as_deref(), extras.priority), (Some("k"), Some(9)));
        let retry = extras.retry.unwrap();
        assert_eq!((retry.attempts, retry.initial, retry.coefficient_milli), (3, Micros::from_millis(10), 1_500));
        assert_eq!(extras.timeouts.unwrap().start_to_close, Micros::from_secs(60));
        assert_eq!(extras.labels, [("a".to_owned(), "b".to_owned())]);
        assert!(extras.not_before.is_some());
    }

    #[test]
    fn a_plain_line_asks_for_nothing() {
        let line = Line::parse(br#"{"type":"noop"}"#).unwrap();
        assert_eq!(line.payload(), b"null");
        assert!(line.extras(&Types::built_in()).unwrap().is_none());
    }

    #[test]
    fn bad_lines_are_refused_with_a_reason() {
        for (line, reason) in [
            (&b"noop"[..], "object was expected"),
            (b"[1]", "object was expected"),
            (b"{}", "missing field `type`"),
            (b"{\"type\":\"noop\"", "EOF"),
            (b"{\"type\":\"noop\"} x", "trailing"),
            (b"{\"type\":\"noop\",\"type\":\"noop\"}", "duplicate field `type`"),
            (b"{\"type\":\"noop\",\"colour\":1}", "unknown field `colour`"),
            (b"{\"type\":\"noop\",\"retry\":{\"tries\":1}}", "unknown field `tries`"),
            (b"{\"type\":\"noop\",\"labels\":{\"a\":\"1\",\"a\":\"2\"}}", "given twice"),
            (b"{\"type\":\"noop\",\"delay\":\"soon\"}", "use a span"),
            (b"{\"type\":\"noop\",\"not_before\":\"soon\"}", "use a moment"),
            (b"{\"type\":\"noop\",\"priority\":-1}", "invalid value"),
            (b"{\"type\":\"no\xffop\"}", "not UTF-8 from byte 12"),
            (b"{\"type\":\"no\0op\"}", "control character"),
        ] {
            let error = Line::parse(line).map(drop).unwrap_err();
            assert!(error.contains(reason), "{}: {error}", line.escape_ascii());
        }
        let both = Line::parse(br#"{"type":"noop","delay":"1s","not_before":"2030-01-31T12:00:00Z"}"#).unwrap();
        assert!(both.extras(&Types::built_in()).unwrap_err().contains("either"));
        let unknown = Line::parse(br#"{"type":"nope"}"#).unwrap();
        assert!(unknown.extras(&Types::built_in()).unwrap_err().contains("file.digest"));
    }
}
