//! Takes a shard over: fences its former owner, and brings copy and state up to what is committed. All of it blocks, so it runs on a thread
//! for blocking work.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ergate_events::log::kafka::{Delivers, GroupMetadata, KafkaLog, KafkaLogParts};
use ergate_events::log::{EventLog, LogError};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::copy::{Place, Warm, is_other_history};
use super::ends::Ends;
use super::group::log;
use super::logs::CAPACITY;
use super::settings::KafkaSettings;
use super::standby::Taking;
use crate::store::{Opened, RecoverError};

/// How long the brokers may take to let a producer in and to end what its predecessor left open.
const INIT_WITHIN: Duration = Duration::from_secs(30);
/// How long the client is waited for before it is asked to try again. Left alone it tries every half second, and the brokers put it off as a
/// rule: they still end what the shard's former owner did last.
const INIT_TRY: Duration = Duration::from_millis(30);

/// How long it is waited before the brokers are asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// Which log is to be opened.
pub(crate) struct Opening {
    pub(crate) settings: Arc<KafkaSettings>,
    pub(crate) place: Place,
    pub(crate) group: GroupMetadata,
    pub(crate) unwanted: Arc<AtomicBool>,
    /// Gives what was kept warm of the shard.
    pub(crate) standby: Option<Taking>,
    /// Its partitions of the dead letters and of the results.
    pub(crate) beside: (i32, i32),
    /// Tells where partitions are undecided.
    pub(crate) ends: Arc<Ends>,
}

impl Opening {
    fn transactional_id(&self) -> String {
        let namespace = self.settings.namespace();
        if self.place.shard == CAPACITY { format!("{namespace}-capacity") } else { format!("{namespace}-{}", self.place.shard) }
    }

    /// Opens it. Blocks.
    ///
    /// # Errors
    /// When the brokers do not answer, the copy cannot be written, or the log contradicts itself.
    pub(crate) fn open(self) -> Result<Opened, RecoverError> {
        let began = Instant::now();
        let producer = self.fence()?;
        let fenced = began.elapsed();
        let Marked { end, blocks: revived } = self.mark_end(&producer)?;
        let kept = self.standby.as_ref().and_then(|standby| standby.take(end));
        let was_warm = kept.is_some();
        let warm = match kept {
            Some(warm) if revived == 0 && warm.reaches(end) => warm,
            kept => {
                self.wait_decided(&producer, end)?;
                match kept.map(|warm| warm.catch_up(&self.place.reader(&self.settings))) {
                    Some(Ok(warm)) => warm,
                    // One that does not go on in the topic is kept aside and made anew.
                    Some(Err(RecoverError::Log(error))) if is_other_history(&error) => self.place.warm(&self.settings)?,
                    Some(Err(error)) => return Err(error),
                    None => self.place.warm(&self.settings)?,
                }
            }
        };
        let Warm { copy, audit, snapshot_at, .. } = warm;
        self.check_requests(&producer, audit.state().work.source_next)?;
        self.settle_beside(&producer, audit.state())?;
        let (shard, events) = (self.place.shard, copy.head().next.0);
        let (fenced_ms, all_ms) = (fenced.as_millis(), began.elapsed().as_millis());
        tracing::info!(%shard, events, was_warm, fenced_ms, all_ms, "a shard is taken over");
        let (reader, state) = (copy.reader(), audit.into_state());
        let parts = KafkaLogParts {
            shard,
            events: self.place.topic.clone(),
            requests: (shard != CAPACITY).then(|| self.settings.topics().requests),
            group: self.group,
            form: self.settings.form,
            retry_for: self.settings.transaction_timeout(),
            unwanted: self.unwanted,
            copy,
        };
        let log: Box<dyn EventLog> = Box::new(KafkaLog::new(parts, producer, state.work.source_next));
        let index = self.place.index(&reader);
        Ok(Opened { log, reader, state, snapshots: Some(self.place.snapshots()), index, snapshot_at })
    }

