//! `POST /v1/tasks`, and where the other routes of tasks are hung up.

use std::borrow::Cow;

use actix_web::http::header::{self, HeaderMap};
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use ergate_events::id::TaskId;
use serde_json::json;

use super::gate::guarded;
use super::gather::Gather;
use super::health::not_that;
use super::led::{Of, led};
use super::problem::{INVALID, MEDIA_TYPE, Problem};
use super::query::Parameters;
use super::service::Service;
use super::token::Scope;
use super::{act, body, look, ndjson};
use crate::request::{self, Record, Refusal, Request};

/// The header that names a request's idempotency key.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Before the name of an attribute of a CloudEvent (HTTP protocol binding 1.0.2, §3.1.3).
const ATTRIBUTE: &str = "ce-";

pub(super) fn routes(config: &mut ServiceConfig) {
    let read = |route| guarded(led(route, Of::Task), Some(Scope::Read));
    let operate = |route| guarded(led(route, Of::Task), Some(Scope::Operate));
    let list = guarded(led(web::get().to(look::list), Of::Parameter), Some(Scope::Read));
    let task = |path, route, allowed| web::resource(path).route(route).default_service(not_that(allowed));
    let all = web::resource("/tasks").route(guarded(web::post().to(submit), Some(Scope::Submit)));
    config
        .service(all.route(list).default_service(not_that("GET, POST")))
        .service(task("/tasks/{id}", read(web::get().to(look::show)), "GET"))
        .service(task("/tasks/{id}/history", read(web::get().to(look::history)), "GET"))
        .service(task("/tasks/{id}/result", read(web::get().to(look::result)), "GET"))
        .service(task("/tasks/{id}/cancel", operate(web::post().to(act::cancel)), "POST"))
        .service(task("/tasks/{id}/kill", operate(web::post().to(act::kill)), "POST"))
        .service(task("/tasks/{id}/retry", operate(web::post().to(act::retry)), "POST"));
}

/// Submits a task, or a stream of tasks.
#[utoipa::path(post, path = "/v1/tasks", tag = "tasks", params(("Idempotency-Key" = Option<String>, Header, description = "The idempotency key of the one request")), request_body(description = "A request, a CloudEvent, or a stream of requests with one a line", content((super::schema::TaskRequest = "application/json"), (Object = "application/cloudevents+json"), (String = "application/x-ndjson"))), responses((status = 201, description = "The task was made and is durable", body = super::schema::Submitted), (status = 200, description = "The task was there before; or, of a stream, all lines were taken", content((super::schema::Submitted = "application/json"), (String = "application/x-ndjson"))), (status = 207, description = "Some lines of a stream were refused", body = super::schema::StreamTaken)), security(("bearer" = ["submit"])))]
pub(super) async fn submit(
    request: HttpRequest,
    payload: Payload,
    service: Data<Service>,
    gather: Data<Gather>,
) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    let media_type = media_type(request.headers());
    if matches!(media_type.as_str(), "application/x-ndjson" | "application/jsonl" | "application/ndjson") {
        return ndjson::submit(&request, payload, service).await;
    }
    let headers = request.headers();
    if !matches!(media_type.as_str(), "application/json" | "application/cloudevents+json") && !is_binary(headers) {
        return Err(unexpected(&media_type));
    }
    let bytes = body::whole(&request, payload, &service.settings).await?;
    let (id, duplicate) = one(headers, &bytes, &service, &gather).await?;
    Ok(answer(&request, id, duplicate))
}

/// Reads and submits one request.
async fn one(headers: &HeaderMap, bytes: &[u8], service: &Service, gather: &Gather) -> Result<(TaskId, bool), Problem> {
    let named = attributes(headers)?;
    let listed: Vec<_> = named.iter().map(|(name, value)| (name.as_ref(), Some(value.as_ref()))).collect();
    let record = Record { key: None, value: Some(bytes), headers: &listed };
    let mut wanted = request::parse(&record, service.runtime.now())?;
    if let Some(key) = idempotency_key(headers)? {
        wanted.set_key("Idempotency-Key", &key)?;
    }
    let (task_type, extras) = known(&mut wanted, service)?;
    Ok(gather.submit(&service.runtime, task_type, &wanted.payload, extras).await?)
}

