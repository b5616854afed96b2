//! Ergate: an event-sourced task runtime with an autoscaler you can audit.
//!
//! ```
//! use ergate::{Runtime, TaskError};
//!
//! async fn greet(name: String) -> Result<String, TaskError> {
//!     Ok(format!("hello, {name}"))
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     # let dir = tempfile::tempdir()?;
//!     # let dir = dir.path().join("ergate-data");
//!     # #[cfg(any())]
//!     let dir = "ergate-data";
//!     let runtime = Runtime::builder().data(dir).task("greet", greet).start().await?;
//!     let task = runtime.submit("greet", "world").await?; // durable here
//!     println!("{}", task.result::<String>().await?);
//!     Ok(runtime.shutdown().await?)
//! }
//! ```

mod autoscaler;
pub mod builder;
#[cfg(all(feature = "http", feature = "process"))]
mod child;
mod dependents;
#[cfg(all(feature = "http", feature = "process"))]
mod fleet;
mod generators;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod history;
#[cfg(feature = "http")]
pub mod http;
mod indexer;
#[cfg(feature = "kafka")]
pub mod kafka;
mod local;
#[cfg(feature = "requests")]
pub mod look;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod plugins;
#[cfg(feature = "requests")]
pub mod request;
pub mod runtime;
mod scheduler;
#[cfg(any(feature = "http", feature = "kafka"))]
mod shards;
mod snapshots;
#[cfg(feature = "requests")]
pub mod sources;
pub mod store;
mod tallies;
mod task;
#[cfg(feature = "cli")]
pub mod tasks;
#[cfg(feature = "http")]
mod whereabouts;
mod wiring;
#[cfg(feature = "http")]
pub mod worker;
#[cfg(feature = "http")]
pub mod workers;

pub use builder::{Builder, Retention};
pub use ergate_actors::executor;
pub use ergate_actors::executor::context::{Context, Progress};
pub use ergate_actors::executor::factory::{ExecutorFactory, FactoryError};
pub use ergate_actors::executor::function::{IntoTask, TaskError, TaskFunction, blocking, function};
pub use ergate_actors::generate::{self, GenerateError, GeneratedBatch, GeneratorContext, TaskGenerator, View};
pub use ergate_actors::log_thread::Durability;
pub use ergate_actors::observe::{self, EventObserver, EventObserverFactory, ObservedAttempt, ObservedError, ObservedProgress};
pub use ergate_actors::submission::{After, AnswerRun, BatchAnswer, BatchEnd, Extras, RequestBatch, SubmitError, TaskEnd};
pub use ergate_actors::workers::Canary;
pub use ergate_actors::{calendar, clock};
pub use ergate_events as events;
pub use ergate_events::ran::{CudaVersion, KernelDigest, Ran};
pub use ergate_events::scaling;
pub use ergate_events::schedule;
pub use ergate_events::task::{OnFailure, Outcome, RetryPolicy, Timeouts, TypeSettings};
#[cfg(all(feature = "http", feature = "process"))]
pub use fleet::WorkerCommand;
#[cfg(feature = "metrics")]
pub use metrics::Metrics;
pub use runtime::{Batch, Runtime, StartError, Task, WaitError};
#[cfg(feature = "requests")]
pub use sources::SourceSettings;
pub use store::Store;

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// Compiles the example of the page about executors.
#[cfg(all(doctest, feature = "process"))]
#[doc = include_str!("../../docs/executors.md")]
struct Executors;

/// Compiles the example of the page about workers.
#[cfg(all(doctest, feature = "cli"))]
#[doc = include_str!("../../docs/workers.md")]
struct WorkersPage;
