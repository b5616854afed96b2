//! The verbs that work on a data directory without a server, against the built binary.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod config;
mod damage;
mod doctor;
mod export;
#[path = "../support/frozen.rs"]
mod frozen;
mod log;
mod memory;
mod repair;
mod replay;
mod support;
mod task;
