//! `[kafka]`: how work is taken from Apache Kafka and recorded there.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::secret::{OptionValue, is_secret};
use crate::value::{Raw, show_duration, show_size};

/// `[kafka]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// How long a transaction waits for more requests.
    pub batch_time: Duration,
    /// Bytes of requests in one transaction.
    pub batch_size: u64,
    /// How long an engine may be silent until its shards are given to others.
    pub session_timeout: Duration,
    /// How often an engine says that it lives.
    pub heartbeat_interval: Duration,
    /// How long a transaction may stay open.
    pub transaction_timeout: Duration,
    /// What the events are written as.
    pub format: Format,
    /// Whether engines follow shards that they do not own.
    pub standby: bool,
    /// Time between two snapshots of a shard.
    pub snapshot_interval: Duration,
    /// Whether ends of tasks are written to the topic of results too.
    pub results: bool,
    /// Options for librdkafka, by their names there.
    pub options: BTreeMap<String, OptionValue>,
}

/// What the events are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON, for readers in any language.
    Json,
    /// Compressed blocks, as in a log on disk.
    Block,
}

impl Default for Kafka {
    fn default() -> Kafka {
        Kafka {
            batch_time: Duration::from_millis(10),
            batch_size: 1 << 20,
            session_timeout: Duration::from_secs(6),
            heartbeat_interval: Duration::from_millis(200),
            transaction_timeout: Duration::from_secs(10),
            format: Format::Json,
            standby: true,
            snapshot_interval: Duration::from_secs(60),
            results: false,
            options: BTreeMap::new(),
        }
    }
}

/// Before the name of an option for librdkafka.
pub(crate) const OPTIONS: &str = "kafka.options.";
/// Keys of `[kafka]` without options, in the order of `default.toml`.
pub(crate) const KEYS: [&str; 9] = [
    "kafka.batch_time",
    "kafka.batch_size",
    "kafka.session_timeout",
    "kafka.heartbeat_interval",
    "kafka.transaction_timeout",
    "kafka.format",
    "kafka.standby",
    "kafka.snapshot_interval",
    "kafka.results",
];

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

impl Kafka {
    /// Sets a value; the error says what the key takes.
    pub(crate) fn set(&mut self, key: &str, raw: &Raw) -> Result<(), &'static str> {
        if let Some(name) = key.strip_prefix(OPTIONS) {
            return self.set_option(name, raw);
        }
        let span = |least: Duration, most: Duration| raw.duration().filter(|span| (least..=most).contains(span));
        match key {
            "kafka.batch_time" => {
                self.batch_time = span(Duration::ZERO, SECOND).ok_or("a duration from \"0ms\" to \"1s\"")?;
            }
            "kafka.batch_size" => {
                let fits = |size: &u64| (1 << 10..=4 << 20).contains(size);
                self.batch_size = raw.size().filter(fits).ok_or("a size from \"1KiB\" to \"4MiB\"")?;
            }
            "kafka.session_timeout" => {
                self.session_timeout = span(SECOND, 30 * MINUTE).ok_or("a duration from \"1s\" to \"30m\"")?;
            }
            "kafka.heartbeat_interval" => {
                self.heartbeat_interval = span(10 * MILLISECOND, MINUTE).ok_or("a duration from \"10ms\" to \"1m\"")?;
            }
            "kafka.transaction_timeout" => {
                self.transaction_timeout = span(SECOND, 15 * MINUTE).ok_or("a duration from \"1s\" to \"15m\"")?;
            }
            "kafka.format" => self.format = Format::parse(raw).ok_or("\"json\" or \"block\"")?,
            "kafka.standby" => self.standby = raw.flag().ok_or("true or false")?,
            "kafka.snapshot_interval" => {
                self.snapshot_interval = span(SECOND, 24 * 60 * MINUTE).ok_or("a duration from \"1s\" to \"1d\"")?;
            }
            "kafka.results" => self.results = raw.flag().ok_or("true or false")?,
            _ => return Err("nothing"),
        }
        Ok(())
    }

    fn set_option(&mut self, name: &str, raw: &Raw) -> Result<(), &'static str> {
        let value = OptionValue::parse(name, raw).ok_or(match is_secret(name) {
            true => "{ file = \"PATH\" } or { env = \"NAME\" }, so that no secret lies in a configuration",
            false => "a text, a number, true or false, { file = \"PATH\" } or { env = \"NAME\" }",
        })?;
        self.options.insert(name.to_owned(), value);
        Ok(())
    }

    /// A value as a file would have it, without quotes; a secret is not told.
    pub(crate) fn value(&self, key: &str) -> String {
        if let Some(name) = key.strip_prefix(OPTIONS) {
            return self.options.get(name).map(ToString::to_string).unwrap_or_default();
        }
        match key {
            "kafka.batch_time" => show_duration(self.batch_time),
            "kafka.batch_size" => show_size(self.batch_size),
            "kafka.session_timeout" => show_duration(self.session_timeout),
            "kafka.heartbeat_interval" => show_duration(self.heartbeat_interval),
            "kafka.transaction_timeout" => show_duration(self.transaction_timeout),
            "kafka.format" => self.format.name().to_owned(),
            "kafka.standby" => self.standby.to_string(),
            "kafka.snapshot_interval" => show_duration(self.snapshot_interval),
            "kafka.results" => self.results.to_string(),
            _ => String::new(),
        }
    }

    /// What cannot be together: the key at fault and why.
    pub(crate) fn conflict(&self) -> Option<(&'static str, &'static str)> {
        // As Kafka has it: of three heartbeats two may be lost.
        if self.heartbeat_interval * 3 > self.session_timeout {
            return Some(("kafka.heartbeat_interval", "it must be at most a third of `kafka.session_timeout`"));
        }
        if self.batch_time * 10 > self.transaction_timeout {
            return Some(("kafka.batch_time", "it must be at most a tenth of `kafka.transaction_timeout`"));
        }
        None
    }
}

/// Whether this can be the name of an option for librdkafka.
pub(crate) fn is_option_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= 100 && name.bytes().all(plain)
}

impl Format {
    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Block => "block",
        }
    }

    fn parse(raw: &Raw) -> Option<Format> {
        [Format::Json, Format::Block].into_iter().find(|format| raw.text() == Some(format.name()))
    }
}
