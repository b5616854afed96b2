//! What operators ask of one task: stop, end, try again.

use actix_web::http::header;
use actix_web::web::{Bytes, Data, Path, Payload};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use ergate_events::event::Event;
use ergate_events::id::{Position, TaskId};
use serde_json::json;
use serde_json::value::RawValue;

use super::body;
use super::gate::By;
use super::problem::{INVALID, Problem};
use super::query::Parameters;
use super::service::{Service, Shard, blocking, task_id};
use crate::look::record;
use crate::request;

/// Longest reason that the log takes with a demand.
const REASON_BYTES_MAX: usize = ergate_events::task::TEXT_BYTES_MAX;

/// Who asks and why.
#[derive(Clone)]
pub(super) struct Demand {
    pub(super) by: String,
    pub(super) reason: String,
}

/// Who asks, as the log names it.
pub(super) fn by(request: &HttpRequest) -> String {
    request.extensions().get::<By>().map_or_else(|| "http".to_owned(), |By(by)| by.clone())
}

pub(super) async fn demand(request: &HttpRequest, payload: Payload, service: &Service) -> Result<Demand, Problem> {
    Parameters::read(request, &[])?;
    let bytes = body::whole(request, payload, &service.settings).await?;
    let by = by(request);
    Ok(Demand { by, reason: reason(&bytes)? })
}

/// The reason in a body, which may be missing: `{"reason": "…"}`.
pub(super) fn reason(bytes: &Bytes) -> Result<String, Problem> {
    if bytes.trim_ascii().is_empty() {
        return Ok("asked for over HTTP".to_owned());
    }
    let [reason] = request::object(bytes, &["reason"])?;
    read_reason(reason)
}

/// The text of a reason.
pub(super) fn read_reason(reason: Option<&RawValue>) -> Result<String, Problem> {
    let Some(reason) = reason else { return Ok("asked for over HTTP".to_owned()) };
    let text: Option<String> = serde_json::from_str(reason.get()).ok();
    let text = text.filter(|text| (1..=REASON_BYTES_MAX).contains(&text.len()));
    text.ok_or_else(|| {
        Problem::new(INVALID, format!("`reason` is expected to be a text of 1 to {REASON_BYTES_MAX} bytes")).field("reason")
    })
}

/// Asks a task to stop; its attempt may clean up first.
#[utoipa::path(post, path = "/v1/tasks/{id}/cancel", tag = "tasks", params(("id" = String, Path, description = "The id of a task, such as 0-42")), request_body(content = Option<super::schema::Reason>, description = "Why"), responses((status = 202, description = "It is recorded", body = super::schema::Recorded)), security(("bearer" = ["operate"])))]
pub(super) async fn cancel(
    request: HttpRequest,
    id: Path<String>,
    body: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, Problem> {
    let (id, Demand { by, reason }) = (task_id(&id)?, demand(&request, body, &service).await?);
    let position = service.runtime.cancel(here(&service, id)?, &by, &reason).await?;
    Ok(HttpResponse::Accepted().json(json!({ "task": id, "position": position.0 })))
}

/// Ends a task now.
#[utoipa::path(post, path = "/v1/tasks/{id}/kill", tag = "tasks", params(("id" = String, Path, description = "The id of a task, such as 0-42")), request_body(content = Option<super::schema::Reason>, description = "Why"), responses((status = 200, description = "It is recorded", body = super::schema::Recorded)), security(("bearer" = ["operate"])))]
pub(super) async fn kill(
    request: HttpRequest,
    id: Path<String>,
    body: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, Problem> {
    let (id, Demand { by, reason }) = (task_id(&id)?, demand(&request, body, &service).await?);
    let position = service.runtime.kill(here(&service, id)?, &by, &reason).await?;
    Ok(HttpResponse::Ok().json(json!({ "task": id, "position": position.0 })))
}

/// Tries a dead letter again, as a new task.
#[utoipa::path(post, path = "/v1/tasks/{id}/retry", tag = "tasks", params(("id" = String, Path, description = "The id of a task, such as 0-42")), request_body(content = Option<super::schema::Reason>, description = "Why"), responses((status = 201, description = "It is recorded", body = super::schema::Recorded)), security(("bearer" = ["operate"])))]
pub(super) async fn retry(
    request: HttpRequest,
    id: Path<String>,
    body: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, Problem> {
    let (id, demand) = (task_id(&id)?, demand(&request, body, &service).await?);
    let (task, position) = redrive(&service, here(&service, id)?, &demand).await?;
    let mut response = HttpResponse::Created();
    if let Some(task) = task {
        let tasks = request.path().rsplitn(3, '/').last().unwrap_or_default();
        response.insert_header((header::LOCATION, format!("{tasks}/{task}")));
    }
    Ok(response.json(json!({ "task": task, "of": id, "position": position.0 })))
}

/// Refuses a task of a shard that does not exist.
fn here(service: &Service, id: TaskId) -> Result<TaskId, Problem> {
    if id.shard.0 < service.runtime.shards() { Ok(id) } else { Err(super::service::no_task(id)) }
}

/// Tries a dead letter again; tells the task that came of it.
pub(super) async fn redrive(service: &Service, id: TaskId, demand: &Demand) -> Result<(Option<TaskId>, Position), Problem> {
    let position = service.runtime.redrive(id, &demand.by, &demand.reason).await?;
    let shard = service.shard(id.shard)?;
    let task = blocking(move || Ok(redriven_as(&shard, id, position)?)).await?;
    Ok((task, position))
}

/// The task that came of a dead letter with the event before this position, or a little earlier: others may have been decided with it.
fn redriven_as(shard: &Shard, of: TaskId, position: Position) -> Result<Option<TaskId>, ergate_events::log::LogError> {
    let last = Position(position.0.saturating_sub(1));
    let Some(block) = shard.reader.cursor(last)?.next_block()? else { return Ok(None) };
    for record in record::of(&block) {
        let record = record?;
        if matches!(record.envelope.event, Event::Redriven { task, .. } if task == of.ordinal) {
            return Ok(record.creates.map(|ordinal| TaskId { ordinal, ..of }));
        }
    }
    Ok(None)
}
