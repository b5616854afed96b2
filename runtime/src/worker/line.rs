//! One connection to an engine, which is opened again when it broke.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request};

use crate::http::client::{self, ConnectError, ServiceUrl, TlsConnector};

/// Largest answer that is read: one of attempts has about 4 MiB of payloads, which may be twice as long in base64, and as much again around them.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The way to an engine.
pub(super) struct Road {
    pub(super) url: ServiceUrl,
    pub(super) tls: Option<TlsConnector>,
    pub(super) token: Option<HeaderValue>,
}

/// A connection, or the place for one.
pub(super) struct Line {
    road: Arc<Road>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// What is asked.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Bytes,
    /// How long the answer may take.
    pub(super) within: Duration,
}

/// A whole answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// Nobody takes the connection.
    #[error("nobody answers there: {0}")]
    Unreachable(String),
    /// Whoever answers cannot prove who they are, or speaks no TLS.
    #[error("the connection is not to be trusted: {0}")]
    Untrusted(String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// It took too long.
    #[error("no answer came within {0:?}")]
    Late(Duration),
}

impl Line {
    pub(super) const fn new(road: Arc<Road>) -> Line {
        Line { road, sender: None }
    }

    /// Asks, and reads the whole answer. Dropped before its end, it leaves no connection behind.
    ///
    /// # Errors
    /// [`LineError`]; then nobody knows whether it was done.
    pub(super) async fn call(&mut self, call: &Call) -> Result<Answer, LineError> {
        // Taken out while it is in use: a connection with half an answer on it is good for nothing more.
        let kept = self.sender.take().filter(|sender| !sender.is_closed());
        let asked = tokio::time::timeout(call.within, self.ask(kept, call)).await;
        let (sender, answer) = asked.map_err(|_| LineError::Late(call.within))??;
        self.sender = Some(sender);
        Ok(answer)
    }

    async fn ask(
        &self,
        kept: Option<SendRequest<Full<Bytes>>>,
        call: &Call,
    ) -> Result<(SendRequest<Full<Bytes>>, Answer), LineError> {
        if let Some(mut sender) = kept {
            match sender.send_request(self.request(call)?).await {
                Ok(response) => return Ok((sender, read(response).await?)),
                // It was closed while nobody looked, and nothing was sent.
                Err(error) if error.is_canceled() => {}
                Err(error) => return Err(broken(&error)),
            }
        }
        let mut sender = client::open(&self.road.url, self.road.tls.as_ref()).await.map_err(|error| match error {
            ConnectError::Unreachable(reason) => LineError::Unreachable(reason),
            ConnectError::Untrusted(reason) => LineError::Untrusted(reason),
        })?;
        let response = sender.send_request(self.request(call)?).await.map_err(|error| broken(&error))?;
        Ok((sender, read(response).await?))
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, LineError> {
        let Road { url, token, .. } = &*self.road;
        let mut request = Request::builder().method(call.method.clone()).uri(format!("{}{}", url.base, call.path));
        request = request.header(HOST, &url.authority).header(USER_AGENT, concat!("ergate/", env!("CARGO_PKG_VERSION")));
        request = request.header(ACCEPT, "application/json").header(CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        request.body(Full::new(call.body.clone())).map_err(|error| LineError::Broken(error.to_string()))
    }
}

async fn read(response: hyper::Response<hyper::body::Incoming>) -> Result<Answer, LineError> {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| LineError::Broken(error.to_string()))?.to_bytes();
    Ok(Answer { status, body })
}

fn broken(error: &hyper::Error) -> LineError {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    LineError::Broken(format!("{error}{cause}"))
}