    /// Makes sure that nothing of the former owner stays undecided, and answers with the offset where the log ends: nobody but a shard's owner
    /// writes there, and this engine is that now.
    ///
    /// The first transaction of an owner is a message without a value that is given up. Behind it nobody else can write any more, and its marker
    /// ends whatever was still open, also a transaction whose own marker got lost: all of a producer that is open in a partition is one
    /// transaction there. The brokers have decided everything of the former owner by now, so what is still open is such a one, and may have been
    /// called committed. Where the log goes on with it, the message is committed, and what was open with it.
    fn mark_end(&self, producer: &BaseProducer<ShardProducer>) -> Result<Marked, LogError> {
        let (topic, partition) = &self.place.topic;
        let end = self.begin(producer, topic, *partition)?;
        let blocks = self.undecided(producer, end)?;
        self.end_what_lies(producer, blocks > 0)?;
        Ok(Marked { end, blocks })
    }

    /// Begins a transaction with an empty message, and answers with its offset.
    pub(super) fn begin(&self, producer: &BaseProducer<ShardProducer>, topic: &str, partition: i32) -> Result<i64, LogError> {
        let failed = |error: KafkaError| self.failed("mark the end of", error.to_string());
        producer.context().forget_sent();
        producer.begin_transaction().map_err(failed)?;
        let nothing = BaseRecord::<[u8], [u8]>::to(topic).partition(partition);
        producer.send(nothing).map_err(|(error, _)| failed(error))?;
        self.wait_sent(producer)
    }

    /// Ends the transaction that began with an empty message, and with it what lies undecided before that.
    pub(super) fn end_what_lies(&self, producer: &BaseProducer<ShardProducer>, is_kept: bool) -> Result<(), LogError> {
        let ended = if is_kept { producer.commit_transaction(INIT_WITHIN) } else { producer.abort_transaction(INIT_WITHIN) };
        ended.map_err(|error| self.failed("mark the end of", error.to_string()))
    }

    /// How many blocks before this owner's first message are still undecided and go on from the log.
    fn undecided(&self, producer: &BaseProducer<ShardProducer>, own: i64) -> Result<u64, LogError> {
        let decided = self.end(producer)?;
        if decided >= own {
            return Ok(0);
        }
        let (shard, blocks) = (self.place.shard, self.place.reader(&self.settings).goes_on(decided, own)?);
        match blocks {
            Some(0) => {}
            Some(blocks) => {
                tracing::warn!(%shard, blocks, offset = decided, "brokers lost the end of a transaction; its blocks are kept")
            }
            None => {
                tracing::error!(%shard, offset = decided, "what brokers left undecided does not go on from the log and is given up")
            }
        }
        Ok(blocks.unwrap_or_default())
    }

    /// Waits until what this owner gave up is decided, and with it everything before.
    fn wait_decided(&self, producer: &BaseProducer<ShardProducer>, own: i64) -> Result<(), LogError> {
        let until = Instant::now() + INIT_WITHIN;
        while self.end(producer)? <= own {
            if Instant::now() >= until {
                return Err(self.failed("read", format!("the brokers do not decide what lies before offset {own}")));
            }
            std::thread::sleep(ASK_AGAIN_AFTER);
        }
        Ok(())
    }

    /// Waits until the brokers have what was sent, and answers with its offset: what has not arrived when it is given up leaves no trace, and
    /// no marker.
    fn wait_sent(&self, producer: &BaseProducer<ShardProducer>) -> Result<i64, LogError> {
        let until = Instant::now() + INIT_WITHIN;
        loop {
            producer.poll(Duration::ZERO);
            if let Some(offset) = producer.context().sent() {
                return Ok(offset);
            }
            if let Some(reason) = producer.context().take_failure() {
                return Err(self.failed("mark the end of", reason));
            }
            if Instant::now() >= until {
                return Err(self.failed("mark the end of", "the brokers do not answer".to_owned()));
            }
            std::thread::sleep(ASK_AGAIN_AFTER);
        }
    }

    /// The offset up to which everything is decided.
    fn end(&self, producer: &BaseProducer<ShardProducer>) -> Result<i64, LogError> {
        let (topic, partition) = &self.place.topic;
        let marks = producer.client().fetch_watermarks(topic, *partition, INIT_WITHIN);
        Ok(marks.map_err(|error| self.failed("ask where it ends", error.to_string()))?.1)
    }

    pub(super) fn failed(&self, step: &'static str, reason: String) -> LogError {
        LogError::Kafka { step, topic: self.place.topic.0.clone(), reason }
    }