/// The id of a request's type, and what the request asks for beyond what that promises.
pub(super) fn known(
    wanted: &mut Request<'_>,
    service: &Service,
) -> Result<(ergate_events::id::TypeId, Option<Box<crate::Extras>>), Problem> {
    let task_type = service.runtime.task_type(&wanted.task_type)?;
    let extras = match service.runtime.type_settings(&wanted.task_type) {
        Some(settings) => wanted.take_extras(settings),
        None => wanted.extras.take(),
    };
    Ok((task_type, extras))
}

fn answer(request: &HttpRequest, id: TaskId, duplicate: bool) -> HttpResponse {
    let mut response = if duplicate { HttpResponse::Ok() } else { HttpResponse::Created() };
    // The service may be mounted below another path.
    response.insert_header((header::LOCATION, format!("{}/{id}", request.path().trim_end_matches('/'))));
    response.json(json!({ "id": id, "duplicate": duplicate }))
}

/// The media type of the body, without its parameters, in small letters.
fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_binary(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(ATTRIBUTE))
}

fn unexpected(media_type: &str) -> Problem {
    let found = if media_type.is_empty() {
        "not given".to_owned()
    } else {
        format!("{:?}", media_type.chars().take(64).collect::<String>())
    };
    let detail = format!(
        "`content-type` is {found} where application/json, application/cloudevents+json, application/x-ndjson or headers `ce-*` are expected"
    );
    Problem::new(MEDIA_TYPE, detail).field("content-type").close()
}

/// A header: its name and its value.
type Named<'a> = (Cow<'a, str>, Cow<'a, [u8]>);

/// The headers that the reader of requests knows, with attributes of CloudEvents named as it names them.
fn attributes(headers: &HeaderMap) -> Result<Vec<Named<'_>>, Problem> {
    let mut named = Vec::new();
    for (name, value) in headers {
        if let Some(attribute) = name.as_str().strip_prefix(ATTRIBUTE) {
            let value = unescaped(value.as_bytes()).ok_or_else(|| {
                Problem::new(INVALID, format!("`{name}` has a `%` that two hexadecimal digits do not follow"))
                    .field(name.as_str())
            })?;
            named.push((Cow::Owned(format!("ce_{attribute}")), value));
        } else if matches!(name.as_str(), "content-type" | "traceparent") {
            named.push((Cow::Borrowed(name.as_str()), Cow::Borrowed(value.as_bytes())));
        }
    }
    Ok(named)
}

/// Values of attributes are percent-encoded (§3.1.3.2 there).
fn unescaped(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !value.contains(&b'%') {
        return Some(Cow::Borrowed(value));
    }
    let (mut out, mut rest) = (Vec::with_capacity(value.len()), value);
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte == b'%' {
            let (digits, tail) = rest.split_at_checked(2)?;
            out.push(u8::from_str_radix(std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?, 16).ok()?);
            rest = tail;
        } else {
            out.push(*byte);
        }
    }
    Some(Cow::Owned(out))
}

/// The key in its header, with or without the quotes that the draft of the standard asks for (draft-ietf-httpapi-idempotency-key-header §2.1).
fn idempotency_key(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY);
    let Some(key) = keys.next() else { return Ok(None) };
    let refused = |reason: &str| Problem::from(Refusal::new("Idempotency-Key", reason));
    if keys.next().is_some() {
        return Err(refused("is given twice; one key is expected"));
    }
    let key = std::str::from_utf8(key.as_bytes()).map_err(|_| refused("is not UTF-8"))?.trim();
    let key = key.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(key);
    Ok(Some(Cow::Borrowed(key)))
}

/// Whether a request names a key for all that it sends.
pub(super) fn has_key(headers: &HeaderMap) -> bool {
    headers.contains_key(IDEMPOTENCY_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_unescaped() {
        assert_eq!(unescaped(b"a%20b%C3%A4").as_deref(), Some("a b\u{e4}".as_bytes()));
        assert_eq!(unescaped(b"plain").as_deref(), Some(&b"plain"[..]));
        for bad in [&b"%"[..], b"%2", b"%zz", b"a%+1"] {
            assert_eq!(unescaped(bad), None);
        }
    }
}
