//! A shard's log on Apache Kafka: one partition of a topic, written in transactions and read with `read_committed`.
//!
//! A message is a block: key = the shard's number, value = the block as JSON ([`crate::json`]) or its bytes, headers `ergate-format`,
//! `ergate-position`, `ergate-next` and `ergate-hash`. Offsets count markers of transactions too and therefore say nothing about
//! positions; what belongs together is said by position, hash and the hash before.
//!
//! **What is promised.** [`EventLog::sync`](super::EventLog::sync) returns when the transaction is committed that holds the blocks, the
//! messages sent with them and the offset of the last request they answer; a reader sees all of it or nothing. Only the owner of a shard
//! commits: its producer has the shard's transactional id, and whoever takes the shard over fences it. A *fenced* writer answers
//! [`LogError::Fenced`] and writes no more; every other writer that fails has to be opened again, after reading what
//! was committed, for a commit without an answer may have happened.
//!
//! The client speaks Kafka's first transaction protocol, under which late requests of an earlier transaction were seen to end a later one.
//! So readers believe the chain and not the transaction: [`Chained`] takes the block that goes on from the one before, skips one that
//! it has seen, and calls anything else a contradiction, by the offsets of both.

mod caller;
mod chained;
mod copy;
mod log;
mod message;
mod reader;
mod tail;
mod walk;

pub use chained::Chained;
pub use copy::{append, restore_copy};
pub use log::{Delivers, GroupMetadata, KafkaLog, KafkaLogParts};
pub use message::{Form, Heading, Received};
pub use reader::{Extent, Followed, KafkaReader, Watermarks};
pub use tail::KafkaTail;
pub use walk::{Listener, Patience};

use std::time::Duration;

use rdkafka::producer::{BaseProducer, ProducerContext};

use super::LogError;

/// How long somebody rests who waits for a producer's news: a small part of a commit, and a few microseconds of work.
pub const MOMENT: Duration = Duration::from_micros(200);

/// Serves a producer's news and rests for a moment. Its own poll with a time spins for the last millisecond of it, and takes the processor
/// away from the brokers that are waited for.
pub fn rest<C: ProducerContext>(producer: &BaseProducer<C>) {
    producer.poll(Duration::ZERO);
    std::thread::sleep(MOMENT);
}

/// An error of the client as the log's.
fn failed(step: &'static str, topic: &str, reason: impl std::fmt::Display) -> LogError {
    LogError::Kafka { step, topic: topic.to_owned(), reason: reason.to_string() }
}
