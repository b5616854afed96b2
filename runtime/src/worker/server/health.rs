//! Whether a server says that it is well.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HOST, USER_AGENT};

use crate::http::client::{self, ServiceUrl, TlsConnector};

/// Most bytes of an answer that are read; what it says beyond its status is of no interest.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What is asked of a server.
pub(super) struct Health {
    url: ServiceUrl,
    tls: Option<TlsConnector>,
}

impl Health {
    /// Asks this URL.
    pub(super) fn new(text: &str) -> Result<Health, String> {
        let url: ServiceUrl = text.parse().map_err(|reason| format!("`ready` is {text:?}: {reason}"))?;
        let tls = url.tls.then(|| client::trust(None)).transpose()?;
        Ok(Health { url, tls })
    }

    /// Asks, on a connection of its own: whether new ones are taken is the question.
    pub(super) async fn ask(&self, within: Duration) -> Result<(), String> {
        match tokio::time::timeout(within, self.call()).await {
            Ok(Ok(status)) if (200..300).contains(&status) => Ok(()),
            Ok(Ok(status)) => Err(format!("answered with status {status}")),
            Ok(Err(reason)) => Err(format!("did not answer: {reason}")),
            Err(_) => Err(format!("did not answer within {within:?}")),
        }
    }

    async fn call(&self) -> Result<u16, String> {
        let mut sender = client::open(&self.url, self.tls.as_ref()).await.map_err(|error| error.to_string())?;
        let path = if self.url.base.is_empty() { "/" } else { &self.url.base };
        let request = Request::builder().uri(path).header(HOST, &self.url.authority).header(CONNECTION, "close");
        let request = request.header(USER_AGENT, concat!("ergate/", env!("CARGO_PKG_VERSION")));
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        // Read, so that the server is not left with an answer that nobody takes.
        drop(Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await);
        Ok(status)
    }
}
