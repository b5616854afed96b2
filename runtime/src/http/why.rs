//! Why a pool has the size that it has, and which policy sizes it.

use std::sync::Arc;

use actix_web::web::{self, Data, Path, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use ergate_events::scaling::signal::Bounds;
use ergate_events::scaling::{AnyPolicy, Policy};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::act::by;
use super::body;
use super::gate::guarded;
use super::health::not_that;
use super::led::{Of, led};
use super::look::{known, log_of};
use super::problem::{BUSY, INVALID, NOT_FOUND, Problem};
use super::query::Parameters;
use super::service::{Service, blocking, no_task, task_id};
use super::token::Scope;
use crate::look;
use crate::look::fold::Source;
use crate::look::moment::Moment;
use crate::look::waits::waits;
use crate::look::why::{why, why_not, why_shadow};

/// States that are folded at one time on each thread: each takes as much memory as the running one, and a processor.
const FOLDS_MAX: usize = 1;

pub(super) fn routes(config: &mut ServiceConfig) {
    let folds = Arc::new(Semaphore::new(FOLDS_MAX));
    let asked = web::get().to(move |request, name, service| ask(request, name, service, Arc::clone(&folds)));
    let folds = Arc::new(Semaphore::new(FOLDS_MAX));
    let task = web::get().to(move |request, id, service| ask_task(request, id, service, Arc::clone(&folds)));
    let task = guarded(led(task, Of::Task), Some(Scope::Read));
    let folds = Arc::new(Semaphore::new(FOLDS_MAX));
    let costs = web::get().to(move |request, service| cost(request, service, Arc::clone(&folds)));
    let costs = guarded(led(costs, Of::Sizes), Some(Scope::Read));
    config
        .service(web::resource("/cost").route(costs).default_service(not_that("GET")))
        .service(web::resource("/tasks/{id}/why").route(task).default_service(not_that("GET")))
        .service(
            web::resource("/pools/{name}/why")
                .route(guarded(led(asked, Of::Sizes), Some(Scope::Read)))
                .default_service(not_that("GET")),
        )
        .service(
            web::resource("/pools/{name}/shadows/{shadow}")
                .route(guarded(led(web::put().to(set_shadow), Of::Sizes), Some(Scope::Operate)))
                .default_service(not_that("PUT")),
        )
        .service(
            web::resource("/pools/{name}/policy")
                .route(guarded(led(web::put().to(set), Of::Sizes), Some(Scope::Operate)))
                .default_service(not_that("PUT")),
        );
}

/// Says why a pool has the size that it has.
#[utoipa::path(get, path = "/v1/pools/{name}/why", tag = "pools", operation_id = "why_pool", params(("name" = String, Path, description = "The name of a pool"), ("at" = Option<String>, Query, description = "A position such as 1200, or a time such as 2030-01-31T12:00:00Z; now without it"), ("not" = Option<u32>, Query, description = "Why there are not so many replicas"), ("shadow" = Option<String>, Query, description = "Of this shadow, and not of the policy that sizes the pool")), responses((status = 200, description = "The last decision", body = super::schema::Why)), security(("bearer" = ["read"])))]
pub(super) async fn ask(
    request: HttpRequest,
    name: Path<String>,
    service: Data<Service>,
    folds: Arc<Semaphore>,
) -> Result<HttpResponse, Problem> {
    let given = Parameters::read(&request, &["at", "not", "shadow"])?;
    let expected = "a position such as 1200, or a time such as 2030-01-31T12:00:00Z,";
    let at = given.parsed("at", |text| text.parse::<Moment>().ok(), expected)?;
    let not = given.parsed("not", |text| text.parse::<u32>().ok(), "a whole number of replicas")?;
    let shard = service.shard(service.sizes())?;
    let shadow = given.text("shadow").map(str::to_owned);
    if shadow.is_some() && not.is_some() {
        return Err(Problem::new(INVALID, "`not` is about the size of the pool, which no shadow has set").field("not"));
    }
    let tell = move |state: &ergate_events::state::State| tell(state, &name, not, shadow.as_deref());
    let Some(at) = at else { return Ok(HttpResponse::Ok().json(tell(&*service.state(shard.id).await?)?)) };
    let folding = folds.try_acquire_owned();
    let folding = folding
        .map_err(|_| Problem::new(BUSY, "another past state is being folded").retry_after(std::time::Duration::from_secs(1)))?;
    let told = blocking(move || {
        let source = Source { reader: shard.reader.as_ref(), snapshots: shard.snapshots.as_ref() };
        let state = source.fold(at, &mut |_| {})?;
        drop(folding);
        tell(&state)
    });
    Ok(HttpResponse::Ok().json(told.await?))
}

fn tell(state: &ergate_events::state::State, name: &str, not: Option<u32>, shadow: Option<&str>) -> Result<Value, Problem> {
    if let Some(shadow) = shadow {
        let missing = || Problem::new(NOT_FOUND, format!("the pool {name:?} has no shadow {shadow:?}"));
        return why_shadow(state, name, shadow).ok_or_else(missing);
    }
    let missing =
        || Problem::new(NOT_FOUND, format!("no policy sizes a pool {name:?}; set one with PUT /v1/pools/{{name}}/policy"));
    let mut told = why(state, name).ok_or_else(missing)?;
    if let Some(not) = not {
        told["not"] = json!({ "replicas": not, "because": why_not(state, name, not) });
    }
    Ok(told)
}

/// Says why a task waited.
#[utoipa::path(get, path = "/v1/tasks/{id}/why", tag = "tasks", operation_id = "why_task", params(("id" = String, Path, description = "The id of a task, such as 0-42")), responses((status = 200, description = "The time without a slot, by what kept it", body = super::schema::WhyTask)), security(("bearer" = ["read"])))]
pub(super) async fn ask_task(
    request: HttpRequest,
    id: Path<String>,
    service: Data<Service>,
    folds: Arc<Semaphore>,
) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    let id = task_id(&id)?;
    known(&service, id).await?;
    let folding = folds.try_acquire_owned();
    let folding = folding.map_err(|_| {
        Problem::new(BUSY, "the waits of another task are being looked at").retry_after(std::time::Duration::from_secs(1))
    })?;
    let told = blocking(move || {
        let shard = log_of(&service, id)?;
        let source = Source { reader: shard.reader.as_ref(), snapshots: shard.snapshots.as_ref() };
        let told = waits(&source, &shard.index.history(id.ordinal, None)?, id.ordinal)?;
        drop(folding);
        told.ok_or_else(|| no_task(id))
    });
    let mut told = told.await?;
    told["task"] = json!(id);
    Ok(HttpResponse::Ok().json(told))
}

