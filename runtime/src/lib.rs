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

pub mod builder;
pub mod history;
mod indexer;
#[cfg(feature = "kafka")]
pub mod kafka;
mod local;
#[cfg(feature = "requests")]
pub mod request;
pub mod runtime;
mod snapshots;
pub mod store;
mod task;
#[cfg(feature = "cli")]
pub mod tasks;
mod wiring;

pub use builder::{Builder, Retention};
pub use ergate_actors::clock;
pub use ergate_actors::executor::context::Context;
pub use ergate_actors::executor::function::{IntoTask, TaskError, TaskFunction, blocking, function};
pub use ergate_actors::log_thread::Durability;
pub use ergate_actors::submission::{AnswerRun, BatchAnswer, BatchEnd, Extras, RequestBatch, SubmitError, TaskEnd};
pub use ergate_events as events;
pub use ergate_events::task::{Outcome, RetryPolicy, Timeouts, TypeSettings};
pub use runtime::{Batch, Runtime, StartError, Task, WaitError};
pub use store::Store;

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
