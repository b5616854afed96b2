//! The texts that a request is made of: names, moments, spans, numbers. Each answers with the reason why it is not what it should be.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ergate_events::task::{PAYLOAD_BYTES_MAX, PRIORITY_MAX, TEXT_BYTES_MAX};
use ergate_events::time::{Micros, Timestamp};

use super::AHEAD_MAX;
use super::refusal::{instead, instead_text};

/// Reads a moment in RFC 3339 form, such as `2030-01-31T12:00:00Z`.
pub fn parse_moment(text: &str) -> Option<Timestamp> {
    let moment = |text: &str| text.parse::<jiff::Timestamp>().ok().and_then(|at| u64::try_from(at.as_microsecond()).ok());
    match text.strip_prefix("9999-12-31") {
        None => moment(text).map(Timestamp),
        // The last day of the calendar, which people write for "never", is beyond jiff's range: it is 365 days after the year before.
        Some(time) => Some(Timestamp(moment(&format!("9998-12-31{time}"))?).after(Micros::from_secs(365 * 24 * 3_600))),
    }
}

/// Reads a span such as `500ms`, `10s`, `1h 30m` or `PT10S`.
pub fn parse_span(text: &str) -> Option<Micros> {
    let span = text.parse::<jiff::SignedDuration>().ok()?;
    std::time::Duration::try_from(span).ok().map(Micros::from)
}

/// A text of at least one byte and at most as many as the log takes.
pub(super) fn short(text: &str) -> Result<&str, String> {
    match text.len() {
        0 => Err("is empty; a text is expected".to_owned()),
        1..=TEXT_BYTES_MAX => Ok(text),
        bytes => Err(format!("has {bytes} bytes; at most {TEXT_BYTES_MAX} are expected")),
    }
}

/// The name of a task type.
pub(super) fn task_type(text: &str) -> Result<(), String> {
    if short(text)?.chars().any(char::is_control) {
        return Err(instead_text(text, "a name without control characters"));
    }
    Ok(())
}

/// A priority.
pub(super) fn priority(text: &str) -> Result<u8, String> {
    let priority = whole(text).and_then(|number| u8::try_from(number).ok()).filter(|priority| *priority <= PRIORITY_MAX);
    priority.ok_or_else(|| instead(text, "a whole number from 0 to 9"))
}

/// A number of attempts.
pub(super) fn attempts(text: &str) -> Result<u32, String> {
    let attempts = whole(text).and_then(|number| u32::try_from(number).ok()).filter(|attempts| *attempts >= 1);
    attempts.ok_or_else(|| instead(text, "a whole number from 1 on"))
}

/// A factor between two delays, in thousandths.
pub(super) fn coefficient_milli(text: &str) -> Result<u32, String> {
    let milli = text.parse::<f64>().map(|factor| factor * 1_000.0).ok().filter(|milli| (1_000.0..=1e6).contains(milli));
    milli.map(|milli| milli.round() as u32).ok_or_else(|| instead(text, "a number from 1 to 1000"))
}

/// Digits alone: `+7`, `7.0` and `7e0` are numbers too, and nobody means them.
fn whole(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A moment that is not absurdly far ahead; one that has passed is fine.
pub(super) fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    match parse_moment(text) {
        None => Err(instead_text(text, "a moment such as 2030-01-31T12:00:00Z")),
        Some(at) if at > now.after(AHEAD_MAX) => Err(instead_text(text, "a moment within a hundred years")),
        Some(at) => Ok(at),
    }
}

/// A span, which may be zero.
pub(super) fn span(text: &str) -> Result<Micros, String> {
    match parse_span(text) {
        None => Err(instead_text(text, "a span such as 500ms, 10s or 1h 30m")),
        Some(span) if span > AHEAD_MAX => Err(instead_text(text, "a span of at most a hundred years")),
        Some(span) => Ok(span),
    }
}

