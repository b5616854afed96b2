//! What an answer of an engine means for a worker.

use std::time::Duration;

use hyper::body::Bytes;
use serde::Deserialize;

use super::line::{Answer, LineError};

/// What is to be done after a call.
pub(super) enum Verdict {
    /// It was done; this is the answer.
    Done(Bytes),
    /// The same again, after a wait: why, and what the engine asks for.
    Again(String, Option<Duration>),
    /// The engine does not know what the worker runs.
    Unattached,
    /// What was sent is more than the engine takes at once.
    TooLarge(Refusal),
    /// Repeating it will not help.
    Refused(Refusal),
}

/// What an engine says no with (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// Which kind of problem it is: the last part of its `type`, empty where the answer is none of an engine.
    pub kind: String,
    /// What is wrong.
    pub detail: String,
}

#[derive(Default, Deserialize)]
struct Problem {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

/// Before the name of a kind.
const URN: &str = "urn:ergate:problem:";

impl Verdict {
    /// Judges the end of a call by the rules of the protocol.
    pub(super) fn of(answer: Result<Answer, LineError>) -> Verdict {
        let Answer { status, body } = match answer {
            Ok(answer) => answer,
            Err(error) => return Verdict::Again(error.to_string(), None),
        };
        if (200..300).contains(&status) {
            return Verdict::Done(body);
        }
        let problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
        let kind = problem.r#type.strip_prefix(URN).unwrap_or_default().to_owned();
        let detail = if problem.detail.is_empty() {
            format!("it answered {status} without a problem document; is that the address of an `ergate up`?")
        } else {
            problem.detail
        };
        let refusal = Refusal { status, kind, detail };
        match (status, refusal.kind.as_str()) {
            (500.. | 408 | 429, _) | (409, "superseded") => {
                Verdict::Again(refusal.detail, problem.retry_after_ms.map(Duration::from_millis))
            }
            (404, "not-found") | (409, "unattached") => Verdict::Unattached,
            (413, _) => Verdict::TooLarge(refusal),
            _ => Verdict::Refused(refusal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, kind: &str) -> &'static str {
        let body = format!(r#"{{"type":"urn:ergate:problem:{kind}","detail":"no","retry_after_ms":5}}"#);
        match Verdict::of(Ok(Answer { status, body: body.into() })) {
            Verdict::Done(_) => "done",
            Verdict::Again(_, wait) => {
                assert_eq!(wait, Some(Duration::from_millis(5)));
                "again"
            }
            Verdict::Unattached => "unattached",
            Verdict::TooLarge(_) => "too large",
            Verdict::Refused(refusal) => {
                assert_eq!((refusal.to_string().as_str(), refusal.kind.as_str()), ("no", kind));
                "refused"
            }
        }
    }

    #[test]
    fn answers_mean_what_the_page_of_the_protocol_says() {
        for (status, kind, meaning) in [
            (200, "", "done"),
            (500, "internal", "again"),
            (503, "unavailable", "again"),
            (429, "busy", "again"),
            (408, "timeout", "again"),
            (409, "superseded", "again"),
            (409, "unattached", "unattached"),
            (404, "not-found", "unattached"),
            (409, "conflict", "refused"),
            (409, "out-of-order", "refused"),
            (413, "too-large", "too large"),
            (401, "unauthorized", "refused"),
            (422, "invalid", "refused"),
        ] {
            assert_eq!(judged(status, kind), meaning, "{status} {kind}");
        }
    }

    #[test]
    fn a_stranger_is_told_apart() {
        let verdict = Verdict::of(Ok(Answer { status: 404, body: Bytes::from_static(b"<html>") }));
        assert!(matches!(verdict, Verdict::Refused(refusal) if refusal.detail.contains("ergate up")));
    }
}
