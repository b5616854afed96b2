//! Reads a shard's log from its partition, with a client of its own for every walk.
#![expect(clippy::disallowed_methods, reason = "how long the brokers are waited for changes nothing that is recorded")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::chained::Chained;
use super::failed;
use super::message::{Received, position};
use crate::block::{Block, Hash};
use crate::id::{Ordinal, Position, ShardId};
use crate::log::{Cursor, LogError, LogReader, Span};
use crate::time::Timestamp;

/// How long the brokers may take to answer one question.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How long a cursor at the end waits for a block before it says that there is none.
const AT_END: Duration = Duration::from_millis(20);
/// How far back the last block is looked for at first; the markers of transactions lie behind it.
const LOOK_BACK: i64 = 4;

/// Where a partition begins and ends for a reader of committed messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that retention has left.
    pub low: i64,
    /// The offset after the last one that is stable.
    pub stable: i64,
}

/// Reads one shard's log.
#[derive(Clone)]
pub struct KafkaReader {
    config: ClientConfig,
    topic: String,
    partition: i32,
    shard: ShardId,
}

impl KafkaReader {
    /// A reader of a partition; `config` names the brokers and how to be let in.
    pub fn new(config: &ClientConfig, topic: &str, partition: i32, shard: ShardId) -> KafkaReader {
        let mut config = config.clone();
        config
            // Offsets are kept by nobody: a client without a group has no other use for the name.
            .set("group.id", "ergate-reader")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "20");
        KafkaReader { config, topic: topic.to_owned(), partition, shard }
    }

    fn walk(&self) -> Result<Walk, LogError> {
        let consumer = self.config.create().map_err(|error| failed("read", &self.topic, error))?;
        Ok(Walk { consumer, topic: self.topic.clone(), partition: self.partition, at_end: false })
    }

    /// Where the partition begins and ends.
    ///
    /// # Errors
    /// [`LogError::Kafka`] when the brokers do not say.
    pub fn watermarks(&self) -> Result<Watermarks, LogError> {
        self.walk()?.watermarks()
    }

    /// Which records there are.
    ///
    /// # Errors
    /// [`LogError::Kafka`], and as [`Received::from`].
    pub fn measure(&self) -> Result<Span, LogError> {
        let mut walk = self.walk()?;
        let marks = walk.watermarks()?;
        let Some(first) = walk.at(marks.low)? else { return Ok(Span::default()) };
        let last = walk.last(marks)?.unwrap_or_else(|| first.clone());
        Ok(Span { first: first.block.header.first_position, next: last.block.header.next_position() })
    }

    /// The first block for which `passed` no longer holds, where it holds for all blocks before; `None` when it holds for all.
    fn search(&self, passed: &dyn Fn(&Block) -> bool) -> Result<Option<Received>, LogError> {
        let mut walk = self.walk()?;
        let Watermarks { low, stable } = walk.watermarks()?;
        let (mut low, mut high) = (low, stable);
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            match walk.at(middle)?.filter(|received| received.offset < high) {
                Some(received) if passed(&received.block) => low = received.offset + 1,
                Some(received) => {
                    high = middle;
                    found = Some(received);
                }
                // Only markers lie behind.
                None => high = middle,
            }
        }
        Ok(found)
    }

    fn holding(&self, at: Position) -> Result<Option<Received>, LogError> {
        self.search(&|block| block.header.next_position() <= at)
    }

    /// A cursor with the place of each block in the partition, from the block that holds `from`.
    ///
    /// # Errors
    /// As [`LogReader::cursor`].
    pub fn received(&self, from: Position) -> Result<Followed, LogError> {
        let mut walk = self.walk()?;
        let marks = walk.watermarks()?;
        let offset = match self.holding(from)? {
            Some(received) => {
                let first = received.block.header.first_position;
                if from < first {
                    return Err(LogError::Gone { at: from, first });
                }
                walk.go(received.offset)?;
                return Ok(Followed { walk, chained: Chained::anywhere(self.shard, first) });
            }
            None => marks.stable,
        };
        let next = self.measure()?.next;
        if from > next {
            return Err(LogError::Beyond { at: from, next });
        }
        walk.go(offset)?;
        Ok(Followed { walk, chained: Chained::anywhere(self.shard, from) })
    }
}

impl LogReader for KafkaReader {
    fn span(&self) -> Span {
        // Whoever needs to know why asks `measure`.
        self.measure().unwrap_or_default()
    }

    fn cursor(&self, from: Position) -> Result<Box<dyn Cursor>, LogError> {
        Ok(Box::new(self.received(from)?))
    }

    fn seek_time(&self, time: Timestamp) -> Result<Position, LogError> {
        let found = self.search(&|block| last_time(block) < time)?;
        found.map_or_else(|| Ok(self.measure()?.next), |received| Ok(received.block.header.first_position))
    }

