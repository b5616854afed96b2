//! Traces as they are published, from text to arrivals. Reading a file is somebody else's business.
//!
//! | format | how it is recognised | times |
//! |---|---|---|
//! | own, CSV | columns `arrival_s`, `service_s` and perhaps `priority` | seconds from any beginning |
//! | own, NDJSON | the same names | the same |
//! | Azure LLM inference 2023 | columns `TIMESTAMP`, `ContextTokens`, `GeneratedTokens` | a [`ServiceModel`] makes service times of tokens |
//! | Mooncake, JSONL | `timestamp` in ms, `input_length`, `output_length` | the same |
//! | Alibaba GenTD26 | columns `gmt_create`, `exec_time_seconds` | as they stand |
//!
//! Moments are counted from the earliest arrival; tasks may stand in any order.

mod csv;
#[cfg(feature = "json")]
mod json;
mod moment;

use super::arrivals::{Arrival, Arrivals, ArrivalsError};
use crate::time::{Micros, Timestamp};

/// What a text held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What it is.
    pub format: Format,
    /// The tasks.
    pub arrivals: Arrivals,
    /// Lines that hold a task without a service time, such as one that was given up; they are left out.
    pub skipped: usize,
}

/// The formats that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Our own, as CSV.
    Csv,
    /// Our own, as NDJSON.
    Ndjson,
    /// Azure LLM inference 2023.
    Azure,
    /// Mooncake.
    Mooncake,
    /// Alibaba GenTD26.
    Alibaba,
}

/// How long a request to a language model takes, where a trace has only its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceModel {
    /// For each token that is read.
    pub context: Micros,
    /// For each token that is written.
    pub generated: Micros,
    /// At least.
    pub least: Micros,
}

impl ServiceModel {
    /// 0.2 ms for each token of context and 20 ms for each generated one, at least 1 s.
    pub const AZURE: ServiceModel =
        ServiceModel { context: Micros(200), generated: Micros::from_millis(20), least: Micros::from_secs(1) };

    /// How long a request with so many tokens takes.
    pub const fn service(self, context: u64, generated: u64) -> Micros {
        let tokens = self.context.0.saturating_mul(context).saturating_add(self.generated.0.saturating_mul(generated));
        Micros(if tokens > self.least.0 { tokens } else { self.least.0 })
    }
}

/// Why a text is no trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// The first line says nothing that is known.
    #[error(
        "its first line is that of no known format; known are columns arrival_s,service_s[,priority], those of Azure and of Alibaba, and JSON lines"
    )]
    Unknown,
    /// JSON, in a build that cannot read any.
    #[error("it is JSON, which this build does not read")]
    NoJson,
    /// A line is longer than any that a trace has.
    #[error("line {line} is longer than {LINE_MAX} bytes")]
    LongLine {
        /// Which line, counted from 1.
        line: usize,
    },
    /// A line lacks a field.
    #[error("line {line}: {field} is missing")]
    Missing {
        /// Which line.
        line: usize,
        /// Which field.
        field: &'static str,
    },
    /// A field is not what it should be.
    #[error("line {line}: {field} is {value:?}; expected {expected}")]
    Field {
        /// Which line.
        line: usize,
        /// Which field.
        field: &'static str,
        /// What it is.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A line is no JSON object of the format.
    #[error("line {line}: {reason}")]
    Json {
        /// Which line.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// The tasks are beyond a limit.
    #[error(transparent)]
    Arrivals(#[from] ArrivalsError),
}

/// Longest line.
const LINE_MAX: usize = 1 << 20;

/// A task as a line has it, at a moment of the trace's own clock, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Row {
    at: u64,
    service: Micros,
    priority: Option<u8>,
}

/// What the lines of a text hold.
#[derive(Debug, Default)]
struct Rows {
    rows: Vec<Row>,
    skipped: usize,
    /// Whether moments are those of the calendar.
    has_calendar: bool,
}

/// The moment that a trace without a calendar begins at: any will do, as long as it is always the same. A whole hour.
const BEGAN: Timestamp = Timestamp(1_772_366_400_000_000);

/// Reads a trace of any known format.
///
/// # Errors
/// [`TraceError`] names the line, the field and what was expected.
pub fn read(text: &str, model: ServiceModel) -> Result<Trace, TraceError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (first, head) = lines(text).next().ok_or(TraceError::Empty)?;
    let (format, rows) = if head.trim_start().starts_with('{') { json(text, model)? } else { csv::read(text, first, model)? };
    arrivals(format, rows)
}

#[cfg(feature = "json")]
fn json(text: &str, model: ServiceModel) -> Result<(Format, Rows), TraceError> {
    json::read(text, model)
}

#[cfg(not(feature = "json"))]
fn json(_: &str, _: ServiceModel) -> Result<(Format, Rows), TraceError> {
    Err(TraceError::NoJson)
}

/// Lines that hold something, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line)).filter(|(_, line)| !line.trim().is_empty())
}

/// Refuses a line that is too long.
fn short(line: usize, text: &str) -> Result<(), TraceError> {
    if text.len() > LINE_MAX { Err(TraceError::LongLine { line }) } else { Ok(()) }
}

/// Counts moments from the earliest.
fn arrivals(format: Format, rows: Rows) -> Result<Trace, TraceError> {
    let earliest = rows.rows.iter().map(|row| row.at).min().unwrap_or(0);
    let began = if rows.has_calendar { Timestamp(earliest) } else { BEGAN };
    let task = |row: &Row| {
        let usual = Arrival::new(Micros(row.at - earliest), row.service);
        Arrival { priority: row.priority.unwrap_or(usual.priority), ..usual }
    };
    let arrivals = Arrivals::new(began, rows.rows.iter().map(task).collect())?;
    Ok(Trace { format, arrivals, skipped: rows.skipped })
}

/// Refuses the task beyond the most that there may be, before there is memory for it.
fn room(rows: &Rows) -> Result<(), TraceError> {
    let (count, max) = (rows.rows.len() + 1, Arrivals::COUNT_MAX);
    if count > max { Err(ArrivalsError::TooMany { count, max }.into()) } else { Ok(()) }
}
