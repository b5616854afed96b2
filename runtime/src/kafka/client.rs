//! The configuration of every client: ours, and over it what the user sets, except where that would break a promise.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::topics::EVENT_BYTES_MAX;
use super::url::KafkaUrl;

/// How the clients of a log on Kafka behave.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long an engine may be silent until its shards are given to others.
    pub session_timeout: Duration,
    /// How often an engine says that it lives.
    pub heartbeat_interval: Duration,
    /// How long a transaction may stay open.
    pub transaction_timeout: Duration,
    options: BTreeMap<String, String>,
}

/// Why an option cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the option {name} of librdkafka cannot be set: {reason}")]
pub struct Refused {
    /// Its name.
    pub name: String,
    /// What it would break.
    pub reason: &'static str,
}

/// Options that correctness needs as they are, and what another value would break.
const REFUSED: [(&str, &str); 8] = [
    ("isolation.level", "readers must not see what a transaction took back; engines read read_committed"),
    ("enable.auto.commit", "the position in the requests is committed in the transaction of the events that follow from them"),
    ("enable.idempotence", "a retry after a lost answer must not write events twice"),
    ("transactional.id", "it names the shard, and fences its former owner"),
    ("group.id", "owning a partition in the namespace's own group is owning the shard"),
    ("bootstrap.servers", "the brokers are in the address of the log"),
    ("metadata.broker.list", "the brokers are in the address of the log"),
    (
        "partition.assignment.strategy",
        "all engines of a namespace must agree on it; it is cooperative-sticky, so that a rebalance stops no other shard",
    ),
];

/// Options of ours that have two names in librdkafka, the other one first.
const ALIASES: [(&str, &str); 5] = [
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("compression.codec", "compression.type"),
    ("request.required.acks", "acks"),
    ("sasl.mechanisms", "sasl.mechanism"),
];

impl Default for Settings {
    fn default() -> Settings {
        Settings::new(Duration::from_secs(6), Duration::from_millis(200), Duration::from_secs(10))
    }
}

impl fmt::Debug for Settings {
    /// Options by their names alone: some of their values are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("session_timeout", &self.session_timeout)
            .field("heartbeat_interval", &self.heartbeat_interval)
            .field("transaction_timeout", &self.transaction_timeout)
            .field("options", &self.options.keys())
            .finish()
    }
}

/// Why an option is not for users to set; `None` for one that is.
pub fn refusal(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, reason)| *reason)
}

impl Settings {
    /// Settings with these timeouts and no options; each must be at least a millisecond.
    pub const fn new(session_timeout: Duration, heartbeat_interval: Duration, transaction_timeout: Duration) -> Settings {
        Settings { session_timeout, heartbeat_interval, transaction_timeout, options: BTreeMap::new() }
    }

    /// Sets an option of librdkafka, which wins over ours.
    ///
    /// # Errors
    /// [`Refused`] for the few that correctness needs as they are.
    pub fn option(mut self, name: &str, value: &str) -> Result<Settings, Refused> {
        if let Some(reason) = refusal(name) {
            return Err(Refused { name: name.to_owned(), reason });
        }
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
        self.options.insert(name.to_owned(), value.to_owned());
        Ok(self)
    }

    /// The value of an option that the user has set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// What all clients have in common; enough for one that administers.
    pub fn common(&self, url: &KafkaUrl) -> ClientConfig {
        self.client(url, &[])
    }

    /// The member of the engines' group: reads requests, and owns the shards whose partitions it is assigned.
    pub fn consumer(&self, url: &KafkaUrl) -> ClientConfig {
        let (session, heartbeat) = (millis(self.session_timeout), millis(self.heartbeat_interval));
        let mut config = self.reader(url);
        config.set("group.id", url.namespace().group()).set("partition.assignment.strategy", "cooperative-sticky");
        // A shard that has committed nothing yet begins with the oldest request.
        self.unless_set(
            &mut config,
            &[("session.timeout.ms", &session), ("heartbeat.interval.ms", &heartbeat), ("auto.offset.reset", "earliest")],
        );
        config
    }

