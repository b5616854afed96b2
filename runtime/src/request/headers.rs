//! The headers of a record: which form it has, and the three that Kafka's users put beside any value.

use super::refusal::{Refusal, instead, shown};
use super::scalar;
use super::{HEADER_BYTES_MAX, HEADERS_MAX};

/// Names that begin so carry attributes of a CloudEvent (Kafka protocol binding 1.0.2, §3.2.3.1).
pub(super) const ATTRIBUTE: &str = "ce_";

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The value is the request.
    Plain,
    /// The value is a CloudEvent.
    Structured,
    /// The headers are a CloudEvent, and the value is its data.
    Binary,
}

/// The headers that mean something, and all of them.
#[derive(Debug, Default)]
pub(super) struct Headers<'a> {
    all: &'a [(&'a str, Option<&'a [u8]>)],
    has_attributes: bool,
    /// The media type of the value.
    pub(super) content_type: Option<&'a str>,
    /// Where the result is to be sent.
    pub(super) reply_to: Option<&'a str>,
    /// The requester's own id.
    pub(super) correlation_id: Option<&'a str>,
    /// W3C trace context. Tracing libraries write it, often unseen: one that is malformed or repeats is passed over, as the standard asks
    /// (Trace Context §4.3), for a task is worth more than its trace.
    pub(super) trace_parent: Option<&'a str>,
}

impl<'a> Headers<'a> {
    /// Looks through the headers. Those that nothing here knows belong to somebody else and are passed over.
    pub(super) fn read(all: &'a [(&'a str, Option<&'a [u8]>)]) -> Result<Headers<'a>, Refusal> {
        if all.len() > HEADERS_MAX {
            return Err(Refusal::new("headers", format!("are {}; at most {HEADERS_MAX} are expected", all.len())));
        }
        let mut headers = Headers { all, ..Headers::default() };
        let (mut bytes, mut traces) = (0, 0);
        for (name, value) in all {
            bytes += name.len() + value.map_or(0, <[u8]>::len);
            if name.get(..ATTRIBUTE.len()).is_some_and(|start| start.eq_ignore_ascii_case(ATTRIBUTE)) {
                headers.has_attributes = true;
            } else if name.eq_ignore_ascii_case("traceparent") {
                traces += 1;
                headers.trace_parent = value.and_then(|bytes| std::str::from_utf8(bytes).ok());
            } else if let Some(known) = headers.known(name) {
                take(known, name, *value)?;
            }
        }
        if bytes > HEADER_BYTES_MAX {
            return Err(Refusal::new("headers", format!("have {bytes} bytes; at most {HEADER_BYTES_MAX} are expected")));
        }
        headers.trace_parent = headers.trace_parent.filter(|text| traces == 1 && scalar::trace_parent(text).is_ok());
        Ok(headers)
    }

    fn known(&mut self, name: &str) -> Option<&mut Option<&'a str>> {
        // Written in any case, for names of headers come from HTTP.
        if name.eq_ignore_ascii_case("content-type") {
            Some(&mut self.content_type)
        } else if name.eq_ignore_ascii_case("reply-to") {
            Some(&mut self.reply_to)
        } else if name.eq_ignore_ascii_case("correlation-id") {
            Some(&mut self.correlation_id)
        } else {
            None
        }
    }

    /// Which form the record has: the media type says so before the names of headers do (§3.1 there).
    pub(super) fn form(&self) -> Result<Form, Refusal> {
        let media_type = self.content_type.map(|text| scalar::essence(text).to_ascii_lowercase()).unwrap_or_default();
        if media_type == "application/cloudevents+json" {
            Ok(Form::Structured)
        } else if media_type.starts_with("application/cloudevents-batch") {
            let expected = "a single event, for a record is accepted or refused as a whole; publish a record for each event:";
            Err(Refusal::new("content-type", instead(&media_type, &format!("{expected} application/cloudevents+json"))))
        } else if media_type.starts_with("application/cloudevents") {
            Err(Refusal::new("content-type", instead(&media_type, "application/cloudevents+json")))
        } else if self.has_attributes {
            Ok(Form::Binary)
        } else {
            Ok(Form::Plain)
        }
    }

    /// The attributes of a CloudEvent: names without their prefix, and values.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        let named = |name: &'a str| name.get(..ATTRIBUTE.len()).filter(|start| start.eq_ignore_ascii_case(ATTRIBUTE));
        let attributes = self.all.iter().filter(move |(name, _)| named(name).is_some());
        attributes.map(|(name, value)| (&name[ATTRIBUTE.len()..], *value))
    }
}

/// Takes a header that may come once. One without a value says nothing.
fn take<'a>(known: &mut Option<&'a str>, name: &str, value: Option<&'a [u8]>) -> Result<(), Refusal> {
    let Some(bytes) = value else { return Ok(()) };
    if known.is_some() {
        return Err(Refusal::new(name, "is given twice; one header of this name is expected"));
    }
    *known = Some(text(bytes).map_err(|reason| Refusal::new(name, reason))?);
    Ok(())
}

/// The text of a header.
pub(super) fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| {
        let found = shown(&bytes[..bytes.len().min(32)].escape_ascii().to_string());
        format!("is {found} where UTF-8 is expected (byte {} is not)", error.valid_up_to() + 1)
    })
}
