//! Every setting: its type, its default, and how its key reads and writes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ergate_events::limit::{LimitSettings, TYPE_LIMITS_MAX};
use ergate_events::log::directory::Engine;
use ergate_events::schedule::{ScheduleSettings, When, is_schedule_name};
use ergate_events::time::Timestamp;

use crate::client::{self, Client};
use crate::error::{ConfigError, Origin};
use crate::gpu::{self, Gpu};
use crate::http::{self, Http};
use crate::kafka::{self, Kafka, is_option_name};
use crate::limit::{self, Limit};
use crate::pool::{self, Pool};
use crate::schedule::{self, Schedule};
use crate::source::{self, Source};
use crate::task::{self, Executor, Task, TaskKey};
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
    /// The service over HTTP.
    pub http: Http,
    /// The service that commands ask.
    pub client: Client,
    /// The log on Apache Kafka.
    pub kafka: Kafka,
    /// How processes use their GPU.
    pub gpu: Gpu,
    /// Sizes of pools by name; [`Config::pool`] knows the rest.
    pub pools: BTreeMap<String, Pool>,
    /// Limits by name that task types share.
    pub named_limits: BTreeMap<String, Limit>,
    /// What is done at certain times, by name.
    pub schedules: BTreeMap<String, Schedule>,
    /// Files of requests that are followed, by name.
    pub sources: BTreeMap<String, Source>,
    /// Task types by name.
    pub tasks: BTreeMap<String, Task>,
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

/// Keys outside pools, `[http]`, `[client]` and `[kafka]`, in the order of `default.toml`.
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
impl Config {
    /// The size of a pool, whether it has a section or not.
    pub fn pool(&self, name: &str) -> Pool {
        let mut pool = self.pools.get(name).cloned().unwrap_or_default();
        // A kernel can kill the process that launches it, so that is not the engine's own unless somebody says so.
        pool.has_kernels = self.tasks.values().any(|task| task.is_kernel() && task.settings.pool == name);
        pool.has_own_processes = pool.has_kernels && !self.has_origin(&format!("pool.{name}.fleet"));
        pool
    }

    /// The pools that have a section, and those that kernels run in.
    pub fn all_pools(&self) -> BTreeMap<&str, Pool> {
        let of_kernels = self.tasks.values().filter(|task| task.is_kernel()).map(|task| task.settings.pool.as_str());
        self.pools.keys().map(String::as_str).chain(of_kernels).map(|name| (name, self.pool(name))).collect()
    }

    /// Sets a value from a stronger origin than all before.
    ///
    /// # Errors
    /// [`ConfigError::UnknownKey`], [`ConfigError::Value`].
    pub fn set(&mut self, key: &str, raw: &Raw, origin: Origin) -> Result<(), ConfigError> {
        let outcome = match key.strip_prefix("pool.").and_then(|rest| rest.split_once('.')) {
            Some((name, key)) if is_pool_name(name) && pool::knows(key) => {
                self.pools.entry(name.to_owned()).or_default().set(key, raw, beside(&origin))
            }
            Some(_) | None if KEYS.contains(&key) => self.set_plain(key, raw),
            Some(_) | None if http::KEYS.contains(&key) => self.http.set(key, raw),
            Some(_) | None if client::KEYS.contains(&key) => self.client.set(key, raw),
            Some(_) | None if is_kafka(key) => self.kafka.set(key, raw),
            None if gpu::KEYS.contains(&key) => self.gpu.set(key, raw, beside(&origin)),
            None if let Some((name, key)) = limit_key(key) => self.named_limits.entry(name.to_owned()).or_default().set(key, raw),
            None if let Some((name, key)) = schedule_key(key) => self.schedules.entry(name.to_owned()).or_default().set(key, raw),
            None if let Some((name, key)) = source_key(key) => {
                self.sources.entry(name.to_owned()).or_default().set(key, raw, beside(&origin))
            }
            None if let Some(found) = task_key(key) => self.set_task(found, raw, &origin),
            Some(_) | None => {
                let (key, nearest) = (key.chars().take(128).collect(), self.nearest(key));
                return Err(ConfigError::UnknownKey { origin, key, nearest });
            }
        };
        match outcome {
            Ok(()) => {
                // What is told of a value in parts is its whole.
                if let Some(whole) = pool::PARTS.iter().find_map(|part| key.strip_suffix(part.strip_prefix("replicas")?)) {
                    self.origins.insert(whole.to_owned(), origin.clone());
                }
                self.origins.insert(key.to_owned(), origin);
                Ok(())
            }
            Err(expected) => {
                // What stands where an option goes may be a secret.
                let hidden = key.starts_with(kafka::OPTIONS) || key.contains(".executor.headers.") || key.contains(".set.");
                let found = if hidden { raw.kind().to_owned() } else { raw.to_string() };
                Err(ConfigError::Value { origin, key: key.to_owned(), expected, found })
            }
        }
    }

