//! Follows several shards at once, with one client.
#![expect(clippy::disallowed_methods, reason = "how long the brokers are waited for changes nothing that is recorded")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::chained::Chained;
use super::failed;
use super::message::Received;
use super::reader::{Extent, KafkaReader};
use super::walk::{AT_END, Client, Listener, is_final};
use crate::block::Block;
use crate::log::{Cursor, LogError};

/// How often it is looked whether trouble is over: the client does not say when it is.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How long that may take.
const LOOK_FOR: Duration = Duration::from_secs(1);

/// What is committed to several partitions from now on, in the order in which it arrives; in the order of the log within each of them.
pub struct KafkaTail {
    client: Client,
    shards: BTreeMap<(String, i32), Chained>,
    listener: Option<Listener>,
    /// Since when the client has had trouble, and when it was last looked whether it still has.
    trouble: Option<(Instant, Instant)>,
}

impl KafkaTail {
    /// Follows the logs of these readers from the ends that were found. Waits for brokers that are away without end; the listener of the
    /// first reader hears of it.
    ///
    /// # Errors
    /// [`LogError::Kafka`] for settings that make no client.
    pub fn new(ends: &[(KafkaReader, Extent)]) -> Result<KafkaTail, LogError> {
        let first = ends.first().map(|(reader, _)| reader);
        let Some(reader) = first else { return Err(failed("follow", "no topic", "there is nothing to follow")) };
        let client = reader.clients.take().map_err(|error| failed("follow", reader.place().0, error))?;
        let mut assignment = TopicPartitionList::new();
        let mut shards = BTreeMap::new();
        for (reader, extent) in ends {
            let (topic, partition) = reader.place();
            let added = assignment.add_partition_offset(topic, partition, Offset::Offset(extent.offsets.stable));
            added.map_err(|error| failed("follow", topic, error))?;
            shards.insert((topic.to_owned(), partition), Chained::anywhere(reader.shard(), extent.span.next));
        }
        client.assign(&assignment).map_err(|error| failed("follow", reader.place().0, error))?;
        Ok(KafkaTail { client, shards, listener: reader.patience.listener.clone(), trouble: None })
    }

    /// Looks from time to time whether trouble is over, and says when it is not.
    fn look(&mut self, reason: &str) {
        let now = Instant::now();
        let (since, looked) = *self.trouble.get_or_insert((now, now));
        if looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.trouble = Some((since, now));
        let Some((topic, partition)) = self.shards.keys().next() else { return };
        if self.client.fetch_watermarks(topic, *partition, LOOK_FOR).is_ok() {
            self.trouble = None;
        } else if let Some(listener) = &self.listener {
            listener(since.elapsed(), reason);
        }
    }
}

impl Cursor for KafkaTail {
    fn next_block(&mut self) -> Result<Option<Block>, LogError> {
        loop {
            match self.client.poll(AT_END) {
                Some(Ok(message)) => {
                    let place = (message.topic().to_owned(), message.partition());
                    self.trouble = None;
                    let Some(chained) = self.shards.get_mut(&place) else { continue };
                    if let Some(received) = Received::of(&message)?
                        && chained.takes(&received)?
                    {
                        return Ok(Some(received.block));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) if is_final(&error) => return Err(failed("follow", "the topics", error)),
                Some(Err(error)) => self.look(&error.to_string()),
                None => {
                    if self.trouble.is_some() {
                        self.look("the brokers do not answer");
                    }
                    return Ok(None);
                }
            }
        }
    }
}
