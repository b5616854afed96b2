//! `[task."NAME"]`: task types that need no Rust, by what runs them and what the rules need to know.

mod builtin;
pub(crate) mod executor;
mod gpu;
mod key;

use std::path::Path;
use std::time::Duration;

use ergate_events::task::{PRIORITY_MAX, TEXT_BYTES_MAX, TypeSettings};
use ergate_events::time::Micros;

pub use builtin::Builtin;
pub(crate) use builtin::{AGGREGATE as AGGREGATE_KEYS, TOP_K as TOP_K_KEYS};
pub use executor::{Executor, HttpExecutor, PayloadBy, ProcessExecutor};
pub(crate) use gpu::KEYS as GPU_KEYS;
pub use gpu::{Batch, GpuExecutor, Kernel, OwnKernel};
pub(crate) use key::{TaskKey, quoted, split};

use crate::limit::{self, Limit};
use crate::value::{Raw, show_duration};
use executor::{Parts, WORKER};

/// `[task."NAME"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// What the rules need to know.
    pub settings: TypeSettings,
    /// Limits that it shares with others.
    pub limits: Vec<String>,
    /// The limit that it has for itself.
    limit: Limit,
    parts: Parts,
}

/// Keys of a task type without those of its executor, in the order of `default.toml`.
pub(crate) const KEYS: [&str; 23] = [
    "pool",
    "timeout",
    "heartbeat",
    "start_timeout",
    "total_timeout",
    "retry.attempts",
    "retry.initial",
    "retry.max",
    "retry.coefficient",
    "retry.jitter",
    "non_retryable",
    "priority",
    "cancel_grace",
    "losses_max",
    "dead_letter",
    "key_window",
    "limits",
    "limit.key",
    "limit.concurrency",
    "limit.rate",
    "limit.burst",
    "limit.ready",
    "executor",
];
pub(crate) use executor::KEYS as EXECUTOR_KEYS;

/// Longest span that makes sense anywhere here; longer ones are slips.
const SPAN_MAX: Duration = Duration::from_secs(10 * 366 * 86_400);
const SPAN: &str = "a duration such as \"30s\"";
const SPAN_OR_NONE: &str = "a duration such as \"30s\", or \"none\"";

impl Task {
    /// Whether there is such a key.
    pub(crate) fn knows(key: &str) -> bool {
        KEYS.contains(&key) || executor::knows(key)
    }

