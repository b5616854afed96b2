//! HTTP on any engine of a real Apache Kafka: what only the leader of a shard knows or may do, asked of an engine that is another.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/command.rs"]
mod command;
mod engines;
mod faults;
mod figures;
#[path = "../support/kafka/mod.rs"]
mod kafka;
#[path = "../support/kafka_log.rs"]
mod kafka_log;
mod lists;
mod one;
#[path = "../support/packages.rs"]
mod packages;
#[path = "../support/producers.rs"]
mod producers;
mod schedules;
#[allow(dead_code, reason = "the tests of one service need all of it")]
#[path = "../http/service.rs"]
mod service;
mod verbs;
