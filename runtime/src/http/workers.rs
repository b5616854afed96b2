//! Workers: who they are, what they are given, and what they report. `docs/worker-protocol.md` is for those who write one.

mod elsewhere;
mod leased;
pub(super) mod many;
mod ran;
mod reported;

use actix_web::web::{self, Data, Path, Payload, ServiceConfig};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use ergate_actors::workers::{AskError, JoinError, Session, WorkerSpec};
use ergate_events::id::{AttemptId, TaskId};
use ergate_events::scaling::usage::TOLD_WITHIN;
use ergate_events::schedule::Label;
use ergate_events::state::replicas::SLOTS_MAX;
use ergate_events::time::Micros;
use ergate_events::worker::{LEASE_MAX, LEASE_MIN, WORKER_LABELS_MAX, WORKER_TYPES_MAX, WorkerFacts, WorkerId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::reported::Fate;
use super::body;
use super::gate::guarded;
use super::health::not_that;
use super::problem::{BUSY, CONFLICT, FORBIDDEN, GONE, INVALID, NOT_FOUND, OUT_OF_ORDER, Problem, SUPERSEDED, UNATTACHED};
use super::query::Parameters;
use super::service::{Service, no_task};
use super::token::{Bearer, Scope};
use crate::request::parse_span;
use crate::workers::{LEASE_WAIT_MAX, WorkerError};

/// The version of the protocol that this build speaks.
const PROTOCOL: u32 = 1;
/// The lease of a worker that names none.
const LEASE_DEFAULT: Micros = Micros::from_secs(5);
/// How often a worker is asked to say what it uses: one call that is lost does not make it a stranger.
const USAGE_EVERY: Micros = Micros(TOLD_WITHIN.0 / 3);
/// Most attempts that one registration or report names: as many as a worker has slots.
const NAMED_MAX: usize = SLOTS_MAX as usize;

pub(super) fn routes(config: &mut ServiceConfig) {
    let work = Some(Scope::Work);
    config
        .service(
            web::resource("/workers").route(guarded(web::get().to(list), Some(Scope::Read))).default_service(not_that("GET")),
        )
        .service(
            // Before the one that takes any id.
            web::resource("/workers/drain")
                .route(guarded(web::post().to(many::drain_many), Some(Scope::Operate)))
                .default_service(not_that("POST")),
        )
        .service(
            web::resource("/workers/{id}")
                .route(guarded(web::put().to(register), work))
                .route(guarded(web::get().to(show), Some(Scope::Read)))
                .route(guarded(web::delete().to(leave), work))
                .default_service(not_that("GET, PUT, DELETE")),
        )
        .service(
            web::resource("/workers/{id}/lease").route(guarded(web::post().to(lease), work)).default_service(not_that("POST")),
        )
        .service(
            web::resource("/workers/{id}/report").route(guarded(web::post().to(report), work)).default_service(not_that("POST")),
        )
        .service(
            web::resource("/workers/{id}/payloads/{attempt}")
                .route(guarded(web::get().to(payload), work))
                .default_service(not_that("GET")),
        )
        .service(
            web::resource("/workers/{id}/drain").route(guarded(web::post().to(drain), work)).default_service(not_that("POST")),
        );
}

/// What a worker says of itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    protocol: u32,
    #[serde(default)]
    pool: Option<String>,
    #[serde(default)]
    slots: Option<u32>,
    #[serde(default)]
    types: Vec<String>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    lease: Option<String>,
    #[serde(default)]
    running: Vec<String>,
}

/// What every answer says beside its own.
#[derive(Default, Serialize)]
struct Told {
    stop: Vec<Stop>,
    drain: bool,
}

/// An attempt that is not wanted any more.
#[derive(Serialize, Deserialize)]
struct Stop {
    attempt: AttemptId,
    hard: bool,
}

/// Takes a worker in, or finds it again.
#[utoipa::path(put, path = "/v1/workers/{id}", tag = "workers", operation_id = "registerWorker", params(("id" = String, Path, description = "32 hexadecimal digits that the worker drew by chance")), request_body = super::schema::Registration, responses((status = 200, description = "It is known", body = super::schema::Registered)), security(("bearer" = ["work"])))]
pub(super) async fn register(
    request: HttpRequest,
    id: Path<String>,
    payload: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    let id = worker_id(&id)?;
    let bytes = body::whole(&request, payload, &service.settings).await?;
    let registration: Registration = read(&bytes)?;
    let running = attempts(&registration.running)?;
    let spec = spec(id, registration)?;
    permit(&request, &spec)?;
    let lease = spec.facts.lease;
    elsewhere::look(&service).await;
    let stale = service.runtime.register_worker(spec, &running).await?;
    let stop: Vec<_> = stale.into_iter().map(|attempt| Stop { attempt, hard: true }).collect();
    let drain = service.runtime.worker(id)?.is_draining();
    let mut answer = json!({
        "protocol": PROTOCOL,
        "lease": lease.to_string(),
        "wait_max": Micros::from(LEASE_WAIT_MAX).to_string(),
        "stop": stop,
        "drain": drain,
        "usage_every": USAGE_EVERY.to_string(),
    });
    let engines = service.runtime.hub().engines();
    if !engines.is_empty() {
        answer["engines"] = json!(&*engines);
    }
    Ok(HttpResponse::Ok().json(answer))
}

