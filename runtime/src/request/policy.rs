//! Parts of a retry policy and of timeouts that a request asks for; what it leaves open is as the task type has it.

use ergate_events::task::{RetryPolicy, Timeouts};
use ergate_events::time::Micros;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::json;
use super::plain::read;
use super::refusal::{Refusal, instead};
use super::scalar;

/// Parts of a retry policy; written as the fields of `retry`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RetryWish {
    /// Attempts in all, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Delay before the second attempt.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_span")]
    pub initial: Option<Micros>,
    /// Factor from one delay to the next, in thousandths.
    #[serde(rename = "coefficient", skip_serializing_if = "Option::is_none", serialize_with = "write_factor")]
    pub coefficient_milli: Option<u32>,
    /// Longest delay.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_span")]
    pub max: Option<Micros>,
}

/// Parts of the timeouts, all longer than zero; written as the fields of `timeouts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TimeoutsWish {
    /// From becoming ready to being started.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_span")]
    pub schedule_to_start: Option<Micros>,
    /// From the start of one attempt to its end.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_span")]
    pub start_to_close: Option<Micros>,
    /// From the request to the end of the last attempt.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_span")]
    pub schedule_to_close: Option<Micros>,
    /// Between two heartbeats of one attempt.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_span")]
    pub heartbeat: Option<Micros>,
}

impl RetryWish {
    const NAMES: [&str; 4] = ["attempts", "initial", "coefficient", "max"];

    pub(super) fn read(raw: &RawValue) -> Result<RetryWish, Refusal> {
        let [attempts, initial, coefficient, max] = json::split_field("retry", raw, &Self::NAMES)?;
        Ok(RetryWish {
            attempts: read("retry.attempts", attempts, |raw| scalar::attempts(raw.get()))?,
            initial: read("retry.initial", initial, span)?,
            coefficient_milli: read("retry.coefficient", coefficient, |raw| scalar::coefficient_milli(raw.get()))?,
            max: read("retry.max", max, span)?,
        })
    }

    /// All of a policy but its jitter, which a request cannot name.
    #[cfg(feature = "kafka")]
    pub(super) fn of(policy: RetryPolicy) -> RetryWish {
        let RetryPolicy { attempts, initial, coefficient_milli, max, jitter_milli: _ } = policy;
        RetryWish { attempts: Some(attempts), initial: Some(initial), coefficient_milli: Some(coefficient_milli), max: Some(max) }
    }

    /// The whole policy: these parts, and the rest as `base` has it.
    pub fn over(self, base: RetryPolicy) -> RetryPolicy {
        RetryPolicy {
            attempts: self.attempts.unwrap_or(base.attempts),
            initial: self.initial.unwrap_or(base.initial),
            coefficient_milli: self.coefficient_milli.unwrap_or(base.coefficient_milli),
            max: self.max.unwrap_or(base.max),
            jitter_milli: base.jitter_milli,
        }
    }
}

impl TimeoutsWish {
    const NAMES: [&str; 4] = ["schedule_to_start", "start_to_close", "schedule_to_close", "heartbeat"];

    pub(super) fn read(raw: &RawValue) -> Result<TimeoutsWish, Refusal> {
        let [schedule_to_start, start_to_close, schedule_to_close, heartbeat] = json::split_field("timeouts", raw, &Self::NAMES)?;
        Ok(TimeoutsWish {
            schedule_to_start: read("timeouts.schedule_to_start", schedule_to_start, limit)?,
            start_to_close: read("timeouts.start_to_close", start_to_close, limit)?,
            schedule_to_close: read("timeouts.schedule_to_close", schedule_to_close, limit)?,
            heartbeat: read("timeouts.heartbeat", heartbeat, limit)?,
        })
    }

    /// Those that are given; a request cannot take back what its type gives.
    #[cfg(feature = "kafka")]
    pub(super) fn of(timeouts: Timeouts) -> TimeoutsWish {
        let Timeouts { schedule_to_start, start_to_close, schedule_to_close, heartbeat } = timeouts;
        TimeoutsWish { schedule_to_start, start_to_close: Some(start_to_close), schedule_to_close, heartbeat }
    }

    /// All four timeouts: these, and the rest as `base` has it.
    pub fn over(self, base: Timeouts) -> Timeouts {
        Timeouts {
            schedule_to_start: self.schedule_to_start.or(base.schedule_to_start),
            start_to_close: self.start_to_close.unwrap_or(base.start_to_close),
            schedule_to_close: self.schedule_to_close.or(base.schedule_to_close),
            heartbeat: self.heartbeat.or(base.heartbeat),
        }
    }
}

/// A span as a text: a bare number would have to be guessed.
pub(super) fn span(raw: &RawValue) -> Result<Micros, String> {
    scalar::span(&span_text(raw)?)
}

/// A span longer than zero.
pub(super) fn limit(raw: &RawValue) -> Result<Micros, String> {
    scalar::limit(&span_text(raw)?)
}

fn span_text(raw: &RawValue) -> Result<std::borrow::Cow<'_, str>, String> {
    json::text(raw).map_err(|_| instead(raw.get(), "a span with its unit, such as \"500ms\" or \"10s\","))
}

/// Writes a span in microseconds, so that nothing is lost.
#[allow(clippy::ref_option, reason = "serde calls it with a reference")]
pub(super) fn write_span<S: Serializer>(span: &Option<Micros>, to: S) -> Result<S::Ok, S::Error> {
    span.map(|Micros(micros)| format!("{micros}us")).serialize(to)
}

#[allow(clippy::ref_option, reason = "serde calls it with a reference")]
fn write_factor<S: Serializer>(milli: &Option<u32>, to: S) -> Result<S::Ok, S::Error> {
    milli.map(|milli| f64::from(milli) / 1_000.0).serialize(to)
}
