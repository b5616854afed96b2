//! Looking at tasks: lists, one task, its history, its result.

use actix_web::http::header::{self, EntityTag};
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ergate_actors::submission::TaskEnd;
use ergate_events::id::{Position, ShardId, TaskId, TypeId};
use ergate_events::state::State;
use ergate_events::task::Outcome;
use serde_json::{Map, Value, json};

use super::merge;
use super::problem::{INVALID, Problem, UNSUCCESSFUL};
use super::query::Parameters;
use super::service::{Service, Shard, blocking, no_task, task_id};
use super::wait::end_within;
use crate::look::label::{LABELS_MAX, Label};
use crate::look::life::Life;
use crate::look::list::{Filter, Log, Page, TaskQuery, names_in};
use crate::look::moment::time;
use crate::look::named::{name_others, name_type};
use crate::look::record::{self, Record};
use crate::look::row::{Cursor, Row};
use crate::request::parse_moment;
use crate::whereabouts::Kept;

/// Tasks on a page where nobody says how many, and at most.
pub(super) const PAGE: (usize, usize) = (20, 1_000);
/// Events of a history, likewise.
const EVENTS: (usize, usize) = (1_000, 10_000);

/// Lists tasks, the newest first: live ones, then ended ones.
#[utoipa::path(get, path = "/v1/tasks", tag = "tasks", params(("shard" = Option<String>, Query, description = "Only tasks of this shard, on Kafka"), ("type" = Option<String>, Query, description = "Only tasks of this type"), ("pool" = Option<String>, Query, description = "Only tasks of types of this pool"), ("state" = Option<String>, Query, description = "live, ended, dead, held, delayed, limited, ready, running, cancelling or backoff"), ("outcome" = Option<String>, Query, description = "succeeded, partial, failed, cancelled or skipped"), ("label" = Option<Vec<String>>, Query, description = "Only tasks with this label, NAME=VALUE; several times for tasks that have all of them. A page may then be short, or empty, before the list ends: its cursor goes on", max_items = 16), ("since" = Option<String>, Query, description = "Only those of this time or later, such as 2030-01-31T12:00:00Z"), ("until" = Option<String>, Query, description = "Only those before this time"), ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 1000), ("cursor" = Option<String>, Query, description = "The cursor of the page before, or of a task on it")), responses((status = 200, description = "A page of tasks", body = super::schema::TaskPage)), security(("bearer" = ["read"])))]
pub(super) async fn list(request: HttpRequest, service: Data<Service>) -> Result<HttpResponse, Problem> {
    let known = ["type", "pool", "state", "outcome", "label", "since", "until", "limit", "cursor", "shard"];
    let given = Parameters::with_repeated(&request, &known, Some("label"))?;
    let state_named = |text: &str| Filter::NAMES.into_iter().find(|(name, _)| *name == text).map(|(_, filter)| filter);
    let wanted = Wanted {
        type_name: given.text("type").map(str::to_owned),
        pool: given.text("pool").map(str::to_owned),
        query: TaskQuery {
            outcome: given.parsed("outcome", Outcome::from_name, "succeeded, partial, failed, cancelled or skipped")?,
            state: given.parsed(
                "state",
                state_named,
                "live, ended, dead, held, delayed, limited, ready, running, cancelling or backoff",
            )?,
            labels: given.all("label", Label::read, LABELS_MAX, Label::EXPECTED)?,
            since: given.parsed("since", parse_moment, MOMENT)?,
            until: given.parsed("until", parse_moment, MOMENT)?,
            before: None,
            limit: given.limit(PAGE.0, PAGE.1)?,
            types: None,
        },
    };
    let page = match service.named(given.text("shard"))? {
        Some(shard) => {
            let before = given.parsed("cursor", read_cursor, CURSOR)?;
            page(service, shard, wanted.behind(before)).await?
        }
        None => {
            let what = (&merge::TASKS, wanted.query.limit, given.text("cursor"));
            let local = move |service: Data<Service>, shard, before| {
                let wanted = wanted.behind(before);
                async move { page(service, shard, wanted).await }
            };
            merge::page(&service, &request, what, local).await?
        }
    };
    Ok(HttpResponse::Ok().json(page))
}

