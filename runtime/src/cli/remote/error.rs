//! Why a service did not do what was asked, as one line: what happened, to what, what to do.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

/// Why a service did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// Nobody took the connection.
    #[error("nobody answers at {url}, chosen by {chosen}: {reason}; is `ergate up` running there?")]
    Unreachable { url: String, chosen: String, reason: String },
    /// Whoever answers cannot prove who they are, or speaks no TLS.
    #[error("no trusted connection to {url}, chosen by {chosen}: {reason}; --ca names the certificates to trust")]
    Tls { url: String, chosen: String, reason: String },
    /// Nothing came in time.
    #[error("{url} did not answer within {within:?}; it may be busy, or --answer-within too short{unsure}")]
    Late { url: String, within: Duration, unsure: &'static str },
    /// The connection ended before the answer did.
    #[error("the connection to {url} broke: {reason}{unsure}")]
    Broken { url: String, reason: String, unsure: &'static str },
    /// Somebody answered, and it was no service of ours.
    #[error("{url} answered {what}; is that the address of an `ergate up`?")]
    Foreign { url: String, what: String },
    /// The service said no.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The file that should prove something cannot be used.
    #[error("{0}")]
    Credential(String),
}

/// What a service says no with (RFC 9457).
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    /// The last part of `type`.
    pub(crate) kind: String,
    pub(crate) detail: String,
    /// The field that is wrong.
    pub(crate) field: Option<String>,
    /// When another try is worth it.
    pub(crate) retry_after: Option<Duration>,
    /// All of the document.
    pub(crate) document: Map<String, Value>,
    /// What the one who asked can do about it.
    pub(crate) advice: Option<String>,
}

/// Before the name of a kind.
const URN: &str = "urn:ergate:problem:";

impl Problem {
    /// Reads a problem document; `None` for what is none of a service of ours.
    pub(crate) fn read(document: Value) -> Option<Problem> {
        let Value::Object(document) = document else { return None };
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        let kind = text("type")?.strip_prefix(URN)?.to_owned();
        let status = document.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok())?;
        let (detail, field) = (text("detail").or(text("title"))?.to_owned(), text("field").map(str::to_owned));
        let retry_after = document.get("retry_after_ms").and_then(Value::as_u64).map(Duration::from_millis);
        Some(Problem { status, kind, detail, field, retry_after, document, advice: None })
    }

    /// Whether the same may be asked again, for nothing was done.
    pub(crate) fn is_busy(&self) -> bool {
        self.status == 429
    }

    /// The exit code: as the offline verbs have it for the same trouble.
    const fn code(&self) -> u8 {
        match self.status {
            // The service is misused or misconfigured, or the one who asks is.
            400 | 405 | 409 | 413 | 414 | 415 | 422 | 431 => 2,
            404 | 410 => 6,
            429 => 8,
            _ => 10,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        // Most details name their field themselves.
        if let Some(field) = self.field.as_ref().filter(|field| !self.detail.contains(field.as_str())) {
            write!(f, " (field `{field}`)")?;
        }
        if let Some(wait) = self.retry_after {
            write!(f, "; try again in {wait:?}")?;
        }
        self.advice.as_ref().map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

impl RemoteError {
    /// The exit code of a verb that ends with this.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            RemoteError::Problem(problem) => problem.code(),
            RemoteError::Credential(_) => 2,
            RemoteError::Unreachable { .. }
            | RemoteError::Tls { .. }
            | RemoteError::Late { .. }
            | RemoteError::Broken { .. }
            | RemoteError::Foreign { .. } => 10,
        }
    }

    /// The problem document, if the service gave one.
    pub(crate) fn problem(&self) -> Option<&Problem> {
        if let RemoteError::Problem(problem) = self { Some(problem) } else { None }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(document: Value) -> String {
        Problem::read(document).unwrap().to_string()
    }

    #[test]
    fn a_problem_is_one_line_with_its_field_and_what_to_do() {
        let of =
            |detail: &str| json!({ "type": "urn:ergate:problem:invalid", "status": 422, "detail": detail, "field": "retry.max" });
        assert_eq!(line(of("it is too long")), "it is too long (field `retry.max`)");
        assert_eq!(line(of("`retry.max` is too long")), "`retry.max` is too long");
        let busy = json!({ "type": "urn:ergate:problem:busy", "status": 429, "detail": "full", "retry_after_ms": 1500 });
        assert_eq!(line(busy), "full; try again in 1.5s");
    }

    #[test]
    fn what_is_no_problem_of_ours_is_none() {
        for document in [json!([]), json!({}), json!({ "type": "about:blank", "status": 404, "detail": "x" })] {
            assert!(Problem::read(document).is_none());
        }
    }
}
