//! The logs of a namespace, for those who only read them.

use ergate_events::id::ShardId;
use ergate_events::log::LogError;
use ergate_events::log::directory::StoreId;
use ergate_events::log::kafka::{KafkaReader, Patience};

use super::settings::KafkaSettings;
pub use crate::shards::{CAPACITY, shard_name, shard_named};

/// A reader of each shard, and of the log of pools.
#[derive(Clone)]
pub struct Logs {
    /// By number, the log of pools last.
    pub readers: Vec<KafkaReader>,
    cluster: String,
}

impl Logs {
    /// Asks the brokers which shards there are.
    ///
    /// # Errors
    /// [`LogError::NoTopic`] where the namespace has no topics, [`LogError::Kafka`] when the brokers do not answer.
    pub fn find(settings: &KafkaSettings, patience: Patience) -> Result<Logs, LogError> {
        let topics = settings.topics();
        let capacity = KafkaReader::new(&settings.client("reader"), &topics.capacity, 0, CAPACITY).waiting(patience);
        let first = capacity.beside(&topics.events, 0, ShardId(0));
        let count = first.partitions()?;
        let shards = (0..).map(ShardId).take(count).filter(|shard| *shard != CAPACITY);
        let mut readers: Vec<_> = shards.map(|shard| first.beside(&topics.events, i32::from(shard.0), shard)).collect();
        if capacity.partitions()? > 0 {
            readers.push(capacity);
        }
        Ok(Logs { readers, cluster: first.cluster()? })
    }

    /// The identity of copies of a reader's log.
    pub fn store(&self, reader: &KafkaReader) -> StoreId {
        let (topic, partition) = reader.place();
        store(&self.cluster, topic, partition)
    }
}

/// The identity of copies of a log: of which partition of which cluster they are.
pub(crate) fn store(cluster: &str, topic: &str, partition: i32) -> StoreId {
    StoreId::derived(&format!("{cluster}/{topic}/{partition}"))
}