const MOMENT: &str = "a moment such as 2030-01-31T12:00:00Z";
/// What a cursor is, for whoever gave something else.
pub(super) const CURSOR: &str = "a cursor of an earlier page";

/// Which tasks are asked for, before a shard says what its types are.
#[derive(Clone)]
struct Wanted {
    type_name: Option<String>,
    pool: Option<String>,
    query: TaskQuery,
}

impl Wanted {
    fn behind(&self, before: Option<Cursor>) -> Wanted {
        Wanted { query: TaskQuery { before, ..self.query.clone() }, ..self.clone() }
    }
}

/// A page of the tasks of a shard that is led here.
async fn page(service: Data<Service>, id: ShardId, wanted: Wanted) -> Result<Value, Problem> {
    let (shard, state) = (service.shard(id)?, service.state(id).await?);
    let types = types(&state, wanted.type_name.as_deref(), wanted.pool.as_deref())?;
    let query = TaskQuery { types, ..wanted.query };
    let Page { rows, next, looked_to } = blocking(move || {
        let names = names_in(&state);
        // What is kept here may begin behind the requests of tasks that end in it.
        let begins_later = !query.labels.is_empty() && shard.reader.span().first > Position(0);
        let whole = if begins_later { service.runtime.whole_log(id)? } else { None };
        let (reader, index, older) =
            (shard.reader.as_ref(), shard.index.as_ref(), whole.as_ref().map(|kept| kept.reader.as_ref()));
        Ok(query.page(Some(&state), &Log { shard: id, reader, older, index, names: &names })?)
    })
    .await?;
    let rows: Vec<_> = rows.iter().map(Row::json).collect();
    let mut page = json!({ "tasks": rows, "cursor": next.map(write_cursor) });
    page.as_object_mut().into_iter().for_each(|page| page.extend(looked_to.map(|at| ("looked_to".to_owned(), time(at).into()))));
    Ok(page)
}

/// The definitions of a type, and of all types whose tasks go to a pool.
fn types(state: &State, name: Option<&str>, pool: Option<&str>) -> Result<Option<Vec<TypeId>>, Problem> {
    if name.is_none() && pool.is_none() {
        return Ok(None);
    }
    let all = state.work.types.iter().zip(0..).map(|(known, id)| (known, TypeId(id)));
    let of_type = |known: &str| name.is_none_or(|name| known == name);
    let wanted = all.filter(|(known, _)| of_type(&known.name) && pool.is_none_or(|pool| known.settings.pool == pool));
    let wanted: Vec<_> = wanted.map(|(_, id)| id).collect();
    let nothing = |field: &str, text: &str| {
        let text: String = text.chars().take(64).collect();
        Problem::new(INVALID, format!("no {field} {text:?} is known to the log")).field(field)
    };
    if let Some(name) = name.filter(|name| !state.work.type_names.contains_key(*name)) {
        return Err(nothing("type", name));
    }
    if let Some(pool) = pool.filter(|pool| !state.control.pools.iter().any(|known| known.name == **pool)) {
        return Err(nothing("pool", pool));
    }
    Ok(Some(wanted))
}

fn write_cursor(cursor: Cursor) -> String {
    URL_SAFE_NO_PAD.encode(cursor.to_string())
}

/// Reads the cursor of a page, or of a task on it.
pub(super) fn read_cursor(text: &str) -> Option<Cursor> {
    if let Ok(cursor) = text.parse() {
        return Some(cursor);
    }
    String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?.parse().ok()
}