fn spec(id: WorkerId, registration: Registration) -> Result<WorkerSpec, Problem> {
    let Registration { protocol, pool, slots, mut types, name, labels, lease, .. } = registration;
    if protocol != PROTOCOL {
        let detail = format!("the worker speaks version {protocol} of the protocol, and this engine version {PROTOCOL}");
        return Err(invalid("protocol", detail));
    }
    let slots = slots.unwrap_or(1);
    if !(1..=SLOTS_MAX).contains(&slots) {
        return Err(invalid("slots", format!("`slots` is {slots}; 1 to {SLOTS_MAX} are expected")));
    }
    let lease = lease.map_or(Ok(LEASE_DEFAULT), |text| span("lease", &text))?;
    if lease < LEASE_MIN || lease > LEASE_MAX {
        return Err(invalid("lease", format!("`lease` is {lease}; {LEASE_MIN} to {LEASE_MAX} are expected")));
    }
    types.sort_unstable();
    types.dedup();
    if types.len() > WORKER_TYPES_MAX {
        return Err(invalid("types", format!("it names {} types; at most {WORKER_TYPES_MAX} are expected", types.len())));
    }
    if labels.len() > WORKER_LABELS_MAX {
        return Err(invalid("labels", format!("it has {} labels; at most {WORKER_LABELS_MAX} are expected", labels.len())));
    }
    let max = ergate_events::task::TEXT_BYTES_MAX;
    if [&name].into_iter().chain(&types).chain(labels.iter().flat_map(|(name, value)| [name, value])).any(|text| text.len() > max)
    {
        return Err(invalid("name", format!("a name, type or label is longer than {max} bytes")));
    }
    let labels = labels.into_iter().map(|(name, value)| Label { name, value }).collect();
    let facts = WorkerFacts { id, name, types, labels, lease };
    Ok(WorkerSpec { facts: facts.into(), pool: pool.as_deref().unwrap_or("default").into(), slots })
}

/// Gives a worker attempts as soon as there are any.
#[utoipa::path(post, path = "/v1/workers/{id}/lease", tag = "workers", operation_id = "leaseWork", params(("id" = String, Path, description = "The worker")), request_body = super::schema::LeaseAsk, responses((status = 200, description = "What there is for it, which may be nothing", body = super::schema::Leased)), security(("bearer" = ["work"])))]
pub(super) async fn lease(
    request: HttpRequest,
    id: Path<String>,
    payload: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    let session = session(&request, &service, &id)?;
    let bytes = body::whole(&request, payload, &service.settings).await?;
    let ask: leased::Ask = read(&bytes)?;
    let wait = ask.wait.map_or(Ok(Micros(0)), |text| span("wait", &text))?.to_std();
    if ask.again {
        session.repeats(ask.seq);
    }
    let asked = service.runtime.lease(session.id(), ask.seq, ask.slots, wait);
    let leased = tokio::select! {
        leased = asked => leased?,
        // Whoever waits is told that there is nothing, and asks again.
        () = service.stopped() => return Err(AskError::Superseded.into()),
    };
    Ok(leased::answer(session.id(), ask.seq, &leased, service.runtime.now()))
}

