//! Connections of the command line to a service.

use std::path::Path;

use ergate::http::client::{self, ConnectError, TlsConnector};
use hyper::client::conn::http1::SendRequest;

use super::body::Outgoing;
use super::error::RemoteError;
use super::url::ServiceUrl;

/// Opens a connection; `chosen` says why it goes there.
pub(super) async fn open(
    url: &ServiceUrl,
    tls: Option<&TlsConnector>,
    chosen: &str,
) -> Result<SendRequest<Outgoing>, RemoteError> {
    let opened = client::open(url, tls).await;
    let (url, chosen) = (url.to_string(), chosen.to_owned());
    opened.map_err(|error| match error {
        ConnectError::Unreachable(reason) => RemoteError::Unreachable { url, chosen, reason },
        ConnectError::Untrusted(reason) => RemoteError::Tls { url, chosen, reason },
    })
}

/// What TLS needs: the certificates in a file, or those that this machine trusts.
pub(crate) fn tls(ca: Option<&Path>) -> Result<TlsConnector, RemoteError> {
    client::trust(ca).map_err(|reason| RemoteError::Credential(format!("{reason}; --ca names the certificates to trust")))
}

/// Longest answer of whom spans are sent to.
#[cfg(feature = "otlp")]
const EXCHANGED_BYTES_MAX: usize = 64 << 10;

/// Sends one request on a connection of its own and reads the whole answer, whatever its status.
#[cfg(feature = "otlp")]
pub(crate) async fn exchange(
    url: &ServiceUrl,
    tls: Option<&TlsConnector>,
    request: hyper::Request<hyper::body::Bytes>,
) -> Result<hyper::Response<hyper::body::Bytes>, Box<dyn std::error::Error + Send + Sync>> {
    use http_body_util::{BodyExt, Limited};

    let mut sender = open(url, tls, "the environment").await?;
    let response = sender.send_request(request.map(|body| Outgoing::Whole(Some(body)))).await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, EXCHANGED_BYTES_MAX).collect().await?.to_bytes();
    Ok(hyper::Response::from_parts(head, body))
}