/// Shows everything that is known of a task.
#[utoipa::path(get, path = "/v1/tasks/{id}", tag = "tasks", params(("id" = String, Path, description = "The id of a task, such as 0-42"), ("wait" = Option<String>, Query, description = "Wait for its end for at most this span, such as 10s")), responses((status = 200, description = "The task", body = super::schema::Task), (status = 304, description = "Nothing is new since the ETag")), security(("bearer" = ["read"])))]
pub(super) async fn show(request: HttpRequest, id: Path<String>, service: Data<Service>) -> Result<HttpResponse, Problem> {
    let given = Parameters::read(&request, &["wait"])?;
    let (id, wait) = (task_id(&id)?, given.wait()?);
    let mut state = known(&service, id).await?;
    if is_live(&state, id) && end_within(&service, id, wait).await?.is_some() {
        state = known(&service, id).await?;
    }
    let (life, at) = blocking(move || life(&log_of(&service, id)?, &state, id)).await?;
    // What is told of a task follows from its events, and the newest of them says which those are.
    let tag = EntityTag::new_strong(format!("{id}.{at}"));
    if matches(&request, &tag) {
        return Ok(HttpResponse::NotModified().insert_header(header::ETag(tag)).finish());
    }
    Ok(HttpResponse::Ok().insert_header(header::ETag(tag)).json(life))
}

fn matches(request: &HttpRequest, tag: &EntityTag) -> bool {
    let given = request.headers().get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(',').any(|text| text.trim() == "*" || text.trim().trim_start_matches("W/") == tag.to_string())
}

/// The state, if it may know the task.
pub(super) async fn known(service: &Service, id: TaskId) -> Result<Box<State>, Problem> {
    if id.shard.0 >= service.runtime.shards() {
        return Err(no_task(id));
    }
    let state = service.state(id.shard).await?;
    if id.ordinal < state.next_ordinal() { Ok(state) } else { Err(no_task(id)) }
}

/// A log that has the request of a task: what is kept here, or where that begins later, all of it. Blocks.
pub(super) fn log_of(service: &Service, id: TaskId) -> Result<Shard, Problem> {
    let shard = service.shard(id.shard)?;
    let first = shard.reader.span().first;
    if first == Position(0) {
        return Ok(shard);
    }
    let begins = shard.reader.cursor(first)?.next_block()?.map(|block| block.header.first_ordinal);
    if begins.is_some_and(|begins| begins <= id.ordinal) {
        return Ok(shard);
    }
    let whole = service.runtime.whole_log(id.shard)?;
    Ok(whole.map_or(shard, |Kept { reader, index, snapshots }| Shard { id: id.shard, reader, index, snapshots }))
}

fn is_live(state: &State, id: TaskId) -> bool {
    state.work.tasks.get(id.ordinal).is_some()
}

/// Everything that is known of a task, and the position of the newest event that says so.
fn life(shard: &Shard, state: &State, id: TaskId) -> Result<(Map<String, Value>, Position), Problem> {
    let (mut life, mut newest, mut events) = (Life::default(), Position(0), 0_u64);
    each_event(shard, state.position, id, &mut |record| {
        life.learn(id.ordinal, record)?;
        newest = record.envelope.position;
        events += 1;
        Ok(true)
    })?;
    if events == 0 && !is_live(state, id) && !state.work.dead.contains_key(&id.ordinal) {
        return Err(no_task(id));
    }
    life.put("task", id.to_string());
    let name = |id: TypeId| state.work.types.get(usize::from(id.0)).map(|known| known.name.clone());
    if let Some(name) = shard.index.type_of(id.ordinal)?.and_then(name) {
        life.put("type", name);
    }
    life.complete(state, id.ordinal);
    life.put("events", events);
    Ok((life.json()?, newest))
}

