//! A server that a worker keeps for itself, such as one with a model: started on a port of its own, waited for, looked after, and stopped last.
//!
//! ```text
//!             start ──▶ ready ──room──▶ worker asks for work
//!               ▲         │ ends, or is not well three times
//!               └─ wait ◀─┘──room 0──▶ worker asks for none
//! ```
//! While it is not ready the worker takes nothing; what is on its way to the server then fails as any call to a service does that is away, and its
//! task's retries are for that.

mod health;
mod settings;

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use ergate_events::restart;
use tokio::sync::{mpsc, oneshot, watch};

use self::health::Health;
pub use self::settings::{PORT, ServerSettings};
use crate::child::{Child, Exit};

/// How often a server may fail one time after the other until it is given up, and the worker with it.
const FAILURES_MAX: u32 = 5;
/// How long a server has to be ready until those failures are forgotten.
const STEADY: Duration = Duration::from_secs(60);
/// Answers in a row that may be missing until the server is started anew.
const UNWELL_MAX: u32 = 3;
/// First and longest wait between two questions whether a server that starts is ready.
const ASK_EVERY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Why there is no server, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Its settings make no sense.
    #[error("the server of the pool cannot be: {0}")]
    Setup(String),
    /// It cannot be started.
    #[error("failed to start {program}, the server of the pool")]
    Start {
        /// The program.
        program: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// It ended by itself.
    #[error("{program}, the server of the pool, ended by itself ({how}){}", said(.last_line))]
    Ended {
        /// The program.
        program: String,
        /// How.
        how: String,
        /// What it said last.
        last_line: String,
    },
    /// It is not ready in time.
    #[error("{program}, the server of the pool, was not ready within {limit:?}: {url} {answer}")]
    Late {
        /// The program.
        program: String,
        /// How long it had.
        limit: Duration,
        /// What was asked.
        url: String,
        /// What came last.
        answer: String,
    },
    /// It was started too often.
    #[error("{program}, the server of the pool, failed {FAILURES_MAX} times one after the other")]
    Failing {
        /// The program.
        program: String,
        /// How it failed last.
        #[source]
        last: Box<ServerError>,
    },
}

fn said(last_line: &str) -> String {
    if last_line.is_empty() { String::new() } else { format!("; it said last: {last_line}") }
}

/// A server that is kept.
pub struct ModelServer {
    port: u16,
    room: watch::Receiver<u32>,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<ServerError>,
    is_over: watch::Receiver<bool>,
}

