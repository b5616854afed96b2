//! What a worker reports, as JSON.

use std::borrow::Cow;

use actix_web::HttpResponse;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ergate_actors::executor::context::Progress;
use ergate_actors::executor::function::TaskError;
use ergate_actors::usage::Usage;
use ergate_events::command::Rejection;
use ergate_events::id::AttemptId;
use ergate_events::resources::RESOURCE_MAX;
use ergate_events::task::{CHECKPOINT_BYTES_MAX, MESSAGE_BYTES_MAX, Outcome, PAYLOAD_BYTES_MAX};
use ergate_events::time::Micros;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ran::ToldRan;
use super::{NAMED_MAX, Stop, Told, invalid, span};
use crate::http::problem::Problem;
use crate::workers::{Concurrency, End, News, Verdict};

/// Most cores that a worker may say that it uses: more than any machine has.
const CORES_MAX: f64 = 1e6;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(default, borrow)]
    outcomes: Vec<Ended<'a>>,
    #[serde(default, borrow)]
    heartbeats: Vec<Beat<'a>>,
    #[serde(default)]
    concurrency: Option<ToldConcurrency>,
    #[serde(default)]
    usage: Option<ToldUsage>,
}

/// An attempt that is over.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ended<'a> {
    attempt: AttemptId,
    #[serde(default)]
    outcome: Option<Outcome>,
    #[serde(default, borrow, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(default)]
    result_base64: Option<String>,
    #[serde(default)]
    failure: Option<Failure>,
    #[serde(default)]
    returned: bool,
    #[serde(default)]
    stopped: bool,
    #[serde(default)]
    ran: Option<ToldRan>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Failure {
    class: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    retryable: Option<bool>,
    #[serde(default)]
    retry_after: Option<String>,
}

/// An attempt that goes on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Beat<'a> {
    attempt: AttemptId,
    #[serde(default)]
    progress: Option<ToldProgress>,
    #[serde(default, borrow, deserialize_with = "present")]
    checkpoint: Option<&'a RawValue>,
    #[serde(default)]
    checkpoint_base64: Option<String>,
}

/// How many attempts at a time it does best with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToldConcurrency {
    limit: u32,
    was: u32,
    #[serde(default)]
    reason: String,
}

/// What it uses.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToldUsage {
    #[serde(default)]
    cpu_cores: Option<f64>,
    #[serde(default)]
    memory_bytes: Option<u64>,
    #[serde(default)]
    over: Option<String>,
}

/// JSON that is there, `null` among it.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// How far it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToldProgress {
    #[serde(default)]
    percent: Option<u8>,
    #[serde(default)]
    stage: String,
    #[serde(default)]
    message: String,
}

/// A report.
pub(super) struct Reported {
    /// News of attempts, in the order in which they count.
    pub(super) news: Vec<(AttemptId, News)>,
    /// How many attempts at a time the worker does best with, where it says so.
    pub(super) concurrency: Option<Concurrency>,
    /// What it uses, where it says so.
    pub(super) usage: Option<Usage>,
}

/// Reads a report of a worker with so many slots.
///
/// # Errors
/// The field that is wrong; then nothing of it counts.
pub(super) fn read(bytes: &[u8], slots: u32) -> Result<Reported, Problem> {
    let Body { outcomes, heartbeats, concurrency, usage } = super::read(bytes)?;
    if outcomes.len() + heartbeats.len() > NAMED_MAX {
        return Err(invalid("outcomes", format!("the report names more than {NAMED_MAX} attempts; send several")));
    }
    let ended = outcomes.into_iter().map(|one| Ok((one.attempt, ended(one)?)));
    let beats = heartbeats.into_iter().map(|one| Ok((one.attempt, beat(one)?)));
    // First what attempts say that go on: one may have kept something just before it failed.
    let news = beats.chain(ended).collect::<Result<_, Problem>>()?;
    let concurrency = concurrency.map(|told| concurrency_of(told, slots)).transpose()?;
    Ok(Reported { news, concurrency, usage: usage.map(usage_of).transpose()? })
}