    /// Says where a value came from that was put in its field directly, such as a path that is not UTF-8.
    pub fn note(&mut self, key: &'static str, origin: Origin) {
        self.origins.insert(key.to_owned(), origin);
    }

    fn has_origin(&self, key: &str) -> bool {
        self.origins.contains_key(key)
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
        self.task_executors()?;
        self.limits_of_tasks()?;
        self.schedules_with(|_, _| Ok::<_, String>(When::At(Timestamp(0))))?;
        self.sources_with_paths()?;
        if let Some((name, pool)) = self.pools.iter().find(|(_, pool)| pool.least() > pool.replicas) {
            let reason = format!("the fewest replicas, {}, are more than the most, {}", pool.least(), pool.replicas);
            let key = format!("pool.{name}.replicas.min");
            return Err(ConfigError::Refused { origin: self.origin(&key), key, reason });
        }
        if let Some((name, (key, reason))) = self
            .pools
            .keys()
            .find_map(|name| Some((name, self.pool(name).conflict(self.has_origin(&format!("pool.{name}.fleet")))?)))
        {
            let key = format!("pool.{name}.{key}");
            return Err(ConfigError::Refused { origin: self.origin(&key), key, reason: reason.to_owned() });
        }
        let Some((key, reason)) = self.http.conflict().or_else(|| self.kafka.conflict()) else { return Ok(()) };
        Err(ConfigError::Refused { origin: self.origin(key), key: key.to_owned(), reason: reason.to_owned() })
    }

    /// A section of a task type begins.
    pub(crate) fn begin_task(&mut self, section: &str, origin: Origin) -> Result<(), ConfigError> {
        let Some(TaskKey { name, .. }) = task::split(section) else {
            let reason = "names of task types have letters, digits, `.`, `-` and `_`, at most 128 of them".to_owned();
            return Err(ConfigError::Refused { origin, key: section.chars().take(128).collect(), reason });
        };
        self.tasks.entry(name.to_owned()).or_default();
        self.origins.insert(section.to_owned(), origin);
        Ok(())
    }

