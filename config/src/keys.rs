//! Every setting: its type, its default, and how its key reads and writes it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ergate_events::log::directory::Engine;

use crate::error::{ConfigError, Origin};
use crate::kafka::{self, Kafka, is_option_name};
use crate::nearest::nearest;
use crate::value::{Durability, Keep, Raw, show_duration, show_size};

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// How the log is kept.
    pub log: Log,
    /// What is refused.
    pub limits: Limits,
    /// How the process stops.
    pub shutdown: Shutdown,
    /// The log on Apache Kafka.
    pub kafka: Kafka,
    /// Sizes of pools by name; [`Config::pool`] knows the rest.
    pub pools: BTreeMap<String, Pool>,
    origins: BTreeMap<String, Origin>,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Its directory.
    pub data: PathBuf,
    /// What keeps it; `None` is whatever keeps the log that is there.
    pub engine: Option<Engine>,
    /// When replies are given.
    pub durability: Durability,
    /// Bytes of a segment.
    pub segment_size: u64,
    /// Bytes of zeros ahead of the end.
    pub preallocation: u64,
    /// New work is refused below so many free bytes.
    pub low_water: u64,
    /// Events between two snapshots.
    pub snapshot_every_events: u64,
    /// How long events are kept; `None` is for ever.
    pub keep_for: Keep<Duration>,
    /// How many events are kept whatever their age; `None` sets no bound by number.
    pub keep_events: Keep<u64>,
}

/// `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tasks that may wait or run at one time.
    pub tasks_live_max: usize,
}

/// `[shutdown]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long running attempts may go on.
    pub drain: Duration,
}

/// `[pool.NAME]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its replicas.
    pub replicas: u32,
    /// Slots of each.
    pub slots: u32,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            data: "ergate-data".into(),
            engine: None,
            durability: Durability::Fsync,
            segment_size: 64 << 20,
            preallocation: 4 << 20,
            low_water: 64 << 20,
            snapshot_every_events: 2_000_000,
            keep_for: None,
            keep_events: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { tasks_live_max: 10_000_000 }
    }
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown { drain: Duration::from_secs(10) }
    }
}

impl Default for Pool {
    fn default() -> Pool {
        Pool { replicas: 1, slots: 1_024 }
    }
}

/// A key with its value in force and where that came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, sections included.
    pub key: String,
    /// The value as a file would have it, without quotes.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Keys outside pools and `[kafka]`, in the order of `default.toml`.
const KEYS: [&str; 11] = [
    "log.data",
    "log.engine",
    "log.durability",
    "log.segment_size",
    "log.preallocation",
    "log.low_water",
    "log.snapshot_every_events",
    "log.keep_for",
    "log.keep_events",
    "limits.tasks_live_max",
    "shutdown.drain",
];
const POOL_KEYS: [&str; 2] = ["replicas", "slots"];
/// Most replicas of a pool and slots of a replica, as the core has it.
const POOL_MAX: u64 = 1 << 16;

impl Config {
    /// The size of a pool, whether it has a section or not.
    pub fn pool(&self, name: &str) -> Pool {
        self.pools.get(name).copied().unwrap_or_default()
    }

    /// Sets a value from a stronger origin than all before.
    ///
    /// # Errors
    /// [`ConfigError::UnknownKey`], [`ConfigError::Value`].
    pub fn set(&mut self, key: &str, raw: &Raw, origin: Origin) -> Result<(), ConfigError> {
        let outcome = match key.strip_prefix("pool.").and_then(|rest| rest.split_once('.')) {
            Some((name, key)) if is_pool_name(name) && POOL_KEYS.contains(&key) => self.set_pool(name, key, raw),
            Some(_) | None if KEYS.contains(&key) => self.set_plain(key, raw),
            Some(_) | None if is_kafka(key) => self.kafka.set(key, raw),
            Some(_) | None => {
                let (key, nearest) = (key.chars().take(128).collect(), self.nearest(key));
                return Err(ConfigError::UnknownKey { origin, key, nearest });
            }
        };
        match outcome {
            Ok(()) => {
                self.origins.insert(key.to_owned(), origin);
                Ok(())
            }
            Err(expected) => {
                // What stands where an option goes may be a secret.
                let found = if key.starts_with(kafka::OPTIONS) { raw.kind().to_owned() } else { raw.to_string() };
                Err(ConfigError::Value { origin, key: key.to_owned(), expected, found })
            }
        }
    }

    /// Says where a value came from that was put in its field directly, such as a path that is not UTF-8.
    pub fn note(&mut self, key: &'static str, origin: Origin) {
        self.origins.insert(key.to_owned(), origin);
    }