/// Says what pools have cost.
#[utoipa::path(get, path = "/v1/cost", tag = "pools", operation_id = "cost", params(("since" = Option<String>, Query, description = "A position such as 1200, or a time such as 2030-01-31T12:00:00Z; from the first that the log can tell without it")), responses((status = 200, description = "How long replicas were there, by pool", body = super::schema::Cost)), security(("bearer" = ["read"])))]
pub(super) async fn cost(request: HttpRequest, service: Data<Service>, folds: Arc<Semaphore>) -> Result<HttpResponse, Problem> {
    let given = Parameters::read(&request, &["since"])?;
    let expected = "a position such as 1200, or a time such as 2030-01-31T12:00:00Z,";
    let since = given.parsed("since", |text| text.parse::<Moment>().ok(), expected)?;
    let shard = service.shard(service.sizes())?;
    let (now, prices) = (service.runtime.now(), service.settings.prices.clone());
    let folding = folds.try_acquire_owned();
    let folding = folding
        .map_err(|_| Problem::new(BUSY, "costs are being counted for another").retry_after(std::time::Duration::from_secs(1)))?;
    let told = blocking(move || {
        let source = Source { reader: shard.reader.as_ref(), snapshots: shard.snapshots.as_ref() };
        let told = look::cost::cost(&source, since, Some(now), &prices)?;
        drop(folding);
        Ok::<_, Problem>(told)
    });
    Ok(HttpResponse::Ok().json(told.await?))
}

/// A policy for a pool; `null` takes it away.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    policy: Option<AnyPolicy>,
    #[serde(default)]
    min: Option<u32>,
    #[serde(default)]
    max: Option<u32>,
    #[serde(default)]
    reason: Option<String>,
}

