//! Why a request was not done, as RFC 9457 has it.

use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use ergate_actors::submission::SubmitError;
use ergate_events::command::Rejection;
use ergate_events::id::ShardId;
use ergate_events::log::LogError;
use ergate_events::time::Micros;
use serde_json::{Map, Value};

use crate::look::LookError;
use crate::request::Refusal;
use crate::shards::shard_name;
use crate::task::WaitError;

/// A kind of problem: its status, its name in `type`, and its title.
pub(super) type Kind = (u16, &'static str, &'static str);

pub(super) const MALFORMED: Kind = (400, "malformed", "the request cannot be read");
pub(super) const UNAUTHORIZED: Kind = (401, "unauthorized", "a token is needed");
pub(super) const FORBIDDEN: Kind = (403, "forbidden", "the token does not allow that");
pub(super) const FOREIGN_ORIGIN: Kind = (403, "foreign-origin", "pages of other sites may not do that");
pub(super) const NOT_FOUND: Kind = (404, "not-found", "what was asked about is not there");
pub(super) const METHOD: Kind = (405, "method-not-allowed", "that cannot be done here");
pub(super) const TIMEOUT: Kind = (408, "timeout", "the body did not come in time");
pub(super) const KEY_CONFLICT: Kind = (409, "key-conflict", "the idempotency key was used for other work");
pub(super) const CONFLICT: Kind = (409, "conflict", "the task is in another state");
pub(super) const UNATTACHED: Kind = (409, "unattached", "the worker has to register again, with all that is running");
pub(super) const SUPERSEDED: Kind = (409, "superseded", "the worker has asked again since");
pub(super) const OUT_OF_ORDER: Kind = (409, "out-of-order", "the question is not the next one");
pub(super) const UNSUCCESSFUL: Kind = (409, "unsuccessful", "the task did not succeed");
pub(super) const GONE: Kind = (410, "gone", "it is no longer kept");
pub(super) const TOO_LARGE: Kind = (413, "too-large", "the body is too large");
pub(super) const URI_TOO_LONG: Kind = (414, "uri-too-long", "the address is too long");
pub(super) const MEDIA_TYPE: Kind = (415, "media-type", "the body is of another type than expected");
pub(super) const MISDIRECTED: Kind = (421, "misdirected", "the service does not answer to that name");
pub(super) const INVALID: Kind = (422, "invalid", "the request is not what it should be");
pub(super) const BUSY: Kind = (429, "busy", "not now");
pub(super) const HEAD_TOO_LARGE: Kind = (431, "head-too-large", "the headers are too large");
pub(super) const INTERNAL: Kind = (500, "internal", "the service failed");
pub(super) const CLOSED: Kind = (503, "closed", "the service is stopping or has failed");
pub(super) const ELSEWHERE: Kind = (503, "led-elsewhere", "another engine leads the shard, or none for a moment");
pub(super) const UNKNOWN: Kind = (503, "answer-unknown", "the request may or may not have been recorded");

/// Every kind, for the document and for tests.
pub(super) const ALL: [Kind; 25] = [
    MALFORMED,
    UNAUTHORIZED,
    FORBIDDEN,
    FOREIGN_ORIGIN,
    NOT_FOUND,
    METHOD,
    TIMEOUT,
    KEY_CONFLICT,
    CONFLICT,
    UNSUCCESSFUL,
    UNATTACHED,
    SUPERSEDED,
    OUT_OF_ORDER,
    GONE,
    TOO_LARGE,
    URI_TOO_LONG,
    MEDIA_TYPE,
    MISDIRECTED,
    INVALID,
    BUSY,
    HEAD_TOO_LARGE,
    INTERNAL,
    CLOSED,
    ELSEWHERE,
    UNKNOWN,
];

/// When another try is worth it that found no leader: a shard that moves in order has one within about a second.
const LEADS_WITHIN: Duration = Duration::from_secs(1);
/// Before the name of a kind in `type`. It names the kind and leads nowhere.
const URN: &str = "urn:ergate:problem:";

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    detail: String,
    field: Option<String>,
    retry_after: Option<Duration>,
    close: bool,
    more: Map<String, Value>,
}

