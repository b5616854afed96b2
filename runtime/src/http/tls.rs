//! TLS by rustls: a certificate and its key from files in PEM, read again when they change.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::watched::Watched;

/// Why a certificate cannot be used. Nothing of a key is in it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate or its key cannot be read.
    #[error("failed to read the {what} in {path}: {reason}; PEM is expected")]
    Read {
        /// `certificate` or `private key`.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// They do not fit together, or rustls does not take them.
    #[error("the certificate and its key cannot be used")]
    Refused(#[from] rustls::Error),
}

/// A certificate with its key. One that replaces it is used from the next connection on.
pub(super) struct Certificate(Watched<CertifiedKey, TlsError>);

impl Certificate {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(super) fn open(cert: &Path, key: &Path) -> Result<Certificate, TlsError> {
        let files = vec![cert.to_owned(), key.to_owned()];
        let read = {
            let (cert, key) = (cert.to_owned(), key.to_owned());
            move || read(&cert, &key).map(Arc::new)
        };
        Watched::open("the certificate was", files, Box::new(read)).map(Certificate)
    }

    /// Reads them again.
    pub(super) fn reload(&self) {
        self.0.reload();
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.0.files()).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}

/// What connections are made with; TLS 1.2 and 1.3, without asking clients for certificates.
///
/// # Errors
/// [`TlsError::Refused`].
pub(super) fn config(certificate: Arc<Certificate>) -> Result<ServerConfig, TlsError> {
    let builder =
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions()?;
    Ok(builder.with_no_client_auth().with_cert_resolver(certificate))
}

fn read(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let unreadable = |what, path: &Path, reason: String| TlsError::Read { what, path: path.to_owned(), reason };
    let of_cert = |reason: rustls::pki_types::pem::Error| unreadable("certificate", cert, reason.to_string());
    let chain = CertificateDer::pem_file_iter(cert).map_err(of_cert)?.collect::<Result<Vec<_>, _>>().map_err(of_cert)?;
    if chain.is_empty() {
        return Err(unreadable("certificate", cert, "there is none in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|reason| unreadable("private key", key, reason.to_string()))?;
    Ok(CertifiedKey::from_der(chain, key, &ring::default_provider())?)
}
