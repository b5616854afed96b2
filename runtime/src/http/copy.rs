//! `GET /v1/log/copy`: the blocks of the log as they are stored, for whoever keeps a copy or looks at it elsewhere.
//!
//! A log of sled is held by its engine, so nobody can read it beside one. This is the way: `ergate log copy` keeps what comes, and goes on later
//! where it ended.

use std::io::Read;
use std::time::Duration;

use actix_web::http::header;
use actix_web::web::{self, Bytes, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, rt};
use ergate_events::block::Hash;
use ergate_events::id::Position;
use ergate_events::log::snapshot::SnapshotStore;
use ergate_events::log::{Cursor, LogError};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::gate::guarded;
use super::health::not_that;
use super::led::{Of, led};
use super::pieces::{Piece, Pieces};
use super::problem::{BUSY, INVALID, Problem, internal};
use super::query::Parameters;
use super::service::{Service, Shard, blocking};
use super::token::Scope;
use crate::look::copy::{self, Begin, PART_BYTES};

/// Bytes that are sent together.
const TOGETHER_BYTES: usize = 1 << 20;
/// Of these, how many wait for a slow client.
const AHEAD: usize = 2;
/// How long a client may read nothing.
const SLOW_MAX: Duration = Duration::from_secs(30);

pub(super) fn routes(config: &mut ServiceConfig) {
    let route = guarded(led(web::get().to(download), Of::Parameter), Some(Scope::Read));
    config.service(web::resource("/log/copy").route(route).default_service(not_that("GET")));
}

/// Copies the log, block by block.
#[utoipa::path(get, path = "/v1/log/copy", tag = "log", params(("shard" = Option<String>, Query, description = "Which shard, on Kafka: its number, or capacity for the log of pools"), ("from" = Option<u64>, Query, description = "Go on here, at the end of what was copied before; from the beginning without it")), responses((status = 200, description = "The blocks, and before them the snapshot that the log goes on from where its beginning is gone", body = String, content_type = "application/vnd.ergate.log")), security(("bearer" = ["read"])))]
pub(super) async fn download(request: HttpRequest, service: Data<Service>) -> Result<HttpResponse, Problem> {
    let given = Parameters::read(&request, &["from", "shard"])?;
    let from = given.parsed("from", |text| text.parse::<Position>().ok(), "a position such as 1200")?;
    let shard = service.shard(service.one(given.text("shard"))?)?;
    let room = std::sync::Arc::clone(&service.streams).try_acquire_owned();
    let room = room.map_err(|_| {
        let detail = format!("{} clients follow or copy the log already", service.settings.streams_max);
        Problem::new(BUSY, detail).retry_after(Duration::from_secs(5))
    })?;
    let source = blocking(move || Source::open(&shard, from)).await?;
    let (pieces, bytes) = mpsc::channel(AHEAD);
    rt::spawn(send(source, pieces, room));
    let mut response = HttpResponse::Ok();
    // Blocks are compressed already.
    response.content_type("application/vnd.ergate.log").insert_header((header::CONTENT_ENCODING, "identity"));
    Ok(response.streaming(Pieces(bytes)))
}

/// What is copied, and how far.
struct Source {
    begin: Option<Begin>,
    snapshot: Option<std::fs::File>,
    cursor: Box<dyn Cursor>,
    at: Position,
    next: Position,
    last: Hash,
}

impl Source {
    fn open(shard: &Shard, from: Option<Position>) -> Result<Source, Problem> {
        let Some(snapshots) = &shard.snapshots else {
            return Err(Problem::new(INVALID, "this log is in memory only and ends with its engine; there is nothing to copy"));
        };
        let span = shard.reader.span();
        let at = from.unwrap_or(span.first);
        let cursor = shard.reader.cursor(at)?;
        let snapshot = (from.is_none() && span.first > Position(0)).then(|| base(snapshots, span.first)).transpose()?;
        let known = if at == Position(0) { Some(Hash::ZERO) } else { shard.reader.hash_before(at)? };
        let last = known.ok_or_else(|| {
            Problem::new(INVALID, format!("no block of this log ends at {at}: `from` is where a copy of it ended, and one that ends there has another history")).field("from")
        })?;
        let begin = Some(Begin { store: snapshots.store_id(), first: at, next: span.next });
        Ok(Source { begin, snapshot, cursor, at, next: span.next, last })
    }

    /// The next bytes to send; none behind the end.
    fn read(&mut self) -> Result<Vec<u8>, LogError> {
        let mut bytes = self.begin.take().map_or_else(Vec::new, Begin::to_bytes);
        while bytes.len() < TOGETHER_BYTES {
            if let Some(file) = &mut self.snapshot {
                let mut part = Vec::new();
                let path = || std::path::PathBuf::from("the base snapshot");
                let read = file.take(PART_BYTES as u64).read_to_end(&mut part);
                read.map_err(|source| LogError::Io { step: "read", path: path(), source })?;
                if part.is_empty() {
                    self.snapshot = None;
                } else {
                    copy::snapshot(&part, &mut bytes);
                }
                continue;
            }
            if self.at >= self.next {
                break;
            }
            let Some(block) = self.cursor.next_block()? else { break };
            let damaged = |source| LogError::Damaged { at: self.at, path: "the log".into(), offset: 0, source };
            let sealed = block.seal_again().map_err(damaged)?;
            copy::block(&sealed.bytes, &mut bytes);
            (self.at, self.last) = (block.header.next_position(), sealed.hash);
        }
        Ok(bytes)
    }
}

/// The snapshot that a log goes on from whose beginning is gone.
fn base(snapshots: &SnapshotStore, first: Position) -> Result<std::fs::File, Problem> {
    std::fs::File::open(snapshots.path(first)).map_err(|error| {
        tracing::error!(%error, position = first.0, "the snapshot that the log goes on from cannot be read");
        internal(&error)
    })
}

/// Sends all of it; a client that is too slow, and a log that cannot be read on, end the connection, and the client sees that the end is missing.
async fn send(mut source: Source, pieces: mpsc::Sender<Piece>, _room: OwnedSemaphorePermit) {
    loop {
        let read = blocking(move || {
            let bytes = source.read();
            Ok((source, bytes))
        })
        .await;
        let Ok((back, bytes)) = read else { return };
        source = back;
        let piece = match bytes {
            Ok(bytes) if bytes.is_empty() => {
                let mut bytes = Vec::new();
                copy::end(source.last, &mut bytes);
                let _ = timeout(SLOW_MAX, pieces.send(Ok(Bytes::from(bytes)))).await;
                return;
            }
            Ok(bytes) => Ok(Bytes::from(bytes)),
            Err(error) => {
                tracing::warn!(%error, "a copy of the log ended early");
                Err(actix_web::error::ErrorInternalServerError(error.to_string()))
            }
        };
        let is_over = piece.is_err();
        let sent = timeout(SLOW_MAX, pieces.send(piece)).await;
        if is_over || !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}
