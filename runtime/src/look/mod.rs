//! Looking at a log: records, tasks, states at any moment, lists; for the command line, HTTP and programs that embed the runtime.
//!
//! Everything here reads what is durable and changes nothing. What it costs is said where it is more than one block.

pub mod copy;
pub mod cost;
pub mod dead;
pub mod filter;
pub mod fold;
pub mod label;
pub mod life;
pub mod list;
pub mod moment;
pub mod named;
pub mod record;
pub mod row;
pub mod schedule;
pub mod summary;
pub mod text;
pub mod waits;
pub mod why;

use ergate_events::log::LogError;

use crate::store::RecoverError;

/// Why a log does not tell what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The beginning of the log is gone and nothing leads to the rest.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// Too much has happened since a list was begun.
    #[error("too many tasks have ended since the list was begun to go on with it; begin it again, without a cursor")]
    Stale,
    /// What was asked about is not there.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be written as JSON.
    #[error("an event cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}
