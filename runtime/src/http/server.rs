//! The service on a port and threads of its own.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use actix_web::dev::{Payload, ServerHandle};
use actix_web::error::PayloadError;
use actix_web::middleware::{Compress, from_fn};
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpMessage, HttpServer};
use futures_core::Stream;

use super::client;
use super::health;
use super::service::{Service, Settings};
use super::tls::{self, Certificate, TlsError};
use super::{gate, routes};
use crate::Runtime;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1_024;
/// How long the system goes on sending to a client that takes nothing, before it closes the connection.
const UNREAD_MAX: Duration = Duration::from_secs(30);
/// How long requests that are being answered may take when the service stops.
const DRAIN_SECONDS: u64 = 10;
/// How long a body is kept behind its answer: as long as the answer needs to be begun.
const HELD_FOR: Duration = Duration::from_secs(1);
/// Connections of workers of this machine: four for each of a thousand.
#[cfg(feature = "process")]
const LOCAL_MAX: usize = 4_096;
/// How long a silent connection of a worker of this machine stays open: longer than its longest question.
#[cfg(feature = "process")]
const KEEP_LOCAL: Duration = Duration::from_secs(75);
/// Threads of each serving thread for what reads files.
const BLOCKING_THREADS: usize = 16;

/// Where a service listens and what it takes.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Its address; port 0 is any that is free.
    pub listen: SocketAddr,
    /// The certificate and its key; plain HTTP without.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Connections at one time.
    pub connections_max: usize,
    /// How long the head of a request may take.
    pub head_timeout: Duration,
    /// How long a silent connection stays open.
    pub keep_alive: Duration,
    /// Threads that serve.
    pub threads: usize,
    /// Whom it lets in, and what it takes.
    pub service: Settings,
}

impl Default for ServerSettings {
    fn default() -> ServerSettings {
        ServerSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 7420)),
            tls: None,
            connections_max: 1_024,
            head_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(60),
            threads: 2,
            service: Settings { hosts: Some(Vec::new()), ..Settings::default() },
        }
    }
}

/// Why a service did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Others would reach it and nobody would be asked who they are.
    #[error(
        "{address} is reached from other machines and no tokens are configured, so anybody there could have programs run here; make one with `ergate token new` and name its file as `http.tokens`, or listen on 127.0.0.1"
    )]
    Open {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be had.
    #[error("failed to listen on {address}; is another service there? choose another address with --listen, or --no-http")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificates by which other engines are trusted cannot be used.
    #[error("the certificates of `http.peer_ca` cannot be used: {0}")]
    PeerCa(String),
    /// There is no thread to serve on.
    #[error("failed to start the threads of the service")]
    Thread(#[source] std::io::Error),
}

/// A running service.
pub struct Server {
    address: SocketAddr,
    scheme: &'static str,
    handle: ServerHandle,
    service: Data<Service>,
    certificate: Option<Arc<Certificate>>,
    thread: Option<JoinHandle<()>>,
}

/// An address that is taken, on which nothing is answered yet. Taken before a runtime starts, it says in time what is wrong with the settings.
pub struct Listening {
    listener: TcpListener,
    address: SocketAddr,
    certificate: Option<(Arc<Certificate>, rustls::ServerConfig)>,
    settings: ServerSettings,
}

impl Listening {
    /// Takes the address.
    ///
    /// # Errors
    /// [`ServerError`] when others would reach it without a token, when the address cannot be had, or the certificate cannot be used.
    pub fn open(settings: ServerSettings) -> Result<Listening, ServerError> {
        let address = settings.listen;
        if !address.ip().is_loopback() && settings.service.tokens.is_none() {
            return Err(ServerError::Open { address });
        }
        let certificate = settings.tls.as_ref().map(|(cert, key)| {
            let certificate = Arc::new(Certificate::open(cert, key)?);
            Ok::<_, TlsError>((Arc::clone(&certificate), tls::config(certificate)?))
        });
        let certificate = certificate.transpose()?;
        settings.service.peer_ca.as_deref().map(|ca| client::trust(Some(ca)).map_err(ServerError::PeerCa)).transpose()?;
        let failed = |source| ServerError::Listen { address, source };
        let listener = listen(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Listening { listener, address, certificate, settings })
    }

    /// Where it listens, with the port that it was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The beginning of its addresses.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme(), self.address)
    }

    fn scheme(&self) -> &'static str {
        if self.certificate.is_some() { "https" } else { "http" }
    }

    /// Serves on threads of its own.
    ///
    /// # Errors
    /// [`ServerError::Thread`].
    pub fn serve(self, runtime: Runtime) -> Result<Server, ServerError> {
        let scheme = self.scheme();
        let Listening { listener, address, certificate, settings } = self;
        let (certificate, tls) = certificate.unzip();
        let service = Data::new(Service::new(runtime, settings.service.clone()));
        let (started, handle) = mpsc::sync_channel(1);
        let shared = service.clone();
        let thread = std::thread::Builder::new().name("ergate-http".to_owned()).spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                match serve(listener, tls, &settings, shared) {
                    Ok(server) => {
                        // Whoever started it may have given up.
                        let _ = started.send(Ok(server.handle()));
                        if let Err(error) = server.await {
                            tracing::error!(%error, "the HTTP service ended badly");
                        }
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        });
        let thread = thread.map_err(ServerError::Thread)?;
        let handle = handle.recv().map_err(|_| ServerError::Thread(std::io::ErrorKind::BrokenPipe.into()))?;
        let handle = handle.map_err(ServerError::Thread)?;
        Ok(Server { address, scheme, handle, service, certificate, thread: Some(thread) })
    }
}