fn usage_of(ToldUsage { cpu_cores, memory_bytes, over }: ToldUsage) -> Result<Usage, Problem> {
    if let Some(cores) = cpu_cores.filter(|cores| !(0.0..=CORES_MAX).contains(cores)) {
        return Err(invalid("usage", format!("`usage.cpu_cores` is {cores}; a number from 0 to {CORES_MAX} is expected")));
    }
    if let Some(bytes) = memory_bytes.filter(|bytes| *bytes > RESOURCE_MAX) {
        return Err(invalid("usage", format!("`usage.memory_bytes` is {bytes}; at most {RESOURCE_MAX} is expected")));
    }
    let over = over.map_or(Ok(Micros(0)), |text| span("over", &text))?.to_std();
    Ok(Usage { cpu_cores, memory_bytes, over })
}

fn concurrency_of(told: ToldConcurrency, slots: u32) -> Result<Concurrency, Problem> {
    let ToldConcurrency { limit, was, mut reason } = told;
    if ![limit, was].into_iter().all(|one| (1..=slots).contains(&one)) {
        let detail =
            format!("`concurrency` has the limits {was} and {limit}; 1 to {slots}, the slots of the worker, are expected");
        return Err(invalid("concurrency", detail));
    }
    reason.truncate(reason.floor_char_boundary(MESSAGE_BYTES_MAX));
    Ok(Concurrency { limit, was, reason })
}

fn ended(one: Ended<'_>) -> Result<News, Problem> {
    let Ended { attempt, outcome, result, result_base64, failure, returned, stopped, ran } = one;
    let result = bytes(("result", result), ("result_base64", result_base64), PAYLOAD_BYTES_MAX)?;
    let given = [result.is_some() || outcome.is_some(), failure.is_some(), returned, stopped];
    if given.into_iter().filter(|given| *given).count() != 1 {
        let detail = format!("attempt {attempt} needs one of `result`, `failure`, `returned` and `stopped`");
        return Err(invalid("outcomes", detail));
    }
    let end = match (failure, returned, stopped, outcome.unwrap_or(Outcome::Succeeded)) {
        (Some(failure), _, _, _) => End::Failed(error(failure)?),
        (_, true, _, _) => End::Returned,
        (_, _, true, _) => End::Stopped,
        (_, _, _, Outcome::Failed | Outcome::Cancelled) => {
            let detail = format!("attempt {attempt}: SUCCEEDED, PARTIAL or SKIPPED is expected, or a `failure`");
            return Err(invalid("outcome", detail));
        }
        (_, _, _, outcome) => End::Succeeded(outcome, result.unwrap_or_else(|| b"null".to_vec())),
    };
    Ok(News::Ended(end, ran.map(|told| told.read(attempt)).transpose()?.map(Box::new)))
}

fn error(failure: Failure) -> Result<TaskError, Problem> {
    let Failure { class, message, retryable, retry_after } = failure;
    let error = match retryable {
        Some(false) => TaskError::permanent(class, message),
        Some(true) | None => TaskError::new(class, message),
    };
    Ok(match retry_after {
        Some(text) => error.retry_after(span("retry_after", &text)?.to_std()),
        None => error,
    })
}

fn beat(one: Beat<'_>) -> Result<News, Problem> {
    let Beat { progress, checkpoint, checkpoint_base64, .. } = one;
    if progress.as_ref().and_then(|told| told.percent).is_some_and(|percent| percent > 100) {
        return Err(invalid("percent", "`percent` is expected to be 0 to 100".to_owned()));
    }
    let progress = progress.map(|told| Progress::new(told.percent, &told.stage, &told.message));
    let details = bytes(("checkpoint", checkpoint), ("checkpoint_base64", checkpoint_base64), CHECKPOINT_BYTES_MAX)?;
    Ok(News::Beat(progress, details))
}

/// Bytes that are given as JSON or in base64.
fn bytes(
    (name, json): (&str, Option<&RawValue>),
    (name_64, text): (&str, Option<String>),
    max: usize,
) -> Result<Option<Vec<u8>>, Problem> {
    let found = match (json, text) {
        (Some(_), Some(_)) => return Err(invalid(name_64, format!("it has `{name}` and `{name_64}`; one is expected"))),
        (Some(json), None) => Some(json.get().as_bytes().to_vec()),
        (None, Some(text)) => {
            Some(STANDARD.decode(text).map_err(|error| invalid(name_64, format!("`{name_64}` is not base64: {error}")))?)
        }
        (None, None) => None,
    };
    match found {
        Some(bytes) if bytes.len() > max => {
            Err(invalid(name, format!("`{name}` has {} bytes; at most {max} are expected", bytes.len())))
        }
        found => Ok(found),
    }
}