/// Gives the payload of an attempt that the worker has, where it is too large to travel with it.
#[utoipa::path(get, path = "/v1/workers/{id}/payloads/{attempt}", tag = "workers", operation_id = "fetchPayload", params(("id" = String, Path, description = "The worker"), ("attempt" = String, Path, description = "An attempt that it has, such as 0-42.1")), responses((status = 200, description = "The payload as it was submitted", body = String, content_type = "application/octet-stream")), security(("bearer" = ["work"])))]
pub(super) async fn payload(
    request: HttpRequest,
    path: Path<(String, String)>,
    service: Data<Service>,
) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    let (id, attempt) = path.into_inner();
    let session = session(&request, &service, &id)?;
    session.touch();
    let [attempt] = attempts(&[attempt])?[..] else { return Err(invalid("attempt", "one is expected".to_owned())) };
    if let Some(answer) = elsewhere::fetch(&request, &service, attempt.task.shard).await? {
        return Ok(answer);
    }
    let (TaskId { shard, ordinal }, number) = (attempt.task, attempt.number);
    let state = if shard.0 < service.runtime.shards() { service.state(shard).await? } else { return Err(no_task(attempt.task)) };
    let task = state.work.tasks.get(ordinal).filter(|task| task.has_slot() && task.attempt == number);
    let is_own = task.and_then(|task| state.work.workers.get(&task.replica)).is_some_and(|facts| facts.id == session.id());
    let bytes = state.work.tasks.payload(ordinal).filter(|_| is_own);
    let bytes = bytes.ok_or_else(|| Problem::new(GONE, format!("the worker does not have attempt {attempt} any more")))?;
    Ok(HttpResponse::Ok().content_type("application/octet-stream").body(bytes.to_vec()))
}

/// Records how attempts ended, and how far others are.
#[utoipa::path(post, path = "/v1/workers/{id}/report", tag = "workers", operation_id = "reportWork", params(("id" = String, Path, description = "The worker")), request_body = super::schema::WorkReport, responses((status = 200, description = "It is recorded", body = super::schema::WorkReported)), security(("bearer" = ["work"])))]
pub(super) async fn report(
    request: HttpRequest,
    id: Path<String>,
    payload: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    let is_passed_on = elsewhere::is_passed_on(&request);
    let session = match session(&request, &service, &id) {
        // What becomes of its news is for the log to say.
        Err(problem) if is_passed_on && problem.is(NOT_FOUND) => None,
        session => Some(session?),
    };
    let bytes = body::whole(&request, payload, &service.settings).await?;
    // One that is passed on is news alone.
    let slots = session.as_ref().map_or(SLOTS_MAX, |session| session.spec().slots);
    let reported::Reported { news, concurrency, usage } = reported::read(&bytes, slots)?;
    if let (Some(session), Some(usage), false) = (&session, usage, is_passed_on) {
        session.set_usage(usage);
    }
    let ids: Vec<AttemptId> = news.iter().map(|(attempt, _)| *attempt).collect();
    if let (Some(session), Some(concurrency)) = (&session, concurrency) {
        service.runtime.change_concurrency(session.id(), concurrency).await?;
    }
    let verdicts = service.runtime.report_work(worker_id(&id)?, news, is_passed_on).await?;
    let mut fates: Vec<Fate> = verdicts.into_iter().map(Fate::from).collect();
    let mut told = session.as_deref().map(told).unwrap_or_default();
    if !is_passed_on {
        told.stop.extend(elsewhere::pass_on(&request, &service, &bytes, &ids, &mut fates).await);
    }
    Ok(reported::answer(&ids, fates, told))
}

/// Gives a worker nothing more.
#[utoipa::path(post, path = "/v1/workers/{id}/drain", tag = "workers", operation_id = "drainWorker", params(("id" = String, Path, description = "The worker")), responses((status = 200, description = "It is recorded", body = super::schema::WorkerTold)), security(("bearer" = ["work"])))]
pub(super) async fn drain(request: HttpRequest, id: Path<String>, service: Data<Service>) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    let session = session(&request, &service, &id)?;
    session.touch();
    service.runtime.drain_worker(session.id()).await?;
    Ok(HttpResponse::Ok().json(told(&session)))
}

/// A worker is gone.
#[utoipa::path(delete, path = "/v1/workers/{id}", tag = "workers", operation_id = "removeWorker", params(("id" = String, Path, description = "The worker")), responses((status = 200, description = "It is recorded", body = super::schema::WorkerTold)), security(("bearer" = ["work"])))]
pub(super) async fn leave(request: HttpRequest, id: Path<String>, service: Data<Service>) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    let known = worker_id(&id)?;
    if service.runtime.worker(known).is_ok() {
        session(&request, &service, &id)?;
        service.runtime.remove_worker(known).await?;
    }
    Ok(HttpResponse::Ok().json(Told { stop: Vec::new(), drain: true }))
}

/// Lists the workers that this engine knows.
#[utoipa::path(get, path = "/v1/workers", tag = "workers", operation_id = "listWorkers", responses((status = 200, description = "All of them", body = super::schema::Workers)), security(("bearer" = ["read"])))]
pub(super) async fn list(request: HttpRequest, service: Data<Service>) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    let workers: Vec<Value> = service.runtime.workers().iter().map(|session| shown(session)).collect();
    Ok(HttpResponse::Ok().json(json!({ "workers": workers })))
}

