//! Requests about one shard: answered here where it is led here, and sent on to the engine that leads it where not.
//!
//! Only Kafka has more than one engine. A request goes on at most once: one that was sent on already is answered here or refused, so engines
//! that take each other for the leader never pass it around.

use actix_web::Error;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, Route};
use ergate_events::id::{ShardId, TaskId};

use super::body;
use super::forward::{self, Asked, Sent};
use super::problem::{Problem, elsewhere};
use super::query::Parameters;
use super::service::Service;

/// The header of an answer that names the engine that gave it.
pub(super) const ENGINE: HeaderName = HeaderName::from_static("ergate-engine");
/// The header of a request that was sent on, which names the engine that did.
pub(super) const FORWARDED: HeaderName = HeaderName::from_static("ergate-forwarded");

/// How a request says which shard it is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    /// By the id of a task in its path.
    Task,
    /// By the parameter `shard`; without it, it is about all of them.
    Parameter,
    /// By the name of a schedule in its path.
    Home,
    /// It is about the sizes of pools, wherever these are decided.
    Sizes,
}

impl Of {
    /// The shard. What names none is left to the handler, which says so.
    fn shard(self, service: &Service, request: &HttpRequest) -> Option<ShardId> {
        match self {
            Of::Task => {
                let id: TaskId = request.match_info().get("id")?.parse().ok()?;
                (id.shard.0 < service.runtime.shards()).then_some(id.shard)
            }
            Of::Home => Some(service.runtime.home(request.match_info().get("name")?)),
            Of::Sizes => Some(service.sizes()),
            Of::Parameter => service.named(Parameters::any(request).ok()?.text("shard")).ok()?,
        }
    }
}

/// Lets the leader of its shard answer a request.
pub(super) fn led(route: Route, of: Of) -> Route {
    route.wrap(from_fn(move |request: ServiceRequest, next: Next<BoxBody>| pass(of, request, next)))
}

async fn pass<B: MessageBody + 'static>(
    of: Of,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(service) = request.app_data::<Data<Service>>().cloned() else { return here(None, request, next).await };
    let shard = of.shard(&service, request.request());
    match shard.filter(|shard| !service.runtime.leads(*shard)) {
        None => here(Some(&service), request, next).await,
        Some(shard) if request.headers().contains_key(FORWARDED) => Ok(refuse(&service, request, elsewhere(shard))),
        Some(shard) => away(shard, service, request, next).await,
    }
}

/// Answers here.
async fn here<B: MessageBody + 'static>(
    service: Option<&Service>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let mut response = next.call(request).await?.map_into_boxed_body();
    if let Some(service) = service {
        sign(service, &mut response);
    }
    Ok(response)
}

/// Names this engine in an answer, where it is one of several.
fn sign<B>(service: &Service, response: &mut ServiceResponse<B>) {
    if let Some(Ok(address)) = service.runtime.address().map(HeaderValue::from_str) {
        response.headers_mut().insert(ENGINE, address);
    }
}

fn refuse(service: &Service, request: ServiceRequest, problem: Problem) -> ServiceResponse<BoxBody> {
    let mut response = request.error_response(problem);
    sign(service, &mut response);
    response
}

/// Sends a request on; here after all where the shard came here meanwhile.
async fn away<B: MessageBody + 'static>(
    shard: ShardId,
    service: Data<Service>,
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let payload = request.extract::<web::Payload>().await?;
    let asked = match body::whole(request.request(), payload, &service.settings).await {
        Ok(body) => Asked::of(request.request(), body),
        Err(problem) => return Ok(refuse(&service, request, problem)),
    };
    match forward::send(&service, shard, &asked).await {
        Ok(Sent::Answered(answer)) => Ok(request.into_response(forward::relay(service, answer))),
        Ok(Sent::Here) => {
            request.set_payload(Payload::from(asked.body));
            here(Some(&service), request, next).await
        }
        Err(problem) => Ok(refuse(&service, request, problem)),
    }
}