impl Problem {
    /// A problem of this kind; the detail says what was found and what to do.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Problem {
        let detail = detail.into();
        Problem(Box::new(Inner { kind, detail, field: None, retry_after: None, close: false, more: Map::new() }))
    }

    /// Names the field that is wrong.
    pub(super) fn field(mut self, field: impl Into<String>) -> Problem {
        self.0.field = Some(field.into());
        self
    }

    /// Says when another try is worth it.
    pub(super) fn retry_after(mut self, wait: Duration) -> Problem {
        self.0.retry_after = Some(wait);
        self
    }

    /// Closes the connection behind the answer, for what comes on it cannot be told from the rest of a body.
    pub(super) fn close(mut self) -> Problem {
        self.0.close = true;
        self
    }

    /// Adds a member of its own.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Problem {
        self.0.more.insert(name.to_owned(), value.into());
        self
    }

    /// The sentence that says what happened.
    pub(super) fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The field that is wrong, where one is.
    pub(super) fn wrong_field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// Adds what is behind it.
    pub(super) fn because(mut self, reason: &str) -> Problem {
        self.0.detail = format!("{} ({reason})", self.0.detail);
        self
    }

    /// Whether it is of this kind.
    pub(super) fn is(&self, kind: Kind) -> bool {
        self.0.kind == kind
    }

    /// Reads the document of another engine; `None` for what is none.
    pub(super) fn read(document: Value) -> Option<Problem> {
        let Value::Object(mut document) = document else { return None };
        let mut text = |name: &str| document.remove(name).and_then(|value| value.as_str().map(str::to_owned));
        let (kind, detail, field) = (text("type")?, text("detail")?, text("field"));
        let kind = ALL.into_iter().find(|(_, name, _)| kind.strip_prefix(URN) == Some(*name))?;
        let retry_after = document.remove("retry_after_ms").and_then(|wait| wait.as_u64()).map(Duration::from_millis);
        ["title", "status"].into_iter().for_each(|name| drop(document.remove(name)));
        Some(Problem(Box::new(Inner { kind, detail, field, retry_after, close: false, more: document })))
    }

    /// The document.
    pub(super) fn json(&self) -> Value {
        let Inner { kind: (status, name, title), detail, field, retry_after, more, .. } = &*self.0;
        let mut object = Map::new();
        object.insert("type".to_owned(), format!("{URN}{name}").into());
        object.insert("title".to_owned(), (*title).into());
        object.insert("status".to_owned(), (*status).into());
        object.insert("detail".to_owned(), detail.as_str().into());
        object.extend(field.as_ref().map(|field| ("field".to_owned(), field.as_str().into())));
        object.extend(retry_after.map(|wait| ("retry_after_ms".to_owned(), millis(wait).into())));
        object.extend(more.clone());
        object.into()
    }
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.kind.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.insert_header((CONTENT_TYPE, "application/problem+json"));
        if let Some(wait) = self.0.retry_after {
            // The header has whole seconds; the member says it exactly.
            response.insert_header((RETRY_AFTER, wait.as_secs_f64().ceil().to_string()));
        }
        if self.0.kind.0 == 401 {
            response.insert_header((WWW_AUTHENTICATE, "Bearer realm=\"ergate\""));
        }
        if self.0.close {
            response.insert_header((CONNECTION, "close"));
            response.force_close();
        }
        response.body(self.json().to_string())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let kind = if refusal.field.eq_ignore_ascii_case("content-type") { MEDIA_TYPE } else { INVALID };
        Problem::new(kind, refusal.to_string()).field(refusal.field)
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Problem {
        let detail = error.to_string();
        match error {
            SubmitError::Rejected(rejection) => rejected(rejection, detail),
            SubmitError::Busy { retry_after, .. } => busy(detail, retry_after),
            SubmitError::UnknownType { .. } => Problem::new(INVALID, detail).field("type"),
            SubmitError::UnknownSchedule { .. } => Problem::new(NOT_FOUND, detail).field("name"),
            SubmitError::Payload { .. } => Problem::new(INVALID, detail).field("payload"),
            SubmitError::BatchTooLarge { .. } => Problem::new(TOO_LARGE, detail),
            SubmitError::Refused { .. } => Problem::new(INVALID, detail),
            SubmitError::LedElsewhere { shard } => elsewhere(shard),
            SubmitError::Unknown { .. } => Problem::new(UNKNOWN, detail),
            SubmitError::Closed { .. } => Problem::new(CLOSED, detail),
        }
    }
}

fn busy(detail: String, wait: Micros) -> Problem {
    Problem::new(BUSY, detail).retry_after(wait.to_std())
}

/// Only the engine that leads a shard can answer, and this one does not. Nothing was done.
pub(super) fn elsewhere(shard: ShardId) -> Problem {
    let detail = SubmitError::LedElsewhere { shard }.to_string();
    Problem::new(ELSEWHERE, detail).with("shard", shard_name(shard)).retry_after(LEADS_WITHIN)
}