/// What became of a piece of news, as it is told.
pub(super) enum Fate {
    Taken,
    Refused {
        reason: Cow<'static, str>,
        detail: String,
    },
    /// Nothing is recorded of it; where its task is led, as far as that is known.
    Elsewhere(Option<String>),
}

impl From<Verdict> for Fate {
    fn from(verdict: Verdict) -> Fate {
        match verdict {
            Verdict::Taken => Fate::Taken,
            Verdict::Refused(rejection) => {
                Fate::Refused { reason: Cow::Borrowed(reason(rejection)), detail: rejection.to_string() }
            }
            Verdict::Elsewhere => Fate::Elsewhere(None),
        }
    }
}

#[derive(Serialize)]
struct Answer {
    taken: usize,
    refused: Vec<Refused>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    elsewhere: Vec<Elsewhere>,
    stop: Vec<Stop>,
    drain: bool,
}

/// News that did not count.
#[derive(Serialize, Deserialize)]
pub(super) struct Refused {
    pub(super) attempt: AttemptId,
    pub(super) reason: Cow<'static, str>,
    pub(super) detail: String,
}

/// News of which nothing is recorded yet.
#[derive(Serialize, Deserialize)]
pub(super) struct Elsewhere {
    pub(super) attempt: AttemptId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) engine: Option<String>,
}

/// The answer to a report.
pub(super) fn answer(ids: &[AttemptId], fates: Vec<Fate>, told: Told) -> HttpResponse {
    let Told { stop, drain } = told;
    let mut answer = Answer { taken: 0, refused: Vec::new(), elsewhere: Vec::new(), stop, drain };
    for (attempt, fate) in ids.iter().copied().zip(fates) {
        match fate {
            Fate::Taken => answer.taken += 1,
            Fate::Refused { reason, detail } => answer.refused.push(Refused { attempt, reason, detail }),
            Fate::Elsewhere(engine) => answer.elsewhere.push(Elsewhere { attempt, engine }),
        }
    }
    HttpResponse::Ok().json(answer)
}

const fn reason(rejection: Rejection) -> &'static str {
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else it is lies in what was sent")]
    match rejection {
        Rejection::StaleAttempt { .. } | Rejection::TaskEnded(_) => "stale-attempt",
        Rejection::UnknownTask(_) => "unknown-task",
        _ => "invalid",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn null_is_a_result_and_a_checkpoint() {
        let body = br#"{"outcomes":[{"attempt":"0-1.1","result":null}],"heartbeats":[{"attempt":"0-2.1","checkpoint":null}]}"#;
        let Ok(Reported { news, concurrency: None, usage: None }) = read(body, 1) else { panic!("it is refused") };
        assert!(matches!(&news[0].1, News::Beat(None, Some(kept)) if kept == b"null"));
        assert!(matches!(&news[1].1, News::Ended(End::Succeeded(Outcome::Succeeded, result), None) if result == b"null"));
        assert!(read(br#"{"outcomes":[{"attempt":"0-1.1"}]}"#, 1).is_err());
    }

    #[test]
    fn a_concurrency_lies_within_the_slots() {
        let read = |limit, was, slots| {
            let body = format!(r#"{{"concurrency":{{"limit":{limit},"was":{was},"reason":"{}"}}}}"#, "ä".repeat(4_000));
            read(body.as_bytes(), slots).ok().and_then(|reported| reported.concurrency)
        };
        let told = read(8, 4, 8).unwrap();
        assert_eq!((told.limit, told.was, told.reason.len() <= MESSAGE_BYTES_MAX), (8, 4, true));
        assert_eq!([read(9, 4, 8), read(0, 4, 8), read(4, 9, 8), read(4, 0, 8)], [None, None, None, None]);
    }
}
