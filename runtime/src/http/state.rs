//! `GET /v1/state`: the state in numbers, now or at a past moment.

use std::sync::Arc;

use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use tokio::sync::Semaphore;

use super::gate::guarded;
use super::health::not_that;
use super::led::{Of, led};
use super::problem::{BUSY, Problem};
use super::query::Parameters;
use super::service::{Service, blocking};
use super::token::Scope;
use crate::look::fold::Source;
use crate::look::moment::Moment;
use crate::look::summary::Summary;

/// States that are folded at one time on each thread: each takes as much memory as the running one, and a processor.
const FOLDS_MAX: usize = 1;

pub(super) fn routes(config: &mut ServiceConfig) {
    let folds = Arc::new(Semaphore::new(FOLDS_MAX));
    let state = web::get().to(move |request, service| state(request, service, Arc::clone(&folds)));
    config.service(
        web::resource("/state").route(guarded(led(state, Of::Parameter), Some(Scope::Read))).default_service(not_that("GET")),
    );
}

/// Shows the state now or at a past moment.
#[utoipa::path(get, path = "/v1/state", tag = "log", params(("shard" = Option<String>, Query, description = "Which shard, on Kafka: its number, or capacity for the log of pools"), ("at" = Option<String>, Query, description = "A position such as 1200, or a time such as 2030-01-31T12:00:00Z; now without it")), responses((status = 200, description = "The state in numbers", body = super::schema::State)), security(("bearer" = ["read"])))]
pub(super) async fn state(request: HttpRequest, service: Data<Service>, folds: Arc<Semaphore>) -> Result<HttpResponse, Problem> {
    let given = Parameters::read(&request, &["at", "shard"])?;
    let expected = "a position such as 1200, or a time such as 2030-01-31T12:00:00Z,";
    let at = given.parsed("at", |text| text.parse::<Moment>().ok(), expected)?;
    let shard = service.shard(service.one(given.text("shard"))?)?;
    let Some(at) = at else {
        let state = service.state(shard.id).await?;
        let summary = blocking(move || Ok(Summary::of(shard.id, &state))).await?;
        return Ok(HttpResponse::Ok().json(summary));
    };
    let folding = folds.try_acquire_owned();
    let folding = folding
        .map_err(|_| Problem::new(BUSY, "another past state is being folded").retry_after(std::time::Duration::from_secs(1)))?;
    let summary = blocking(move || {
        let source = Source { reader: shard.reader.as_ref(), snapshots: shard.snapshots.as_ref() };
        let state = source.fold(at, &mut |_| {})?;
        drop(folding);
        Ok(Summary::of(shard.id, &state))
    })
    .await?;
    Ok(HttpResponse::Ok().json(summary))
}