impl Server {
    /// Listens and serves on threads of its own.
    ///
    /// # Errors
    /// [`ServerError`], as [`Listening::open`].
    pub fn start(runtime: Runtime, settings: ServerSettings) -> Result<Server, ServerError> {
        Listening::open(settings)?.serve(runtime)
    }

    /// Where it listens, with the port that it was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The beginning of its addresses.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Reads the tokens and the certificate again.
    pub fn reload(&self) {
        if let Some(certificate) = &self.certificate {
            certificate.reload();
        }
        if let Some(tokens) = &self.service.settings.tokens {
            tokens.reload();
        }
    }

    /// Accepts nothing more, answers what is being asked, and ends.
    pub async fn stop(mut self) {
        self.service.stop();
        self.handle.stop(true).await;
        if let Some(thread) = self.thread.take()
            && !matches!(tokio::task::spawn_blocking(move || thread.join()).await, Ok(Ok(())))
        {
            tracing::error!("the thread of the HTTP service panicked");
        }
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // Connections take over what their listener has.
    rustix::net::sockopt::set_tcp_user_timeout(&listener, u32::try_from(UNREAD_MAX.as_millis()).unwrap_or(u32::MAX))?;
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

fn serve(
    listener: TcpListener,
    tls: Option<rustls::ServerConfig>,
    settings: &ServerSettings,
    service: Data<Service>,
) -> std::io::Result<actix_web::dev::Server> {
    let server = HttpServer::new(move || {
        App::new()
            .wrap(Compress::default())
            .wrap(from_fn(hardened))
            .configure(routes(service.clone()))
            .default_service(gate::guarded(web::to(health::nothing), None))
    })
    .disable_signals()
    .workers(settings.threads)
    .worker_max_blocking_threads(BLOCKING_THREADS)
    .max_connections(settings.connections_max.div_ceil(settings.threads))
    .client_request_timeout(settings.head_timeout)
    .client_disconnect_timeout(settings.head_timeout)
    .keep_alive(settings.keep_alive)
    .shutdown_timeout(DRAIN_SECONDS);
    match tls {
        Some(config) => Ok(server.listen_rustls_0_23(listener, config)?.run()),
        None => Ok(server.listen(listener)?.run()),
    }
}

/// Serves workers of this machine, and nobody else, on a socket that only its user can open: they need no token.
#[cfg(feature = "process")]
pub(crate) fn serve_workers(
    listener: std::os::unix::net::UnixListener,
    runtime: Runtime,
) -> std::io::Result<actix_web::dev::Server> {
    let service = Data::new(Service::new(runtime, Settings::default()));
    let server = HttpServer::new(move || {
        App::new()
            .wrap(from_fn(hardened))
            .app_data(service.clone())
            .service(web::scope("/v1").configure(super::workers::routes))
            .default_service(gate::guarded(web::to(health::nothing), None))
    });
    let server = server.disable_signals().workers(1).worker_max_blocking_threads(1).max_connections(LOCAL_MAX);
    Ok(server.keep_alive(KEEP_LOCAL).shutdown_timeout(DRAIN_SECONDS).listen_uds(listener)?.run())
}

/// Answers that no route of ours gives carry the same headers, and bodies that were not read to their end close their connection.
async fn hardened(
    mut request: actix_web::dev::ServiceRequest,
    next: actix_web::middleware::Next<impl actix_web::body::MessageBody>,
) -> Result<actix_web::dev::ServiceResponse<impl actix_web::body::MessageBody>, actix_web::Error> {
    let held = request.headers().contains_key(actix_web::http::header::TRANSFER_ENCODING).then(|| hold(&mut request));
    let mut response = next.call(request).await?;
    if let Some(held) = held {
        actix_web::rt::spawn(async move {
            tokio::time::sleep(HELD_FOR).await;
            drop(held);
        });
    }
    gate::harden(response.headers_mut());
    Ok(response)
}

/// Keeps a body of unknown length until its answer is on its way. actix-web would read one that was dropped before on to its end, however long that
/// takes; of one that is still there it knows that nobody wants the rest, and closes the connection in time.
fn hold(request: &mut actix_web::dev::ServiceRequest) -> Rc<RefCell<Payload>> {
    let body = Rc::new(RefCell::new(request.take_payload()));
    request.set_payload(Payload::Stream { payload: Box::pin(Held(Rc::clone(&body))) });
    body
}

/// A body that is held elsewhere too.
struct Held(Rc<RefCell<Payload>>);

impl Stream for Held {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_next(context)
    }
}
