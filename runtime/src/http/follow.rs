//! `GET /v1/log`: the events as they become durable, as server-sent events.
//!
//! A client that falls behind reads on from where it is, out of the log, at its own pace: nothing is kept for it but a few pieces. One that reads nothing
//! for [`SLOW_MAX`] is dropped, and goes on with `Last-Event-ID` where it was.

use std::time::Duration;

use actix_web::http::header;
use actix_web::web::{self, Bytes, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, rt};
use ergate_events::block::Block;
use ergate_events::id::Position;
use ergate_events::log::{Cursor, LogError};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};

use super::gate::guarded;
use super::health::not_that;
use super::led::{Of, led};
use super::pieces::{Piece, Pieces};
use super::problem::{BUSY, INVALID, Problem};
use super::query::Parameters;
use super::service::{Service, blocking};
use super::token::Scope;
use crate::look::moment::time;
use crate::look::record;

/// Bytes that are sent together.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that wait for a slow client.
const PIECES_AHEAD: usize = 2;
/// How long a client may read nothing.
const SLOW_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether there is news. A look costs nothing but the look.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Time between two comments on a silent stream: proxies close one that says nothing for a minute.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);

pub(super) fn routes(config: &mut ServiceConfig) {
    let follow = guarded(led(web::get().to(follow), Of::Parameter), Some(Scope::Read));
    config.service(web::resource("/log").route(follow).default_service(not_that("GET")));
}

/// Follows the log as server-sent events.
#[utoipa::path(get, path = "/v1/log", tag = "log", params(("shard" = Option<String>, Query, description = "Which shard, on Kafka: its number, or capacity for the log of pools"), ("from" = Option<u64>, Query, description = "Begin at this position; at the end of the log without it"), ("last" = Option<u64>, Query, description = "Begin so many events before the end of the log"), ("follow" = Option<bool>, Query, description = "false ends the stream where the log ended when it was opened"), ("last_event_id" = Option<u64>, Query, description = "Begin behind this event"), ("Last-Event-ID" = Option<u64>, Header, description = "Begin behind this event")), responses((status = 200, description = "The events as they become durable", body = String, content_type = "text/event-stream")), security(("bearer" = ["read"])))]
pub(super) async fn follow(request: HttpRequest, service: Data<Service>) -> Result<HttpResponse, Problem> {
    let given = Parameters::read(&request, &["from", "last", "follow", "last_event_id", "shard"])?;
    let position = |text: &str| text.parse::<Position>().ok();
    let last = request.headers().get("last-event-id").and_then(|value| value.to_str().ok()).and_then(position);
    let last = last.or(given.parsed("last_event_id", position, "a position such as 1200")?);
    let from = given.parsed("from", position, "a position such as 1200")?;
    let newest = given.parsed("last", |text| text.parse::<u64>().ok(), "a number of events such as 10")?;
    if from.is_some() && newest.is_some() {
        return Err(Problem::new(INVALID, "`from` and `last` both say where to begin; one of them is expected").field("last"));
    }
    let goes_on = given.parsed("follow", |text| text.parse::<bool>().ok(), "true or false")?.unwrap_or(true);
    let shard = service.shard(service.one(given.text("shard"))?)?;
    let span = shard.reader.span();
    let room = std::sync::Arc::clone(&service.streams).try_acquire_owned();
    let room = room.map_err(|_| {
        let detail = format!("{} clients follow the log already", service.settings.streams_max);
        Problem::new(BUSY, detail).retry_after(Duration::from_secs(5))
    })?;
    let newest = newest.map(|count| Position(span.next.0.saturating_sub(count).max(span.first.0)));
    let from = last.map(|last| Position(last.0.saturating_add(1))).or(from).or(newest).unwrap_or(span.next);
    let until = (!goes_on).then_some(span.next);
    let cursor = blocking(move || Ok(shard.reader.cursor(from)?)).await?;
    let (pieces, events) = mpsc::channel(PIECES_AHEAD);
    rt::spawn(Follower { service, pieces, from, until, _room: room }.run(cursor));
    let mut response = HttpResponse::Ok();
    // Compressed events would wait for each other.
    response.content_type("text/event-stream").insert_header((header::CONTENT_ENCODING, "identity"));
    Ok(response.streaming(Pieces(events)))
}

struct Follower {
    service: Data<Service>,
    pieces: mpsc::Sender<Piece>,
    from: Position,
    /// Where the stream ends, if it does before the service.
    until: Option<Position>,
    _room: OwnedSemaphorePermit,
}

impl Follower {
    /// Sends what comes until the client is gone or too slow, or the service stops.
    async fn run(self, mut cursor: Box<dyn Cursor>) {
        // Told at once, so that whoever waits for the first event knows that the stream is open.
        let mut alive = self.send(": following\n\n".to_owned()).await;
        let mut said = Instant::now();
        while alive {
            let read = blocking(move || {
                let block = cursor.next_block();
                Ok((cursor, block))
            })
            .await;
            let Ok((back, block)) = read else { return };
            cursor = back;
            match block {
                Ok(Some(block)) => {
                    alive = self.send_block(&block).await;
                    said = Instant::now();
                }
                Ok(None) => alive = self.until.is_none() && self.wait(&mut said).await,
                Err(error) => return self.fail(&error).await,
            }
        }
    }

    /// Waits for news, and says now and then that the stream is alive.
    async fn wait(&self, said: &mut Instant) -> bool {
        let durable = self.service.runtime.durable();
        while self.service.runtime.durable() == durable {
            if self.service.is_stopping() || self.pieces.is_closed() {
                return false;
            }
            if said.elapsed() >= HEARTBEAT_EVERY {
                *said = Instant::now();
                return self.send(": alive\n\n".to_owned()).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        true
    }

    async fn send_block(&self, block: &Block) -> bool {
        let mut piece = String::new();
        for record in record::of(block) {
            let record = match record {
                Ok(record) if record.envelope.position < self.from => continue,
                Ok(record) if self.until.is_some_and(|until| record.envelope.position >= until) => {
                    self.send(piece).await;
                    return false;
                }
                Ok(record) => record,
                Err(error) => {
                    self.fail(&error).await;
                    return false;
                }
            };
            let Ok(json) = serde_json::to_string(&record.full(&time(record.envelope.recorded_at))) else { return false };
            let (position, name) = (record.envelope.position, record.envelope.event.name());
            piece.push_str(&format!("id: {position}\nevent: {name}\ndata: {json}\n\n"));
            if piece.len() >= PIECE_BYTES {
                if !self.send(std::mem::take(&mut piece)).await {
                    return false;
                }
                // A long block is not to keep the others on this thread waiting.
                tokio::task::yield_now().await;
            }
        }
        piece.is_empty() || self.send(piece).await
    }

    /// Whether the client took it in time.
    async fn send(&self, piece: String) -> bool {
        tokio::select! {
            sent = timeout(SLOW_MAX, self.pieces.send(Ok(Bytes::from(piece)))) => matches!(sent, Ok(Ok(()))),
            () = self.service.stopped() => false,
        }
    }

    async fn fail(&self, error: &LogError) {
        tracing::error!(%error, "the log could not be followed for a client");
        self.send(
            "event: error\ndata: {\"detail\":\"the log cannot be read on; the messages of the service say why\"}\n\n".to_owned(),
        )
        .await;
    }
}
