//! Whether the service lives and gets on, which build it is, and what is not there.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::http::header;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpResponse, Route};
use ergate_events::id::ShardId;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::gate::guarded;
use super::problem::{CLOSED, METHOD, NOT_FOUND, Problem};
use super::service::Service;
use super::token::Scope;
use crate::metrics::CONTENT_TYPE;
use crate::task::WaitError;

/// How long a durable answer may take until the service does not get on: commits take milliseconds, on a slow disk a second.
const PROGRESS_WITHIN: Duration = Duration::from_secs(5);
/// How long an answer is told again: asking costs a copy of the state.
const KEPT: Duration = Duration::from_millis(500);

pub(super) fn routes(config: &mut ServiceConfig) {
    let get = |route| guarded(route, None);
    config
        .service(web::resource("/livez").route(get(web::get().to(live))).default_service(not_that("GET")))
        .service(web::resource("/readyz").route(get(web::get().to(ready))).default_service(not_that("GET")))
        .service(web::resource("/version").route(get(web::get().to(version))).default_service(not_that("GET")))
        .service(
            web::resource("/metrics").route(guarded(web::get().to(metrics), Some(Scope::Read))).default_service(not_that("GET")),
        )
        .service(web::resource("/openapi.json").route(get(web::get().to(document))).default_service(not_that("GET")));
}

/// The last answer to whether the service gets on.
#[derive(Default)]
pub(super) struct Ready(Mutex<Option<(Instant, Result<(), String>)>>);

/// Says that the process lives.
#[utoipa::path(get, path = "/livez", tag = "service", responses((status = 200, description = "The process answers", body = super::schema::Health)))]
pub(super) async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "alive" }))
}

/// Says whether the service gets on.
#[utoipa::path(get, path = "/readyz", tag = "service", responses((status = 200, description = "It takes work and gets on with it, or has nothing to do", body = super::schema::Health)))]
pub(super) async fn ready(service: Data<Service>) -> Result<HttpResponse, Problem> {
    match is_ready(&service).await {
        Ok(()) => Ok(HttpResponse::Ok().json(json!({ "status": "ready" }))),
        Err(reason) => Err(Problem::new(CLOSED, format!("not ready: {reason}"))),
    }
}

/// Whether the service gets on, as it was found a moment ago.
async fn is_ready(service: &Service) -> Result<(), String> {
    let kept = service.ready.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match kept.filter(|(at, _)| at.elapsed() < KEPT && !service.is_stopping()) {
        Some((_, outcome)) => outcome,
        None => {
            let outcome = gets_on(service).await;
            *service.ready.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), outcome.clone()));
            outcome
        }
    }
}

/// Gives the figures for Prometheus. While the log does not get on that takes as long as it takes to find that out.
#[utoipa::path(get, path = "/metrics", tag = "service", responses((status = 200, description = "The figures, in the text format of Prometheus", body = String, content_type = "text/plain")), security(("bearer" = ["read"])))]
pub(super) async fn metrics(service: Data<Service>) -> HttpResponse {
    let is_ready = is_ready(&service).await.is_ok();
    // Asked where it holds up nobody; the figures find the answer.
    #[cfg(feature = "gpu")]
    let _ = web::block(crate::metrics::read_gpus).await;
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, CONTENT_TYPE)).body(service.runtime.metrics().text_with(is_ready))
}

/// Whether what was decided becomes durable in time, and new work may come in. With nothing to do that is so at once.
async fn gets_on(service: &Service) -> Result<(), String> {
    if service.is_stopping() {
        return Err("the service is stopping".to_owned());
    }
    if let Some(reason) = service.runtime.failure() {
        return Err(format!("the log refuses to go on: {reason}"));
    }
    if service.runtime.space().is_low() {
        return Err("the disk is nearly full; free some space".to_owned());
    }
    // An engine that is given no shard has nothing to do; one that has none yet is taking over what others wait for.
    #[cfg(feature = "kafka")]
    if let Some(standing) = service.runtime.engine().filter(|standing| standing.leads.is_empty() && !standing.opening.is_empty())
    {
        return Err(format!("the engine {standing}"));
    }
    match timeout(PROGRESS_WITHIN, all_durable(service)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("nothing became durable for {} s", PROGRESS_WITHIN.as_secs())),
    }
}

/// Waits until everything is durable that was decided on the shards that are led here.
async fn all_durable(service: &Service) -> Result<(), String> {
    for shard in (0..service.runtime.shards()).map(ShardId).filter(|shard| service.runtime.leads(*shard)) {
        match service.runtime.durable_state_of(shard).await {
            // Shards come and go; one that cannot go on is dropped and taken over anew.
            Ok(_) | Err(WaitError::LedElsewhere(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

/// Says which build it is.
#[utoipa::path(get, path = "/version", tag = "service", responses((status = 200, description = "The build", body = super::schema::Version)))]
pub(super) async fn version(service: Data<Service>) -> HttpResponse {
    let tokens = service.settings.tokens.is_some();
    HttpResponse::Ok().json(json!({ "name": "ergate", "version": env!("CARGO_PKG_VERSION"), "tokens": tokens }))
}

/// Gives this document.
#[utoipa::path(get, path = "/openapi.json", tag = "service", responses((status = 200, description = "This document", body = Object)))]
pub(super) async fn document() -> HttpResponse {
    let document: Value = super::openapi::document();
    HttpResponse::Ok().json(document)
}

/// Answers that nothing is there.
pub(super) async fn nothing() -> Result<HttpResponse, Problem> {
    Err(Problem::new(NOT_FOUND, "there is nothing at this address; /openapi.json lists what there is").close())
}

/// Answers that only these methods are understood.
pub(super) fn not_that(allowed: &'static str) -> Route {
    guarded(web::to(move || refuse(allowed)), None)
}

async fn refuse(allowed: &'static str) -> HttpResponse {
    let problem = Problem::new(METHOD, format!("only {allowed} is understood here")).close();
    let mut response = actix_web::ResponseError::error_response(&problem);
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allowed));
    response
}
