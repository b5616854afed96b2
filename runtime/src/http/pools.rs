//! Pools: how large they are, and how large they should be.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use actix_web::web::{self, Bytes, Data, Path, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use ergate_actors::autoscaler::fleet::{Fleet, Told};
use ergate_events::event::PoolMode;
use ergate_events::id::ShardId;
use ergate_events::state::State;
use ergate_events::time::Micros;
use serde_json::{Value, json};

use super::act::{by, read_reason, reason};
use super::body;
use super::dead::read;
use super::forward::Asked;
use super::gate::guarded;
use super::health::not_that;
use super::led::{Of, led};
use super::merge::{gather, target, tell};
use super::problem::{INVALID, NOT_FOUND, Problem};
use super::query::Parameters;
use super::service::Service;
use super::token::Scope;
use crate::look::summary::{PoolSummary, pool_json, pool_with_members, pools};
use crate::look::why::hold;
use crate::request::{self, parse_span};
use crate::shards::{CAPACITY, shard_name};

/// Most replicas of a pool and slots of a replica, as the core has it.
const SIZE_MAX: u32 = 1 << 16;

pub(super) fn routes(config: &mut ServiceConfig) {
    let act = |path: &str, route| {
        web::resource(path).route(guarded(led(route, Of::Parameter), Some(Scope::Operate))).default_service(not_that("POST"))
    };
    config
        .service(
            web::resource("/pools")
                .route(guarded(led(web::get().to(list), Of::Parameter), Some(Scope::Read)))
                .default_service(not_that("GET")),
        )
        .service(
            web::resource("/pools/{name}")
                .route(guarded(led(web::get().to(show), Of::Parameter), Some(Scope::Read)))
                .route(guarded(led(web::patch().to(scale), Of::Parameter), Some(Scope::Operate)))
                .default_service(not_that("GET, PATCH")),
        )
        .service(act("/pools/{name}/pause", web::post().to(pause)))
        .service(act("/pools/{name}/drain", web::post().to(drain)))
        .service(act("/pools/{name}/resume", web::post().to(resume)))
        .service(act("/pools/{name}/release", web::post().to(release)));
}

/// Lists the pools.
#[utoipa::path(get, path = "/v1/pools", tag = "pools", operation_id = "list_pools", params(("shard" = Option<String>, Query, description = "As this shard has them, on Kafka; capacity has their sizes")), responses((status = 200, description = "All pools", body = super::schema::Pools)), security(("bearer" = ["read"])))]
pub(super) async fn list(request: HttpRequest, service: Data<Service>) -> Result<HttpResponse, Problem> {
    let given = Parameters::read(&request, &["shard"])?;
    let told = match service.named(given.text("shard"))? {
        Some(shard) => all_in(service, shard).await?,
        None => {
            let gathered = gather(&service, everywhere(&service, &request), all_in).await?;
            let (missing, mut all) = (gathered.missing(), Vec::new());
            let each = |told: &Value| told["pools"].as_array().cloned().unwrap_or_default();
            let names = gathered.told.values().flat_map(each).filter_map(|pool| pool["name"].as_str().map(str::to_owned));
            for name in names.collect::<BTreeSet<_>>() {
                let of = |told: &Value| each(told).into_iter().find(|pool| pool["name"] == name.as_str());
                all.extend(sum(gathered.told.iter().filter_map(|(shard, told)| Some((*shard, of(told)?))).collect()));
            }
            json!({ "pools": all, "missing_shards": missing })
        }
    };
    Ok(HttpResponse::Ok().json(told))
}

/// What a shard that is led here has of all pools.
async fn all_in(service: Data<Service>, shard: ShardId) -> Result<Value, Problem> {
    let state = service.state(shard).await?;
    Ok(json!({ "pools": pools(&state).iter().map(|pool| pool_json(&state, pool)).collect::<Vec<_>>() }))
}

