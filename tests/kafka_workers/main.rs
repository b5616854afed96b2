//! Workers of several engines on a real Apache Kafka: they have the work of all, and an engine that dies costs them a reconnect. And pools that policies
//! size over all engines.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/command.rs"]
mod command;
mod engines;
mod ground;
mod hand;
#[path = "../support/kafka/mod.rs"]
mod kafka;
#[path = "../support/kafka_log.rs"]
mod kafka_log;
#[allow(dead_code, reason = "the tests of one service need all of it")]
#[path = "../http/service.rs"]
mod service;
mod sized;
