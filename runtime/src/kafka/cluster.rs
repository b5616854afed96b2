//! What an engine must find before it joins: brokers that answer, and the topics of its namespace.

use std::time::{Duration, Instant};

use ergate_events::id::ShardId;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;

use super::context::Listener;
use super::logs::CAPACITY;
use super::settings::KafkaSettings;
use crate::runtime::StartError;

/// How long the brokers may take to answer before an engine gives up starting: they may be starting too.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long the first try of that may take; each later one takes twice as long. The client gives up its connection with a request that was not
/// answered in time, so on a machine that is too busy for short tries they would never succeed.
const TRY_FOR: Duration = Duration::from_secs(2);
/// How long a topic is looked for: the brokers tell each other of a new one within a moment.
const APPEAR_WITHIN: Duration = Duration::from_secs(3);
/// Pause before the brokers are asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How often a client is asked why it failed, and how long each time: librdkafka says one thing at a time.
const REASON_POLLS: u32 = 10;
const REASON_POLL: Duration = Duration::from_millis(10);

/// What an engine needs to know of the brokers before it joins.
pub(super) struct Cluster {
    pub(super) id: String,
    pub(super) shards: u16,
    /// Partitions of the topics of dead letters and of results.
    pub(super) beside: Beside,
}

/// How many partitions the topics have that get messages beside the events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside {
    letters: i32,
    results: i32,
}

impl Beside {
    /// A shard's partition of the dead letters, and of the results: the one of its number where they have as many partitions as the events.
    pub(super) const fn of(self, shard: ShardId) -> (i32, i32) {
        let shard = shard.0 as i32;
        (shard % self.letters, shard % self.results)
    }
}

impl Cluster {
    /// Asks the brokers, and looks for the topics that no engine can do without. Blocks.
    ///
    /// # Errors
    /// [`StartError::Brokers`] and [`StartError::Topic`].
    pub(super) fn ask(settings: &KafkaSettings) -> Result<Cluster, StartError> {
        let client = settings.client("engine").create_with_context(Listener::default());
        let client = client.map_err(|error| unreachable(settings, error.to_string()))?;
        let asking = Asking { settings, client };
        let topics = settings.topics();
        let (shards, events) = (asking.partitions(&topics.requests)?, asking.partitions(&topics.events)?);
        if shards != events {
            return Err(asking.wrong(&topics.events, format!("has {events} partitions, and {} has {shards}", topics.requests)));
        }
        [topics.snapshots, topics.capacity].into_iter().try_for_each(|topic| asking.partitions(&topic).map(drop))?;
        // Any request may ask for an answer on the topic of results.
        let count = |topic: &str| asking.partitions(topic).map(|count| i32::try_from(count).unwrap_or(i32::MAX));
        let beside = Beside { letters: count(&topics.dead_letters)?, results: count(&topics.results)? };
        let shards = u16::try_from(shards)
            .ok()
            .filter(|shards| *shards < CAPACITY.0)
            .ok_or_else(|| asking.wrong(&topics.requests, format!("has {shards} partitions, more than this build leads")))?;
        let id = asking.client.client().fetch_cluster_id(ANSWER_WITHIN);
        let id = id.ok_or_else(|| unreachable(settings, "they do not tell the id of their cluster".to_owned()))?;
        Ok(Cluster { id, shards, beside })
    }
}

/// A client that asks; a consumer, for a producer would have topics made that it asks for.
struct Asking<'a> {
    settings: &'a KafkaSettings,
    client: BaseConsumer<Listener>,
}

impl Asking<'_> {
    /// How many partitions a topic has.
    fn partitions(&self, topic: &str) -> Result<usize, StartError> {
        let until = Instant::now() + APPEAR_WITHIN;
        loop {
            let known = self.metadata(topic)?;
            let found = known.topics().iter().find(|found| found.name() == topic && found.error().is_none());
            if let Some(count) = found.map(|found| found.partitions().len()).filter(|count| *count > 0) {
                return Ok(count);
            }
            if Instant::now() >= until {
                return Err(self.wrong(topic, "does not exist".to_owned()));
            }
            std::thread::sleep(AGAIN_AFTER);
        }
    }

    /// What the brokers know of a topic; they are waited for, unless they do not let this client in.
    fn metadata(&self, topic: &str) -> Result<Metadata, StartError> {
        let (until, mut try_for) = (Instant::now() + ANSWER_WITHIN, TRY_FOR);
        loop {
            let error = match self.client.fetch_metadata(Some(topic), try_for) {
                Ok(known) => return Ok(known),
                Err(error) => error,
            };
            // What the connections have to say comes only when they are asked.
            (0..REASON_POLLS).for_each(|_| drop(self.client.poll(REASON_POLL)));
            if let Some(reason) = self.client.context().denial() {
                return Err(StartError::Denied { brokers: self.settings.url.bootstrap(), reason });
            }
            if Instant::now() >= until {
                return Err(self.no_answer(&error));
            }
            try_for *= 2;
        }
    }

    fn no_answer(&self, error: &KafkaError) -> StartError {
        unreachable(self.settings, self.client.context().reason().unwrap_or_else(|| error.to_string()))
    }

    fn wrong(&self, topic: &str, reason: String) -> StartError {
        let command = format!("ergate kafka init --log {}", self.settings.url);
        StartError::Topic { topic: topic.to_owned(), reason, command }
    }
}

fn unreachable(settings: &KafkaSettings, reason: String) -> StartError {
    StartError::Brokers { brokers: settings.url.bootstrap(), reason }
}
