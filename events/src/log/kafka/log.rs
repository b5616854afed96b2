//! The one writer of a shard on Kafka: a transaction for all blocks that wait, then the same blocks into the copy on this machine.
#![expect(clippy::disallowed_methods, reason = "how long the brokers are waited for changes nothing that is recorded")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

use super::caller::{Caller, NoAnswer, Offsets};
use super::message::{Form, headers};
use super::{failed, rest};
use crate::block::SealedBlock;
use crate::id::{Position, ShardId};
use crate::log::{EventLog, Head, LogError, LogReader, Outgoing, Space};

/// Pause before a transaction is tried again: a rebalance or a change of leader takes about as long.
const AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How long the brokers may take to tell where the events end before they are asked again.
const ASK_WITHIN: Duration = Duration::from_secs(1);
/// How long a shard that is no longer wanted here waits for the end of its last transaction: its next owner waits for it.
const STABLE_WITHIN: Duration = Duration::from_millis(500);
/// Pause between two such questions: the end of a transaction is written a millisecond or two after it was promised.
const ASK_AGAIN_AFTER: Duration = Duration::from_micros(500);

/// The context of a shard's producer, which is told what became of each message.
pub trait Delivers: ProducerContext<DeliveryOpaque = ()> + 'static {
    /// Why a message could not be delivered since this was last asked.
    fn take_failure(&self) -> Option<String>;

    /// Offset of the last message that the brokers took in the partition of the events.
    fn last_event(&self) -> Option<i64>;
}

/// Tells which member of the group commits offsets; asked for each transaction, because it changes with every rebalance.
pub type GroupMetadata = Arc<dyn Fn() -> Option<ConsumerGroupMetadata> + Send + Sync>;

/// What a writer is made of.
pub struct KafkaLogParts {
    /// The shard.
    pub shard: ShardId,
    /// The topic that the blocks go to, and the partition of it.
    pub events: (String, i32),
    /// The topic whose offsets are committed with the blocks, the partition being the same; `None` for a log without requests.
    pub requests: Option<String>,
    /// Who commits.
    pub group: GroupMetadata,
    /// How blocks are written.
    pub form: Form,
    /// How long a transaction is tried again before the writer gives up.
    pub retry_for: Duration,
    /// Set when the shard is no longer wanted here; a writer in trouble then stops trying.
    pub unwanted: Arc<AtomicBool>,
    /// The copy on this machine; it ends where the topic ends.
    pub copy: Box<dyn EventLog>,
}

/// The one writer of a shard.
pub struct KafkaLog<C: Delivers> {
    parts: KafkaLogParts,
    producer: Arc<BaseProducer<C>>,
    caller: Caller<C>,
    head: Head,
    /// Written since the last commit.
    blocks: Vec<SealedBlock>,
    messages: Vec<Outgoing>,
    /// Offset of the next request as it was committed last.
    committed: u64,
    /// Whether a commit failed for good.
    poisoned: Option<String>,
}

/// Why a transaction did not happen.
enum Trouble {
    /// It was given up and may be tried again.
    Again(String),
    /// Another producer has the transactional id.
    Fenced(String),
    /// It may have happened, or can never happen with this producer.
    Fatal(String),
}

impl Trouble {
    /// The same where trying again would not help.
    fn for_good(self) -> Trouble {
        match self {
            Trouble::Again(reason) | Trouble::Fatal(reason) => Trouble::Fatal(reason),
            Trouble::Fenced(reason) => Trouble::Fenced(reason),
        }
    }
}

impl<C: Delivers> KafkaLog<C> {
    /// A writer behind the end of the copy: `producer` is the shard's alone, its transactions initialised, and `committed` is the offset of
    /// the next request there.
    pub fn new(parts: KafkaLogParts, producer: BaseProducer<C>, committed: u64) -> KafkaLog<C> {
        let (head, producer) = (parts.copy.head(), Arc::new(producer));
        let caller = Caller::new(Arc::clone(&producer));
        KafkaLog { parts, producer, caller, head, blocks: Vec::new(), messages: Vec::new(), committed, poisoned: None }
    }

    /// Commits everything that waits, trying again what may be tried again.
    fn commit(&mut self) -> Result<(), LogError> {
        let until = Instant::now() + self.parts.retry_for;
        loop {
            let reason = match self.transaction() {
                Ok(()) => return Ok(()),
                Err(Trouble::Fenced(reason)) => return Err(LogError::Fenced { shard: self.parts.shard, reason }),
                Err(Trouble::Fatal(reason)) => return Err(failed("commit", &self.parts.events.0, reason)),
                Err(Trouble::Again(reason)) => reason,
            };
            if self.parts.unwanted.load(Ordering::Relaxed) || Instant::now() >= until {
                return Err(failed("commit", &self.parts.events.0, reason));
            }
            std::thread::sleep(AGAIN_AFTER);
        }
    }

