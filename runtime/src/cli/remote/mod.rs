//! The service over HTTP, as the verbs ask it: one request on one connection, and the verb waits.

mod body;
mod connect;
mod error;
pub(crate) mod lines;
pub(crate) mod sse;
mod token;
mod url;

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, USER_AGENT};
use hyper::{Method, Request, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_rustls::TlsConnector;

use self::body::Outgoing;
#[cfg(feature = "otlp")]
pub(crate) use self::connect::{exchange, tls};
pub(crate) use self::error::{Problem, RemoteError};
use self::token::Token;
pub(crate) use self::token::text as token;
pub(crate) use self::url::{Path, ServiceUrl};
use super::output;

/// Largest answer that is read at once: ten times the largest result, or a page of a thousand tasks, with room to spare.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// How long a stream may be silent: three times as long as it takes a service to say that it is alive.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// How often a request is made again that the service had no room for.
const TRIES_MAX: u32 = 6;
/// Longest wait before another try, whatever the service asks for.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Said of requests that change something, when nobody knows whether they did.
const UNSURE: &str = "; nobody knows whether it was done: look before you ask again, or submit with --key";

/// How a service is reached.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// Where it is.
    pub(crate) url: ServiceUrl,
    /// Who said so, for messages.
    pub(crate) chosen: String,
    /// The file of the token, by flag and by configuration.
    pub(crate) token_file: (Option<PathBuf>, Option<PathBuf>),
    /// The certificates to trust.
    pub(crate) ca: Option<PathBuf>,
    /// How long it may take to begin an answer.
    pub(crate) within: Duration,
}

/// A service.
pub(crate) struct Remote {
    way: Way,
    tls: Option<TlsConnector>,
    token: Option<Token>,
    tokio: tokio::runtime::Runtime,
}

/// What is asked of a service.
pub(crate) struct Ask {
    method: Method,
    path: Path,
    headers: HeaderMap,
    body: Option<Bytes>,
    /// How much longer than usual the answer may take.
    wait: Duration,
}

/// A whole answer that is a success.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Ask {
    /// Asks for something.
    pub(crate) fn get(path: Path) -> Ask {
        Ask { method: Method::GET, path, headers: HeaderMap::new(), body: None, wait: Duration::ZERO }
    }

    /// Asks for something to be done.
    pub(crate) fn post(path: Path, body: &Value) -> Ask {
        Ask { method: Method::POST, ..Ask::get(path) }.json(body)
    }

    /// Asks for something to be changed.
    pub(crate) fn patch(path: Path, body: &Value) -> Ask {
        Ask { method: Method::PATCH, ..Ask::get(path) }.json(body)
    }

    /// Asks for something to be as it is said.
    pub(crate) fn put(path: Path, body: &Value) -> Ask {
        Ask { method: Method::PUT, ..Ask::get(path) }.json(body)
    }

    fn json(mut self, body: &Value) -> Ask {
        self.headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
        self.body = Some(Bytes::from(body.to_string()));
        self
    }

    /// The answer may take so much longer.
    pub(crate) fn waiting(self, wait: Duration) -> Ask {
        Ask { wait, ..self }
    }

    /// With a header.
    pub(crate) fn header(mut self, name: HeaderName, value: impl Into<hyper::header::HeaderValue>) -> Ask {
        self.headers.insert(name, value.into());
        self
    }
}

impl Remote {
    /// Reads what is needed to ask; asks nothing.
    pub(crate) fn open(way: Way, quiet: bool) -> anyhow::Result<Remote> {
        let tls = way.url.tls.then(|| connect::tls(way.ca.as_deref())).transpose()?;
        let token = token::find(way.token_file.0.as_deref(), way.token_file.1.as_deref())?;
        if token.is_some() && tls.is_none() && !way.url.is_local() && !quiet {
            output::note(&format!("the token goes to {} unencrypted, for everybody on the way to read; use https", way.url));
        }
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Remote { way, tls, token, tokio })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &ServiceUrl {
        &self.way.url
    }

    /// How long it may be silent.
    pub(crate) fn within(&self) -> Duration {
        self.way.within
    }

    /// Runs what is async about a verb. What still blocks at its end, such as a read of a silent input, is left behind.
    pub(crate) fn block_on<T>(&self, verb: impl Future<Output = T>) -> T {
        self.tokio.block_on(verb)
    }

    /// Asks, and reads the whole answer.
    pub(crate) fn ask(&self, ask: &Ask) -> Result<Answer, RemoteError> {
        self.block_on(self.ask_once(ask))
    }

    /// As [`Remote::ask`]; where the service has no room, waits as it says and asks again, a few times.
    pub(crate) fn ask_with_patience(&self, ask: &Ask) -> Result<Answer, RemoteError> {
        self.block_on(async {
            let mut tries = 1;
            loop {
                match self.ask_once(ask).await {
                    Err(RemoteError::Problem(problem)) if problem.is_busy() && tries < TRIES_MAX => {
                        tokio::time::sleep(pause(problem.retry_after, tries)).await;
                        tries += 1;
                    }
                    outcome => return outcome,
                }
            }
        })
    }

