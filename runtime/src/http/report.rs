//! Reports of services that were called to do a task, about the attempt that they work on.

use actix_web::http::header;
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use ergate_actors::executor::http::callbacks;
use ergate_actors::executor::word::Word;

use super::body;
use super::gate::guarded;
use super::health::not_that;
use super::problem::{GONE, INVALID, Problem, UNAUTHORIZED};
use super::query::Parameters;
use super::service::Service;

/// The header with the attempt's own token. It is the only one that is asked for: whoever was called has no token of the service.
const TOKEN: &str = "ergate-report";

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(
        web::resource("/report")
            .route(guarded(web::post().to(report), None))
            .route(guarded(web::get().to(checkpoint), None))
            .default_service(not_that("GET, POST")),
    );
}

/// Takes a sign of life, progress or a checkpoint of an attempt that an HTTP executor called for.
#[utoipa::path(post, path = "/v1/report", tag = "executors", operation_id = "report", request_body = super::schema::Report, responses((status = 204, description = "It is taken")), security(("attempt" = [])))]
pub(super) async fn report(request: HttpRequest, payload: Payload, service: Data<Service>) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    let token = token(&request)?;
    let bytes = body::whole(&request, payload, &service.settings).await?;
    let word = Word::parse(&bytes).map_err(|error| Problem::new(INVALID, format!("the report cannot be taken: {error}")))?;
    callbacks().report(token, &word).map_err(|_| gone())?;
    Ok(HttpResponse::NoContent().finish())
}

/// Gives the checkpoint that the attempt before left.
#[utoipa::path(get, path = "/v1/report", tag = "executors", operation_id = "checkpoint", responses((status = 200, description = "The checkpoint as it was reported", body = String, content_type = "application/octet-stream"), (status = 204, description = "The attempt before left none")), security(("attempt" = [])))]
pub(super) async fn checkpoint(request: HttpRequest) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    let left = callbacks().checkpoint(token(&request)?).map_err(|_| gone())?;
    Ok(match left {
        Some(bytes) => HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "application/octet-stream")).body(bytes),
        None => HttpResponse::NoContent().finish(),
    })
}

fn token(request: &HttpRequest) -> Result<&str, Problem> {
    let token = request.headers().get(TOKEN).and_then(|value| value.to_str().ok());
    token.ok_or_else(|| Problem::new(UNAUTHORIZED, format!("send the header `{TOKEN}` that the call had")).field(TOKEN).close())
}

fn gone() -> Problem {
    Problem::new(GONE, "no attempt with this token runs here: it has ended, or the token is not whole")
}