/// What the core said no to.
fn rejected(rejection: Rejection, detail: String) -> Problem {
    match rejection {
        Rejection::KeyConflict { of } => Problem::new(KEY_CONFLICT, detail).field("key").with("of", of.0),
        Rejection::KeysFull { retry_after, .. }
        | Rejection::TasksFull { retry_after, .. }
        | Rejection::PayloadsFull { retry_after, .. } => busy(detail, retry_after),
        Rejection::UnknownTask(_) | Rejection::UnknownSchedule(_) | Rejection::UnknownPool => Problem::new(NOT_FOUND, detail),
        Rejection::TooLarge { what, .. } | Rejection::OutOfRange { what, .. } => Problem::new(INVALID, detail).field(what),
        Rejection::UnknownType(_) => Problem::new(INVALID, detail).field("type"),
        Rejection::UnknownDependency { index }
        | Rejection::DependencyElsewhere { index }
        | Rejection::DependencyEnded { index, .. } => Problem::new(INVALID, detail).field(format!("after[{index}]")),
        Rejection::UnknownLimit(_) => Problem::new(INVALID, detail).field("limits"),
        Rejection::Ceiling { wanted, fit } => {
            let fits = Problem::new(INVALID, detail).field("replicas").with("wanted", wanted);
            fits.with("fit", fit.replicas()).with("ceiling", fit.of.name())
        }
        Rejection::Policy => Problem::new(INVALID, detail).field("policy"),
        Rejection::TaskEnded(_)
        | Rejection::NoScheduledType(_)
        | Rejection::NotNextSlot { .. }
        | Rejection::Overlaps { .. }
        | Rejection::StaleAttempt { .. }
        | Rejection::NotDead(_)
        | Rejection::WrongReplica(_)
        | Rejection::NotNext { .. }
        | Rejection::UnknownRules => Problem::new(CONFLICT, detail),
    }
}

impl From<WaitError> for Problem {
    fn from(error: WaitError) -> Problem {
        let detail = error.to_string();
        match error {
            WaitError::Stopped => Problem::new(CLOSED, detail),
            WaitError::NoSuchTask(_) => Problem::new(NOT_FOUND, detail),
            WaitError::LedElsewhere(shard) => elsewhere(shard),
            WaitError::Unsuccessful { .. } => Problem::new(UNSUCCESSFUL, detail),
            WaitError::Result { .. } => Problem::new(INTERNAL, detail),
            WaitError::Log(error) => error.into(),
        }
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Problem {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the other errors are faults of the log, whichever they are")]
        match error {
            LogError::Gone { .. } => Problem::new(GONE, error.to_string()),
            LogError::Beyond { .. } => Problem::new(NOT_FOUND, error.to_string()),
            _ => internal(&error),
        }
    }
}

impl From<LookError> for Problem {
    fn from(error: LookError) -> Problem {
        match error {
            LookError::Log(error) => error.into(),
            LookError::Stale => Problem::new(GONE, error.to_string()).field("cursor"),
            LookError::NotFound(text) => Problem::new(NOT_FOUND, text),
            LookError::Recover(_) | LookError::Json(_) => internal(&error),
        }
    }
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Problem {
        internal(&error)
    }
}

/// A fault of the service. Paths and devices are for its own messages, not for whoever asked.
pub(super) fn internal(error: &dyn std::error::Error) -> Problem {
    tracing::error!(%error, "a request failed");
    Problem::new(INTERNAL, "the service failed at this request; its messages say why")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_and_a_status_that_there_is() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|(_, name, _)| name).collect();
        assert_eq!(names.len(), ALL.len());
        for kind in ALL {
            assert_eq!(Problem::new(kind, "").status_code().as_u16(), kind.0);
        }
    }

    #[test]
    fn a_document_is_read_as_the_problem_that_it_was_written_of() {
        let problem = elsewhere(ShardId(3)).field("id").because("it died");
        let read = Problem::read(problem.json()).map(|read| read.json());
        assert_eq!(read, Some(problem.json()));
        for document in [serde_json::json!(7), serde_json::json!({"type": "about:blank", "detail": "x"})] {
            assert!(Problem::read(document).is_none());
        }
    }

    #[test]
    fn a_short_wait_is_a_whole_second_in_the_header_and_exact_in_the_document() {
        let problem = Problem::new(BUSY, "busy").retry_after(Duration::from_millis(100));
        let response = problem.error_response();
        assert_eq!(response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()), Some("1"));
        assert_eq!(problem.json()["retry_after_ms"], 100);
    }
}
