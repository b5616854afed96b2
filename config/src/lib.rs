//! The one typed configuration of Ergate: built-in defaults, then a TOML file, then the environment, then flags.
//!
//! `default.toml` documents every key; [`DEFAULT_TOML`] is its text. [`load`] reads file and environment, [`Config::set`] takes a
//! flag. Whatever is unknown or of the wrong shape is refused with its place and what would be right.

mod client;
mod error;
mod gpu;
mod http;
mod kafka;
mod keys;
mod limit;
mod load;
mod policy;
mod policy_text;
mod pool;
mod schedule;
mod secret;
mod source;
mod task;
mod validate;
mod value;

pub use client::Client;
pub use error::{ConfigError, Origin};
pub use gpu::Gpu;
pub use http::Http;
pub use kafka::{Format, Kafka};
pub use keys::{Config, Limits, Log, Setting, Shutdown};
pub use limit::Limit;
pub use load::{FILE_DEFAULT, load};
pub use policy::{PRESETS, policy, read_policy};
pub use policy_text::policy_text;
pub use pool::{Concurrency, Fleet, Pool, Preset, Server};
pub use secret::{Hidden, OptionValue, SecretError};
pub use source::Source;
pub use task::{Batch, Builtin, Executor, GpuExecutor, HttpExecutor, Kernel, OwnKernel, PayloadBy, ProcessExecutor, Task};
pub use value::{Durability, Keep, Raw, show_size};

/// The defaults as a file, with the unit and the reason of every key.
pub const DEFAULT_TOML: &str = include_str!("../default.toml");
