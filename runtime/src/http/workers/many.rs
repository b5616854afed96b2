//! Draining workers as an operator does: those of an old version, of a machine, or some by name.

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use ergate_actors::workers::Session;
use ergate_events::worker::WorkerId;
use serde::Deserialize;
use serde_json::json;

use super::{invalid, read, worker_id};
use crate::http::body;
use crate::http::problem::Problem;
use crate::http::query::Parameters;
use crate::http::service::Service;

/// Which workers; all that is given has to be so.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    #[serde(default)]
    ids: Option<Vec<String>>,
    #[serde(default)]
    pool: Option<String>,
    #[serde(default)]
    label: Option<String>,
}

/// Gives workers nothing more, which end what they have and leave.
#[utoipa::path(post, path = "/v1/workers/drain", tag = "workers", operation_id = "drainWorkers", request_body = crate::http::schema::WhichWorkers, responses((status = 200, description = "It is recorded", body = crate::http::schema::DrainedWorkers)), security(("bearer" = ["operate"])))]
pub(crate) async fn drain_many(request: HttpRequest, payload: Payload, service: Data<Service>) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    let bytes = body::whole(&request, payload, &service.settings).await?;
    let Which { ids, pool, label } = read(&bytes)?;
    if ids.is_none() && pool.is_none() && label.is_none() {
        return Err(invalid("ids", "say which workers: `ids`, `pool` or `label`; all that is given has to be so".to_owned()));
    }
    let label = label.as_deref().map(|text| {
        text.split_once('=')
            .ok_or_else(|| invalid("label", format!("`label` is {text:?}; a label such as \"version=1\" is expected")))
    });
    let label = label.transpose()?;
    let ids = ids.map(|ids| ids.iter().map(|id| worker_id(id)).collect::<Result<Vec<WorkerId>, _>>()).transpose()?;
    if let Some(unknown) = ids.iter().flatten().find(|id| service.runtime.worker(**id).is_err()) {
        return Err(invalid("ids", format!("no worker {unknown} is known to this engine; GET /v1/workers shows those that are")));
    }
    let is_meant = |session: &Session| {
        let spec = session.spec();
        ids.as_ref().is_none_or(|ids| ids.contains(&session.id()))
            && pool.as_ref().is_none_or(|pool| **pool == *spec.pool)
            && label.is_none_or(|(name, value)| spec.facts.labels.iter().any(|one| one.name == name && one.value == value))
    };
    let mut drained = Vec::new();
    for session in service.runtime.workers().iter().filter(|session| is_meant(session)) {
        service.runtime.drain_worker(session.id()).await?;
        drained.push(session.id());
    }
    Ok(HttpResponse::Ok().json(json!({ "draining": drained })))
}
