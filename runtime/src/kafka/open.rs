//! Takes a shard over: fences its former owner, brings the copy of its log up to what is committed, and folds it. All of it blocks, so it
//! runs on a thread for blocking work.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ergate_events::id::ShardId;
use ergate_events::log::directory::{self, Options, StoreId};
use ergate_events::log::kafka::{GroupMetadata, KafkaLog, KafkaLogParts, KafkaReader, restore_copy};
use ergate_events::log::snapshot::SnapshotStore;
use ergate_events::log::{EventLog, LogError};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

use super::group::log;
use super::logs::{self, CAPACITY};
use super::settings::KafkaSettings;
use crate::store::{Opened, RecoverError, recover};

/// How long the brokers may take to let a producer in and to end what its predecessor left open.
const INIT_WITHIN: Duration = Duration::from_secs(30);

/// Which log is to be opened.
#[derive(Clone)]
pub(crate) struct Opening {
    pub(crate) settings: Arc<KafkaSettings>,
    pub(crate) shard: ShardId,
    /// Where copies are kept.
    pub(crate) data: PathBuf,
    pub(crate) options: Options,
    pub(crate) group: GroupMetadata,
    pub(crate) unwanted: Arc<AtomicBool>,
}

impl Opening {
    /// The topic and partition of the log.
    fn place(&self) -> (String, i32) {
        let topics = self.settings.topics();
        if self.shard == CAPACITY { (topics.capacity, 0) } else { (topics.events, i32::from(self.shard.0)) }
    }

    fn transactional_id(&self) -> String {
        if self.shard == CAPACITY {
            format!("{}-capacity", self.settings.namespace)
        } else {
            format!("{}-{}", self.settings.namespace, self.shard)
        }
    }

    /// Opens it. Blocks.
    ///
    /// # Errors
    /// When the brokers do not answer, the copy cannot be written, or the log contradicts itself.
    pub(crate) fn open(self) -> Result<Opened, RecoverError> {
        let began = Instant::now();
        let producer = self.fence()?;
        let fenced = began.elapsed();
        let (topic, partition) = self.place();
        let reader = KafkaReader::new(&self.settings.client("restore"), &topic, partition, self.shard);
        let dir = self.data.join(&self.settings.namespace).join(self.shard.to_string());
        let store = identity(&producer, &topic, partition);
        let copy = self.copy(&dir, store, &reader)?;
        let head = copy.head();
        let copy_reader = copy.reader();
        let snapshots = SnapshotStore::open(&dir, store.0);
        snapshots.clear_unfinished();
        let (state, snapshot_at) = recover(copy_reader.as_ref(), head, Some(&snapshots))?;
        tracing::info!(
            shard = %self.shard, events = head.next.0, fenced_ms = fenced.as_millis(), all_ms = began.elapsed().as_millis(),
            "a shard is taken over"
        );
        let parts = KafkaLogParts {
            producer,
            shard: self.shard,
            events: (topic, partition),
            requests: (self.shard != CAPACITY).then(|| self.settings.topics().requests),
            group: self.group,
            form: self.settings.form,
            retry_for: self.settings.transaction_timeout,
            unwanted: self.unwanted,
            copy,
        };
        let log: Box<dyn EventLog> = Box::new(KafkaLog::new(parts, state.work.source_next));
        Ok(Opened { log, reader: copy_reader, state, snapshots: Some(snapshots), index: None, snapshot_at })
    }

    /// A producer whose transactional id is the shard's: whoever had it before commits no more, and what it left open is aborted.
    fn fence(&self) -> Result<BaseProducer<ShardProducer>, LogError> {
        let (topic, _) = self.place();
        let failed =
            |step, error: rdkafka::error::KafkaError| LogError::Kafka { step, topic: topic.clone(), reason: error.to_string() };
        let config = self.settings.producer(&self.transactional_id());
        let producer: BaseProducer<ShardProducer> =
            config.create_with_context(ShardProducer).map_err(|error| failed("make a producer", error))?;
        // Without a connection the client looks for its coordinator only every half second.
        let known = producer.client().fetch_metadata(Some(&topic), INIT_WITHIN);
        known.map_err(|error| failed("ask for the topic", error))?;
        producer.init_transactions(INIT_WITHIN).map_err(|error| failed("take the shard over", error))?;
        Ok(producer)
    }

    /// The copy of the log on this machine, up to what is committed. One that is not the beginning of the topic is dropped.
    fn copy(&self, dir: &Path, store: StoreId, topic: &KafkaReader) -> Result<Box<dyn EventLog>, LogError> {
        let options = Options { create: true, store_id: Some(store), ..self.options.clone() };
        match self.up_to_date(dir, &options, store, topic) {
            Err(
                error @ (LogError::Chain { .. }
                | LogError::Gone { .. }
                | LogError::Beyond { .. }
                | LogError::Missing { .. }
                | LogError::Damaged { .. }
                | LogError::Unusable { .. }
                | LogError::Anchor { .. }
                | LogError::Foreign { .. }
                | LogError::Gap { .. }),
            ) => {
                tracing::warn!(shard = %self.shard, %error, "the copy of this shard does not go on in its topic and is made anew");
                std::fs::remove_dir_all(dir).map_err(|source| LogError::Io { step: "remove", path: dir.to_owned(), source })?;
                self.up_to_date(dir, &options, store, topic)
            }
            other => other,
        }
    }

    fn up_to_date(
        &self,
        dir: &Path,
        options: &Options,
        store: StoreId,
        topic: &KafkaReader,
    ) -> Result<Box<dyn EventLog>, LogError> {
        if let Some(parent) = dir.parent() {
            std::fs::create_dir_all(parent).map_err(|source| LogError::Io { step: "create", path: parent.to_owned(), source })?;
        }
        let (mut copy, recovery) = directory::open(dir, options)?;
        if recovery.store != store {
            return Err(LogError::Foreign {
                path: dir.to_owned(),
                reason: "it is a copy of another cluster's or namespace's log",
            });
        }
        restore_copy(copy.as_mut(), topic)?;
        Ok(copy)
    }
}

/// The identity of a copy: of which partition of which cluster it is.
fn identity(producer: &BaseProducer<ShardProducer>, topic: &str, partition: i32) -> StoreId {
    let cluster = producer.client().fetch_cluster_id(Duration::from_secs(5)).unwrap_or_default();
    logs::store(&cluster, topic, partition)
}

/// What the client of a shard's producer calls.
pub(crate) struct ShardProducer;

impl ClientContext for ShardProducer {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
}

impl ProducerContext for ShardProducer {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
