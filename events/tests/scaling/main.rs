//! Scaling policies: tables with the numbers of real services, properties, and scenarios of others.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod aws;
mod composite;
mod conformance;
mod formula;
mod hpa;
mod keda;
mod kpa;
mod properties;
mod rate;
mod record;
mod services;
mod settings;
mod support;
mod threshold;
mod usage;