/// The same request to every shard, and to the log of pools.
fn everywhere(service: &Service, request: &HttpRequest) -> Vec<(ShardId, Asked)> {
    let shards = (0..service.runtime.shards()).map(ShardId).chain([CAPACITY]);
    let path = request.path();
    // What is posted to a pool is a verb below it, and what shards tell is the pool.
    let is_verb = request.method() == actix_web::http::Method::POST;
    let of_pool = path.rsplit_once('/').filter(|_| is_verb).map_or(path, |(pool, _)| pool);
    let target = |shard| format!("{of_pool}{}", target(request, shard, None).strip_prefix(path).unwrap_or_default());
    shards.map(|shard| (shard, Asked::get(request, target(shard)))).collect()
}

/// One pool of what shards have of it: its size as the log of pools has it, and what is there, summed.
fn sum(parts: BTreeMap<ShardId, Value>) -> Option<Value> {
    // The log of pools is the last; while nobody leads it, any shard has followed it this far.
    let mut pool = parts.values().next_back()?.clone();
    for count in COUNTS {
        pool[count] = of_shards(&parts).filter_map(|(_, part)| part[count].as_u64()).sum::<u64>().into();
    }
    if pool.get("members").is_some() {
        pool["members"] = of_shards(&parts).flat_map(|(shard, part)| members(*shard, part)).collect();
    }
    Some(pool)
}

/// What is there of a pool, as numbers that add up.
const COUNTS: [&str; 4] = ["ready", "replicas_up", "slots_up", "running"];

/// The parts of shards with tasks.
fn of_shards(parts: &BTreeMap<ShardId, Value>) -> impl Iterator<Item = (&ShardId, &Value)> {
    parts.iter().filter(|(shard, _)| **shard != CAPACITY)
}

/// The replicas of a shard, whose ids count from the same number as those of the others.
fn members(shard: ShardId, part: &Value) -> Vec<Value> {
    let mut members = part["members"].as_array().cloned().unwrap_or_default();
    members.iter_mut().for_each(|member| member["shard"] = shard_name(shard).into());
    members
}

/// Shows a pool and its replicas.
#[utoipa::path(get, path = "/v1/pools/{name}", tag = "pools", operation_id = "show_pool", params(("name" = String, Path, description = "The name of a pool"), ("shard" = Option<String>, Query, description = "As this shard has it, on Kafka; capacity has its size")), responses((status = 200, description = "The pool", body = super::schema::Pool)), security(("bearer" = ["read"])))]
pub(super) async fn show(request: HttpRequest, name: Path<String>, service: Data<Service>) -> Result<HttpResponse, Problem> {
    let given = Parameters::read(&request, &["shard"])?;
    let pool = match service.named(given.text("shard"))? {
        Some(shard) => one_in(service, shard, &name).await?,
        None => one(&service, &request, &name).await?,
    };
    Ok(HttpResponse::Ok().json(pool))
}

/// What a shard that is led here has of a pool.
async fn one_in(service: Data<Service>, shard: ShardId, name: &str) -> Result<Value, Problem> {
    let state = service.state(shard).await?;
    let mut pool = pool_with_members(&state, &find(&state, name)?);
    let has_threads = state.control.pool(name).is_some_and(|(id, _)| !Fleet::of(&state, id, name).threads.is_empty());
    let told = Told::of(name, service.runtime.hub(), has_threads, service.runtime.now());
    if told.replicas > 0 {
        pool["usage"] = json!({ "told": told.replicas, "cpu_cores": told.cpu_cores, "memory_bytes": told.memory_bytes });
    }
    Ok(pool)
}

/// A pool as all shards have it.
async fn one(service: &Data<Service>, request: &HttpRequest, name: &str) -> Result<Value, Problem> {
    let wanted: Rc<str> = name.into();
    let local = move |service, shard| {
        let name = Rc::clone(&wanted);
        async move { one_in(service, shard, &name).await }
    };
    let gathered = gather(service, everywhere(service, request), local).await?;
    let missing = gathered.missing();
    let mut pool = sum(gathered.told).ok_or_else(|| no_pool(name))?;
    pool["missing_shards"] = missing;
    Ok(pool)
}

fn find(state: &State, name: &str) -> Result<PoolSummary, Problem> {
    pools(state).into_iter().find(|pool| pool.name == name).ok_or_else(|| no_pool(name))
}

fn no_pool(name: &str) -> Problem {
    let shown: String = name.chars().take(64).collect();
    Problem::new(NOT_FOUND, format!("there is no pool {shown:?}; `/v1/pools` lists those that are there")).field("name")
}

