//! Trying many dead letters again, of one shard or of all.

use std::collections::BTreeSet;

use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse, rt};
use ergate_events::id::{ShardId, TaskId};
use serde_json::{Map, Value, json};

use super::act::{Demand, by, read_reason, redrive};
use super::body;
use super::dead::read;
use super::forward::Asked;
use super::merge::{gather, target, tell};
use super::problem::{CONFLICT, ELSEWHERE, INVALID, Problem, elsewhere};
use super::query::Parameters;
use super::service::Service;
use crate::look::dead::{CAUSES, DeadQuery, cause};
use crate::request::{self, parse_moment};
use crate::shards::shard_name;

/// Dead letters that one request may try again where it does not say how many, and at most: each is an event, and the answer names all.
const REDRIVE: (usize, usize) = (1_000, 10_000);
/// Those that are proposed together; they share a commit.
const TOGETHER: usize = 256;

/// What a bulk redrive asks for.
#[derive(Clone)]
struct Ask {
    wanted: DeadQuery,
    ids: Option<BTreeSet<TaskId>>,
    limit: usize,
    dry_run: bool,
    demand: Demand,
}

/// Tries many dead letters again.
#[utoipa::path(post, path = "/v1/dead-letters/redrive", tag = "dead letters", operation_id = "redrive", params(("shard" = Option<String>, Query, description = "Only those of this shard, on Kafka")), request_body = super::schema::Redrive, responses((status = 200, description = "What was tried again", body = super::schema::Redriven)), security(("bearer" = ["operate"])))]
pub(super) async fn again(request: HttpRequest, payload: Payload, service: Data<Service>) -> Result<HttpResponse, Problem> {
    let given = Parameters::read(&request, &["shard"])?;
    let bytes = body::whole(&request, payload, &service.settings).await?;
    let ask = ask(&bytes, by(&request))?;
    let told = match service.named(given.text("shard"))? {
        Some(shard) => again_in(service, shard, ask).await?,
        None => again_in_all(&service, &request, &bytes, ask).await?,
    };
    Ok(HttpResponse::Ok().json(told))
}

/// Tries those of a shard again that is led here.
async fn again_in(service: Data<Service>, shard: ShardId, ask: Ask) -> Result<Value, Problem> {
    let Ask { mut wanted, ids, limit, dry_run, demand } = ask;
    let state = service.state(shard).await?;
    if let Some(missing) = ids.iter().flatten().find(|id| id.shard != shard || !state.work.dead.contains_key(&id.ordinal)) {
        let detail = format!("task {missing} is not a dead letter; nothing was tried again");
        return Err(Problem::new(CONFLICT, detail).field("ids"));
    }
    wanted.ids = ids.map(|ids| ids.into_iter().map(|id| id.ordinal).collect());
    let letters = state.work.dead.iter().filter(|(ordinal, letter)| wanted.has(&state, **ordinal, letter));
    let found: Vec<_> = letters.map(|(ordinal, _)| TaskId { shard, ordinal: *ordinal }).collect();
    drop(state);
    let (matching, chosen) = (found.len(), &found[..found.len().min(limit)]);
    let redriven = if dry_run {
        chosen.iter().map(|id| json!({ "of": id })).collect()
    } else {
        redrive_all(service, chosen, demand).await?
    };
    Ok(json!({ "matching": matching, "redriven": redriven, "dry_run": dry_run }))
}

/// Tries those of all shards again, one shard after another: what was done is known when one of them fails.
async fn again_in_all(service: &Data<Service>, request: &HttpRequest, bytes: &Bytes, ask: Ask) -> Result<Value, Problem> {
    let document: Map<String, Value> = serde_json::from_slice(bytes)?;
    let plan = Plan { request, document, ask };
    if plan.ask.ids.is_some() && !plan.ask.dry_run {
        plan.check(service).await?;
    }
    let (mut matching, mut redriven, mut missing) = (0, Vec::new(), Vec::new());
    for shard in plan.shards(service) {
        let room = plan.ask.limit - redriven.len();
        let (asked, ask) = plan.part(shard, room, plan.ask.dry_run || room == 0);
        let told = tell(service, shard, &asked, move |service, shard| again_in(service, shard, ask.clone())).await;
        match told {
            Ok(told) => {
                matching += told["matching"].as_u64().unwrap_or(0);
                redriven.extend(told["redriven"].as_array().into_iter().flatten().take(room).cloned());
            }
            Err(problem) if problem.is(ELSEWHERE) => missing.push(shard),
            Err(problem) => return Err(problem.with("redriven", redriven)),
        }
    }
    let missing: Vec<_> = missing.into_iter().map(shard_name).collect();
    Ok(json!({ "matching": matching, "redriven": redriven, "dry_run": plan.ask.dry_run, "missing_shards": missing }))
}

/// What each shard is asked for.
struct Plan<'a> {
    request: &'a HttpRequest,
    /// The body as it came.
    document: Map<String, Value>,
    ask: Ask,
}

