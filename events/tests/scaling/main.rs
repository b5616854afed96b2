//! Scaling policies: tables with the numbers of real services, properties, and scenarios of others.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod conformance;
