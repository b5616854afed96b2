//! The back-test against what is known without it: queueing theory, a queue computed otherwise, and bounds that nothing may go below.

mod figures;
mod support;
