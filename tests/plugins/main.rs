//! Plug-ins from outside: generators, observers, and what registers them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::wildcard_enum_match_arm, reason = "tests look for a few events among many")]

#[allow(dead_code, reason = "its `main` is not called here")]
#[path = "../../examples/plugins.rs"]
mod example;
#[path = "../http/exposition.rs"]
mod exposition;
mod generators;
mod observers;
#[path = "../support/process.rs"]
mod process;
mod registered;
mod support;

/// What a test of these starts as another process.
#[test]
fn child() {
    generators::child_that_crashes();
}
