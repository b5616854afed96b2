//! What a response says about the attempt.

use std::time::Duration;

use ergate_events::task::MESSAGE_BYTES_MAX;
use ergate_events::time::Timestamp;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use hyper::http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::retry_after;
use crate::executor::function::{TaskError, shorten};

/// A response whose body was read, as far as it may be long.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// Whether there was more of it than may be read.
    pub(super) cut: bool,
}

/// What judging an answer depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) now: Timestamp,
    pub(super) response_max: usize,
    pub(super) retry_after_max: Duration,
}

/// The result of an attempt, or why it has none.
pub(super) fn outcome(answer: Answer, terms: Terms) -> Result<Vec<u8>, TaskError> {
    if answer.status.is_success() { result(answer, terms.response_max) } else { Err(failure(&answer, terms)) }
}

fn result(answer: Answer, max: usize) -> Result<Vec<u8>, TaskError> {
    if answer.cut {
        let message = format!("the response has more than {max} bytes, its limit; store the result elsewhere and answer where");
        return Err(TaskError::permanent("result", message));
    }
    if let Some(encoding) = answer.headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let message =
            format!("the response is encoded as {}, and nobody asked for that", String::from_utf8_lossy(encoding.as_bytes()));
        return Err(TaskError::permanent("result", message));
    }
    if is_json(&answer.headers)
        && let Err(error) = serde_json::from_slice::<IgnoredAny>(&answer.body)
    {
        let message =
            format!("the response says that it is JSON and is not: {error}; it begins with {}", beginning(&answer.body, 256));
        return Err(TaskError::permanent("result", message));
    }
    Ok(answer.body)
}

fn failure(answer: &Answer, terms: Terms) -> TaskError {
    let (status, class) = (answer.status, format!("http-{}", answer.status.as_u16()));
    let message = format!("the service answered {}{}", status.as_u16(), detail(answer));
    if !is_retryable(status) {
        return TaskError::permanent(class, message);
    }
    let error = TaskError::new(class, message);
    let asks = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let delay = answer.headers.get(RETRY_AFTER).filter(|_| asks);
    let delay = delay.and_then(|value| retry_after::parse(value.as_bytes(), terms.now, terms.retry_after_max));
    delay.into_iter().fold(error, TaskError::retry_after)
}

/// Whether another attempt may be answered otherwise: 408, 425 (too early), 429 and whatever is the service's own fault.
fn is_retryable(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS)
}

/// What a person may want to know of a response that is no success.
fn detail(answer: &Answer) -> String {
    if answer.status.is_redirection() {
        let location = answer.headers.get(LOCATION).map_or_else(|| "elsewhere".into(), |value| beginning(value.as_bytes(), 256));
        return format!(", which leads to {location}; redirects are not followed, configure the URL itself");
    }
    let said = problem(answer).unwrap_or_else(|| beginning(&answer.body, MESSAGE_BYTES_MAX - 64));
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// A problem document (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

fn problem(answer: &Answer) -> Option<String> {
    media_type(&answer.headers).filter(|found| found == "application/problem+json")?;
    let Problem { title, detail } = serde_json::from_slice(&answer.body).ok()?;
    let texts: Vec<String> = [title, detail].into_iter().flatten().filter(|text| !text.is_empty()).collect();
    (!texts.is_empty()).then(|| texts.join(": "))
}

/// The beginning of bytes as text.
fn beginning(bytes: &[u8], max: usize) -> String {
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(max)]).trim().to_owned();
    shorten(&mut text, max);
    text
}

fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|found| found == "application/json" || found.ends_with("+json"))
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use ergate_events::time::Micros;

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Result<Vec<u8>, crate::report::OwnedFailure> {
        let headers =
            headers.iter().map(|(name, value)| (hyper::header::HeaderName::from_static(name), value.parse().expect("a header")));
        let status = StatusCode::from_u16(status).expect("a status");
        let answer = Answer { status, headers: headers.collect(), body: body.into(), cut: false };
        let terms = Terms { now: Timestamp(0), response_max: 99, retry_after_max: Duration::from_secs(60) };
        outcome(answer, terms).map_err(TaskError::into_failure)
    }

    #[test]
    fn a_status_says_whether_another_attempt_is_worth_it() {
        for status in [200, 201, 204, 299] {
            assert_eq!(answer(status, &[], "ok").expect("a success"), b"ok");
        }
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            let failure = answer(status, &[], "no").expect_err("a failure");
            assert_eq!((failure.class, failure.retryable), (format!("http-{status}"), true));
        }
        for status in [300, 302, 304, 400, 401, 403, 404, 409, 410, 422, 451] {
            let failure = answer(status, &[], "no").expect_err("a failure");
            assert_eq!((failure.class, failure.retryable), (format!("http-{status}"), false));
        }
    }

    #[test]
    fn only_429_and_503_may_ask_for_a_delay() {
        let delay = |status, value| answer(status, &[("retry-after", value)], "").expect_err("a failure").delay;
        assert_eq!(delay(429, "7"), Some(Micros::from_secs(7)));
        assert_eq!(delay(503, "Thu, 01 Jan 1970 00:00:09 GMT"), Some(Micros::from_secs(9)));
        assert_eq!(delay(503, "3600"), Some(Micros::from_secs(60)));
        assert_eq!(delay(500, "7"), None);
        assert_eq!(delay(429, "soon"), None);
    }

    #[test]
    fn a_failure_says_what_the_service_said() {
        let said = |headers: &[(&'static str, &str)], body: &str| answer(400, headers, body).expect_err("a failure").message;
        assert_eq!(said(&[], " no such model\n"), "the service answered 400: no such model");
        assert_eq!(said(&[], ""), "the service answered 400");
        let problem = [("content-type", "application/problem+json; charset=utf-8")];
        assert_eq!(said(&problem, r#"{"title":"No model","detail":"it is x"}"#), "the service answered 400: No model: it is x");
        assert_eq!(said(&problem, "{}"), "the service answered 400: {}");
        assert!(said(&[], &"é".repeat(9_999)).len() <= MESSAGE_BYTES_MAX);
        let moved = answer(302, &[("location", "http://169.254.169.254/")], "").expect_err("a failure").message;
        assert!(moved.contains("leads to http://169.254.169.254/; redirects are not followed"), "{moved}");
    }

    #[test]
    fn what_says_that_it_is_json_is() {
        let json = [("content-type", "application/json")];
        assert_eq!(answer(200, &json, r#"{"a":[1]}"#).expect("JSON"), br#"{"a":[1]}"#);
        assert_eq!(answer(200, &[("content-type", "image/png")], "{").expect("bytes"), b"{");
        for (headers, body) in [(json, "{"), ([("content-type", "a/b+json")], ""), ([("content-encoding", "gzip")], "x")] {
            let failure = answer(200, &headers, body).expect_err("no result");
            assert_eq!((failure.class.as_str(), failure.retryable), ("result", false), "{}", failure.message);
        }
    }
}