/// Sets how large a pool should be.
#[utoipa::path(patch, path = "/v1/pools/{name}", tag = "pools", operation_id = "scale_pool", params(("name" = String, Path, description = "The name of a pool"), ("shard" = Option<String>, Query, description = "On Kafka nothing or capacity, where sizes are decided")), request_body = super::schema::PoolSize, responses((status = 200, description = "The pool with its new size", body = super::schema::Pool)), security(("bearer" = ["operate"])))]
pub(super) async fn scale(
    request: HttpRequest,
    name: Path<String>,
    payload: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, Problem> {
    let bytes = body::whole(&request, payload, &service.settings).await?;
    let (change, reason) = read_size(&bytes)?;
    decide(&request, &service, bytes, Wanted { pool: name.into_inner(), change, by: by(&request), reason }).await
}

/// Lets a pool start no tasks until it is resumed; its replicas stay, and what they run goes on.
#[utoipa::path(post, path = "/v1/pools/{name}/pause", tag = "pools", operation_id = "pause_pool", params(("name" = String, Path, description = "The name of a pool"), ("shard" = Option<String>, Query, description = "On Kafka nothing or capacity, where modes are decided")), request_body(content = Option<super::schema::Reason>, description = "Why"), responses((status = 200, description = "The pool, paused", body = super::schema::Pool)), security(("bearer" = ["operate"])))]
pub(super) async fn pause(
    request: HttpRequest,
    name: Path<String>,
    payload: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, Problem> {
    set_mode(PoolMode::Paused, &request, name, payload, &service).await
}

/// Lets a pool start no tasks until it is resumed; its replicas go when what they run has ended.
#[utoipa::path(post, path = "/v1/pools/{name}/drain", tag = "pools", operation_id = "drain_pool", params(("name" = String, Path, description = "The name of a pool"), ("shard" = Option<String>, Query, description = "On Kafka nothing or capacity, where modes are decided")), request_body(content = Option<super::schema::Reason>, description = "Why"), responses((status = 200, description = "The pool, drained", body = super::schema::Pool)), security(("bearer" = ["operate"])))]
pub(super) async fn drain(
    request: HttpRequest,
    name: Path<String>,
    payload: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, Problem> {
    set_mode(PoolMode::Drained, &request, name, payload, &service).await
}

/// Lets a paused or drained pool start tasks again.
#[utoipa::path(post, path = "/v1/pools/{name}/resume", tag = "pools", operation_id = "resume_pool", params(("name" = String, Path, description = "The name of a pool"), ("shard" = Option<String>, Query, description = "On Kafka nothing or capacity, where modes are decided")), request_body(content = Option<super::schema::Reason>, description = "Why"), responses((status = 200, description = "The pool, running", body = super::schema::Pool)), security(("bearer" = ["operate"])))]
pub(super) async fn resume(
    request: HttpRequest,
    name: Path<String>,
    payload: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, Problem> {
    set_mode(PoolMode::Running, &request, name, payload, &service).await
}

/// Lets the policy of a pool decide again whose size somebody holds.
#[utoipa::path(post, path = "/v1/pools/{name}/release", tag = "pools", operation_id = "release_pool", params(("name" = String, Path, description = "The name of a pool"), ("shard" = Option<String>, Query, description = "On Kafka nothing or capacity, where sizes are decided")), request_body(content = Option<super::schema::Reason>, description = "Why"), responses((status = 200, description = "The pool, which nobody holds", body = super::schema::Pool)), security(("bearer" = ["operate"])))]
pub(super) async fn release(
    request: HttpRequest,
    name: Path<String>,
    payload: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, Problem> {
    let bytes = body::whole(&request, payload, &service.settings).await?;
    let wanted = Wanted { pool: name.into_inner(), change: Change::Release, by: by(&request), reason: reason(&bytes)? };
    decide(&request, &service, bytes, wanted).await
}

async fn set_mode(
    mode: PoolMode,
    request: &HttpRequest,
    name: Path<String>,
    payload: Payload,
    service: &Data<Service>,
) -> Result<HttpResponse, Problem> {
    let bytes = body::whole(request, payload, &service.settings).await?;
    let wanted = Wanted { pool: name.into_inner(), change: Change::Mode(mode), by: by(request), reason: reason(&bytes)? };
    decide(request, service, bytes, wanted).await
}

/// What should become of a pool, and who says so.
struct Wanted {
    pool: String,
    change: Change,
    by: String,
    reason: String,
}

/// What is to be changed about a pool; what is not given stays.
#[derive(Clone, Copy)]
enum Change {
    Size { replicas: Option<u32>, slots: Option<u32> },
    Hold { replicas: u32, span: Micros },
    Release,
    Mode(PoolMode),
}

fn read_size(bytes: &Bytes) -> Result<(Change, String), Problem> {
    let [replicas, slots, span, reason] = request::object(bytes, &["replicas", "slots", "for", "reason"])?;
    if replicas.is_none() && slots.is_none() {
        return Err(Problem::new(INVALID, "nothing is asked for; `replicas` or `slots` is expected").field("replicas"));
    }
    let within = |least| move |count: u32| (least..=SIZE_MAX).contains(&count).then_some(count);
    let replicas = read("replicas", replicas, within(0), "a whole number from 0 to 65536")?;
    let slots = read("slots", slots, within(1), "a whole number from 1 to 65536")?;
    let span = read("for", span, |text: String| parse_span(&text), "a span such as \"2h\"")?;
    let Some(span) = span else {
        return Ok((Change::Size { replicas, slots }, read_reason(reason)?));
    };
    let (Some(replicas), None) = (replicas, slots) else {
        let text = "`for` holds a number of replicas for some time; give `replicas` with it, and set `slots` by itself";
        return Err(Problem::new(INVALID, text).field("for"));
    };
    Ok((Change::Hold { replicas, span }, read_reason(reason)?))
}

/// Has a change decided where those of pools are, which may be on another engine, and tells the pool as it is then.
async fn decide(request: &HttpRequest, service: &Data<Service>, bytes: Bytes, wanted: Wanted) -> Result<HttpResponse, Problem> {
    let given = Parameters::read(request, &["shard"])?;
    let wanted = Rc::new(wanted);
    let name = wanted.pool.clone();
    let local = move |service, shard| decide_in(service, shard, Rc::clone(&wanted));
    let pool = match service.named(given.text("shard"))? {
        Some(shard) if shard == CAPACITY || !service.runtime.is_on_kafka() => local(service.clone(), shard).await?,
        Some(_) => {
            return Err(Problem::new(INVALID, "pools are decided about by `capacity` and by no other shard").field("shard"));
        }
        None => {
            let asked = Asked::with(request, target(request, CAPACITY, None), bytes);
            let decided = tell(service, CAPACITY, &asked, local).await?;
            let mut pool = one(service, request, &name).await?;
            pool["position"] = decided["position"].clone();
            if let Some(hold) = decided.get("hold") {
                pool["hold"] = hold.clone();
            }
            pool
        }
    };
    Ok(HttpResponse::Ok().json(pool))
}

/// Decides a change where it is decided, which is here.
async fn decide_in(service: Data<Service>, shard: ShardId, wanted: Rc<Wanted>) -> Result<Value, Problem> {
    let pool = find(&*service.state(shard).await?, &wanted.pool)?;
    let (runtime, name, by, reason) = (&service.runtime, &pool.name, &wanted.by, &wanted.reason);
    let position = match wanted.change {
        Change::Size { replicas, slots } => {
            runtime.resize_pool(name, replicas.unwrap_or(pool.replicas), slots.unwrap_or(pool.slots), by, reason).await?
        }
        Change::Hold { replicas, span } => runtime.hold_pool(name, replicas, span, by, reason).await?,
        Change::Release => runtime.release_pool(name, by, reason).await?,
        Change::Mode(mode) => runtime.set_pool_mode(name, mode, by, reason).await?,
    };
    let state = service.state(shard).await?;
    let mut value = pool_json(&state, &find(&state, &wanted.pool)?);
    if let Some(hold) = hold(&state, &wanted.pool) {
        value["hold"] = hold;
    }
    value["position"] = position.0.into();
    Ok(value)
}
