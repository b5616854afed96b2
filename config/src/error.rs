//! Where a value came from, and what is wrong with it.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The built-in default.
    Default,
    /// A line of a file, counted from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        name: String,
    },
    /// A flag of the command line.
    Flag {
        /// Its name with the dashes.
        name: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment { name } => write!(f, "environment variable {name}"),
            Origin::Flag { name } => write!(f, "flag {name}"),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum ConfigError {
    /// The file that was named cannot be read.
    #[error("failed to read the configuration {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path}:{line} is not TOML: {message}")]
    Syntax { path: PathBuf, line: usize, message: String },
    /// There is no such key.
    #[error("{origin}: there is no key `{key}`; the nearest is `{nearest}` (`ergate config show --docs` lists all)")]
    UnknownKey { origin: Origin, key: String, nearest: String },
    /// The value is of the wrong shape, or out of its range.
    #[error("{origin}: `{key}` takes {expected}, and found {found}")]
    Value { origin: Origin, key: String, expected: &'static str, found: String },
    /// The value is not for this program to take, or contradicts another.
    #[error("{origin}: `{key}` is refused: {reason}")]
    Refused { origin: Origin, key: String, reason: String },
}