    /// Where the value of a key came from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// Looks for settings that cannot be together.
    ///
    /// # Errors
    /// [`ConfigError::Refused`] with the key at fault.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Some((key, reason)) = self.kafka.conflict() else { return Ok(()) };
        Err(ConfigError::Refused { origin: self.origin(key), key: key.to_owned(), reason: reason.to_owned() })
    }

    fn set_plain(&mut self, key: &str, raw: &Raw) -> Result<(), &'static str> {
        const SIZE: &str = "a size such as \"64MiB\"";
        let log = &mut self.log;
        match key {
            "log.data" => log.data = raw.text().filter(|text| !text.is_empty()).ok_or("a directory as a text")?.into(),
            "log.engine" => log.engine = engine(raw).ok_or("\"auto\", \"sled\" or \"file\"")?,
            "log.durability" => log.durability = Durability::parse(raw).ok_or("\"fsync\", \"interval:50ms\" or \"memory\"")?,
            "log.segment_size" => {
                log.segment_size = raw.size().filter(is_segment_size).ok_or("a size from \"64KiB\" to \"16GiB\"")?
            }
            "log.preallocation" => log.preallocation = raw.size().ok_or(SIZE)?,
            "log.low_water" => log.low_water = raw.size().ok_or(SIZE)?,
            "log.snapshot_every_events" => {
                log.snapshot_every_events = raw.count(1, u64::MAX).ok_or("a whole number of at least 1")?;
            }
            "log.keep_for" => {
                log.keep_for = keep(raw, "forever", Raw::duration).ok_or("a duration such as \"30d\", or \"forever\"")?
            }
            "log.keep_events" => {
                log.keep_events = keep(raw, "all", |raw| raw.count(0, u64::MAX)).ok_or("a whole number, or \"all\"")?;
            }
            "limits.tasks_live_max" => {
                let count = raw.count(1, u64::MAX).and_then(|count| usize::try_from(count).ok());
                self.limits.tasks_live_max = count.ok_or("a whole number of at least 1")?;
            }
            "shutdown.drain" => self.shutdown.drain = raw.duration().ok_or("a duration such as \"10s\"")?,
            _ => return Err("nothing"),
        }
        Ok(())
    }

    fn set_pool(&mut self, name: &str, key: &str, raw: &Raw) -> Result<(), &'static str> {
        let count = |least| raw.count(least, POOL_MAX).and_then(|count| u32::try_from(count).ok());
        let mut pool = self.pool(name);
        if key == "replicas" {
            pool.replicas = count(0).ok_or("a whole number from 0 to 65536")?;
        } else {
            pool.slots = count(1).ok_or("a whole number from 1 to 65536")?;
        }
        self.pools.insert(name.to_owned(), pool);
        Ok(())
    }

    /// Every key with its value and origin, in the order of `default.toml`.
    pub fn settings(&self) -> Vec<Setting> {
        let pools = self.pools.keys().map(String::as_str).chain(["default"]).collect::<std::collections::BTreeSet<_>>();
        let pool_keys = pools.into_iter().flat_map(|name| POOL_KEYS.iter().map(move |key| format!("pool.{name}.{key}")));
        let options = self.kafka.options.keys().map(|name| format!("{}{name}", kafka::OPTIONS));
        let keys = KEYS.iter().chain(&kafka::KEYS).map(|key| (*key).to_owned()).chain(options).chain(pool_keys);
        keys.map(|key| Setting { value: self.value(&key), origin: self.origin(&key), key }).collect()
    }

    fn value(&self, key: &str) -> String {
        let log = &self.log;
        match key {
            "log.data" => log.data.display().to_string(),
            "log.engine" => log.engine.map_or("auto", Engine::name).to_owned(),
            "log.durability" => log.durability.to_string(),
            "log.segment_size" => show_size(log.segment_size),
            "log.preallocation" => show_size(log.preallocation),
            "log.low_water" => show_size(log.low_water),
            "log.snapshot_every_events" => log.snapshot_every_events.to_string(),
            "log.keep_for" => log.keep_for.map_or_else(|| "forever".to_owned(), show_duration),
            "log.keep_events" => log.keep_events.map_or_else(|| "all".to_owned(), |events| events.to_string()),
            "limits.tasks_live_max" => self.limits.tasks_live_max.to_string(),
            "shutdown.drain" => show_duration(self.shutdown.drain),
            _ if key.starts_with("kafka.") => self.kafka.value(key),
            _ => self.pool_value(key),
        }
    }

    fn pool_value(&self, key: &str) -> String {
        let Some((name, key)) = key.strip_prefix("pool.").and_then(|rest| rest.split_once('.')) else { return String::new() };
        let pool = self.pool(name);
        if key == "replicas" { pool.replicas.to_string() } else { pool.slots.to_string() }
    }

    fn nearest(&self, key: &str) -> String {
        // What follows the last dot is compared with the keys of a pool, whatever the pool is called.
        if let Some((section, last)) = key.rsplit_once('.').filter(|(section, _)| section.starts_with("pool.")) {
            let name = section.strip_prefix("pool.").filter(|name| is_pool_name(name)).unwrap_or("NAME");
            return format!("pool.{name}.{}", nearest(last, POOL_KEYS.into_iter()));
        }
        let named = ["pool.NAME.replicas", "pool.NAME.slots", "kafka.options.NAME"];
        nearest(key, KEYS.into_iter().chain(kafka::KEYS).chain(named)).to_owned()
    }
}

fn engine(raw: &Raw) -> Option<Option<Engine>> {
    match raw.text()? {
        "auto" => Some(None),
        name => Engine::named(name).map(Some),
    }
}

fn keep<T>(raw: &Raw, all: &str, parse: impl FnOnce(&Raw) -> Option<T>) -> Option<Keep<T>> {
    if raw.text() == Some(all) { Some(None) } else { parse(raw).map(Some) }
}

/// A segment must hold the largest block now and then, and be worth a file.
fn is_segment_size(bytes: &u64) -> bool {
    (64 << 10..=16 << 30).contains(bytes)
}

fn is_kafka(key: &str) -> bool {
    kafka::KEYS.contains(&key) || key.strip_prefix(kafka::OPTIONS).is_some_and(is_option_name)
}

fn is_pool_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !name.is_empty() && name.len() <= 64 && name.bytes().all(plain)
}
