//! Connections to a service, over TLS by the library and the provider that the service itself uses.

use std::path::Path;
use std::sync::Arc;

use hyper::body::Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, UnixStream};
pub use tokio_rustls::TlsConnector;

use super::url::ServiceUrl;

/// Why there is no connection to a service. Nothing was sent to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nobody took the connection.
    #[error("{0}")]
    Unreachable(String),
    /// Whoever answers cannot prove who they are, or speaks no TLS.
    #[error("{0}")]
    Untrusted(String),
}

/// Opens a connection, over TLS where that is given; it follows no redirect and uses no proxy.
///
/// # Errors
/// [`ConnectError`].
///
/// # Panics
/// Outside of a tokio runtime.
pub async fn open<B>(url: &ServiceUrl, tls: Option<&TlsConnector>) -> Result<SendRequest<B>, ConnectError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    if let Some(path) = &url.socket {
        let stream = UnixStream::connect(path).await.map_err(|error| ConnectError::Unreachable(error.to_string()))?;
        return speak(TokioIo::new(stream)).await.map_err(ConnectError::Unreachable);
    }
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
    let stream = stream.map_err(|error| ConnectError::Unreachable(error.to_string()))?;
    // Requests are one write; waiting for more of them would only be waiting.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return speak(TokioIo::new(stream)).await.map_err(ConnectError::Unreachable) };
    let name = ServerName::try_from(url.host.clone()).map_err(|error| ConnectError::Untrusted(error.to_string()))?;
    let stream = tls.connect(name, stream).await.map_err(|error| ConnectError::Untrusted(error.to_string()))?;
    speak(TokioIo::new(stream)).await.map_err(ConnectError::Untrusted)
}

async fn speak<B>(io: impl Read + Write + Unpin + Send + 'static) -> Result<SendRequest<B>, String>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let (sender, connection) = handshake(io).await.map_err(|error| error.to_string())?;
    // Whoever waits for the answer hears how it ends.
    tokio::spawn(connection);
    Ok(sender)
}

/// What TLS needs: the certificates in a file, or those that this machine trusts.
///
/// # Errors
/// A sentence that says what is wrong with them.
pub fn trust(ca: Option<&Path>) -> Result<TlsConnector, String> {
    let roots = match ca {
        Some(path) => of_file(path).map_err(|reason| format!("{} cannot be used: {reason}", path.display())),
        None => of_machine(),
    }?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| error.to_string())?;
    Ok(TlsConnector::from(Arc::new(versions.with_root_certificates(roots).with_no_client_auth())))
}

fn of_file(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("there is no certificate in it; PEM is expected".to_owned()) } else { Ok(roots) }
}

fn of_machine() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("this machine trusts no certificates (Debian: package ca-certificates)".to_owned());
    }
    Ok(roots)
}
