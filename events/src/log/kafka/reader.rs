//! Reads a shard's log from its partition.

use std::cmp::Ordering;
use std::sync::Arc;

use rdkafka::config::ClientConfig;

use super::chained::Chained;
use super::message::Received;
use super::walk::{Clients, Patience, Walk};
use crate::block::{Block, Hash, Header};
use crate::id::{Ordinal, Position, ShardId};
use crate::log::{Cursor, Head, LogError, LogReader, Span};
use crate::time::Timestamp;

/// Where a partition begins and ends for a reader of committed messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that retention has left.
    pub low: i64,
    /// The offset after the last one that is stable.
    pub stable: i64,
}

/// What a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its records.
    pub span: Span,
    /// Its offsets.
    pub offsets: Watermarks,
    /// Time of its last record; `None` where there is none.
    pub last_time: Option<Timestamp>,
}

/// Reads one shard's log.
#[derive(Clone)]
pub struct KafkaReader {
    pub(super) clients: Arc<Clients>,
    topic: String,
    partition: i32,
    shard: ShardId,
    pub(super) patience: Patience,
    /// What is told of the span from now on, for whoever looks at the log as it is at one moment.
    fixed: Option<Span>,
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
        let clients = Arc::new(Clients::new(config));
        KafkaReader { clients, topic: topic.to_owned(), partition, shard, patience: Patience::default(), fixed: None }
    }

    /// A reader of another partition with the clients of this one.
    #[must_use]
    pub fn beside(&self, topic: &str, partition: i32, shard: ShardId) -> KafkaReader {
        KafkaReader { topic: topic.to_owned(), partition, shard, fixed: None, ..self.clone() }
    }

    /// Waits for the brokers like this.
    #[must_use]
    pub fn waiting(self, patience: Patience) -> KafkaReader {
        KafkaReader { patience, ..self }
    }

    /// Tells from now on of the records that are there now, and no longer of those to come; cursors go on to them.
    #[must_use]
    pub fn fixed(self, span: Span) -> KafkaReader {
        KafkaReader { fixed: Some(span), ..self }
    }

    /// The topic and the partition of it.
    pub fn place(&self) -> (&str, i32) {
        (&self.topic, self.partition)
    }

    /// The shard whose log it is.
    pub const fn shard(&self) -> ShardId {
        self.shard
    }

    /// How many partitions the topic has.
    ///
    /// # Errors
    /// [`LogError::NoTopic`], [`LogError::Kafka`] when the brokers do not say.
    pub fn partitions(&self) -> Result<usize, LogError> {
        self.walk()?.partitions()
    }

    /// The name that the cluster has given itself; empty where it does not say.
    ///
    /// # Errors
    /// [`LogError::Kafka`] for settings that make no client.
    pub fn cluster(&self) -> Result<String, LogError> {
        Ok(self.walk()?.cluster())
    }

    /// The same for somebody who follows the log as it grows: the brokers are asked seldom while nothing happens.
    #[must_use]
    pub fn patient(self) -> KafkaReader {
        let clients = Arc::new(self.clients.with("fetch.wait.max.ms", "500"));
        KafkaReader { clients, ..self }
    }

    fn walk(&self) -> Result<Walk, LogError> {
        Walk::new(&self.clients, &self.topic, self.partition, &self.patience)
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
    /// [`LogError::NoTopic`], [`LogError::Kafka`], and as [`Received::of`].
    pub fn measure(&self) -> Result<Span, LogError> {
        Ok(self.extent()?.span)
    }

    /// Which records there are, and where.
    ///
    /// # Errors
    /// As [`KafkaReader::measure`].
    pub fn extent(&self) -> Result<Extent, LogError> {
        self.extent_within(self.watermarks()?)
    }

    /// Which records there are, and where, between these offsets; more may have come since somebody asked for them.
    ///
    /// # Errors
    /// As [`KafkaReader::measure`].
    pub fn extent_within(&self, offsets: Watermarks) -> Result<Extent, LogError> {
        let empty = Extent { span: Span::default(), offsets, last_time: None };
        if offsets.low >= offsets.stable {
            return Ok(empty);
        }
        let mut walk = self.walk()?;
        // Only markers may lie before the end, and a block be written behind it since.
        let first = walk.at(offsets.low)?.filter(|first| first.offset < offsets.stable);
        let Some(first) = first else { return Ok(empty) };
        let last = walk.last(offsets)?.unwrap_or_else(|| first.clone());
        let span = Span { first: first.block.header.first_position, next: last.block.header.next_position() };
        Ok(Extent { span, offsets, last_time: Some(last_time(&last.block)) })
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

    /// The block that holds a position, or the first one behind it.
    pub(super) fn holding(&self, at: Position) -> Result<Option<Received>, LogError> {
        match self.search(&|block| block.header.next_position() <= at)? {
            // Retention has dropped it, or a repeated block has led the search astray.
            Some(found) if found.block.header.first_position > at => self.walk_to(at),
            found => Ok(found),
        }
    }

    /// As [`KafkaReader::holding`], by reading everything before.
    fn walk_to(&self, at: Position) -> Result<Option<Received>, LogError> {
        let mut walk = self.walk()?;
        walk.go(walk.watermarks()?.low)?;
        while let Some(received) = walk.next()? {
            if received.block.header.next_position() > at {
                return Ok(Some(received));
            }
        }
        Ok(None)
    }

    /// The offset behind which a log goes on that ends with `head`.
    ///
    /// # Errors
    /// [`LogError::Chain`] when the topic has another block there, [`LogError::Gone`] when retention has taken what follows,
    /// [`LogError::Beyond`] when the topic does not reach that far.
    pub fn place_after(&self, head: &Head) -> Result<i64, LogError> {
        if let Some(received) = self.holding(head.next)? {
            return place_before(&received, head);
        }
        let mut walk = self.walk()?;
        let marks = walk.watermarks()?;
        let last = walk.last(marks)?.map_or((Position(0), Hash::ZERO), |last| (last.block.header.next_position(), last.hash));
        match last {
            (next, hash) if next == head.next && hash == head.hash => Ok(marks.stable),
            (next, hash) if next == head.next => Err(LogError::Chain { at: head.next, expected: head.hash, found: hash }),
            // The owner has gone on between the two questions.
            (next, _) if next > head.next => match self.holding(head.next)? {
                Some(received) => place_before(&received, head),
                None => Err(LogError::Beyond { at: head.next, next }),
            },
            (next, _) => Err(LogError::Beyond { at: head.next, next }),
        }
    }

    /// How many blocks lie from an offset on and before another, decided or not, if the log before goes on with them and with nothing else;
    /// `None` where it does not, or where nothing is known of the log before.
    ///
    /// # Errors
    /// [`LogError::Kafka`].
    pub fn goes_on(&self, from: i64, until: i64) -> Result<Option<u64>, LogError> {
        let mut committed = self.walk()?;
        let low = committed.watermarks()?.low;
        let mut chained = match committed.last(Watermarks { low, stable: from })? {
            Some(last) => Chained::behind(&last),
            None if low == 0 => Chained::after(self.shard, &Head::default()),
            None => return Ok(None),
        };
        let undecided = Arc::new(self.clients.with("isolation.level", "read_uncommitted"));
        let mut walk = Walk::new(&undecided, &self.topic, self.partition, &self.patience)?;
        walk.go(from)?;
        let mut blocks = 0;
        while let Some(received) = walk.next()?.filter(|received| received.offset < until) {
            match chained.takes(&received) {
                Ok(is_next) => blocks += u64::from(is_next),
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(blocks))
    }

    /// Blocks from an offset on, which must go on from `head`.
    ///
    /// # Errors
    /// [`LogError::Kafka`].
    pub fn follow(&self, offset: i64, head: &Head) -> Result<Followed, LogError> {
        let mut walk = self.walk()?;
        walk.go(offset)?;
        Ok(Followed { walk, chained: Chained::after(self.shard, head), reader: self.clone() })
    }

    /// A cursor with the place of each block in the partition, from the block that holds `from`.
    ///
    /// # Errors
    /// As [`LogReader::cursor`].
    pub fn received(&self, from: Position) -> Result<Followed, LogError> {
        let mut walk = self.walk()?;
        let marks = walk.watermarks()?;
        let followed = |walk, at| Followed { walk, chained: Chained::anywhere(self.shard, at), reader: self.clone() };
        if from == Position(0) && marks.low == 0 {
            walk.go(0)?;
            return Ok(followed(walk, from));
        }
        if let Some(received) = self.holding(from)? {
            let first = received.block.header.first_position;
            if from < first {
                return Err(LogError::Gone { at: from, first });
            }
            walk.go(received.offset)?;
            return Ok(followed(walk, first));
        }
        let next = self.measure()?.next;
        if from > next {
            return Err(LogError::Beyond { at: from, next });
        }
        walk.go(marks.stable)?;
        Ok(followed(walk, from))
    }
}

/// The offset of a block if it is the one that goes on from `head`; it is the first that reaches further.
fn place_before(received: &Received, head: &Head) -> Result<i64, LogError> {
    let Header { first_position: first, previous, .. } = received.block.header;
    match first.cmp(&head.next) {
        Ordering::Greater => Err(LogError::Gone { at: head.next, first }),
        Ordering::Equal if previous == head.hash => Ok(received.offset),
        Ordering::Equal | Ordering::Less => Err(LogError::Chain { at: head.next, expected: head.hash, found: previous }),
    }
}

impl LogReader for KafkaReader {
    fn span(&self) -> Span {
        // Whoever needs to know why asks `measure`.
        self.fixed.unwrap_or_else(|| self.measure().unwrap_or_default())
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
    reader: KafkaReader,
}

impl Followed {
    /// The next block with its place, or `None` while there is none.
    ///
    /// # Errors
    /// As [`Cursor::next_block`]; [`LogError::Gap`], [`LogError::Chain`] or [`LogError::Contradiction`] for a block that does not follow,
    /// [`LogError::Gone`] where retention was faster.
    #[expect(clippy::should_implement_trait, reason = "it ends for now and goes on when there is more, as a cursor does")]
    pub fn next(&mut self) -> Result<Option<Received>, LogError> {
        loop {
            let received = match self.walk.next() {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(None),
                Err(error) => return Err(self.gone(error)),
            };
            if self.chained.has_forgotten(&received) {
                self.compare(&received)?;
            }
            if self.chained.takes(&received)? {
                return Ok(Some(received));
            }
        }
    }

    /// How many blocks were there twice, and were skipped.
    pub fn repeated(&self) -> u64 {
        self.chained.repeated()
    }

    /// Holds a block against the one that has its place in the log. Reads everything before, which is slow and hardly ever needed.
    fn compare(&self, late: &Received) -> Result<(), LogError> {
        let at = late.block.header.first_position;
        match self.reader.walk_to(at)?.filter(|first| first.offset < late.offset) {
            Some(first) if first.hash != late.hash => {
                let (shard, first, second) = (late.block.header.shard, first.offset, late.offset);
                Err(LogError::Contradiction { at, shard, first, second })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Says that retention was faster where that is why a reader cannot go on.
    fn gone(&self, error: LogError) -> LogError {
        let at = self.chained.next();
        if !self.walk.was_outrun() {
            return error;
        }
        match self.reader.measure() {
            Ok(Span { first, .. }) if first > at => LogError::Gone { at, first },
            Ok(_) | Err(_) => error,
        }
    }
}

impl Cursor for Followed {
    fn next_block(&mut self) -> Result<Option<Block>, LogError> {
        Ok(self.next()?.map(|received| received.block))
    }
}

/// The reader as others share it.
impl From<KafkaReader> for Arc<dyn LogReader> {
    fn from(reader: KafkaReader) -> Arc<dyn LogReader> {
        Arc::new(reader)
    }
}
