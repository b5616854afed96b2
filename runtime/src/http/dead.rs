//! Tasks that failed for good and are kept for another try: dead letters.

use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use ergate_events::id::{ShardId, TaskId};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::gate::guarded;
use super::health::not_that;
use super::led::{Of, led};
use super::look::{CURSOR, PAGE};
use super::problem::{INVALID, Problem};
use super::query::Parameters;
use super::service::Service;
use super::token::Scope;
use super::{merge, redrive};
use crate::look::dead::{CAUSES, DeadQuery, cause};
use crate::look::row::Cursor;
use crate::request::parse_moment;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/dead-letters")
                .route(guarded(led(web::get().to(list), Of::Parameter), Some(Scope::Read)))
                .default_service(not_that("GET")),
        )
        .service(
            web::resource("/dead-letters/redrive")
                .route(guarded(led(web::post().to(redrive::again), Of::Parameter), Some(Scope::Operate)))
                .default_service(not_that("POST")),
        );
}

/// Lists tasks that failed for good and are kept for another try.
#[utoipa::path(get, path = "/v1/dead-letters", tag = "dead letters", operation_id = "list_dead_letters", params(("shard" = Option<String>, Query, description = "Only those of this shard, on Kafka"), ("type" = Option<String>, Query, description = "Only tasks of this type"), ("cause" = Option<String>, Query, description = "attempts_exhausted, not_retryable, timed_out, losses_exhausted, cancelled or killed"), ("since" = Option<String>, Query, description = "Only those of this time or later, such as 2030-01-31T12:00:00Z"), ("until" = Option<String>, Query, description = "Only those before this time"), ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 1000), ("cursor" = Option<String>, Query, description = "The cursor of the page before")), responses((status = 200, description = "A page of dead letters", body = super::schema::DeadLetterPage)), security(("bearer" = ["read"])))]
pub(super) async fn list(request: HttpRequest, service: Data<Service>) -> Result<HttpResponse, Problem> {
    let given = Parameters::read(&request, &["type", "cause", "since", "until", "limit", "cursor", "shard"])?;
    let moment = "a moment such as 2030-01-31T12:00:00Z";
    let wanted = DeadQuery {
        type_name: given.text("type").map(str::to_owned),
        cause: given.parsed("cause", cause, CAUSES)?,
        since: given.parsed("since", parse_moment, moment)?,
        until: given.parsed("until", parse_moment, moment)?,
        ids: None,
    };
    let limit = given.limit(PAGE.0, PAGE.1)?;
    let page = match service.named(given.text("shard"))? {
        Some(shard) => {
            let before = given.parsed("cursor", |text| text.parse::<TaskId>().ok(), CURSOR)?;
            page(&service, shard, &wanted, before, limit).await?
        }
        None => {
            let local = move |service: Data<Service>, shard, before: Option<Cursor>| {
                let (wanted, before) = (wanted.clone(), before.and_then(|place| merge::letter(shard, place)));
                async move { page(&service, shard, &wanted, before, limit).await }
            };
            merge::page(&service, &request, (&merge::DEAD_LETTERS, limit, given.text("cursor")), local).await?
        }
    };
    Ok(HttpResponse::Ok().json(page))
}

/// A page of the dead letters of a shard that is led here.
async fn page(
    service: &Service,
    shard: ShardId,
    wanted: &DeadQuery,
    before: Option<TaskId>,
    limit: usize,
) -> Result<Value, Problem> {
    let state = service.state(shard).await?;
    let letters = wanted.newest(shard, &state, before, limit);
    let cursor = letters.last().filter(|_| letters.len() == limit).map(|(id, _)| *id);
    let letters: Vec<_> = letters.into_iter().map(|(_, letter)| letter).collect();
    Ok(json!({ "dead_letters": letters, "cursor": cursor, "total": state.work.dead.len() }))
}

/// Reads a field where it is given.
pub(super) fn read<T: serde::de::DeserializeOwned, U>(
    field: &str,
    raw: Option<&RawValue>,
    parse: impl FnOnce(T) -> Option<U>,
    expected: &str,
) -> Result<Option<U>, Problem> {
    let Some(raw) = raw else { return Ok(None) };
    let value = serde_json::from_str(raw.get()).ok().and_then(parse);
    value.map(Some).ok_or_else(|| {
        let shown: String = raw.get().chars().take(64).collect();
        Problem::new(INVALID, format!("`{field}` is {} where {expected} is expected", shown.escape_debug())).field(field)
    })
}