impl Plan<'_> {
    /// The shards that are asked: those of the tasks that are named, or all.
    fn shards(&self, service: &Service) -> BTreeSet<ShardId> {
        match &self.ask.ids {
            Some(ids) => ids.iter().map(|id| id.shard).collect(),
            None => (0..service.runtime.shards()).map(ShardId).collect(),
        }
    }

    /// What one shard is asked for, there and here: at most so many.
    fn part(&self, shard: ShardId, limit: usize, dry_run: bool) -> (Asked, Ask) {
        let ids: Option<BTreeSet<TaskId>> =
            self.ask.ids.as_ref().map(|ids| ids.iter().copied().filter(|id| id.shard == shard).collect());
        let mut document = self.document.clone();
        document.extend(ids.as_ref().map(|ids| ("ids".to_owned(), json!(ids))));
        // Where nothing more is to be tried again, only the number is asked for.
        let limit = limit.max(1);
        document.extend([("limit".to_owned(), limit.into()), ("dry_run".to_owned(), dry_run.into())]);
        let body = Bytes::from(Value::from(document).to_string());
        (Asked::with(self.request, target(self.request, shard, None), body), Ask { ids, limit, dry_run, ..self.ask.clone() })
    }

    /// Whether all tasks that are named are dead letters: nothing is tried again where one is not, or nobody can tell.
    async fn check(&self, service: &Data<Service>) -> Result<(), Problem> {
        let part = |shard| (shard, self.part(shard, REDRIVE.1, true).0);
        let asked = self.shards(service).into_iter().map(part).collect();
        let ask = self.ask.clone();
        let local = move |service, shard: ShardId| {
            let ids = ask.ids.as_ref().map(|ids| ids.iter().copied().filter(|id| id.shard == shard).collect());
            again_in(service, shard, Ask { ids, dry_run: true, ..ask.clone() })
        };
        let checked = gather(service, asked, local).await?;
        checked.missing.first().map_or(Ok(()), |shard| Err(elsewhere(*shard)))
    }
}

/// Tries them again, many at a time. One that somebody else was faster with is left out.
async fn redrive_all(service: Data<Service>, chosen: &[TaskId], demand: Demand) -> Result<Vec<Value>, Problem> {
    let (demand, mut redriven) = (std::rc::Rc::new(demand), Vec::new());
    for together in chosen.chunks(TOGETHER) {
        let asked: Vec<_> = together
            .iter()
            .map(|id| {
                let (service, demand, id) = (service.clone(), std::rc::Rc::clone(&demand), *id);
                rt::spawn(async move { (id, redrive(&service, id, &demand).await) })
            })
            .collect();
        for one in asked {
            match one.await {
                Ok((id, Ok((task, _)))) => redriven.push(json!({ "of": id, "task": task })),
                Ok((_, Err(problem))) if actix_web::ResponseError::status_code(&problem) == 409 => {}
                Ok((_, Err(problem))) => return Err(problem.with("redriven", redriven)),
                Err(error) => return Err(super::problem::internal(&error)),
            }
        }
    }
    Ok(redriven)
}

const NAMES: [&str; 9] = ["ids", "type", "cause", "since", "until", "all", "limit", "dry_run", "reason"];

fn ask(bytes: &[u8], by: String) -> Result<Ask, Problem> {
    let [ids, type_name, cause_given, since, until, all, limit, dry_run, reason] = request::object(bytes, &NAMES)?;
    let wanted = DeadQuery {
        type_name: read("type", type_name, Some, "a text")?,
        cause: read("cause", cause_given, |text: String| cause(&text), CAUSES)?,
        since: read("since", since, |text: String| parse_moment(&text), "a moment such as \"2030-01-31T12:00:00Z\"")?,
        until: read("until", until, |text: String| parse_moment(&text), "a moment such as \"2030-01-31T12:00:00Z\"")?,
        ids: None,
    };
    let ids = read("ids", ids, task_ids, "a list of ids such as [\"0-42\"]")?;
    let all = read("all", all, Some, "true or false")?.unwrap_or(false);
    let is_filtered = [type_name, cause_given, since, until].iter().any(Option::is_some);
    if usize::from(ids.is_some()) + usize::from(is_filtered) + usize::from(all) != 1 {
        let detail =
            "say which: `ids`, or a filter of `type`, `cause`, `since` and `until`, or `\"all\": true`; one of the three";
        return Err(Problem::new(INVALID, detail).field("ids"));
    }
    let within = |limit: usize| (1..=REDRIVE.1).contains(&limit).then_some(limit);
    Ok(Ask {
        limit: read("limit", limit, within, "a whole number from 1 to 10000")?.unwrap_or(REDRIVE.0),
        dry_run: read("dry_run", dry_run, Some, "true or false")?.unwrap_or(false),
        demand: Demand { by, reason: read_reason(reason)? },
        wanted,
        ids,
    })
}

fn task_ids(ids: Vec<String>) -> Option<BTreeSet<TaskId>> {
    let ids = ids.iter().map(|id| id.parse().ok()).collect::<Option<BTreeSet<TaskId>>>();
    ids.filter(|ids| (1..=REDRIVE.1).contains(&ids.len()))
}
