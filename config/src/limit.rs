//! `[limit.NAME]`, and `limit` of a task type: how many tasks may be on their way at once, and how often they may start.

use std::time::Duration;

use ergate_events::limit::{LimitSettings, RATE_PER_MAX, Rate};
use ergate_events::task::TEXT_BYTES_MAX;
use ergate_events::time::Micros;

use crate::value::{Raw, show_duration};

/// Keys of a limit, in the order of `default.toml`.
pub(crate) const KEYS: [&str; 5] = ["key", "concurrency", "rate", "burst", "ready"];
/// Longest name of a limit, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// What a rate may be counted in.
const UNITS: [(&str, u64); 4] = [("s", 1), ("min", 60), ("h", 3_600), ("d", 86_400)];

/// A limit as the configuration has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    key: Option<String>,
    concurrency: Option<u32>,
    rate: Option<(u32, Micros)>,
    burst: Option<u32>,
    ready: Option<u32>,
}

impl Limit {
    /// Sets a value; the error says what the key takes.
    pub(crate) fn set(&mut self, key: &str, raw: &Raw) -> Result<(), &'static str> {
        const COUNT: &str = "a whole number from 1 to 4294967295, or \"none\"";
        match key {
            "key" => {
                let label = |raw: &Raw| raw.text().filter(|text| (1..=TEXT_BYTES_MAX).contains(&text.len())).map(str::to_owned);
                self.key = or_none(raw, label).ok_or("the name of a label such as \"tenant\", or \"none\"")?;
            }
            "rate" => {
                self.rate =
                    or_none(raw, rate).ok_or("starts in a time such as \"100/s\", \"20/min\" or \"5/10s\", or \"none\"")?;
            }
            "concurrency" => self.concurrency = or_none(raw, count).ok_or(COUNT)?,
            "burst" => self.burst = or_none(raw, count).ok_or(COUNT)?,
            "ready" => self.ready = or_none(raw, count).ok_or(COUNT)?,
            _ => return Err("nothing"),
        }
        Ok(())
    }

    /// A value as a file would have it.
    pub(crate) fn value(&self, key: &str) -> String {
        let count = |count: Option<u32>| count.map_or_else(none, |count| count.to_string());
        match key {
            "key" => self.key.clone().unwrap_or_else(none),
            "rate" => self.rate.map_or_else(none, |(permits, per)| show_rate(permits, per)),
            "concurrency" => count(self.concurrency),
            "burst" => count(self.burst.or(self.rate.map(burst))),
            "ready" => count(self.ready),
            _ => String::new(),
        }
    }

    /// Whether nothing is set.
    pub(crate) fn is_none(&self) -> bool {
        *self == Limit::default()
    }

    /// What the rules are told, or the key at fault and why.
    pub(crate) fn settings(&self) -> Result<LimitSettings, (&'static str, String)> {
        let rate =
            self.rate.map(|(permits, per)| Rate { permits, per, burst: self.burst.unwrap_or_else(|| burst((permits, per))) });
        if self.burst.is_some() && rate.is_none() {
            return Err((
                "burst",
                "it says how many may follow each other at once where there is a `rate`; there is none".to_owned(),
            ));
        }
        let settings = LimitSettings { key: self.key.clone(), concurrency: self.concurrency, rate, ready: self.ready };
        if settings.is_possible() {
            return Ok(settings);
        }
        Err(("concurrency", "a limit needs at least one of `concurrency`, `rate` and `ready`".to_owned()))
    }
}

/// Whether this can name a limit: letters, digits, `-` and `_`.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain)
}

fn none() -> String {
    "none".to_owned()
}

fn or_none<T>(raw: &Raw, parse: impl FnOnce(&Raw) -> Option<T>) -> Option<Option<T>> {
    if raw.text() == Some("none") { Some(None) } else { parse(raw).map(Some) }
}

fn count(raw: &Raw) -> Option<u32> {
    raw.count(1, u32::MAX.into()).and_then(|count| u32::try_from(count).ok())
}

/// `100/s`, `20/min`, `5/10s`.
fn rate(raw: &Raw) -> Option<(u32, Micros)> {
    let (permits, per) = raw.text()?.split_once('/')?;
    let permits = permits.trim().parse().ok().filter(|permits| *permits > 0)?;
    let per = per.trim();
    let unit = UNITS.iter().find(|(name, _)| *name == per).map(|(_, seconds)| Duration::from_secs(*seconds));
    let per = Micros::from(unit.or_else(|| Raw::Text(per.to_owned()).duration())?);
    let is_possible = per <= RATE_PER_MAX && Rate { permits, per, burst: 1 }.is_possible();
    is_possible.then_some((permits, per))
}

fn show_rate(permits: u32, per: Micros) -> String {
    let unit = UNITS.iter().find(|(_, seconds)| Micros::from_secs(*seconds) == per);
    let per = unit.map_or_else(|| show_duration(per.to_std()), |(name, _)| (*name).to_owned());
    format!("{permits}/{per}")
}

/// As many as a second allows, and at least one: what came together within a second is not spread out.
fn burst((permits, per): (u32, Micros)) -> u32 {
    let second = Micros::from_secs(1).0;
    u32::try_from((u64::from(permits) * second / per.0).max(1)).unwrap_or(u32::MAX)
}