/// Shows the events of a task before a position, in order, until `each` has seen enough.
fn each_event(
    shard: &Shard,
    before: Position,
    id: TaskId,
    each: &mut dyn FnMut(&Record<'_>) -> Result<bool, Problem>,
) -> Result<(), Problem> {
    for at in shard.index.history(id.ordinal, None)? {
        let Some(block) = shard.reader.cursor(at)?.next_block()? else { continue };
        for record in record::of(&block) {
            let record = record?;
            if record.envelope.position < before && record.concerns(id.ordinal) && !each(&record)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Shows the events of a task.
#[utoipa::path(get, path = "/v1/tasks/{id}/history", tag = "tasks", params(("id" = String, Path, description = "The id of a task, such as 0-42"), ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 10000), ("cursor" = Option<String>, Query, description = "The cursor of the page before")), responses((status = 200, description = "Its events", body = super::schema::History)), security(("bearer" = ["read"])))]
pub(super) async fn history(request: HttpRequest, id: Path<String>, service: Data<Service>) -> Result<HttpResponse, Problem> {
    let given = Parameters::read(&request, &["limit", "cursor"])?;
    let limit = given.limit(EVENTS.0, EVENTS.1)?;
    let from = given.parsed("cursor", |text| text.parse::<Position>().ok(), CURSOR)?.unwrap_or_default();
    let id = task_id(&id)?;
    let state = known(&service, id).await?;
    let (events, next) = blocking(move || {
        let shard = log_of(&service, id)?;
        let (mut events, mut next, names) = (Vec::new(), None, names_in(&state));
        each_event(&shard, state.position, id, &mut |record| {
            if record.envelope.position < from {
                return Ok(true);
            }
            if events.len() == limit {
                next = Some(record.envelope.position.0.to_string());
                return Ok(false);
            }
            let mut event = record.json()?;
            name_type(&mut event, &names);
            name_others(&mut event, &state);
            events.push(event);
            Ok(true)
        })?;
        Ok((events, next))
    })
    .await?;
    if events.is_empty() && from == Position(0) {
        return Err(no_task(id));
    }
    Ok(HttpResponse::Ok().json(json!({ "task": id, "events": events, "cursor": next })))
}

/// Gives the result of a task.
#[utoipa::path(get, path = "/v1/tasks/{id}/result", tag = "tasks", params(("id" = String, Path, description = "The id of a task, such as 0-42"), ("wait" = Option<String>, Query, description = "Wait for its end for at most this span, such as 10s")), responses((status = 200, description = "The result as the task gave it", content((Value = "application/json"), (String = "application/octet-stream"))), (status = 202, description = "It has not ended", body = Object)), security(("bearer" = ["read"])))]
pub(super) async fn result(request: HttpRequest, id: Path<String>, service: Data<Service>) -> Result<HttpResponse, Problem> {
    let given = Parameters::read(&request, &["wait"])?;
    let (id, wait) = (task_id(&id)?, given.wait()?);
    let state = known(&service, id).await?;
    let live = is_live(&state, id);
    drop(state);
    let end = if live { end_within(&service, id, wait).await? } else { Some(service.runtime.wait(id).await?) };
    match end {
        None => {
            Ok(HttpResponse::Accepted().insert_header((header::RETRY_AFTER, "1")).json(json!({ "task": id, "state": "live" })))
        }
        Some(end) => ended(id, end),
    }
}

fn ended(id: TaskId, end: TaskEnd) -> Result<HttpResponse, Problem> {
    let TaskEnd { outcome, result, failure } = end;
    if let Some(failure) = failure {
        let detail = format!(
            "task {id} ended {}: {}",
            outcome.name(),
            if failure.message.is_empty() { "it has no result" } else { &failure.message }
        );
        let told = json!({ "cause": failure.cause, "class": failure.class, "message": failure.message });
        return Err(Problem::new(UNSUCCESSFUL, detail).with("outcome", outcome.name()).with("failure", told));
    }
    // Results are what task functions return, as JSON; whatever else one may be, it is bytes.
    let is_json = serde_json::from_slice::<&serde_json::value::RawValue>(&result).is_ok();
    let content_type = if is_json { "application/json" } else { "application/octet-stream" };
    Ok(HttpResponse::Ok().content_type(content_type).body(Vec::from(result)))
}
