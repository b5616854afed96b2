//! What a policy is shown: everything that a decision may use, and nothing else.

use std::fmt;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::decision::Failure;
use super::real::Real;
use crate::resources::Fit;
use crate::time::{Micros, Timestamp};

/// Names of the signals that Ergate measures by itself; units come last. A policy may name any other signal as well.
pub mod names {
    /// Tasks that could start now if there were a slot.
    pub const READY: &str = "ready";
    /// Attempts that run.
    pub const RUNNING: &str = "running";
    /// How long the oldest ready task has been ready, in seconds.
    pub const OLDEST: &str = "oldest_s";
    /// For how long nothing has been ready or running, in seconds.
    pub const IDLE: &str = "idle_s";
    /// How long attempts of the last five minutes waited for a slot: the upper bounds of the buckets of `ergate_schedule_to_start_seconds`.
    pub const WAIT_P50: &str = "wait_s_p50";
    /// The 95th percentile of that.
    pub const WAIT_P95: &str = "wait_s_p95";
    /// The 99th percentile of that.
    pub const WAIT_P99: &str = "wait_s_p99";
    /// How long attempts that ended in the last five minutes ran, in the same buckets.
    pub const RUN_P50: &str = "run_s_p50";
    /// The 95th percentile of that.
    pub const RUN_P95: &str = "run_s_p95";
    /// The 99th percentile of that.
    pub const RUN_P99: &str = "run_s_p99";
    /// Tasks that are ready or running.
    pub const WORK: &str = "work";
    /// Which share of the slots of replicas that take work is busy, in per cent; 0 where there is none.
    pub const BUSY: &str = "busy_percent";
    /// What the replicas that take work use of the CPU together, in cores.
    pub const CPU: &str = "cpu_cores";
    /// What one of them uses on average.
    pub const CPU_MEAN: &str = "cpu_cores_mean";
    /// The same in per cent of what a replica asks for.
    pub const CPU_PERCENT: &str = "cpu_percent";
    /// Memory that they use together, in bytes.
    pub const MEMORY: &str = "memory_bytes";
    /// What one of them uses on average.
    pub const MEMORY_MEAN: &str = "memory_bytes_mean";
    /// The same in per cent of what a replica asks for.
    pub const MEMORY_PERCENT: &str = "memory_percent";
    /// Tasks that arrived, a second.
    pub const ARRIVALS: &str = "arrivals_per_s";
    /// How many more tasks arrived than attempts started in the last minute, a second: how fast the backlog grows.
    pub const GROWTH: &str = "ready_per_s";
    /// Mean time from start to end of the attempts that ended lately, in seconds.
    pub const SERVICE: &str = "service_s_mean";
    /// Mean time from asking for a replica to its first slot, in seconds.
    pub const START: &str = "start_s_mean";
    /// Requests on a topic that nobody has read yet, of all pools.
    pub const LAG: &str = "lag";
    /// How many more of them there are each second, over the last minute; 0 where they become fewer.
    pub const LAG_GROWTH: &str = "lag_growth_per_s";

    /// All of them.
    pub const ALL: [&str; 24] = [
        READY,
        RUNNING,
        OLDEST,
        IDLE,
        WAIT_P50,
        WAIT_P95,
        WAIT_P99,
        RUN_P50,
        RUN_P95,
        RUN_P99,
        WORK,
        BUSY,
        CPU,
        CPU_MEAN,
        CPU_PERCENT,
        MEMORY,
        MEMORY_MEAN,
        MEMORY_PERCENT,
        ARRIVALS,
        GROWTH,
        SERVICE,
        START,
        LAG,
        LAG_GROWTH,
    ];
}

/// Everything a decision about a pool used, as it was at one moment.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    /// The moment.
    pub at: Timestamp,
    /// How few and how many replicas the pool may have, its ceiling included.
    pub bounds: Bounds,
    /// How many fit under the pool's ceiling, where that is fewer than it might have without it; then it is the most of the bounds.
    pub ceiling: Option<Fit>,
    /// How many it has.
    pub replicas: Replicas,
    /// The signals, in the order in which the pool's policy names them.
    pub signals: Vec<Signal>,
    /// Each replica as Kubernetes describes it, for `hpa`; `None` where nobody looked, which is something else than none.
    pub pods: Option<Vec<Pods>>,
}

/// How few and how many replicas a pool may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Fewest; 0 lets the pool sleep.
    pub min: u32,
    /// Most.
    pub max: u32,
}

impl Bounds {
    /// The nearest count that is allowed; where the bounds contradict each other the most counts, for it limits the cost.
    pub const fn nearest(self, count: u32) -> u32 {
        let at_least = if count < self.min { self.min } else { count };
        if at_least > self.max { self.max } else { at_least }
    }
}

