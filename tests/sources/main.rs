//! Sources from outside: files that grow, go and come while the built binary follows them, and is killed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/command.rs"]
mod command;
#[path = "../http/service.rs"]
#[allow(dead_code, reason = "each proof uses its own part of this module")]
mod service;

mod crash;
mod embedded;
mod files;
mod ground;
mod lines;
mod trouble;
