//! How an engine uses Kafka: where, how patiently, and what it writes.

use std::str::FromStr;
use std::time::Duration;

use ergate_events::log::kafka::Form;
use rdkafka::config::ClientConfig;

use super::client::Settings;
use super::peers;
use super::topics::Topic;
use super::url::{KafkaUrl, Namespace, UrlError};

/// The names of the topics of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Requests, written by anybody.
    pub requests: String,
    /// The record, as many partitions as the requests.
    pub events: String,
    /// States to begin a fold with.
    pub snapshots: String,
    /// Pools and their sizes.
    pub capacity: String,
    /// Records that were no requests.
    pub dead_letters: String,
    /// Ends of tasks.
    pub results: String,
}

impl Topics {
    /// The topics of a namespace.
    pub fn of(namespace: &Namespace) -> Topics {
        Topics {
            requests: namespace.topic(Topic::Requests),
            events: namespace.topic(Topic::Events),
            snapshots: namespace.topic(Topic::Snapshots),
            capacity: namespace.topic(Topic::Capacity),
            dead_letters: namespace.topic(Topic::Dlq),
            results: namespace.topic(Topic::Results),
        }
    }
}

/// How an engine uses Kafka.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// Where the log is.
    pub url: KafkaUrl,
    /// How its clients behave.
    pub clients: Settings,
    /// Time between two commits of a shard that are not full. Shorter answers sooner, longer costs the brokers less.
    pub batch_time: Duration,
    /// Bytes of events that a shard may have on their way to the brokers. More carries more at once and costs memory.
    pub batch_bytes: usize,
    /// How blocks are written.
    pub form: Form,
    /// Time between two snapshots of a shard in which something happened.
    pub snapshot_every: Duration,
    /// Whether the end of every task is told on the results topic.
    pub results: bool,
    /// Topics that requests may have answers sent to, beside the results topic.
    pub reply_topics: Vec<String>,
    /// Whether this engine keeps warm what others lead: copies on disk, states in memory. Taking a shard over then takes no fold.
    pub standby: bool,
    /// Where other engines reach this one over HTTP, such as `http://10.0.0.7:7420`; `None` where it serves none. The group tells the others.
    pub advertise: Option<String>,
}

impl From<KafkaUrl> for KafkaSettings {
    /// The defaults for this place.
    fn from(url: KafkaUrl) -> KafkaSettings {
        KafkaSettings {
            url,
            clients: Settings::default(),
            batch_time: Duration::from_millis(10),
            batch_bytes: 1 << 20,
            form: Form::Json,
            snapshot_every: Duration::from_secs(60),
            results: false,
            reply_topics: Vec::new(),
            standby: true,
            advertise: None,
        }
    }
}

impl FromStr for KafkaSettings {
    type Err = UrlError;

    /// Reads `kafka://HOST:PORT,…/NAMESPACE`.
    fn from_str(text: &str) -> Result<KafkaSettings, UrlError> {
        text.parse().map(|url: KafkaUrl| url.into())
    }
}

impl KafkaSettings {
    /// The names of its topics.
    pub fn topics(&self) -> Topics {
        Topics::of(self.url.namespace())
    }

    /// Topics that answers may go to.
    pub(crate) fn reply_topics(&self) -> Vec<String> {
        self.reply_topics.iter().cloned().chain([self.topics().results]).collect()
    }

    /// What the names of everything begin with.
    pub(crate) fn namespace(&self) -> String {
        self.url.namespace().to_string()
    }

    /// The group that shares the shards out.
    pub(crate) fn group(&self) -> String {
        self.url.namespace().group()
    }

    /// What every client needs.
    pub(crate) fn client(&self, role: &str) -> ClientConfig {
        let mut config = self.clients.common(&self.url);
        if self.clients.get("client.id").is_none() {
            config.set("client.id", format!("ergate-{role}"));
        }
        config
    }

    /// The member of the group.
    pub(crate) fn member(&self) -> ClientConfig {
        let mut config = self.clients.consumer(&self.url);
        if let Some(address) = &self.advertise {
            let name = config.get("client.id").unwrap_or_default().to_owned();
            config.set("client.id", peers::client_id(&name, address));
        }
        // What is fetched ahead is dropped when a shard goes; a few megabytes keep a shard busy.
        config.set("queued.max.messages.kbytes", "16384").set("fetch.queue.backoff.ms", "10");
        config
    }

    /// The producer of a shard.
    pub(crate) fn producer(&self, transactional_id: &str) -> ClientConfig {
        self.clients.producer(&self.url, transactional_id)
    }

    /// How long a transaction may stay open; what a dead engine left open holds readers up for as long.
    pub(crate) const fn transaction_timeout(&self) -> Duration {
        self.clients.transaction_timeout
    }
}