    /// Reads partitions that it is told to read, as no member of any group.
    pub fn reader(&self, url: &KafkaUrl) -> ClientConfig {
        let largest = EVENT_BYTES_MAX.to_string();
        let mut config = self.client(url, &[("fetch.message.max.bytes", &largest), ("check.crcs", "true")]);
        // librdkafka wants a group from every consumer, even from one that never joins it.
        config.set("group.id", format!("{}-readers", url.namespace()));
        config
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false");
        config
    }

    /// Writes what one transactional id stands for, in transactions.
    pub fn producer(&self, url: &KafkaUrl, transactional_id: &str) -> ClientConfig {
        let (largest, timeout) = (EVENT_BYTES_MAX.to_string(), millis(self.transaction_timeout));
        let ours = [
            ("message.max.bytes", largest.as_str()),
            ("transaction.timeout.ms", &timeout),
            // Batches are made before; waiting here would only delay the commit.
            ("linger.ms", "0"),
            ("compression.type", "lz4"),
            ("acks", "all"),
        ];
        let mut config = self.client(url, &ours);
        config.set("transactional.id", transactional_id).set("enable.idempotence", "true");
        // A new owner must know where its first message is.
        config.set("delivery.report.only.error", "false");
        config
    }

    fn client(&self, url: &KafkaUrl, ours: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        // What is worth telling reaches the context's listener; its own log would be printed past it.
        let level = if self.options.contains_key("debug") { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info };
        config.set_log_level(level).set("bootstrap.servers", url.bootstrap());
        let common = [
            ("client.id", "ergate"),
            // Topics are created on purpose, with their settings.
            ("allow.auto.create.topics", "false"),
            // A broker that was away is tried again soon: a takeover may wait for it, and by default that is up to 10 s.
            ("reconnect.backoff.ms", "50"),
            ("reconnect.backoff.max.ms", "1000"),
            // The marker of the transaction before is a few milliseconds late as a rule; by default that costs 100.
            ("retry.backoff.ms", "5"),
            // A connection that a firewall has forgotten is found out.
            ("socket.keepalive.enable", "true"),
        ];
        self.unless_set(&mut config, &common);
        self.unless_set(&mut config, ours);
        config.extend(self.options.clone());
        config
    }

    fn unless_set(&self, config: &mut ClientConfig, ours: &[(&str, &str)]) {
        let ours = ours.iter().filter(|(name, _)| !self.options.contains_key(*name));
        config.extend(ours.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    }
}

fn millis(span: Duration) -> String {
    span.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::BaseConsumer;
    use rdkafka::producer::BaseProducer;

    use super::*;

    fn url() -> KafkaUrl {
        "kafka://127.0.0.1:1/ns".parse().unwrap()
    }

    #[test]
    fn every_client_is_one_that_librdkafka_takes() {
        let settings = Settings::default();
        let _: BaseConsumer = settings.consumer(&url()).create().unwrap();
        let _: BaseConsumer = settings.reader(&url()).create().unwrap();
        let _: BaseProducer = settings.producer(&url(), "ns-0").create().unwrap();
    }

    #[test]
    fn options_win_over_ours_by_either_name() {
        let settings =
            Settings::default().option("queue.buffering.max.ms", "7").unwrap().option("session.timeout.ms", "9000").unwrap();
        assert_eq!(settings.producer(&url(), "ns-0").get("linger.ms"), Some("7"));
        assert_eq!(settings.consumer(&url()).get("session.timeout.ms"), Some("9000"));
        assert_eq!(settings.consumer(&url()).get("isolation.level"), Some("read_committed"));
    }

    #[test]
    fn what_correctness_needs_is_refused_with_the_reason() {
        for (name, reason) in REFUSED {
            let refused = Settings::default().option(name, "x").unwrap_err();
            assert!(refused.to_string().contains(name) && refused.to_string().contains(reason), "{refused}");
        }
        let settings = Settings::default().option("sasl.password", "hunter2").unwrap();
        assert!(!format!("{settings:?} {:?}", settings.common(&url())).contains("hunter2"));
    }
}
