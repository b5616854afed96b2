//! Takes a shard over: fences its former owner, and brings copy and state up to what is committed. All of it blocks, so it runs on a thread
//! for blocking work.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ergate_events::log::kafka::{Delivers, GroupMetadata, KafkaLog, KafkaLogParts};
use ergate_events::log::{EventLog, LogError};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::copy::{Place, Warm};
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
        let end = self.settle(&producer)?;
        let kept = self.standby.as_ref().and_then(|standby| standby.take(end));
        let was_warm = kept.is_some();
        let warm = match kept {
            Some(warm) => warm.catch_up(&self.place.reader(&self.settings))?,
            None => self.place.warm(&self.settings)?,
        };
        let Warm { copy, audit, snapshot_at, .. } = warm;
        self.check_requests(&producer, audit.state().work.source_next)?;
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
        Ok(Opened { log, reader, state, snapshots: Some(self.place.snapshots()), index: None, snapshot_at })
    }

    /// Makes sure that nothing of the former owner is undecided, and answers with the offset where the log ends: nobody but a shard's owner
    /// writes there, and this engine is that now.
    ///
    /// Under starved brokers shards were found with two histories, at adjacent offsets without a marker between them: as if the former owner's
    /// transaction had ended without its marker, and the new owner's first commit had made both part of the log. So the first transaction of an
    /// owner is one that is given up: its marker ends whatever is open.
    fn settle(&self, producer: &BaseProducer<ShardProducer>) -> Result<i64, LogError> {
        let topic = &self.place.topic.0;
        let failed = |error: KafkaError| self.failed("settle", error.to_string());
        let before = self.end(producer)?;
        producer.begin_transaction().map_err(failed)?;
        let nothing = BaseRecord::<[u8], [u8]>::to(topic).partition(self.place.topic.1).payload(&[]);
        producer.send(nothing).map_err(|(error, _)| failed(error))?;
        self.wait_sent(producer)?;
        producer.abort_transaction(INIT_WITHIN).map_err(failed)?;
        let until = Instant::now() + INIT_WITHIN;
        loop {
            // What was given up and its marker lie behind what was there. Whatever else does was decided only now, and has to be read.
            match self.end(producer)? {
                after if after == before + 2 => return Ok(before),
                after if after > before => return Ok(after),
                _ if Instant::now() < until => std::thread::sleep(ASK_AGAIN_AFTER),
                _ => return Err(self.failed("settle", format!("the brokers do not decide what lies behind offset {before}"))),
            }
        }
    }

    /// Waits until the brokers have what was sent: what has not arrived when it is given up leaves no trace, and no marker.
    fn wait_sent(&self, producer: &BaseProducer<ShardProducer>) -> Result<(), LogError> {
        let until = Instant::now() + INIT_WITHIN;
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::ZERO);
            if let Some(reason) = producer.context().take_failure() {
                return Err(self.failed("settle", reason));
            }
            if Instant::now() >= until {
                return Err(self.failed("settle", "the brokers do not answer".to_owned()));
            }
            std::thread::sleep(ASK_AGAIN_AFTER);
        }
        Ok(())
    }

    /// The offset up to which everything is decided.
    fn end(&self, producer: &BaseProducer<ShardProducer>) -> Result<i64, LogError> {
        let (topic, partition) = &self.place.topic;
        let marks = producer.client().fetch_watermarks(topic, *partition, INIT_WITHIN);
        Ok(marks.map_err(|error| self.failed("ask where it ends", error.to_string()))?.1)
    }

    fn failed(&self, step: &'static str, reason: String) -> LogError {
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
            config.create_with_context(ShardProducer::default()).map_err(|error| failed("make a producer for", error))?;
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

/// What the client of a shard's producer calls.
#[derive(Default)]
pub(crate) struct ShardProducer(Mutex<Option<String>>);

impl ClientContext for ShardProducer {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
}

impl ProducerContext for ShardProducer {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            let reason = format!("{} took no message: {error}", message.topic());
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        }
    }
}

impl Delivers for ShardProducer {
    fn take_failure(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