    fn set_task(&mut self, TaskKey { name, key }: TaskKey<'_>, raw: &Raw, origin: &Origin) -> Result<(), &'static str> {
        self.tasks.entry(name.to_owned()).or_default().set(key, raw, beside(origin))
    }

    /// Every task type with what runs it.
    ///
    /// # Errors
    /// [`ConfigError::Refused`] for a task type without an executor, with two, or with keys of the other one.
    pub fn task_executors(&self) -> Result<Vec<(&str, &Task, Executor)>, ConfigError> {
        let checked = self.tasks.iter().map(|(name, task)| match task.check() {
            Ok(executor) => Ok((name.as_str(), task, executor)),
            Err((key, reason)) => Err(self.refused(&format!("task.{}", task::quoted(name)), key, reason)),
        });
        checked.collect()
    }

    /// Every limit with what it allows: the shared ones under their names, and those of a single task type under its name.
    ///
    /// # Errors
    /// [`ConfigError::Refused`] for a limit that limits nothing.
    pub fn limits(&self) -> Result<Vec<(String, LimitSettings)>, ConfigError> {
        let shared = self.named_limits.iter().map(|(name, limit)| (format!("limit.{name}"), name.clone(), limit));
        let own = self.tasks.iter().filter_map(|(name, task)| Some((name, task.own_limit()?)));
        let own = own.map(|(name, limit)| (format!("task.{}.limit", task::quoted(name)), own_limit(name), limit));
        let read = |(section, name, limit): (String, String, &Limit)| match limit.settings() {
            Ok(settings) => Ok((name, settings)),
            Err((key, reason)) => Err(self.refused(&section, key, reason)),
        };
        shared.chain(own).map(read).collect()
    }

    /// Every task type that has limits, with their names.
    ///
    /// # Errors
    /// [`ConfigError::Refused`] for a limit that is nowhere, or for more than a task type may have.
    pub fn limits_of_tasks(&self) -> Result<Vec<(&str, Vec<String>)>, ConfigError> {
        let known = self.limits()?;
        let names = |(name, task): (&'_ String, &'_ Task)| {
            let own = task.own_limit().map(|_| own_limit(name));
            let all: Vec<String> = task.limits.iter().cloned().chain(own).collect();
            (name.clone(), all)
        };
        let all: Vec<(String, Vec<String>)> = self.tasks.iter().map(names).filter(|(_, all)| !all.is_empty()).collect();
        for (name, limits) in &all {
            let section = format!("task.{}", task::quoted(name));
            if let Some(unknown) = limits.iter().find(|limit| !known.iter().any(|(name, _)| name == *limit)) {
                let meant = nearest(unknown, known.iter().map(|(name, _)| name.as_str()).chain([""]));
                let hint = if meant.is_empty() { String::new() } else { format!("; did you mean {meant:?}?") };
                return Err(self.refused(&section, "limits", format!("there is no section [limit.{unknown}]{hint}")));
            }
            if limits.len() > TYPE_LIMITS_MAX {
                return Err(self.refused(&section, "limits", format!("a task type has at most {TYPE_LIMITS_MAX} limits")));
            }
        }
        Ok(all.into_iter().filter_map(|(name, all)| Some((self.tasks.get_key_value(&name)?.0.as_str(), all))).collect())
    }

    /// Every schedule under its name; `read` reads the moment of `at` in a time zone, or says what is wrong with it.
    ///
    /// # Errors
    /// [`ConfigError::Refused`] for a schedule that is never due, or due in two ways, or whose cron text is none.
    pub fn schedules_with<E: ToString>(
        &self,
        read: impl Fn(&str, &str) -> Result<When, E>,
    ) -> Result<BTreeMap<String, ScheduleSettings>, ConfigError> {
        let settings = |(name, schedule): (&String, &Schedule)| match schedule.settings(&read) {
            Ok(settings) => Ok((name.clone(), settings)),
            Err((key, reason)) => Err(self.refuse_schedule(name, key, reason)),
        };
        self.schedules.iter().map(settings).collect()
    }

    /// Every source with the path that it follows.
    ///
    /// # Errors
    /// [`ConfigError::Refused`] for a source that follows nothing.
    pub fn sources_with_paths(&self) -> Result<Vec<(&str, &Path, &Source)>, ConfigError> {
        let checked = self.sources.iter().map(|(name, source)| match &source.path {
            Some(path) => Ok((name.as_str(), path.as_path(), source)),
            None => {
                let reason = "it says which file or directory is followed; there is none".to_owned();
                Err(self.refused(&format!("source.{name}"), "path", reason))
            }
        });
        checked.collect()
    }

    /// A refusal of a key of a schedule.
    pub fn refuse_schedule(&self, name: &str, key: &str, reason: String) -> ConfigError {
        self.refused(&format!("schedule.{name}"), key, reason)
    }

    /// A refusal of a key of a task type.
    pub fn refuse_task(&self, name: &str, key: &str, reason: String) -> ConfigError {
        self.refused(&format!("task.{}", task::quoted(name)), key, reason)
    }

    /// A refusal of what stands under a section, or of the section.
    fn refused(&self, section: &str, key: &str, reason: String) -> ConfigError {
        let key = format!("{section}.{key}");
        let any = || self.origins.iter().find(|(known, _)| known.starts_with(section)).map(|(_, origin)| origin);
        let origin = self.origins.get(&key).or_else(|| self.origins.get(section)).or_else(any);
        ConfigError::Refused { origin: origin.cloned().unwrap_or(Origin::Default), key, reason }
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

    /// Every key with its value and origin, in the order of `default.toml`.
    pub fn settings(&self) -> Vec<Setting> {
        let pools = self.pools.keys().map(String::as_str).chain(["default"]).collect::<std::collections::BTreeSet<_>>();
        let pool_keys =
            pools.into_iter().flat_map(|name| self.pool(name).keys().into_iter().map(move |key| format!("pool.{name}.{key}")));
        let options = self.kafka.options.keys().map(|name| format!("{}{name}", kafka::OPTIONS));
        let of_task = |(name, task): (&String, &Task)| {
            let section = format!("task.{}", task::quoted(name));
            task.keys().into_iter().map(move |key| format!("{section}.{key}")).collect::<Vec<_>>()
        };
        let tasks = self.tasks.iter().flat_map(of_task);
        let named = self.named_limits.keys().flat_map(|name| limit::KEYS.map(|key| format!("limit.{name}.{key}")));
        let schedules = self.schedules.keys().flat_map(|name| schedule::KEYS.map(|key| format!("schedule.{name}.{key}")));
        let sources = self.sources.keys().flat_map(|name| source::KEYS.map(|key| format!("source.{name}.{key}")));
        let plain = KEYS
            .iter()
            .chain(&http::KEYS)
            .chain(&client::KEYS)
            .chain(&kafka::KEYS)
            .chain(&gpu::KEYS)
            .map(|key| (*key).to_owned());
        let keys = plain.chain(options).chain(pool_keys).chain(named).chain(schedules).chain(sources).chain(tasks);
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
            _ if key.starts_with("http.") => self.http.value(key),
            _ if key.starts_with("client.") => self.client.value(key),
            _ if key.starts_with("kafka.") => self.kafka.value(key),
            _ if key.starts_with("gpu.") => self.gpu.value(key),
            _ if let Some(TaskKey { name, key }) = task::split(key) => {
                self.tasks.get(name).map(|task| task.value(key)).unwrap_or_default()
            }
            _ if let Some((name, key)) = limit_key(key) => {
                self.named_limits.get(name).map(|limit| limit.value(key)).unwrap_or_default()
            }
            _ if let Some((name, key)) = schedule_key(key) => {
                self.schedules.get(name).map(|schedule| schedule.value(key)).unwrap_or_default()
            }
            _ if let Some((name, key)) = source_key(key) => {
                self.sources.get(name).map(|source| source.value(key)).unwrap_or_default()
            }
            _ => self.pool_value(key),
        }
    }

    fn pool_value(&self, key: &str) -> String {
        let named = key.strip_prefix("pool.").and_then(|rest| rest.split_once('.'));
        named.map(|(name, key)| self.pool(name).value(key)).unwrap_or_default()
    }

    fn nearest(&self, key: &str) -> String {
        // What follows the last dot is compared with the keys of a pool, whatever the pool is called.
        if let Some((section, last)) = key.rsplit_once('.').filter(|(section, _)| section.starts_with("pool.")) {
            let name = section.strip_prefix("pool.").filter(|name| is_pool_name(name)).unwrap_or("NAME");
            return format!("pool.{name}.{}", nearest(last, pool::all()));
        }
        if let Some((name, last)) = key.strip_prefix("limit.").and_then(|rest| rest.split_once('.')) {
            let name = if limit::is_name(name) { name } else { "NAME" };
            return format!("limit.{name}.{}", nearest(last, limit::KEYS.into_iter()));
        }
        if let Some((name, last)) = key.strip_prefix("schedule.").and_then(|rest| rest.split_once('.')) {
            let name = if is_schedule_name(name) { name } else { "NAME" };
            return format!("schedule.{name}.{}", nearest(last, schedule::KEYS.into_iter()));
        }
        if let Some((name, last)) = key.strip_prefix("source.").and_then(|rest| rest.split_once('.')) {
            let name = if limit::is_name(name) { name } else { "NAME" };
            return format!("source.{name}.{}", nearest(last, source::KEYS.into_iter()));
        }
        if let Some(TaskKey { name, key }) = task::split(key) {
            let executor = task::EXECUTOR_KEYS.map(|key| format!("executor.{key}"));
            let kernel = task::GPU_KEYS.iter().chain(&task::AGGREGATE_KEYS).chain(&task::TOP_K_KEYS).chain(&["gpu.builtin"]);
            let kernel: Vec<String> = kernel.map(|key| format!("executor.{key}")).collect();
            let known = task::KEYS.into_iter().chain(executor.iter().chain(&kernel).map(String::as_str));
            return format!("task.{}.{}", task::quoted(name), nearest(key, known));
        }
        let named = [
            "task.NAME.executor",
            "schedule.NAME.cron",
            "limit.NAME.concurrency",
            "source.NAME.path",
            "pool.NAME.replicas",
            "pool.NAME.slots",
            "kafka.options.NAME",
        ];
        nearest(key, KEYS.into_iter().chain(http::KEYS).chain(client::KEYS).chain(kafka::KEYS).chain(gpu::KEYS).chain(named))
            .to_owned()
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

fn task_key(key: &str) -> Option<TaskKey<'_>> {
    task::split(key).filter(|found| Task::knows(found.key))
}

/// What a path is relative to: the file that names it, or where the command runs.
fn beside(origin: &Origin) -> &Path {
    match origin {
        Origin::File { path, .. } => path.parent().unwrap_or(Path::new("")),
        Origin::Default | Origin::Environment { .. } | Origin::Flag { .. } => Path::new(""),
    }
}

fn limit_key(key: &str) -> Option<(&str, &str)> {
    let (name, key) = key.strip_prefix("limit.")?.split_once('.')?;
    (limit::is_name(name) && limit::KEYS.contains(&key)).then_some((name, key))
}

fn schedule_key(key: &str) -> Option<(&str, &str)> {
    let (name, key) = key.strip_prefix("schedule.")?.split_once('.')?;
    (is_schedule_name(name) && schedule::KEYS.contains(&key)).then_some((name, key))
}

fn source_key(key: &str) -> Option<(&str, &str)> {
    let (name, key) = key.strip_prefix("source.")?.split_once('.')?;
    (limit::is_name(name) && source::KEYS.contains(&key)).then_some((name, key))
}

/// The name of the limit that a task type has for itself; no shared one can have a colon in its name.
fn own_limit(task_type: &str) -> String {
    format!("task:{task_type}")
}

fn is_pool_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !name.is_empty() && name.len() <= 64 && name.bytes().all(plain)
}

/// The known key that somebody may have meant.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    ergate_events::nearest::nearest(key, known).unwrap_or("log.data")
}
