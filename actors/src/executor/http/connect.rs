//! Connections to a service, each to an address that was looked at.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::address::{Network, refusal};
use super::target::Target;
use crate::executor::function::TaskError;

/// Largest head of a response, in bytes; hyper wants 8 KiB at least.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// What connections of a task type are made of.
pub(super) struct Connector {
    pub(super) target: Target,
    /// With the certificates that the machine trusts.
    pub(super) tls: Option<TlsConnector>,
    pub(super) allowed: Vec<Network>,
    pub(super) timeout: Duration,
}

/// An open connection. It closes when this is dropped, with whatever it was at.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connector {
    /// Opens a connection to the first address of the target that answers, of those that may be called.
    pub(super) async fn connect(&self) -> Result<Connection, TaskError> {
        let Target { host, port, .. } = &self.target;
        match tokio::time::timeout(self.timeout, self.open()).await {
            Ok(opened) => opened,
            Err(_) => {
                let message = format!("connecting to {host}:{port} took longer than {:?}", self.timeout);
                Err(TaskError::new("timeout", message))
            }
        }
    }

    async fn open(&self) -> Result<Connection, TaskError> {
        let stream = self.tcp().await?;
        // Requests are one write; waiting for more of them would only be waiting.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.speak(TokioIo::new(stream)).await,
            Some(tls) => {
                let name = ServerName::try_from(self.target.host.clone()).map_err(|error| self.failed(&error))?;
                let stream = tls.connect(name, stream).await.map_err(|error| self.failed(&error))?;
                self.speak(TokioIo::new(stream)).await
            }
        }
    }

    async fn tcp(&self) -> Result<TcpStream, TaskError> {
        let Target { host, port, .. } = &self.target;
        let found = tokio::net::lookup_host((host.as_str(), *port)).await.map_err(|error| self.failed(&error))?;
        let mut last: Option<io::Error> = None;
        let mut refused = None;
        for address in found {
            match refusal(address.ip(), &self.allowed) {
                Some(reason) => refused = Some((address, reason)),
                None => match TcpStream::connect(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = Some(error),
                },
            }
        }
        Err(match (last, refused) {
            (Some(error), _) => self.failed(&error),
            (None, Some((address, reason))) => self.refused(address, reason),
            (None, None) => self.failed(&io::Error::other("the name has no address")),
        })
    }

    async fn speak(&self, io: impl Read + Write + Unpin + Send + 'static) -> Result<Connection, TaskError> {
        let mut builder = Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX);
        let (sender, connection) = builder.handshake(io).await.map_err(|error| self.failed(&error))?;
        let task = tokio::spawn(async move {
            // Whoever sent the request hears of it too.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a service ended");
            }
        });
        Ok(Connection { sender, task: task.abort_handle() })
    }

    /// The failure of a connection, with everything that caused it.
    pub(super) fn failed(&self, error: &dyn std::error::Error) -> TaskError {
        let Target { host, port, .. } = &self.target;
        TaskError::new("connect", format!("failed to talk to {host}:{port}: {}", crate::log_writer::chain(error)))
    }

    fn refused(&self, address: SocketAddr, reason: &str) -> TaskError {
        let host = &self.target.host;
        let message = format!("{host} is {}, which is not called: {reason}; `allow_networks` can allow it", address.ip());
        TaskError::permanent("address", message)
    }
}

/// What TLS needs, with the certificates that the machine trusts.
///
/// # Errors
/// When it trusts none, for a person.
pub(super) fn tls() -> Result<TlsConnector, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = rustls::RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(format!("this machine trusts no certificates (Debian: package ca-certificates) {}", reasons.join("; ")));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
