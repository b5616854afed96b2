//! What verbs share that run a runtime of their own.

use std::path::Path;
use std::time::Duration;

use ergate::events::log::LogError;
use ergate::events::time::Micros;
use ergate::{Durability, Runtime, Store};

use super::output::{self, escape};
use super::progress::count;

/// Reads `fsync`, `interval:MS` or `memory`.
pub(crate) fn parse_durability(text: &str) -> Result<Durability, String> {
    match text.split_once(':') {
        None if text == "fsync" => Ok(Durability::Fsync),
        None if text == "memory" => Ok(Durability::Memory),
        Some(("interval", ms)) => {
            let ms = ms.trim_end_matches("ms").parse().ok().filter(|ms| (1..=60_000).contains(ms));
            ms.map(|ms| Durability::Interval(Duration::from_millis(ms))).ok_or_else(|| "MS is from 1 to 60000".to_owned())
        }
        None | Some(_) => Err("use `fsync`, `interval:MS` or `memory`".to_owned()),
    }
}

/// Reads a log that outlives the command: `DIR`, `sled:DIR` or `file:DIR`.
pub(crate) fn parse_log(text: &str) -> Result<Store, String> {
    let store: Store = text.parse()?;
    if store.dir().is_none() {
        return Err("the log is looked at afterwards, so it needs a directory; use `sled:DIR` or `file:DIR`".to_owned());
    }
    Ok(store)
}

/// Reads a span such as `500ms`, `10s` or `1h 30m`.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let span = ergate::request::parse_span(text).map(Micros::to_std);
    span.ok_or_else(|| "use a span such as `500ms`, `10s` or `1h 30m`".to_owned())
}

/// Refuses a data directory that is something else.
pub(crate) fn require_dir(data: &Path) -> Result<(), LogError> {
    match data.metadata() {
        Ok(found) if !found.is_dir() => Err(LogError::Io {
            step: "use as a data directory",
            path: data.to_owned(),
            source: std::io::ErrorKind::NotADirectory.into(),
        }),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Says whether work was left over from before.
pub(crate) fn say_left_over(runtime: &Runtime) {
    if runtime.live() > 0 {
        let tasks = count(
            runtime.live() as u64,
            "task that was left over from before runs too",
            "tasks that were left over from before run too",
        );
        output::note(&tasks);
    }
}

/// The line after an interruption: what is kept, and how to go on.
pub(crate) fn say_kept(runtime: &Runtime, data: &Path) {
    let tasks = count(runtime.live() as u64, "unfinished task is kept", "unfinished tasks are kept");
    let data = output::quoted(&data.display().to_string());
    let next = if runtime.live() > 0 { format!("; go on with `ergate submit --resume --data {data}`") } else { String::new() };
    output::note(&escape(&format!("interrupted: {tasks} in {data}{next}")));
}

/// Says that other work than the one asked for is not done yet.
pub(crate) fn say_still(runtime: &Runtime, data: &Path) {
    let tasks = count(runtime.live() as u64, "other task is", "other tasks are");
    let data = output::quoted(&data.display().to_string());
    output::note(&escape(&format!("{tasks} not done yet and kept; `ergate submit --resume --data {data}` goes on")));
}

/// The outcome of a verb after its runtime was closed. Where the log failed, that is the reason for everything that went wrong.
pub(crate) fn settle<T>(runtime: &Runtime, outcome: anyhow::Result<T>, closed: anyhow::Result<()>) -> anyhow::Result<T> {
    if let Some(reason) = runtime.failure() {
        return Err(LogError::Poisoned { reason }.into());
    }
    let outcome = outcome?;
    closed?;
    Ok(outcome)
}
