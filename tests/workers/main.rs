//! Workers from outside: a real engine, real workers, real signals, and the log that they leave as the judge.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says what it skips")]

#[path = "../support/command.rs"]
mod command;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../http/service.rs"]
#[allow(dead_code, reason = "the tests of HTTP use the rest of it")]
mod service;

mod deaths;
mod embedded;
mod ground;
mod leave;
mod model;
mod network;
mod pace;
mod processes;
mod refused;
mod restart;
mod several;
mod shadows;
mod sizing;
mod stub;
mod versions;
mod work;