    fn transaction(&mut self) -> Result<(), Trouble> {
        drop(self.producer.context().take_failure());
        self.producer.begin_transaction().map_err(|error| trouble(&error))?;
        let done = self.fill().and_then(|offsets| self.end(offsets)).and_then(|()| self.wait_stable());
        if let Err(Trouble::Again(_)) = &done {
            self.abort()?;
            self.abort_messages()?;
        }
        done
    }

    /// Gives messages up once more, in a transaction of its own, before the same ones are sent again.
    ///
    /// Brokers may end a transaction in some partitions and forget it in others (see decision 8). What they forgot would be committed with the
    /// same messages when these are tried again. A block that is there twice is skipped by readers; a message is not.
    fn abort_messages(&mut self) -> Result<(), Trouble> {
        let places: BTreeSet<(&str, i32)> =
            self.messages.iter().filter_map(|message| Some((message.topic.as_str(), message.partition?))).collect();
        if places.is_empty() {
            return Ok(());
        }
        self.producer.begin_transaction().map_err(|error| trouble(&error).for_good())?;
        for (topic, partition) in places {
            self.put(BaseRecord::<[u8], [u8]>::to(topic).partition(partition)).map_err(Trouble::for_good)?;
        }
        // What has not arrived when it is given up leaves no marker, and what was forgotten stays forgotten.
        let until = Instant::now() + self.parts.retry_for;
        while self.producer.in_flight_count() > 0 {
            if Instant::now() >= until {
                return Err(Trouble::Fatal("the brokers did not take what ends the messages of a transaction".to_owned()));
            }
            rest(&self.producer);
        }
        if let Some(reason) = self.producer.context().take_failure() {
            return Err(Trouble::Fatal(reason));
        }
        self.abort()
    }

    /// Puts blocks and messages into the transaction; answers with the offset that belongs to them.
    fn fill(&self) -> Result<Option<Offsets>, Trouble> {
        let (topic, partition) = &self.parts.events;
        let key = self.parts.shard.to_string();
        for sealed in &self.blocks {
            let value = self.parts.form.value(sealed, topic).map_err(|error| Trouble::Fatal(error.to_string()))?;
            let record = BaseRecord::to(topic).partition(*partition).key(key.as_bytes()).payload(value.as_slice());
            self.put(record.headers(headers(self.parts.form, sealed)))?;
        }
        for message in &self.messages {
            let mut record = BaseRecord::<[u8], [u8]>::to(&message.topic);
            record.partition = message.partition;
            record.key = message.key.as_deref();
            record.payload = message.value.as_deref();
            let headers = message
                .headers
                .iter()
                .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() }));
            self.put(record.headers(headers))?;
        }
        self.offsets()
    }

    /// Hands a message to the client, waiting while its queue is full.
    fn put(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<(), Trouble> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same)) => {
                    record = same;
                    rest(&self.producer);
                }
                Err((error, _)) => return Err(trouble(&error)),
            }
        }
    }

    /// The offset of the next request, where it has moved.
    fn offsets(&self) -> Result<Option<Offsets>, Trouble> {
        let next = self.blocks.last().map_or(self.committed, |block| block.source_next);
        let Some(requests) = self.parts.requests.as_deref().filter(|_| next != self.committed) else { return Ok(None) };
        let Some(group) = (self.parts.group)() else { return Err(Trouble::Again("this engine is in no group".to_owned())) };
        let mut offsets = TopicPartitionList::new();
        let next = i64::try_from(next).map_err(|error| Trouble::Fatal(error.to_string()))?;
        offsets.add_partition_offset(requests, self.parts.events.1, Offset::Offset(next)).map_err(|error| trouble(&error))?;
        Ok(Some((offsets, group)))
    }

    /// Ends the transaction when the brokers have every message. One that did not answer in time is asked again, for it may have happened.
    fn end(&mut self, mut offsets: Option<Offsets>) -> Result<(), Trouble> {
        let until = Instant::now() + self.parts.retry_for;
        loop {
            match self.caller.commit(offsets.take(), self.parts.retry_for) {
                Err(NoAnswer::Refused(error)) if is_retriable(&error) && Instant::now() < until => {}
                other => return other.map_err(no_answer),
            }
        }
    }

    /// Waits until readers see what was committed.
    ///
    /// A coordinator promises a commit before it has written the end of the transaction to the partitions, and one that breaks down in between
    /// may forget to (see decision 8). What nobody has been told of can be taken up by the next owner then, and may be lost.
    fn wait_stable(&self) -> Result<(), Trouble> {
        let Some(last) = self.producer.context().last_event() else { return Ok(()) };
        let ((topic, partition), began) = (&self.parts.events, Instant::now());
        loop {
            let reason = match self.producer.client().fetch_watermarks(topic, *partition, ASK_WITHIN) {
                Ok((_, stable)) if stable > last => return Ok(()),
                Ok((_, stable)) => {
                    format!("the brokers have committed up to offset {last} and show readers what is before {stable}")
                }
                Err(error) => error.to_string(),
            };
            let within = if self.parts.unwanted.load(Ordering::Relaxed) { STABLE_WITHIN } else { self.parts.retry_for };
            if began.elapsed() >= within.min(self.parts.retry_for) {
                return Err(Trouble::Fatal(reason));
            }
            std::thread::sleep(ASK_AGAIN_AFTER);
        }
    }

    /// Gives the transaction up; without an answer nobody knows whether it is open.
    fn abort(&mut self) -> Result<(), Trouble> {
        self.caller.abort(self.parts.retry_for).map_err(|error| no_answer(error).for_good())
    }

    /// Writes what was committed into the copy.
    fn keep_copy(&mut self) -> Result<(), LogError> {
        self.committed = self.blocks.last().map_or(self.committed, |block| block.source_next);
        self.messages.clear();
        for block in self.blocks.drain(..) {
            self.parts.copy.append(&block)?;
        }
        self.parts.copy.publish()
    }
}

