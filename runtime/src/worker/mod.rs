//! A worker inside a program of your own: it asks an engine elsewhere for work, and does it with Rust functions.
//!
//! ```no_run
//! use ergate::TaskError;
//! use ergate::worker::Worker;
//!
//! async fn resize(image: String) -> Result<String, TaskError> {
//!     Ok(format!("small {image}"))
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let ctrl_c = std::future::pending(); // tokio::signal::ctrl_c(), for example
//!     let worker = Worker::builder("http://127.0.0.1:7420").pool("models").slots(8).task("resize", resize);
//!     Ok(worker.run(ctrl_c).await?)
//! }
//! ```
//! `docs/workers.md` says what a worker is, and `docs/worker-protocol.md` what it says to its engine.
//!
//! ```text
//!                 ask (waits for work) ─┐
//!  Agent ── Link ─tell (outcomes) ──────┼──▶ engine     the agent has a thread, and the runner another one:
//!    ▲  ▲     ⋮   talk (signs of life) ─┘               whatever a task does, the engine hears of the worker
//!    │  │   Link ─────────────────────────▶ engine
//!    │  └── News ─── Runner ──▶ task functions
//!  Table
//! ```
//! Where the log is on Kafka there are several engines. They name each other, and the worker has a link to each, with a share of its free slots
//! (`share.rs`); any of them takes an outcome and passes it on to the one that leads the task.

mod agent;
mod answer;
mod builder;
mod calls;
mod given;
mod heard;
mod lane;
mod line;
mod link;
mod links;
mod outbox;
mod pace;
mod plan;
#[cfg(feature = "process")]
pub mod server;
mod share;
mod table;
mod wire;

pub use self::answer::Refusal;
pub use self::builder::{LEASE_DEFAULT, Worker};
pub use self::pace::Concurrency;

/// Why a worker ended that nobody asked to end, or not as it should.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It cannot be what it is to be.
    #[error("{0}")]
    Setup(String),
    /// The engine said no, and repeating it will not help.
    #[error("the engine refused the worker")]
    Refused(#[source] Refusal),
    /// Whoever answers there cannot prove who they are, or speaks no TLS.
    #[error("no trusted connection to the engine: {0}")]
    Untrusted(String),
    /// Whoever answers there is no engine.
    #[error("the engine answered something that cannot be read ({0}); is that the address of an `ergate up`?")]
    Foreign(String),
    /// The thread on which tasks run is gone.
    #[error("the thread that runs tasks has failed")]
    Runner,
    /// The worker's own thread cannot be started, or is gone.
    #[error("the worker's thread has failed")]
    Thread(#[source] Option<std::io::Error>),
    /// The engine did not answer while the worker was ending; after the lease, others do what it had.
    #[error("the engine did not hear how {outcomes} attempts ended; others will do them again")]
    Unheard {
        /// How many it did not hear of.
        outcomes: usize,
    },
    /// It was to end at once.
    #[error("ended at once; others will do the {running} attempts that were running")]
    Interrupted {
        /// How many ran.
        running: usize,
    },
}