    /// Sets a value; the error says what the key takes. `dir` is where relative paths begin.
    pub(crate) fn set(&mut self, key: &str, raw: &Raw, dir: &Path) -> Result<(), &'static str> {
        if let Some(key) = key.strip_prefix("executor.") {
            return self.parts.set(key, raw, dir);
        }
        if let Some(key) = key.strip_prefix("retry.") {
            return self.set_retry(key, raw);
        }
        if let Some(key) = key.strip_prefix("limit.") {
            return self.limit.set(key, raw);
        }
        let settings = &mut self.settings;
        let timeouts = &mut settings.timeouts;
        match key {
            "pool" => settings.pool = raw.text().filter(|name| is_name(name, 64)).ok_or("the name of a pool")?.to_owned(),
            "timeout" => timeouts.start_to_close = span(raw).filter(|span| span.0 > 0).ok_or(SPAN)?,
            "heartbeat" => timeouts.heartbeat = span_or_none(raw).ok_or(SPAN_OR_NONE)?,
            "start_timeout" => timeouts.schedule_to_start = span_or_none(raw).ok_or(SPAN_OR_NONE)?,
            "total_timeout" => timeouts.schedule_to_close = span_or_none(raw).ok_or(SPAN_OR_NONE)?,
            "non_retryable" => {
                let classes = raw.texts().filter(|all| all.iter().all(|class| (1..=TEXT_BYTES_MAX).contains(&class.len())));
                settings.non_retryable = classes.ok_or("a list of failure classes such as [\"exit-3\"]")?;
            }
            "priority" => {
                let priority = raw.count(0, PRIORITY_MAX.into()).and_then(|priority| u8::try_from(priority).ok());
                settings.priority = priority.ok_or("a whole number from 0 to 9")?;
            }
            "cancel_grace" => settings.cancel_grace = span(raw).ok_or(SPAN)?,
            "losses_max" => settings.losses_max = count(raw, 1).ok_or("a whole number of at least 1")?,
            "dead_letter" => settings.dead_letter = raw.flag().ok_or("true or false")?,
            "key_window" => settings.key_window = span(raw).ok_or(SPAN)?,
            "limits" => {
                let names = raw.texts().filter(|names| names.iter().all(|name| limit::is_name(name)));
                self.limits = names.ok_or("a list of names of limits such as [\"tenants\"]")?;
            }
            "executor" => self.parts.set_worker(raw)?,
            _ => return Err("nothing"),
        }
        Ok(())
    }

    fn set_retry(&mut self, key: &str, raw: &Raw) -> Result<(), &'static str> {
        let retry = &mut self.settings.retry;
        match key {
            "attempts" => retry.attempts = count(raw, 1).ok_or("a whole number of at least 1")?,
            "initial" => retry.initial = span(raw).ok_or(SPAN)?,
            "max" => retry.max = span(raw).ok_or(SPAN)?,
            "coefficient" => retry.coefficient_milli = raw.thousandths(1_000, 100_000).ok_or("a number from 1.0 to 100.0")?,
            "jitter" => retry.jitter_milli = raw.thousandths(0, 1_000).ok_or("a number from 0.0 to 1.0")?,
            _ => return Err("nothing"),
        }
        Ok(())
    }

    /// Keys that this task type has a value for: all of its settings, and those of the executor that it has.
    pub(crate) fn keys(&self) -> Vec<String> {
        let is_worker = self.parts.is_worker();
        let is_shown = |key: &&&str| match **key {
            "executor" => is_worker,
            key => !key.starts_with("limit.") || self.own_limit().is_some(),
        };
        let own = KEYS.iter().filter(is_shown).map(|key| (*key).to_owned());
        own.chain(self.parts.keys().into_iter().map(|key| format!("executor.{key}"))).collect()
    }

    /// A value as a file would have it; a secret is not told.
    pub(crate) fn value(&self, key: &str) -> String {
        let TypeSettings { pool, priority, retry, timeouts, cancel_grace, losses_max, dead_letter, key_window, non_retryable } =
            &self.settings;
        let span = |span: Micros| show_duration(span.to_std());
        let or_none = |limit: Option<Micros>| limit.map_or_else(|| "none".to_owned(), span);
        match key {
            "pool" => pool.clone(),
            "timeout" => span(timeouts.start_to_close),
            "heartbeat" => or_none(timeouts.heartbeat),
            "start_timeout" => or_none(timeouts.schedule_to_start),
            "total_timeout" => or_none(timeouts.schedule_to_close),
            "retry.attempts" => retry.attempts.to_string(),
            "retry.initial" => span(retry.initial),
            "retry.max" => span(retry.max),
            "retry.coefficient" => (f64::from(retry.coefficient_milli) / 1_000.0).to_string(),
            "retry.jitter" => (f64::from(retry.jitter_milli) / 1_000.0).to_string(),
            "non_retryable" => format!("{non_retryable:?}"),
            "priority" => priority.to_string(),
            "cancel_grace" => span(*cancel_grace),
            "losses_max" => losses_max.to_string(),
            "dead_letter" => dead_letter.to_string(),
            "key_window" => span(*key_window),
            "limits" => format!("{:?}", self.limits),
            "executor" => WORKER.to_owned(),
            _ if let Some(key) = key.strip_prefix("limit.") => self.limit.value(key),
            _ => key.strip_prefix("executor.").map(|key| self.parts.value(key)).unwrap_or_default(),
        }
    }

    /// Whether a kernel runs it.
    pub(crate) fn is_kernel(&self) -> bool {
        self.parts.is_kernel()
    }

    /// The limit that it has for itself, if it has one.
    pub(crate) fn own_limit(&self) -> Option<&Limit> {
        Some(&self.limit).filter(|limit| !limit.is_none())
    }

    /// What runs it, or the key at fault and why.
    pub(crate) fn check(&self) -> Result<Executor, (&'static str, String)> {
        if self.settings.retry.initial > self.settings.retry.max {
            return Err(("retry.initial", "it must be at most `retry.max`".to_owned()));
        }
        self.parts.executor()
    }
}

fn span(raw: &Raw) -> Option<Micros> {
    raw.duration().filter(|span| *span <= SPAN_MAX).map(Micros::from)
}

fn span_or_none(raw: &Raw) -> Option<Option<Micros>> {
    if raw.text() == Some("none") { Some(None) } else { span(raw).filter(|span| span.0 > 0).map(Some) }
}

fn count(raw: &Raw, least: u64) -> Option<u32> {
    raw.count(least, u32::MAX.into()).and_then(|count| u32::try_from(count).ok())
}

/// Whether this can name a task type or a pool: letters, digits, `.`, `-` and `_`, and no dot in front.
pub(crate) fn is_name(name: &str, max: usize) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=max).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.')
}
