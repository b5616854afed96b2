//! The back-test against what is known without it: queueing theory, a queue computed otherwise, and bounds that nothing may go below.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and figures are printed")]

mod bounds;
mod figures;
mod history;
mod hostile;
mod policies;
mod rules;
mod support;
mod theory;
mod traces;