    /// Asks for something that is JSON.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: Path) -> Result<T, RemoteError> {
        self.parse(&self.ask(&Ask::get(path))?.body)
    }

    /// Reads an answer as JSON.
    pub(crate) fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, RemoteError> {
        serde_json::from_slice(body).map_err(|error| self.foreign(format!("something that cannot be read ({error})")))
    }

    /// Hands on an answer as it comes, until `each` has seen enough.
    pub(crate) fn stream(&self, path: Path, mut each: impl FnMut(&[u8]) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        self.block_on(async {
            let mut incoming = self.begin(&Ask::get(path), Outgoing::Whole(None)).await?.into_body();
            let within = self.way.within.max(SILENCE_MAX);
            while let Some(bytes) = self.piece(&mut incoming, within, "").await? {
                if !each(&bytes)? {
                    break;
                }
            }
            Ok(())
        })
    }

    async fn ask_once(&self, ask: &Ask) -> Result<Answer, RemoteError> {
        let response = self.begin(ask, Outgoing::Whole(ask.body.clone())).await?;
        let status = response.status().as_u16();
        let mut incoming = response.into_body();
        let mut body = Vec::new();
        while let Some(bytes) = self.piece(&mut incoming, self.way.within, self.unsure(ask)).await? {
            if body.len() + bytes.len() > ANSWER_BYTES_MAX {
                return Err(self.foreign(format!("more than {ANSWER_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&bytes);
        }
        Ok(Answer { status, body: body.into() })
    }

    /// Begins to ask, and waits for the head of an answer that is a success; anything else is an error.
    async fn begin(&self, ask: &Ask, body: Outgoing) -> Result<Response<Incoming>, RemoteError> {
        let within = self.way.within + ask.wait;
        let late = |unsure| RemoteError::Late { url: self.way.url.to_string(), within, unsure };
        let open = connect::open(&self.way.url, self.tls.as_ref(), &self.way.chosen);
        let mut sender = tokio::time::timeout(self.way.within, open).await.map_err(|_| late(""))??;
        let sent = sender.send_request(self.request(ask, body)?);
        let response = tokio::time::timeout(within, sent).await.map_err(|_| late(self.unsure(ask)))?;
        let response = response.map_err(|error| self.broken(&error, self.unsure(ask)))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response).await) }
    }

    fn request(&self, ask: &Ask, body: Outgoing) -> Result<Request<Outgoing>, RemoteError> {
        let mut request = Request::builder().method(ask.method.clone()).uri(ask.path.at(&self.way.url));
        request = request.header(HOST, &self.way.url.authority).header(USER_AGENT, concat!("ergate/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.header.clone());
        }
        let mut request =
            request.body(body).map_err(|error| self.foreign(format!("nothing, for it cannot be asked: {error}")))?;
        request.headers_mut().extend(ask.headers.clone());
        request.headers_mut().entry(ACCEPT).or_insert(hyper::header::HeaderValue::from_static("application/json"));
        Ok(request)
    }

    /// The next piece of a body, if it comes in time.
    async fn piece(&self, incoming: &mut Incoming, within: Duration, unsure: &'static str) -> Result<Option<Bytes>, RemoteError> {
        loop {
            let frame = tokio::time::timeout(within, incoming.frame()).await;
            let late = |_| RemoteError::Late { url: self.way.url.to_string(), within, unsure };
            match frame.map_err(late)? {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.broken(&error, unsure)),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// What an answer says that is no success.
    async fn refused(&self, response: Response<Incoming>) -> RemoteError {
        let status = response.status();
        let body =
            tokio::time::timeout(self.way.within, http_body_util::Limited::new(response.into_body(), 1 << 20).collect()).await;
        let bytes = body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
        match serde_json::from_slice(&bytes).ok().and_then(Problem::read) {
            Some(problem) => RemoteError::Problem(Box::new(self.advise(problem))),
            None => self.foreign(format!("{} without a problem document", status.as_u16())),
        }
    }

    /// Adds what the one who asked can do.
    fn advise(&self, mut problem: Problem) -> Problem {
        problem.advice = match (problem.kind.as_str(), &self.token) {
            ("unauthorized", None) => {
                problem.detail = format!("{} asks for a token", self.way.url);
                Some("name its file with --token-file or ERGATE_TOKEN_FILE".to_owned())
            }
            ("unauthorized", Some(token)) => {
                problem.detail = format!("{} does not know the token in {}", self.way.url, token.from);
                Some("it may have ended, or be of another service".to_owned())
            }
            ("forbidden", _) => Some("`ergate token new --scope SCOPE` makes one that has it".to_owned()),
            _ => None,
        };
        problem
    }

    fn unsure(&self, ask: &Ask) -> &'static str {
        if ask.method == Method::GET { "" } else { UNSURE }
    }

    /// It was silent for too long.
    pub(crate) fn late(&self) -> RemoteError {
        RemoteError::Late { url: self.way.url.to_string(), within: self.way.within, unsure: "" }
    }

    /// The connection ended too early.
    pub(crate) fn broken(&self, error: &dyn std::error::Error, unsure: &'static str) -> RemoteError {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            reason = format!("{reason}: {error}");
            cause = error.source();
        }
        RemoteError::Broken { url: self.way.url.to_string(), reason, unsure }
    }

    /// It answered what a service of ours does not.
    pub(crate) fn foreign(&self, what: String) -> RemoteError {
        RemoteError::Foreign { url: self.way.url.to_string(), what }
    }
}

/// How long to wait before another try: longer each time, and at least as long as the service says.
fn pause(asked: Option<Duration>, tries: u32) -> Duration {
    asked.unwrap_or_default().max(Duration::from_millis(100) * 2_u32.saturating_pow(tries.min(16))).min(WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded() {
        assert_eq!(pause(Some(Duration::from_secs(2)), 1), Duration::from_secs(2));
        assert_eq!(pause(Some(Duration::from_secs(3_600)), 1), WAIT_MAX);
        assert!(pause(None, 1) < pause(None, 2) && pause(None, 99) == WAIT_MAX);
    }
}
