//! The one typed configuration of Ergate: built-in defaults, then a TOML file, then the environment, then flags.
//!
//! `default.toml` documents every key; [`DEFAULT_TOML`] is its text. [`load`] reads file and environment, [`Config::set`] takes a
//! flag. Whatever is unknown or of the wrong shape is refused with its place and what would be right.

mod error;
mod kafka;
mod keys;
mod load;
mod nearest;
mod secret;
mod validate;
mod value;

pub use error::{ConfigError, Origin};
pub use kafka::{Format, Kafka};
pub use keys::{Config, Limits, Log, Pool, Setting, Shutdown};
pub use load::{FILE_DEFAULT, load};
pub use secret::{Hidden, OptionValue, SecretError};
pub use value::{Durability, Keep, Raw};

/// The defaults as a file, with the unit and the reason of every key.
pub const DEFAULT_TOML: &str = include_str!("../default.toml");