impl ModelServer {
    /// Starts a server and waits until it is ready; from then on it is kept by a task of the tokio runtime that this is called in. A worker has as
    /// much room as `slots` while it is ready.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn start(settings: ServerSettings, slots: u32) -> Result<ModelServer, ServerError> {
        settings.check().map_err(ServerError::Setup)?;
        let mut failures = 0;
        let running = loop {
            // Another one each time: somebody else may have taken it.
            let port = free_port().map_err(|source| settings.not_started(source))?;
            match Running::start(&settings, port).await {
                Ok(running) => break running,
                Err(error @ (ServerError::Setup(_) | ServerError::Start { .. } | ServerError::Late { .. })) => return Err(error),
                Err(error) => {
                    failures += 1;
                    if failures >= FAILURES_MAX {
                        return Err(ServerError::Failing { program: settings.program(), last: Box::new(error) });
                    }
                    tracing::warn!(%error, "it is started again");
                    tokio::time::sleep(restart::wait(failures).to_std()).await;
                }
            }
        };
        let ((given, room), (stop, stopped)) = (watch::channel(slots), oneshot::channel());
        let ((end, ended), (over, is_over)) = (oneshot::channel(), watch::channel(false));
        let port = running.port;
        let keeper = Keeper { settings, port, running: Some(running), slots, room: given, failures: 0 };
        tokio::spawn(async move {
            if let Some(error) = keeper.keep(stopped).await {
                let _ = end.send(error);
            }
            let _ = over.send(true);
        });
        Ok(ModelServer { port, room, stop, ended, is_over })
    }

    /// The port that stands for `{port}`, the same as long as this is kept.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// How many attempts a worker may have: none while the server is not ready.
    pub fn room(&self) -> watch::Receiver<u32> {
        self.room.clone()
    }

    /// Waits until the server is given up. Nothing is lost when this is dropped and called again.
    pub async fn failed(&mut self) -> ServerError {
        match (&mut self.ended).await {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops the server, and waits until it is gone.
    pub async fn stop(self) {
        let ModelServer { stop, mut is_over, .. } = self;
        // One that was given up hears nothing any more.
        let _ = stop.send(());
        let _ = is_over.wait_for(|is_over| *is_over).await;
    }
}

/// A port that nobody has at this moment.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A server that runs.
struct Running {
    port: u16,
    child: Child,
    exits: mpsc::UnboundedReceiver<Exit>,
    health: Health,
    ready_at: Instant,
}

impl Running {
    /// Starts a server on this port and waits until it is ready.
    async fn start(settings: &ServerSettings, port: u16) -> Result<Running, ServerError> {
        let health = Health::new(&settings.ready_url(port)).map_err(ServerError::Setup)?;
        let command: Command = settings.command(port);
        let (exited, exits) = mpsc::unbounded_channel();
        let pool = settings.pool.clone();
        let told = move |line: &[u8]| {
            let line = String::from_utf8_lossy(line.trim_ascii_end());
            tracing::info!(target: "ergate::server", pool, "{line}");
        };
        let child = Child::start(command, false, told, move |exit| drop(exited.send(exit)));
        let child = child.map_err(|source| settings.not_started(source))?;
        let mut running = Running { port, child, exits, health, ready_at: Instant::now() };
        let until = tokio::time::Instant::now() + settings.ready_within;
        let mut wait = ASK_EVERY.0;
        loop {
            let asked = tokio::select! {
                exit = running.exits.recv() => return Err(settings.ended(exit.as_ref())),
                asked = running.health.ask(ASK_EVERY.1.max(settings.ready_within / 10)) => asked,
            };
            let Err(answer) = asked else { break };
            tokio::select! {
                exit = running.exits.recv() => return Err(settings.ended(exit.as_ref())),
                () = tokio::time::sleep_until(until) => {
                    running.end(Duration::ZERO).await;
                    return Err(settings.late(port, &answer));
                }
                () = tokio::time::sleep(wait) => wait = (wait * 3 / 2).min(ASK_EVERY.1),
            }
        }
        running.ready_at = Instant::now();
        Ok(running)
    }

    /// Ends the server: asks it to, and kills it where it takes longer than this.
    async fn end(&mut self, limit: Duration) {
        self.child.terminate();
        if tokio::time::timeout(limit, self.exits.recv()).await.is_err() {
            self.child.kill();
            self.exits.recv().await;
        }
    }
}

/// Whoever looks after a server.
struct Keeper {
    settings: ServerSettings,
    /// Its callers know it.
    port: u16,
    running: Option<Running>,
    slots: u32,
    room: watch::Sender<u32>,
    /// How often it failed one time after the other.
    failures: u32,
}

impl Keeper {
    /// Keeps the server until it is to stop, or has failed too often.
    async fn keep(mut self, mut stop: oneshot::Receiver<()>) -> Option<ServerError> {
        loop {
            let error = tokio::select! {
                _ = &mut stop => {
                    if let Some(mut running) = self.running.take() {
                        running.end(self.settings.stop_within).await;
                    }
                    return None;
                }
                error = self.next_failure() => error,
            };
            if let Some(error) = error {
                let _ = self.room.send(0);
                self.failures += 1;
                if self.failures >= FAILURES_MAX {
                    return Some(ServerError::Failing { program: self.settings.program(), last: Box::new(error) });
                }
                tracing::warn!(%error, failures = self.failures, "the server of the pool is started again");
            }
        }
    }

    /// How the server fails next; nothing where it was started again and is ready.
    async fn next_failure(&mut self) -> Option<ServerError> {
        let Some(running) = &mut self.running else {
            tokio::time::sleep(restart::wait(self.failures).to_std()).await;
            match Running::start(&self.settings, self.port).await {
                Ok(running) => {
                    self.running = Some(running);
                    let _ = self.room.send(self.slots);
                    return None;
                }
                Err(error) => return Some(error),
            }
        };
        let Running { child, exits, health, ready_at, .. } = running;
        let error = tokio::select! {
            exit = exits.recv() => self.settings.ended(exit.as_ref()),
            answer = unwell(health, self.settings.health_every) => {
                child.kill();
                exits.recv().await;
                self.settings.unwell(self.port, &answer)
            }
        };
        if ready_at.elapsed() >= STEADY {
            self.failures = 0;
        }
        self.running = None;
        Some(error)
    }
}

/// Waits until a server does not answer as it should any more, and says how.
async fn unwell(health: &Health, every: Option<Duration>) -> String {
    let Some(every) = every else { return std::future::pending().await };
    let mut missing = 0;
    loop {
        tokio::time::sleep(every).await;
        match health.ask(every).await {
            Ok(()) => missing = 0,
            Err(reason) => {
                missing += 1;
                if missing >= UNWELL_MAX {
                    return reason;
                }
            }
        }
    }
}
