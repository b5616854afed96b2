//! Schedules: which there are, when they are due, and what operators ask of them.

use actix_web::web::{self, Data, Path, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use ergate_events::id::{ShardId, TaskId};
use ergate_events::state::State;
use ergate_events::state::schedules::Schedule;
use serde_json::{Value, json};

use super::act::{Demand, demand};
use super::forward::Asked;
use super::gate::guarded;
use super::health::not_that;
use super::led::{Of, led};
use super::merge::{gather, target};
use super::problem::{NOT_FOUND, Problem};
use super::query::Parameters;
use super::service::Service;
use super::token::Scope;
use crate::look::schedule::{PREVIEW, find, missing, preview, schedule_json, schedules};
use crate::request::parse_moment;

pub(super) fn routes(config: &mut ServiceConfig) {
    let read = |path: &str, route, of| {
        web::resource(path).route(guarded(led(route, of), Some(Scope::Read))).default_service(not_that("GET"))
    };
    let act = |path: &str, route| {
        web::resource(path).route(guarded(led(route, Of::Home), Some(Scope::Operate))).default_service(not_that("POST"))
    };
    config
        .service(read("/schedules", web::get().to(list), Of::Parameter))
        .service(read("/schedules/{name}", web::get().to(show), Of::Home))
        .service(read("/schedules/{name}/preview", web::get().to(foresee), Of::Home))
        .service(act("/schedules/{name}/pause", web::post().to(pause)))
        .service(act("/schedules/{name}/resume", web::post().to(resume)))
        .service(act("/schedules/{name}/trigger", web::post().to(trigger)));
}

/// Lists the schedules.
#[utoipa::path(get, path = "/v1/schedules", tag = "schedules", operation_id = "list_schedules", params(("shard" = Option<String>, Query, description = "Only those of this shard, on Kafka")), responses((status = 200, description = "All schedules", body = super::schema::Schedules)), security(("bearer" = ["read"])))]
pub(super) async fn list(request: HttpRequest, service: Data<Service>) -> Result<HttpResponse, Problem> {
    let given = Parameters::read(&request, &["shard"])?;
    let told = match service.named(given.text("shard"))? {
        Some(shard) => all_in(service, shard).await?,
        None => {
            let asked = (0..service.runtime.shards()).map(ShardId);
            let asked = asked.map(|shard| (shard, Asked::get(&request, target(&request, shard, None)))).collect();
            let gathered = gather(&service, asked, all_in).await?;
            let each = |told: &Value| told["schedules"].as_array().cloned().unwrap_or_default();
            let mut all: Vec<_> = gathered.told.values().flat_map(each).collect();
            all.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
            json!({ "schedules": all, "missing_shards": gathered.missing() })
        }
    };
    Ok(HttpResponse::Ok().json(told))
}

/// The schedules of a shard that is led here.
async fn all_in(service: Data<Service>, shard: ShardId) -> Result<Value, Problem> {
    let state = service.state(shard).await?;
    Ok(json!({ "schedules": schedules(shard, &state, service.runtime.wall()) }))
}

/// Shows a schedule.
#[utoipa::path(get, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "show_schedule", params(("name" = String, Path, description = "The name of a schedule")), responses((status = 200, description = "The schedule", body = super::schema::Schedule)), security(("bearer" = ["read"])))]
pub(super) async fn show(request: HttpRequest, name: Path<String>, service: Data<Service>) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    let state = service.state(service.runtime.home(&name)).await?;
    Ok(HttpResponse::Ok().json(told(&service, &state, known(&state, &name)?)?))
}

/// Tells when a schedule is due next.
#[utoipa::path(get, path = "/v1/schedules/{name}/preview", tag = "schedules", operation_id = "preview_schedule", params(("name" = String, Path, description = "The name of a schedule"), ("after" = Option<String>, Query, description = "Behind this time, such as 2030-01-31T12:00:00Z; now without this"), ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 1000)), responses((status = 200, description = "The next firings", body = super::schema::Firings)), security(("bearer" = ["read"])))]
pub(super) async fn foresee(request: HttpRequest, name: Path<String>, service: Data<Service>) -> Result<HttpResponse, Problem> {
    let given = Parameters::read(&request, &["after", "limit"])?;
    let after = given.parsed("after", parse_moment, "a moment such as 2030-01-31T12:00:00Z")?;
    let (after, limit) = (after.unwrap_or_else(|| service.runtime.wall()), given.limit(PREVIEW.0, PREVIEW.1)?);
    let state = service.state(service.runtime.home(&name)).await?;
    Ok(HttpResponse::Ok().json(json!({ "firings": preview(known(&state, &name)?, after, limit) })))
}

/// Lets a schedule fire nothing until it is resumed.
#[utoipa::path(post, path = "/v1/schedules/{name}/pause", tag = "schedules", operation_id = "pause_schedule", params(("name" = String, Path, description = "The name of a schedule")), request_body(content = Option<super::schema::Reason>, description = "Why"), responses((status = 200, description = "The schedule, paused", body = super::schema::Schedule)), security(("bearer" = ["operate"])))]
pub(super) async fn pause(
    request: HttpRequest,
    name: Path<String>,
    body: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, Problem> {
    let Demand { by, reason } = demand(&request, body, &service).await?;
    service.runtime.pause_schedule(&name, &by, &reason).await?;
    let state = service.state(service.runtime.home(&name)).await?;
    Ok(HttpResponse::Ok().json(told(&service, &state, known(&state, &name)?)?))
}

/// Lets a paused schedule fire again.
#[utoipa::path(post, path = "/v1/schedules/{name}/resume", tag = "schedules", operation_id = "resume_schedule", params(("name" = String, Path, description = "The name of a schedule")), request_body(content = Option<super::schema::Reason>, description = "Why"), responses((status = 200, description = "The schedule, resumed", body = super::schema::Schedule)), security(("bearer" = ["operate"])))]
pub(super) async fn resume(
    request: HttpRequest,
    name: Path<String>,
    body: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, Problem> {
    let Demand { by, reason } = demand(&request, body, &service).await?;
    service.runtime.resume_schedule(&name, &by, &reason).await?;
    let state = service.state(service.runtime.home(&name)).await?;
    Ok(HttpResponse::Ok().json(told(&service, &state, known(&state, &name)?)?))
}

/// Fires a schedule now, beside its slots.
#[utoipa::path(post, path = "/v1/schedules/{name}/trigger", tag = "schedules", operation_id = "trigger_schedule", params(("name" = String, Path, description = "The name of a schedule")), request_body(content = Option<super::schema::Reason>, description = "Why"), responses((status = 201, description = "It fired", body = super::schema::Triggered)), security(("bearer" = ["operate"])))]
pub(super) async fn trigger(
    request: HttpRequest,
    name: Path<String>,
    body: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, Problem> {
    let Demand { by, reason } = demand(&request, body, &service).await?;
    let (task, position) = service.runtime.trigger_schedule(&name, &by, &reason).await?;
    let task: TaskId = task;
    Ok(HttpResponse::Created().json(json!({ "schedule": *name, "task": task, "position": position.0 })))
}

fn known<'a>(state: &'a State, name: &str) -> Result<&'a Schedule, Problem> {
    find(state, name).ok_or_else(|| Problem::new(NOT_FOUND, missing(name)).field("name"))
}

fn told(service: &Service, state: &State, known: &Schedule) -> Result<Value, Problem> {
    Ok(schedule_json(service.runtime.home(&known.name), state, known, service.runtime.wall()))
}