/// A span longer than zero.
pub(super) fn limit(text: &str) -> Result<Micros, String> {
    match span(text)? {
        Micros(0) => Err(instead_text(text, "a span longer than zero")),
        span => Ok(span),
    }
}

/// W3C trace context, version 00 or one that begins like it (Trace Context §3.2).
pub(super) fn trace_parent(text: &str) -> Result<&str, String> {
    let short = short(text)?;
    let hex = |part: &str, digits| part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let set = |part: &str| part.bytes().any(|byte| byte != b'0');
    let mut parts = short.split('-');
    let valid = match [parts.next(), parts.next(), parts.next(), parts.next()] {
        [Some(version), Some(trace), Some(parent), Some(flags)] => {
            let shaped = hex(version, 2) && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
            shaped && set(trace) && set(parent) && version != "ff" && (version != "00" || parts.next().is_none())
        }
        _ => false,
    };
    if valid { Ok(short) } else { Err(instead_text(text, "a W3C trace context such as 00-<32 hex digits>-<16>-<2>")) }
}

/// A media type such as `text/plain; charset=utf-8`.
pub(super) fn media_type(text: &str) -> Result<&str, String> {
    let essence = essence(short(text)?);
    let halves = essence.split_once('/').filter(|(kind, name)| !kind.is_empty() && !name.is_empty() && !name.contains('/'));
    let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if halves.is_some() && printable { Ok(text) } else { Err(instead_text(text, "a media type such as text/plain")) }
}

/// A media type without its parameters.
pub(super) fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Whether data of this type is JSON.
pub(super) fn is_json(media_type: &str) -> bool {
    let essence = essence(media_type).as_bytes();
    let suffix = essence.len().checked_sub(5).map(|start| &essence[start..]);
    suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"+json") || suffix.eq_ignore_ascii_case(b"/json"))
}

/// Bytes in base64.
pub(super) fn bytes(text: &str) -> Result<Vec<u8>, String> {
    if text.len() > PAYLOAD_BYTES_MAX.div_ceil(3) * 4 {
        return Err(too_large(text.len() / 4 * 3));
    }
    STANDARD.decode(text).map_err(|_| instead_text(text, "base64 with padding (RFC 4648 §4)"))
}

/// A payload that the log takes.
pub(super) fn payload(bytes: &[u8]) -> Result<(), String> {
    if bytes.len() <= PAYLOAD_BYTES_MAX { Ok(()) } else { Err(too_large(bytes.len())) }
}

fn too_large(bytes: usize) -> String {
    format!("has {bytes} bytes, over the limit of {PAYLOAD_BYTES_MAX}; store it elsewhere and say where")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_has_the_form_of_the_standard() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(trace_parent(good), Ok(good));
        let later = format!("01{}-more", &good[2..]);
        assert_eq!(trace_parent(&later), Ok(later.as_str()));
        for bad in [
            "",
            "00-ab-cd-01",
            &good.to_uppercase(),
            &format!("{good}-more"),
            &format!("ff{}", &good[2..]),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            trace_parent(bad).unwrap_err();
        }
    }

    #[test]
    fn json_is_known_by_its_media_type() {
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json", "text/json"] {
            assert!(is_json(json), "{json}");
        }
        for other in ["text/plain", "application/jsonl", "json", "", "application/x;a=+json"] {
            assert!(!is_json(other), "{other}");
        }
    }

    #[test]
    fn numbers_are_digits() {
        assert_eq!((priority("0"), priority("9"), attempts("4294967295")), (Ok(0), Ok(9), Ok(u32::MAX)));
        for bad in ["", "10", "-1", "+1", "1.0", "1e0", " 1", "99999999999999999999999", "\"1\"", "true"] {
            priority(bad).unwrap_err();
        }
        assert_eq!((coefficient_milli("1.5"), coefficient_milli("1e3")), (Ok(1_500), Ok(1_000_000)));
        for bad in ["0.5", "NaN", "inf", "1e999", "-2", ""] {
            coefficient_milli(bad).unwrap_err();
        }
    }
}