    /// Whether the requests go on where the log says. A topic that was made anew counts from the beginning again, and its requests would be
    /// taken for answered ones.
    fn check_requests(&self, producer: &BaseProducer<ShardProducer>, next: u64) -> Result<(), LogError> {
        if self.place.shard == CAPACITY {
            return Ok(());
        }
        let topic = self.settings.topics().requests;
        let failed = |reason: String| LogError::Kafka { step: "read on", topic: topic.clone(), reason };
        let marks = producer.client().fetch_watermarks(&topic, self.place.topic.1, INIT_WITHIN);
        let (low, high) = marks.map_err(|error| failed(error.to_string()))?;
        let (low, high) = (u64::try_from(low).unwrap_or_default(), u64::try_from(high).unwrap_or_default());
        if high < next {
            let reason =
                format!("it ends at {high} and record {next} is the next one by the log: it was made anew; use a new namespace");
            return Err(failed(reason));
        }
        if low > next {
            let lost = low - next;
            tracing::error!(shard = %self.place.shard, lost, "records of the requests were deleted before anybody read them; give the topic a longer retention");
        }
        Ok(())
    }

    /// A producer whose transactional id is the shard's: whoever had it before commits no more, and what it left open is aborted.
    fn fence(&self) -> Result<BaseProducer<ShardProducer>, LogError> {
        let topic = &self.place.topic.0;
        let failed = |step, error: KafkaError| LogError::Kafka { step, topic: topic.clone(), reason: error.to_string() };
        let config = self.settings.producer(&self.transactional_id());
        let producer: BaseProducer<ShardProducer> =
            config.create_with_context(ShardProducer::new(topic)).map_err(|error| failed("make a producer for", error))?;
        // Without a connection the client looks for its coordinator only every half second.
        let known = producer.client().fetch_metadata(Some(topic), INIT_WITHIN);
        known.map_err(|error| failed("ask for", error))?;
        let until = Instant::now() + INIT_WITHIN;
        loop {
            match producer.init_transactions(INIT_TRY) {
                Ok(()) => return Ok(producer),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < until => {}
                Err(error) => return Err(failed("take over", error)),
            }
        }
    }
}

/// The end of a log that nobody else writes any more.
struct Marked {
    /// Its offset.
    end: i64,
    /// Blocks before it that brokers had left undecided and that are kept.
    blocks: u64,
}

/// What the client of a shard's producer calls.
pub(crate) struct ShardProducer {
    /// Why the brokers did not take a message, until somebody takes that.
    failure: Mutex<Option<String>>,
    /// Offset of the message that the brokers took last, if they took any.
    sent: AtomicI64,
    /// The same for the topic of the events alone.
    events: String,
    last_event: AtomicI64,
}

/// No message was taken.
const NONE_SENT: i64 = -1;

impl ShardProducer {
    /// What is called for the producer of a log whose events go to this topic.
    pub(crate) fn new(events: &str) -> ShardProducer {
        let none = || AtomicI64::new(NONE_SENT);
        ShardProducer { failure: Mutex::new(None), sent: none(), events: events.to_owned(), last_event: none() }
    }

    fn forget_sent(&self) {
        self.sent.store(NONE_SENT, Ordering::Release);
    }

    fn sent(&self) -> Option<i64> {
        Some(self.sent.load(Ordering::Acquire)).filter(|offset| *offset != NONE_SENT)
    }

    fn failure(&self) -> MutexGuard<'_, Option<String>> {
        // Every change is one assignment, so a panic leaves nothing halfway.
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for ShardProducer {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
}

impl ProducerContext for ShardProducer {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => {
                self.sent.store(message.offset(), Ordering::Release);
                if message.topic() == self.events && message.offset() >= 0 {
                    self.last_event.store(message.offset(), Ordering::Release);
                }
            }
            Err((error, message)) => {
                let reason = format!("{} took no message: {error}", message.topic());
                self.failure().get_or_insert(reason);
            }
        }
    }
}

impl Delivers for ShardProducer {
    fn take_failure(&self) -> Option<String> {
        self.failure().take()
    }

    fn last_event(&self) -> Option<i64> {
        Some(self.last_event.load(Ordering::Acquire)).filter(|offset| *offset != NONE_SENT)
    }
}
