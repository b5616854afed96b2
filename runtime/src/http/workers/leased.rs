//! What a worker is given, as JSON.

use actix_web::HttpResponse;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ergate_actors::effects::Whole;
use ergate_actors::workers::{Delivery, Leased, Order};
use ergate_events::id::{AttemptId, Fence, TaskId};
use ergate_events::time::Timestamp;
use ergate_events::worker::WorkerId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Stop;

/// Largest payload that travels with its attempt; a larger one is fetched.
const PAYLOAD_INLINE_MAX: usize = 256 << 10;

/// What a worker asks for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    pub(super) seq: u64,
    pub(super) slots: u32,
    #[serde(default)]
    pub(super) wait: Option<String>,
    #[serde(default)]
    pub(super) again: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    seq: u64,
    attempts: Vec<Attempt<'a>>,
    stop: Vec<Stop>,
    drain: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    engines: Option<&'a [String]>,
}

#[derive(Serialize)]
struct Attempt<'a> {
    attempt: AttemptId,
    task: TaskId,
    number: u32,
    fence: String,
    #[serde(rename = "type")]
    task_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_url: Option<String>,
    deadline: String,
    timeout_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
}

/// The answer to a question.
pub(super) fn answer(worker: WorkerId, seq: u64, leased: &Leased, now: Timestamp) -> HttpResponse {
    let attempts = leased
        .deliveries
        .iter()
        .flat_map(|delivery| delivery.attempts.iter().map(move |whole| attempt(worker, delivery, whole, now)));
    let (attempts, stop) = (attempts.collect(), leased.orders.iter().map(stop).collect());
    HttpResponse::Ok().json(Answer { seq, attempts, stop, drain: leased.is_draining, engines: leased.engines.as_deref() })
}

fn attempt<'a>(worker: WorkerId, delivery: &'a Delivery, whole: Whole<'a>, now: Timestamp) -> Attempt<'a> {
    let Whole { attempt, payload, checkpoint, trace_parent } = whole;
    let task = TaskId { shard: delivery.shard, ordinal: attempt.task };
    let url = (payload.len() > PAYLOAD_INLINE_MAX).then(|| format!("/v1/workers/{worker}/payloads/{task}.{}", attempt.number));
    let (payload, payload_base64) = if url.is_some() { (None, None) } else { json_or_base64(payload) };
    let (checkpoint, checkpoint_base64) = checkpoint.map(json_or_base64).unwrap_or_default();
    Attempt {
        attempt: AttemptId { task, number: attempt.number },
        task,
        number: attempt.number,
        fence: Fence { epoch: delivery.epoch, attempt: attempt.number }.to_string(),
        task_type: delivery.types.get(usize::from(attempt.task_type.0)).map_or("", |name| name),
        payload,
        payload_base64,
        payload_url: url,
        deadline: attempt.deadline.rfc3339(),
        timeout_ms: attempt.deadline.since(now).0 / 1_000,
        heartbeat_ms: attempt.heartbeat.map(|limit| limit.0 / 1_000),
        checkpoint,
        checkpoint_base64,
        traceparent: trace_parent,
    }
}

/// Bytes as JSON where they are that, and in base64 where they are not.
fn json_or_base64(bytes: &[u8]) -> (Option<&RawValue>, Option<String>) {
    match serde_json::from_slice(bytes) {
        Ok(json) => (Some(json), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

pub(super) fn stop(order: &Order) -> Stop {
    let task = TaskId { shard: order.shard, ordinal: order.task };
    Stop { attempt: AttemptId { task, number: order.attempt }, hard: order.is_hard }
}