/// The replicas of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replicas {
    /// What the last decision wanted: the count that a decision changes.
    pub wanted: u32,
    /// Those that are there in any way, starting and draining ones included.
    pub live: u32,
    /// Those that were asked for and have no slot yet.
    pub starting: u32,
    /// Those that take work.
    pub ready: u32,
    /// Those that finish what they have and take nothing new.
    pub draining: u32,
    /// Slots of one replica.
    pub slots: u32,
    /// Attempts that run now, in all slots.
    pub running: u32,
}

/// One signal.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signal {
    /// Its name, as policies call it.
    pub name: String,
    /// What was read.
    pub reading: Reading,
}

/// What was read, or why nothing was.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// A number.
    Value(Value),
    /// The reason why there is none.
    Failed(String),
}

/// A number as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// Thousandths, the unit in which Kubernetes counts.
    Milli(i64),
    /// Any finite number.
    Real(Real),
}

impl Value {
    /// The number. Thousandths are divided, so that 1500 gives 1.5 exactly.
    pub fn real(self) -> f64 {
        match self {
            Value::Integer(number) => number as f64,
            Value::Milli(number) => number as f64 / 1_000.0,
            Value::Real(number) => number.get(),
        }
    }

    /// The number in thousandths; what is smaller is cut off, as KEDA and the adapters of Kubernetes do.
    pub fn milli(self) -> i64 {
        match self {
            Value::Integer(number) => number.saturating_mul(1_000),
            Value::Milli(number) => number,
            // Beyond an i64 the cast ends at its limits.
            Value::Real(number) => (number.get() * 1_000.0) as i64,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Integer(number) => write!(f, "{number}"),
            Value::Milli(number) if number % 1_000 == 0 => write!(f, "{}", number / 1_000),
            Value::Milli(_) => write!(f, "{}", Real::new(self.real()).unwrap_or(Real::ZERO)),
            Value::Real(number) => number.fmt(f),
        }
    }
}

/// A number of replicas that Kubernetes describes in the same words. Times and usage are those of each of them.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pods {
    /// How many.
    pub count: u32,
    /// Where they are in their lives.
    pub phase: Phase,
    /// Whether they are being deleted.
    pub is_deleted: bool,
    /// When they started; `None` for those that have not.
    pub started: Option<Timestamp>,
    /// Whether they are ready, and since when that is so or not so; `None` where nobody has said.
    pub ready: Option<(bool, Timestamp)>,
    /// What each asks for, by metric; nothing where a container asks for nothing of it.
    pub requests: Vec<Requested>,
    /// What each uses, by metric.
    pub usage: Vec<Usage>,
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waiting for a place, or for its images.
    Pending,
    /// Placed, with at least one container that runs or starts.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
}

/// What a pod asks for of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requested {
    /// The metric that says how much of it is used.
    pub metric: String,
    /// How much, in thousandths.
    pub milli: i64,
}

/// What a pod uses of one metric.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// The metric's name.
    pub metric: String,
    /// How much, in thousandths.
    pub milli: i64,
    /// When it was measured.
    pub at: Timestamp,
    /// Over how long.
    pub window: Micros,
}

impl Pods {
    /// What each asks for of a resource, in thousandths.
    pub fn request(&self, metric: &str) -> Option<i64> {
        self.requests.iter().find(|requested| requested.metric == metric).map(|requested| requested.milli)
    }
}

impl Observation {
    /// What was read of a signal.
    ///
    /// # Errors
    /// [`Failure::Missing`] where nobody read it, [`Failure::Source`] where reading it failed.
    pub fn read(&self, name: &str) -> Result<Value, Failure> {
        match self.signals.iter().find(|signal| signal.name == name).map(|signal| &signal.reading) {
            Some(Reading::Value(value)) => Ok(*value),
            Some(Reading::Failed(reason)) => Err(Failure::Source(reason.clone())),
            None => Err(Failure::Missing),
        }
    }

    /// What was read of a signal that counts something: below zero is a failure.
    ///
    /// # Errors
    /// As for [`Observation::read`], and [`Failure::Negative`].
    pub fn count(&self, name: &str) -> Result<(Value, f64), Failure> {
        let value = self.read(name)?;
        let number = value.real();
        if number < 0.0 { Err(Failure::Negative) } else { Ok((value, number)) }
    }
}

/// A number of replicas from a calculation: rounded up, and the nearest that there can be. What is no number asks for nothing.
pub(crate) fn replicas(number: f64) -> u32 {
    // The cast takes NaN for 0 and ends at the limits of u32.
    number.ceil() as u32
}
