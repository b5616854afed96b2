//! Where the brokers are, what the topics are called, and how patient an engine is.

use std::str::FromStr;
use std::time::Duration;

use ergate_events::log::kafka::Form;
use rdkafka::config::ClientConfig;

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
    pub fn of(namespace: &str) -> Topics {
        let name = |suffix: &str| format!("{namespace}.{suffix}");
        Topics {
            requests: name("requests"),
            events: name("events"),
            snapshots: name("snapshots"),
            capacity: name("capacity"),
            dead_letters: name("dlq"),
            results: name("results"),
        }
    }
}

/// Before every address of a log on Kafka.
const SCHEME: &str = "kafka://";

/// A text that is no address of a log on Kafka. It is not repeated, for it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the address of a log on Kafka is kafka://HOST:PORT/NAMESPACE, with commas between several brokers; options go elsewhere"
)]
pub struct AddressError;

/// How an engine uses Kafka.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// Brokers to begin with: `host:port`, separated by commas.
    pub brokers: String,
    /// What the names of the topics begin with.
    pub namespace: String,
    /// Time between two commits of a shard that are not full. Shorter answers sooner, longer costs the brokers less.
    pub batch_time: Duration,
    /// How long the group waits for an engine that says nothing before its shards go to others.
    pub session_timeout: Duration,
    /// How often an engine tells the group that it lives; it hears of changes as often.
    pub heartbeat: Duration,
    /// How long a transaction may stay open; what a dead engine left open holds readers up for as long.
    pub transaction_timeout: Duration,
    /// How blocks are written.
    pub form: Form,
    /// Whether the end of every task is told on the results topic.
    pub results: bool,
    /// Topics that requests may have answers sent to, beside the results topic.
    pub reply_topics: Vec<String>,
    /// Options of librdkafka, given to every client.
    pub options: Vec<(String, String)>,
}

impl KafkaSettings {
    /// The defaults for these brokers and this namespace.
    pub fn new(brokers: &str, namespace: &str) -> KafkaSettings {
        KafkaSettings {
            brokers: brokers.to_owned(),
            namespace: namespace.to_owned(),
            batch_time: Duration::from_millis(10),
            session_timeout: Duration::from_secs(6),
            heartbeat: Duration::from_millis(200),
            transaction_timeout: Duration::from_secs(10),
            form: Form::Json,
            results: false,
            reply_topics: Vec::new(),
            options: Vec::new(),
        }
    }

    /// The address of the log, as it is parsed back.
    pub fn address(&self) -> String {
        format!("{SCHEME}{}/{}", self.brokers, self.namespace)
    }

    /// The names of the topics.
    pub fn topics(&self) -> Topics {
        Topics::of(&self.namespace)
    }

    /// The name of the group that shares the shards out.
    pub fn group(&self) -> String {
        format!("{}.engines", self.namespace)
    }

    /// What every client needs.
    pub fn client(&self, role: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", format!("ergate-{role}"))
            // A broker that comes back is tried again soon; the default grows to ten seconds.
            .set("reconnect.backoff.max.ms", "1000")
            // Waiting for markers of the transaction before is the usual case, and takes a few milliseconds.
            .set("retry.backoff.ms", "5")
            .set("socket.keepalive.enable", "true");
        for (name, value) in &self.options {
            config.set(name, value);
        }
        config
    }

    /// The member of the group.
    pub(crate) fn member(&self) -> ClientConfig {
        let mut config = self.client("engine");
        let millis = |span: Duration| span.as_millis().to_string();
        config
            .set("group.id", self.group())
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", millis(self.session_timeout))
            .set("heartbeat.interval.ms", millis(self.heartbeat))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            // What is fetched ahead is dropped when a shard goes; a few megabytes keep a shard busy.
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.queue.backoff.ms", "10");
        config
    }

    /// The producer of a shard.
    pub(crate) fn producer(&self, transactional_id: &str) -> ClientConfig {
        let mut config = self.client("shard");
        config
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", self.transaction_timeout.as_millis().to_string())
            // The log thread has gathered already.
            .set("linger.ms", "0")
            .set("compression.type", "lz4")
            .set("message.max.bytes", "8388608");
        config
    }
}

/// The defaults for an address: `kafka://HOST:PORT,HOST:PORT/NAMESPACE`.
impl FromStr for KafkaSettings {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<KafkaSettings, AddressError> {
        let (brokers, namespace) = text.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')).ok_or(AddressError)?;
        let is_broker = |broker: &str| !broker.is_empty() && !broker.contains(['@', '?', '#', ' ']);
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let is_right = brokers.split(',').all(is_broker) && !namespace.is_empty() && namespace.bytes().all(is_name);
        if is_right { Ok(KafkaSettings::new(brokers, namespace)) } else { Err(AddressError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_brokers_and_a_namespace_and_nothing_else() {
        let settings: KafkaSettings = "kafka://a:9092,b:9093/shop.v2".parse().expect("it is one");
        assert_eq!((settings.brokers.as_str(), settings.namespace.as_str()), ("a:9092,b:9093", "shop.v2"));
        assert_eq!(settings.address(), "kafka://a:9092,b:9093/shop.v2");
        for text in
            ["a:9092/ns", "kafka://a:9092", "kafka://a/", "kafka:///ns", "kafka://a,,b/ns", "kafka://a/n/s", "kafka://u@a/ns"]
        {
            assert_eq!(text.parse::<KafkaSettings>().err(), Some(AddressError), "{text}");
        }
    }
}