    fn seek_task(&self, task: Ordinal) -> Result<Option<Position>, LogError> {
        let found = self.search(&|block| next_ordinal(block) <= task)?;
        Ok(found
            .filter(|received| received.block.header.first_ordinal <= task)
            .map(|received| received.block.header.first_position))
    }

    fn hash_before(&self, at: Position) -> Result<Option<Hash>, LogError> {
        if let Some(received) = self.holding(at)? {
            return Ok((received.block.header.first_position == at).then_some(received.block.header.previous));
        }
        let mut walk = self.walk()?;
        let marks = walk.watermarks()?;
        let last = walk.last(marks)?.filter(|last| last.block.header.next_position() == at);
        Ok(last.map(|last| last.hash).or((at == Position(0)).then_some(Hash::ZERO)))
    }
}

fn last_time(block: &Block) -> Timestamp {
    block.records().filter_map(Result::ok).last().map_or(block.header.first_time, |record| record.recorded_at)
}

fn next_ordinal(block: &Block) -> Ordinal {
    let created = block.records().filter_map(Result::ok).filter(|record| record.event.creates_task()).count();
    Ordinal(block.header.first_ordinal.0 + created as u64)
}

/// Blocks of a partition in order, each once.
pub struct Followed {
    walk: Walk,
    chained: Chained,
}

impl Followed {
    /// The next block with its place, or `None` while there is none.
    ///
    /// # Errors
    /// As [`Cursor::next_block`], and [`LogError::Gap`] or [`LogError::Chain`] for a block that does not follow.
    #[expect(clippy::should_implement_trait, reason = "it ends for now and goes on when there is more, as a cursor does")]
    pub fn next(&mut self) -> Result<Option<Received>, LogError> {
        while let Some(received) = self.walk.next()? {
            if self.chained.takes(&received)? {
                return Ok(Some(received));
            }
        }
        Ok(None)
    }
}

impl Cursor for Followed {
    fn next_block(&mut self) -> Result<Option<Block>, LogError> {
        Ok(self.next()?.map(|received| received.block))
    }
}

/// A client that reads one partition.
struct Walk {
    consumer: BaseConsumer,
    topic: String,
    partition: i32,
    at_end: bool,
}

impl Walk {
    fn watermarks(&self) -> Result<Watermarks, LogError> {
        let marks = self.consumer.fetch_watermarks(&self.topic, self.partition, ANSWER_WITHIN);
        let (low, stable) = marks.map_err(|error| failed("ask for the ends of", &self.topic, error))?;
        Ok(Watermarks { low, stable })
    }

    /// Reads on from an offset.
    fn go(&mut self, offset: i64) -> Result<(), LogError> {
        let mut assignment = TopicPartitionList::new();
        let added = assignment.add_partition_offset(&self.topic, self.partition, Offset::Offset(offset));
        added.and_then(|()| self.consumer.assign(&assignment)).map_err(|error| failed("read", &self.topic, error))?;
        self.at_end = false;
        Ok(())
    }

    /// The first block at or after an offset.
    fn at(&mut self, offset: i64) -> Result<Option<Received>, LogError> {
        self.go(offset)?;
        self.next()
    }

    /// The last block.
    fn last(&mut self, marks: Watermarks) -> Result<Option<Received>, LogError> {
        let mut back = LOOK_BACK;
        loop {
            let from = (marks.stable - back).max(marks.low);
            let (mut last, mut next) = (None, self.at(from)?);
            while let Some(received) = next.filter(|received| received.offset < marks.stable) {
                last = Some(received);
                next = self.next()?;
            }
            if last.is_some() || from <= marks.low {
                return Ok(last);
            }
            back = back.saturating_mul(4);
        }
    }

    /// The next block, or `None` at the end.
    fn next(&mut self) -> Result<Option<Received>, LogError> {
        let until = Instant::now() + ANSWER_WITHIN;
        loop {
            match self.consumer.poll(if self.at_end { AT_END } else { ANSWER_WITHIN }) {
                Some(Ok(message)) => {
                    self.at_end = false;
                    if position(&message).is_some() || message.payload().is_some() {
                        return Received::from(&message).map(Some);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.at_end = true;
                    return Ok(None);
                }
                Some(Err(error)) if Instant::now() >= until => return Err(failed("read", &self.topic, error)),
                // The client connects again by itself.
                Some(Err(_)) => {}
                None if self.at_end => return Ok(None),
                None if Instant::now() >= until => return Err(failed("read", &self.topic, "the brokers do not answer")),
                None => {}
            }
        }
    }
}

/// The reader as others share it.
impl From<KafkaReader> for Arc<dyn LogReader> {
    fn from(reader: KafkaReader) -> Arc<dyn LogReader> {
        Arc::new(reader)
    }
}
