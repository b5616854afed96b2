//! Bodies of requests, within their limits.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::web::{Bytes, BytesMut, Payload};
use futures_core::Stream;
use tokio::time::timeout;

use super::problem::{MALFORMED, MEDIA_TYPE, Problem, TIMEOUT, TOO_LARGE};
use super::service::Settings;

/// The next piece of a body.
pub(super) async fn piece(payload: &mut Payload) -> Option<Result<Bytes, PayloadError>> {
    poll_fn(|context| Pin::new(&mut *payload).poll_next(context)).await
}

/// Reads a body of at most so many bytes, in three times the time that nothing of it may come: slow senders hold memory.
pub(super) async fn whole(request: &HttpRequest, payload: Payload, settings: &Settings) -> Result<Bytes, Problem> {
    plain_only(request)?;
    let max = settings.body_bytes_max;
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if let Some(length) = length.filter(|length| *length > max) {
        return Err(too_large(length, max));
    }
    let all = timeout(3 * settings.body_timeout, read(payload, length.unwrap_or(0), settings)).await;
    all.unwrap_or_else(|_| Err(late(3 * settings.body_timeout)))
}

async fn read(mut payload: Payload, length: usize, settings: &Settings) -> Result<Bytes, Problem> {
    let mut all = BytesMut::new();
    while let Some(bytes) = timeout(settings.body_timeout, piece(&mut payload)).await.map_err(|_| late(settings.body_timeout))? {
        let bytes = bytes.map_err(|error| broken(&error))?;
        if all.is_empty() && bytes.len() == length {
            return Ok(bytes);
        }
        if all.len() + bytes.len() > settings.body_bytes_max {
            return Err(too_large(all.len() + bytes.len(), settings.body_bytes_max));
        }
        all.extend_from_slice(&bytes);
    }
    Ok(all.freeze())
}

/// Refuses a body that is compressed: unpacked it may be a thousand times as large, and senders of tasks are seldom short of bandwidth.
pub(super) fn plain_only(request: &HttpRequest) -> Result<(), Problem> {
    let encoding = request.headers().get(header::CONTENT_ENCODING).map(|value| value.as_bytes());
    match encoding {
        None | Some(b"identity") => Ok(()),
        Some(_) => {
            Err(Problem::new(MEDIA_TYPE, "compressed bodies are not taken; send it as it is").field("content-encoding").close())
        }
    }
}

fn too_large(bytes: usize, max: usize) -> Problem {
    let detail = format!(
        "the body has {bytes} bytes or more; at most {max} are expected; send lines of NDJSON, or a reference in the payload"
    );
    Problem::new(TOO_LARGE, detail).close()
}

/// What a sender is told that is too slow.
pub(super) fn late(within: Duration) -> Problem {
    Problem::new(TIMEOUT, format!("the body did not come within {} s", within.as_secs_f32())).close()
}

/// What a sender is told whose body cannot be read.
pub(super) fn broken(error: &PayloadError) -> Problem {
    Problem::new(MALFORMED, format!("the body ended early or is malformed: {error}")).close()
}
