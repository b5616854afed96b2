//! What every request passes first: size of its head, name it asks for, page it comes from, token, scope. And what every answer carries.

use actix_web::Error;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::{Next, from_fn};
use actix_web::web::Data;
use actix_web::{HttpMessage, HttpRequest, Route};

use super::problem::{FORBIDDEN, FOREIGN_ORIGIN, HEAD_TOO_LARGE, MISDIRECTED, Problem, UNAUTHORIZED, URI_TOO_LONG};
use super::service::Service;
use super::token::{Bearer, Scope};

/// Most bytes of all headers with their names: what HTTP servers usually allow.
pub(super) const HEADER_BYTES_MAX: usize = 16 << 10;
/// Longest address: what HTTP servers usually allow.
pub(super) const URI_BYTES_MAX: usize = 8 << 10;
/// Names under which this machine reaches itself.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Who asks, for the log.
#[derive(Clone, Debug)]
pub(super) struct By(pub(super) String);

/// Lets through what may do what needs this scope; `None` is for everybody.
pub(super) fn guarded(route: Route, needed: Option<Scope>) -> Route {
    route.wrap(from_fn(move |request: ServiceRequest, next: Next<BoxBody>| pass(needed, request, next)))
}

async fn pass<B: MessageBody + 'static>(
    needed: Option<Scope>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let mut response = match check(needed, request.request()) {
        Ok((by, bearer)) => {
            request.extensions_mut().insert(by);
            if let Some(bearer) = bearer {
                request.extensions_mut().insert(bearer);
            }
            next.call(request).await?.map_into_boxed_body()
        }
        Err(problem) => request.error_response(problem),
    };
    harden(response.headers_mut());
    Ok(response)
}

fn check(needed: Option<Scope>, request: &HttpRequest) -> Result<(By, Option<Bearer>), Problem> {
    let Some(service) = request.app_data::<Data<Service>>() else { return Ok((By("http".to_owned()), None)) };
    check_size(request)?;
    check_name(service, request)?;
    check_origin(request)?;
    let (Some(tokens), Some(needed)) = (&service.settings.tokens, needed) else {
        return Ok((By("http".to_owned()), None));
    };
    let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
    let bearer = token.and_then(|token| tokens.bearer(token, service.runtime.now()));
    let bearer =
        bearer.ok_or_else(|| Problem::new(UNAUTHORIZED, "send a valid token as `Authorization: Bearer TOKEN`").close())?;
    if !bearer.may(needed) {
        let detail = format!("the token of {} does not have the scope `{}`", bearer.name, needed.name());
        return Err(Problem::new(FORBIDDEN, detail).close());
    }
    Ok((By(format!("token {}", bearer.name)), Some(bearer)))
}

fn bearer(value: &str) -> Option<&str> {
    let (kind, token) = value.split_once(' ')?;
    kind.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn check_size(request: &HttpRequest) -> Result<(), Problem> {
    let uri = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if uri > URI_BYTES_MAX {
        return Err(
            Problem::new(URI_TOO_LONG, format!("the address has {uri} bytes; at most {URI_BYTES_MAX} are expected")).close()
        );
    }
    let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > HEADER_BYTES_MAX {
        let detail = format!("the headers have {bytes} bytes; at most {HEADER_BYTES_MAX} are expected");
        return Err(Problem::new(HEAD_TOO_LARGE, detail).close());
    }
    Ok(())
}

/// A page may point a name of its own at this machine, and a browser then lets it in (DNS rebinding). The name that was asked for gives it away.
fn check_name(service: &Service, request: &HttpRequest) -> Result<(), Problem> {
    let Some(names) = &service.settings.hosts else { return Ok(()) };
    let asked = host_of(request).unwrap_or_default();
    if LOCAL.contains(&asked.as_str()) || names.contains(&asked) {
        return Ok(());
    }
    let detail =
        format!("the service was asked for as {:?}; it answers to localhost, and to names in `http.hosts`", shorten(&asked));
    Err(Problem::new(MISDIRECTED, detail).close())
}

/// A page of another site may send some requests that change things without asking. Browsers say where such a request comes from.
fn check_origin(request: &HttpRequest) -> Result<(), Problem> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(());
    }
    let Some(origin) = request.headers().get(header::ORIGIN) else { return Ok(()) };
    let from = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| without_port(host));
    if from.is_some() && from == host_of(request) {
        return Ok(());
    }
    Err(Problem::new(FOREIGN_ORIGIN, "a page of another site asked for it, and cross-origin requests are off").close())
}

/// The name that was asked for, without its port.
fn host_of(request: &HttpRequest) -> Option<String> {
    let named = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    named.or_else(|| request.uri().authority().map(|authority| authority.as_str())).map(without_port)
}

fn without_port(host: &str) -> String {
    let name = match (host.starts_with('['), host.rfind(':')) {
        (true, _) => host.find(']').map_or(host, |end| &host[..=end]),
        (false, Some(colon)) => &host[..colon],
        (false, None) => host,
    };
    name.to_ascii_lowercase()
}

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Headers that keep a browser from doing more with an answer than showing it.
pub(super) fn harden(headers: &mut HeaderMap) {
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_from_its_port() {
        for (host, name) in [
            ("localhost:7420", "localhost"),
            ("LOCALHOST", "localhost"),
            ("[::1]:7420", "[::1]"),
            ("[::1]", "[::1]"),
            ("evil.example:80", "evil.example"),
        ] {
            assert_eq!(without_port(host), name);
        }
        assert_eq!(
            (bearer("Bearer a"), bearer("bearer  a "), bearer("Basic a"), bearer("Bearer")),
            (Some("a"), Some("a"), None, None)
        );
    }
}
