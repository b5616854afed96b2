//! The HTTP service from outside: the built binary, real sockets, and senders that mean well and others.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says what it skips")]

#[path = "../support/command.rs"]
mod command;
#[path = "../support/packages.rs"]
mod packages;

mod copies;
mod crash;
mod dependencies;
mod exposition;
mod follow;
mod hostile;
mod labels;
mod limits;
mod metrics;
mod operate;
#[cfg(feature = "otlp")]
mod otlp;
mod prometheus;
mod readme;
mod schedules;
mod schema;
mod service;
mod submit;
mod tokens;
mod why;
mod workers;