/// Shows one worker.
#[utoipa::path(get, path = "/v1/workers/{id}", tag = "workers", operation_id = "showWorker", params(("id" = String, Path, description = "The worker")), responses((status = 200, description = "What is known of it", body = super::schema::Worker)), security(("bearer" = ["read"])))]
pub(super) async fn show(request: HttpRequest, id: Path<String>, service: Data<Service>) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    Ok(HttpResponse::Ok().json(shown(&*service.runtime.worker(worker_id(&id)?)?)))
}

fn shown(session: &Session) -> Value {
    let WorkerSpec { facts, pool, slots } = session.spec();
    let labels: serde_json::Map<String, Value> =
        facts.labels.iter().map(|label| (label.name.clone(), label.value.clone().into())).collect();
    let mut shown = json!({
        "id": facts.id,
        "name": facts.name,
        "pool": **pool,
        "slots": slots,
        "types": facts.types,
        "labels": labels,
        "lease": facts.lease.to_string(),
        "draining": session.is_draining(),
        "silent_ms": u64::try_from(session.silence().as_millis()).unwrap_or(u64::MAX),
    });
    if let Some((usage, ago)) = session.usage(TOLD_WITHIN.to_std()) {
        shown["usage"] = json!({
            "cpu_cores": usage.cpu_cores, "memory_bytes": usage.memory_bytes,
            "told_ms_ago": u64::try_from(ago.as_millis()).unwrap_or(u64::MAX),
        });
    }
    if let Some(concurrency) = session.concurrency() {
        shown["concurrency"] = concurrency.into();
    }
    shown
}

/// What is not told with new attempts.
fn told(session: &Session) -> Told {
    let stop = session.orders().iter().map(leased::stop).collect();
    Told { stop, drain: session.is_draining() }
}

/// A worker that the token may speak for.
fn session(request: &HttpRequest, service: &Service, id: &str) -> Result<std::sync::Arc<Session>, Problem> {
    let session = service.runtime.worker(worker_id(id)?)?;
    permit(request, session.spec())?;
    Ok(session)
}

fn permit(request: &HttpRequest, spec: &WorkerSpec) -> Result<(), Problem> {
    match request.extensions().get::<Bearer>() {
        Some(bearer) if !bearer.works_for(&spec.pool, &spec.facts.types) => {
            let detail = format!("the token of {} does not let it work for these types of the pool {:?}", bearer.name, spec.pool);
            Err(Problem::new(FORBIDDEN, detail))
        }
        Some(_) | None => Ok(()),
    }
}

fn worker_id(text: &str) -> Result<WorkerId, Problem> {
    text.parse().map_err(|error: ergate_events::id::ParseIdError| Problem::new(INVALID, error.to_string()).field("id"))
}

fn attempts(texts: &[String]) -> Result<Vec<AttemptId>, Problem> {
    if texts.len() > NAMED_MAX {
        return Err(invalid("running", format!("it names {} attempts; at most {NAMED_MAX} are expected", texts.len())));
    }
    let parse =
        |text: &String| text.parse().map_err(|error: ergate_events::id::ParseIdError| invalid("running", error.to_string()));
    texts.iter().map(parse).collect()
}

fn span(field: &'static str, text: &str) -> Result<Micros, Problem> {
    parse_span(text).ok_or_else(|| invalid(field, format!("`{field}` is {text:?}; a span such as \"30s\" is expected")))
}

fn invalid(field: &str, detail: String) -> Problem {
    Problem::new(INVALID, detail).field(field)
}

/// Reads a body; an empty one is an empty object.
fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    let bytes = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| Problem::new(INVALID, format!("the body is not what it should be: {error}")))
}

impl From<WorkerError> for Problem {
    fn from(error: WorkerError) -> Problem {
        let text = error.to_string();
        match error {
            WorkerError::Unknown => Problem::new(NOT_FOUND, text),
            WorkerError::Join(JoinError::Full) => Problem::new(BUSY, text),
            WorkerError::Join(JoinError::Different) => Problem::new(CONFLICT, text),
            WorkerError::Ask(error) => error.into(),
            WorkerError::NotThere { .. } => Problem::new(INVALID, text),
            WorkerError::Log(error) => error.into(),
        }
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Problem {
        let kind = match error {
            AskError::Unattached => UNATTACHED,
            AskError::Superseded => SUPERSEDED,
            AskError::OutOfOrder { .. } => OUT_OF_ORDER,
        };
        Problem::new(kind, error.to_string())
    }
}