fn is_retriable(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.is_retriable() && !error.txn_requires_abort())
        || matches!(error, KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut))
}

fn no_answer(error: NoAnswer) -> Trouble {
    match error {
        NoAnswer::Refused(error) | NoAnswer::NotPut(error) => trouble(&error),
        NoAnswer::Stuck => {
            Trouble::Fatal("the client did not answer within its time; the shard is opened with a new one".to_owned())
        }
        NoAnswer::NoThread(error) => Trouble::Fatal(format!("no thread to call the client from: {error}")),
    }
}

fn trouble(error: &KafkaError) -> Trouble {
    let reason = error.to_string();
    let transaction = if let KafkaError::Transaction(error) = error { Some(error) } else { None };
    let code = transaction.map_or_else(|| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), RDKafkaError::code);
    if matches!(code, RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch) {
        return Trouble::Fenced(reason);
    }
    let may_again = match transaction {
        Some(error) => !error.is_fatal() && (error.txn_requires_abort() || error.is_retriable()),
        // A message that a broker refused leaves a transaction that must be given up.
        None => code != RDKafkaErrorCode::Fatal,
    };
    if may_again { Trouble::Again(reason) } else { Trouble::Fatal(reason) }
}

impl<C: Delivers> EventLog for KafkaLog<C> {
    fn head(&self) -> Head {
        self.head
    }

    fn append(&mut self, block: &SealedBlock) -> Result<(), LogError> {
        if let Some(reason) = &self.poisoned {
            return Err(LogError::Poisoned { reason: reason.clone() });
        }
        if block.header.first_position != self.head.next {
            return Err(LogError::Gap { expected: self.head.next, found: block.header.first_position });
        }
        if block.header.previous != self.head.hash {
            return Err(LogError::Chain { at: self.head.next, expected: self.head.hash, found: block.header.previous });
        }
        self.head = Head::after(block);
        self.blocks.push(block.clone());
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogError> {
        if let Some(reason) = &self.poisoned {
            return Err(LogError::Poisoned { reason: reason.clone() });
        }
        if self.blocks.is_empty() {
            return Ok(());
        }
        let done = self.commit().and_then(|()| self.keep_copy());
        done.inspect_err(|error| self.poisoned = Some(error.to_string()))
    }

    fn publish(&mut self) -> Result<(), LogError> {
        // There is no cheaper way out of this process than a commit.
        self.sync()
    }

    fn idle(&mut self) -> Result<(), LogError> {
        self.producer.poll(Duration::ZERO);
        self.parts.copy.idle()
    }

    fn space(&self) -> Result<Space, LogError> {
        self.parts.copy.space()
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.parts.copy.reader()
    }

    fn send(&mut self, message: Outgoing) {
        self.messages.push(message);
    }

    fn retain(&mut self, keep_from: Position) -> Result<Position, LogError> {
        self.parts.copy.retain(keep_from)
    }

    fn close(mut self: Box<Self>) -> Result<(), LogError> {
        let synced = if self.poisoned.is_some() { Ok(()) } else { self.sync() };
        let (producer, caller, copy) = (self.producer, self.caller, self.parts.copy);
        // The client takes its time to end its connections, and the next owner of the shard waits for this one.
        let ending = std::thread::Builder::new().name("ergate-goodbye".to_owned()).spawn(move || drop((caller, producer)));
        // Without a thread the producer was dropped here.
        drop(ending);
        synced.and(copy.close())
    }
}
