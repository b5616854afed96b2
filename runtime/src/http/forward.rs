//! Sends a request on to the engine that leads a shard, and its answer back as it comes.
//!
//! Who leads what is known a moment late, and a shard that moves has no leader for some seconds. So an engine that is not there, or says that
//! it does not lead the shard, is no answer yet: the brokers are asked anew for [`PATIENCE`], and whoever asked is told to come again after that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::header::HeaderMap as ActixHeaders;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, rt};
use ergate_events::id::ShardId;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::client::{self, ServiceUrl};
use super::led::FORWARDED;
use super::pieces::{Piece, Pieces};
use super::problem::{BUSY, ELSEWHERE, Problem, UNKNOWN, elsewhere};
use super::query::{Parameters, WAIT_MAX};
use super::service::Service;
use crate::whereabouts::Whereabouts;

/// Requests that are with other engines at one time; each holds a connection.
pub(super) const FORWARDS_MAX: usize = 256;
/// How long a leader is looked for. A shard that moves in order is taken over within a second; one whose engine died takes its session
/// timeout (6 s), and nobody's request is held for that long.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause before the brokers are asked anew.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long an engine may take to take a connection: they are in one network.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How long it may take to begin an answer, beside what the request itself wants to wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long it may be silent within an answer: three times as long as it takes a stream of events to say that it is alive.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Largest answer that is read at once: a page of a thousand tasks, or the names of ten thousand that were tried again, with room to spare.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Pieces of an answer that wait for a slow client.
const PIECES_AHEAD: usize = 2;
/// What whoever asked is told to wait when nobody leads a shard.
const COME_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The headers that say what is asked for, and by whom. The others are about the connection that the request came on.
const HEADERS: [&str; 9] = [
    "accept",
    "authorization",
    "content-type",
    "idempotency-key",
    "if-none-match",
    "last-event-id",
    "traceparent",
    "tracestate",
    "user-agent",
];
/// Headers of an answer that are about its connection (RFC 9110 §7.6.1), or are written anew.
const NOT_RELAYED: [&str; 10] = [
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What is asked of another engine.
pub(super) struct Asked {
    method: Method,
    /// Path and query.
    target: String,
    headers: HeaderMap,
    pub(super) body: Bytes,
    /// How long the answer may take to begin.
    within: Duration,
}

impl Asked {
    /// A request as it came.
    pub(super) fn of(request: &HttpRequest, body: Bytes) -> Asked {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let wait = Parameters::any(request).and_then(|given| given.wait()).unwrap_or(WAIT_MAX);
        Asked { within: ANSWER_WITHIN + wait, ..Asked::with(request, target, body) }
    }

    /// A look at something else by the same caller.
    pub(super) fn get(request: &HttpRequest, target: String) -> Asked {
        Asked { method: Method::GET, ..Asked::with(request, target, Bytes::new()) }
    }

    /// A request of the same kind and by the same caller for something else.
    pub(super) fn with(request: &HttpRequest, target: String, body: Bytes) -> Asked {
        let method = Method::from_bytes(request.method().as_str().as_bytes()).unwrap_or_default();
        Asked { method, target, headers: headers(request.headers()), body, within: ANSWER_WITHIN }
    }

    /// Gives the other engine so long to begin its answer.
    pub(super) fn within(self, within: Duration) -> Asked {
        Asked { within, ..self }
    }

    fn request(&self, url: &ServiceUrl, from: &str) -> Result<Request<Full<Bytes>>, String> {
        let request = Request::builder().method(self.method.clone()).uri(&self.target);
        let request = request.header(HOST, &url.authority).header(FORWARDED.as_str(), from);
        let mut request = request.body(Full::new(self.body.clone())).map_err(|error| error.to_string())?;
        request.headers_mut().extend(self.headers.clone());
        Ok(request)
    }

    /// Whether asking twice changes no more than asking once.
    fn is_harmless(&self) -> bool {
        self.method == Method::GET
    }
}

fn headers(all: &ActixHeaders) -> HeaderMap {
    let known = all.iter().filter(|(name, _)| HEADERS.contains(&name.as_str()));
    let copy = |(name, value): (&actix_web::http::header::HeaderName, &actix_web::http::header::HeaderValue)| {
        Some((HeaderName::from_bytes(name.as_str().as_bytes()).ok()?, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    };
    known.filter_map(copy).collect()
}

/// What came of a request.
pub(super) enum Sent {
    /// The shard is led here by now.
    Here,
    /// Its leader answered.
    Answered(Answer),
}

/// The answer of another engine.
pub(super) struct Answer {
    response: Response<Incoming>,
    _room: OwnedSemaphorePermit,
}

/// Why one try gave no answer.
enum Failed {
    /// Nothing was done; another engine may be the right one.
    Elsewhere(String),
    /// Nobody knows whether it was done.
    Unknown(String),
    /// It makes no sense to try again.
    For(Problem),
}

/// Sends a request to the leader of a shard, looking for it for a while.
///
/// # Errors
/// [`ELSEWHERE`] when nobody led it for as long, [`UNKNOWN`] when an answer was lost, [`BUSY`] when too many requests are with other engines.
pub(super) async fn send(service: &Service, shard: ShardId, asked: &Asked) -> Result<Sent, Problem> {
    let room = Arc::clone(&service.forwards).try_acquire_owned().map_err(|_| {
        let detail = format!("{FORWARDS_MAX} requests are with other engines already");
        Problem::new(BUSY, detail).retry_after(COME_AGAIN_AFTER)
    })?;
    let (began, mut wrong_at) = (Instant::now(), None);
    loop {
        let reason = match service.runtime.whereabouts(shard, wrong_at).await {
            Ok(Whereabouts::Here) => return Ok(Sent::Here),
            Ok(Whereabouts::At(address)) => match ask(service, &address, asked).await {
                Ok(response) => return Ok(Sent::Answered(Answer { response, _room: room })),
                Err(Failed::For(problem)) => return Err(problem),
                Err(Failed::Unknown(reason)) if !asked.is_harmless() => {
                    let detail = format!(
                        "the engine at {address} did not answer ({reason}); look whether it was done before you ask again"
                    );
                    return Err(Problem::new(UNKNOWN, detail));
                }
                Err(Failed::Elsewhere(reason) | Failed::Unknown(reason)) => format!("the engine at {address}: {reason}"),
            },
            Ok(Whereabouts::Silent) => "its engine serves no HTTP, see `http.advertise`".to_owned(),
            Ok(Whereabouts::Nowhere) => "it has no leader at the moment".to_owned(),
            Err(reason) => format!("the brokers do not tell who leads it: {reason}"),
        };
        wrong_at = Some(Instant::now());
        if began.elapsed() + AGAIN_AFTER >= PATIENCE || service.is_stopping() {
            return Err(elsewhere(shard).because(&reason));
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Asks one engine.
async fn ask(service: &Service, address: &str, asked: &Asked) -> Result<Response<Incoming>, Failed> {
    let own = service.runtime.address().unwrap_or_default();
    if address == own {
        // It is itself, or has the same address by mistake.
        return Err(Failed::Elsewhere(
            "that is the address of this engine, which does not lead it; see `http.advertise`".to_owned(),
        ));
    }
    let url: ServiceUrl = address.parse().map_err(Failed::Elsewhere)?;
    let tls = url.tls.then(|| service.trust()).transpose().map_err(|reason| Failed::Elsewhere(reason.to_owned()))?;
    let opened = timeout(CONNECT_WITHIN, client::open(&url, tls)).await;
    let opened = opened.map_err(|_| Failed::Elsewhere("it takes no connection".to_owned()))?;
    let mut sender = opened.map_err(|error| Failed::Elsewhere(error.to_string()))?;
    let request = asked.request(&url, own).map_err(Failed::Elsewhere)?;
    let answer = timeout(asked.within, sender.send_request(request)).await;
    let answer = answer.map_err(|_| Failed::Unknown("it does not answer in time".to_owned()))?;
    let response = answer.map_err(|error| Failed::Unknown(error.to_string()))?;
    if response.status().as_u16() == ELSEWHERE.0 { Err(unavailable(response).await) } else { Ok(response) }
}

/// Asks one engine for JSON, once.
///
/// # Errors
/// Why there is none; then nobody knows whether it was done.
pub(super) async fn once(service: &Service, address: &str, asked: &Asked) -> Result<Value, String> {
    let _room = Arc::clone(&service.forwards).try_acquire_owned().map_err(|_| "too many requests are with others".to_owned())?;
    let response = ask(service, address, asked).await.map_err(|failed| match failed {
        Failed::Elsewhere(reason) | Failed::Unknown(reason) => reason,
        Failed::For(problem) => problem.to_string(),
    })?;
    let status = response.status();
    let bytes = collect(response).await?;
    if !status.is_success() {
        return Err(format!("it answered {status}"));
    }
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

/// Why an engine is not available: it does not lead the shard, or something that is not for the sender to mend.
async fn unavailable(response: Response<Incoming>) -> Failed {
    match read(response).await {
        Ok(problem) if problem.is(ELSEWHERE) => Failed::Elsewhere("it does not lead it".to_owned()),
        Ok(problem) => Failed::For(problem),
        Err(reason) => Failed::Unknown(reason),
    }
}

/// Reads a problem document.
async fn read(response: Response<Incoming>) -> Result<Problem, String> {
    let status = response.status().as_u16();
    let bytes = collect(response).await?;
    let document: Option<Value> = serde_json::from_slice(&bytes).ok();
    document.and_then(Problem::read).ok_or_else(|| format!("it answered {status} without a problem document"))
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, String> {
    let body = timeout(SILENCE_MAX, Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect()).await;
    let body = body.map_err(|_| "its answer does not end".to_owned())?;
    Ok(body.map_err(|error| error.to_string())?.to_bytes())
}

/// The answer of another engine as the answer here: as it is, and as it comes.
pub(super) fn relay(service: Data<Service>, answer: Answer) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(answer.response.status().as_u16());
    let mut response = HttpResponseBuilder::new(status.unwrap_or(actix_web::http::StatusCode::BAD_GATEWAY));
    for (name, value) in answer.response.headers().iter().filter(|(name, _)| !NOT_RELAYED.contains(&name.as_str())) {
        response.append_header((name.as_str(), value.as_bytes()));
    }
    if answer.response.body().is_end_stream() {
        return response.finish();
    }
    let (pieces, stream) = mpsc::channel(PIECES_AHEAD);
    rt::spawn(pump(service, answer, pieces));
    response.streaming(Pieces(stream))
}

/// Hands an answer on until it ends, the client is gone, or the service stops.
async fn pump(service: Data<Service>, mut answer: Answer, pieces: mpsc::Sender<Piece>) {
    let broken = |reason: String| Err(actix_web::error::ErrorBadGateway(reason));
    loop {
        let frame = tokio::select! {
            frame = timeout(SILENCE_MAX, answer.response.body_mut().frame()) => frame,
            () = pieces.closed() => return,
            () = service.stopped() => return,
        };
        let piece = match frame {
            Ok(None) => return,
            Ok(Some(Ok(frame))) => frame.into_data().map(Ok).unwrap_or_else(|_| Ok(Bytes::new())),
            Ok(Some(Err(error))) => broken(error.to_string()),
            Err(_) => broken("the engine is silent".to_owned()),
        };
        let ends = piece.is_err();
        if pieces.send(piece).await.is_err() || ends {
            return;
        }
    }
}

/// Asks the leader of a shard for JSON; `None` where that is this engine.
///
/// # Errors
/// As [`send`], and what the leader refuses.
pub(super) async fn ask_json(service: &Service, shard: ShardId, asked: &Asked) -> Result<Option<Value>, Problem> {
    let answer = match send(service, shard, asked).await? {
        Sent::Here => return Ok(None),
        Sent::Answered(answer) => answer,
    };
    let Answer { response, _room } = answer;
    let lost = |reason: String| elsewhere(shard).because(&reason);
    if !response.status().is_success() {
        return Err(read(response).await.unwrap_or_else(lost));
    }
    let bytes = collect(response).await.map_err(lost)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| lost(format!("its answer cannot be read: {error}")))
}
