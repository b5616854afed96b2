//! The verbs that ask a running service, against the built binary.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says what it skips")]

#[path = "../support/command.rs"]
mod command;
#[path = "../support/packages.rs"]
mod packages;
#[allow(dead_code, reason = "the tests of HTTP use the rest")]
#[path = "../http/service.rs"]
mod service;

mod docs;
mod failures;
mod manual;
mod same;
mod stream;
mod support;
mod tokens;
mod verbs;
mod watch;