/// Lets a policy size a pool from now on.
#[utoipa::path(put, path = "/v1/pools/{name}/policy", tag = "pools", operation_id = "set_policy", params(("name" = String, Path, description = "The name of a pool")), request_body = super::schema::PolicySetting, responses((status = 200, description = "It is recorded", body = super::schema::Why)), security(("bearer" = ["operate"])))]
pub(super) async fn set(
    request: HttpRequest,
    name: Path<String>,
    payload: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    let bytes = body::whole(&request, payload, &service.settings).await?;
    let setting: Setting = serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(INVALID, format!("the body is not what it should be: {error}")).field("policy"))?;
    let shard = service.sizes();
    let state = service.state(shard).await?;
    let (id, size) = state.control.pool(&name).ok_or_else(|| {
        Problem::new(NOT_FOUND, format!("there is no pool {:?}; GET /v1/pools lists those that are there", &*name))
    })?;
    // Without bounds it has those of the policy before, or what it may have by hand.
    let before = state.control.scaling.get(&id).map_or(Bounds { min: 0, max: size.replicas.max(1) }, |known| known.bounds);
    let bounds = Bounds { min: setting.min.unwrap_or(before.min), max: setting.max.unwrap_or(before.max) };
    if let Some(policy) = &setting.policy {
        policy.check(bounds).map_err(|error| Problem::new(INVALID, error.to_string()).field("policy"))?;
    }
    let reason = setting.reason.unwrap_or_default();
    let position = service.runtime.set_policy(&name, setting.policy.as_ref(), bounds, &by(&request), &reason).await?;
    let state = service.state(shard).await?;
    let mut told = why(&state, &name).unwrap_or_else(|| json!({ "pool": &*name, "policy": null }));
    told["position"] = position.0.into();
    Ok(HttpResponse::Ok().json(told))
}

/// A policy for a shadow; `null` takes it away.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShadowSetting {
    policy: Option<AnyPolicy>,
    #[serde(default)]
    reason: Option<String>,
}

/// Lets a policy decide beside the one of a pool from now on, without any effect.
#[utoipa::path(put, path = "/v1/pools/{name}/shadows/{shadow}", tag = "pools", operation_id = "set_shadow", params(("name" = String, Path, description = "The name of a pool"), ("shadow" = String, Path, description = "The name of the shadow: letters, digits, - and _")), request_body = super::schema::ShadowSetting, responses((status = 200, description = "It is recorded", body = super::schema::Why)), security(("bearer" = ["operate"])))]
pub(super) async fn set_shadow(
    request: HttpRequest,
    path: Path<(String, String)>,
    payload: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    let (name, shadow) = path.into_inner();
    let bytes = body::whole(&request, payload, &service.settings).await?;
    let setting: ShadowSetting = serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(INVALID, format!("the body is not what it should be: {error}")).field("policy"))?;
    let state = service.state(service.sizes()).await?;
    let (id, _) = state
        .control
        .pool(&name)
        .ok_or_else(|| Problem::new(NOT_FOUND, format!("there is no pool {name:?}; GET /v1/pools lists those that are there")))?;
    let known = state.control.scaling.get(&id);
    if let (Some(policy), Some(known)) = (&setting.policy, known) {
        policy.check(known.bounds).map_err(|error| Problem::new(INVALID, error.to_string()).field("policy"))?;
    }
    if setting.policy.is_none() && known.is_none_or(|known| !known.shadows.contains_key(&shadow)) {
        return Err(Problem::new(NOT_FOUND, format!("the pool {name:?} has no shadow {shadow:?}")));
    }
    let reason = setting.reason.unwrap_or_default();
    let position = service.runtime.set_shadow(&name, &shadow, setting.policy.as_ref(), &by(&request), &reason).await?;
    let state = service.state(service.sizes()).await?;
    let gone = || json!({ "pool": name, "shadow": shadow, "policy": null });
    let mut told = why_shadow(&state, &name, &shadow).unwrap_or_else(gone);
    told["position"] = position.0.into();
    Ok(HttpResponse::Ok().json(told))
}
