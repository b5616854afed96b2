//! What the replicas of a pool use: CPU in cores and memory in bytes, of all together, of one on average, and as a share of what one asks for.
//!
//! | what is known | total | mean and share |
//! |---|---|---|
//! | no replica takes work | cannot be read | cannot be read |
//! | every replica told lately | their sum | their mean |
//! | one came up less than [`TOLD_WITHIN`] ago and told nothing yet | the sum of the others | the mean of the others |
//! | some told nothing, or nothing lately; half or more did | cannot be read | the mean of those that did |
//! | fewer than half did | cannot be read | cannot be read |
//! | a share, and nobody said what a replica asks for | | cannot be read |
//!
//! What cannot be read is an error with its reason, and never a zero. `hpa` has rules of its own for replicas that are not ready or tell nothing, so it is
//! shown each of them ([`pods`]).

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::measure;
use super::signal::{Phase, Pods, Reading, Requested, Usage, names};
use crate::resources::Asked;
use crate::time::{Micros, Timestamp};

/// For how long counts what a replica told: three times as long as workers may be silent about it (`docs/worker-protocol.md`), so that one lost call is none.
pub const TOLD_WITHIN: Micros = Micros::from_secs(30);
/// At least this share of the replicas, one in so many, has to have told for a mean of them to say something of all.
const ONE_IN: usize = 2;
/// The names that `hpa` has for what pods use.
pub const CPU: &str = "cpu";
/// Memory, as `hpa` calls it.
pub const MEMORY: &str = "memory";

/// One replica as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaReading {
    /// Where it is in its life.
    pub stage: Stage,
    /// Since when it takes work, as far as whoever looked knows.
    pub since: Timestamp,
    /// How many of its slots are busy, in thousandths.
    pub busy_milli: u32,
    /// What it uses; `None` where it told nothing, or nothing lately.
    pub used: Option<Used>,
}

/// Where a replica is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Asked for, and not up yet.
    Starting,
    /// Takes work.
    Ready,
    /// Finishes what it has.
    Draining,
}

/// What a replica uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Used {
    /// CPU, in thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// When that was measured.
    pub at: Timestamp,
    /// Over how long.
    pub over: Micros,
}

/// Which of a signal's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Total,
    Mean,
    Percent,
}

/// What a signal is of replicas, by its name.
struct Meaning {
    form: Form,
    /// What it is called in a reason, and the setting that says how much a replica asks for.
    what: &'static str,
    setting: &'static str,
    /// How much of it a replica uses.
    of: fn(&Used) -> Option<u64>,
    asked: fn(&Asked) -> Option<u64>,
    /// So many of what is counted are one of the signal's unit.
    unit: f64,
}

impl Meaning {
    fn named(name: &str) -> Option<Meaning> {
        let cpu = |form| Meaning {
            form,
            what: "CPU",
            setting: "cpu",
            of: |used| used.cpu_milli,
            asked: |asked| asked.cpu_milli,
            unit: 1_000.0,
        };
        let memory = |form| Meaning {
            form,
            what: "memory",
            setting: "memory",
            of: |used| used.memory_bytes,
            asked: |asked| asked.memory_bytes,
            unit: 1.0,
        };
        Some(match name {
            names::CPU => cpu(Form::Total),
            names::CPU_MEAN => cpu(Form::Mean),
            names::CPU_PERCENT => cpu(Form::Percent),
            names::MEMORY => memory(Form::Total),
            names::MEMORY_MEAN => memory(Form::Mean),
            names::MEMORY_PERCENT => memory(Form::Percent),
            _ => return None,
        })
    }
}

/// Whether a signal of this name is about what replicas use.
pub fn is_usage(name: &str) -> bool {
    Meaning::named(name).is_some()
}

/// A reading of a signal that is about what replicas use; `None` for any other.
pub fn read(name: &str, replicas: &[ReplicaReading], asked: &Asked, now: Timestamp) -> Option<Reading> {
    let meaning = Meaning::named(name)?;
    Some(meaning.read(replicas, asked, now).unwrap_or_else(Reading::Failed))
}

impl Meaning {
    fn read(&self, replicas: &[ReplicaReading], asked: &Asked, now: Timestamp) -> Result<Reading, String> {
        let what = self.what;
        let used = |replica: &ReplicaReading| replica.used.as_ref().and_then(self.of);
        let is_new = |replica: &ReplicaReading| now.since(replica.since) < TOLD_WITHIN && used(replica).is_none();
        let ready: Vec<&ReplicaReading> = replicas.iter().filter(|replica| replica.stage == Stage::Ready).collect();
        let counted = ready.iter().filter(|replica| !is_new(replica)).count();
        let told: Vec<u64> = ready.iter().filter_map(|replica| used(replica)).collect();
        if ready.is_empty() {
            return Err(format!("no replica takes work, so there is no {what} to measure"));
        }
        if told.is_empty() || told.len() * ONE_IN < counted || (self.form == Form::Total && told.len() < counted) {
            let all = counted.max(told.len());
            return Err(match all {
                0 => format!("no replica has told yet how much {what} it uses"),
                _ => format!("{} of {all} replicas told lately how much {what} they use", told.len()),
            });
        }
        let total: f64 = told.iter().map(|one| *one as f64).sum();
        let mean = total / told.len() as f64;
        Ok(match self.form {
            Form::Total => measure::real(total / self.unit),
            Form::Mean => measure::real(mean / self.unit),
            Form::Percent => {
                let setting = self.setting;
                let asked = (self.asked)(asked).filter(|asked| *asked > 0);
                let asked = asked
                    .ok_or_else(|| format!("nobody said how much {what} a replica asks for: set `{setting}` of the pool"))?;
                measure::real(mean / asked as f64 * 100.0)
            }
        })
    }
}

/// Replicas as Kubernetes describes its pods. What they ask for is that of their pool.
pub fn pods(replicas: &[ReplicaReading], asked: &Asked) -> Vec<Pods> {
    let milli = |amount: u64, unit: i64| i64::try_from(amount).unwrap_or(i64::MAX).saturating_mul(unit);
    // A core has a thousand thousandths and a byte as well; CPU is counted in them already.
    let requested = |metric: &str, amount: Option<u64>, unit| {
        amount.map(|amount| Requested { metric: metric.to_owned(), milli: milli(amount, unit) })
    };
    let requests = [requested(CPU, asked.cpu_milli, 1), requested(MEMORY, asked.memory_bytes, 1_000)];
    let requests: Vec<Requested> = requests.into_iter().flatten().collect();
    let pod = |replica: &ReplicaReading| {
        let is_up = replica.stage != Stage::Starting;
        let usage = |metric: &str, milli, (at, over)| Usage { metric: metric.to_owned(), milli, at, window: over };
        let told = replica.used.iter().flat_map(|used| {
            let when = (used.at, used.over);
            let cpu = used.cpu_milli.map(|amount| usage(CPU, milli(amount, 1), when));
            cpu.into_iter().chain(used.memory_bytes.map(|amount| usage(MEMORY, milli(amount, 1_000), when)))
        });
        let busy = is_up.then(|| usage(names::BUSY, i64::from(replica.busy_milli) * 100, (replica.since, Micros(0))));
        Pods {
            count: 1,
            phase: if is_up { Phase::Running } else { Phase::Pending },
            is_deleted: replica.stage == Stage::Draining,
            started: is_up.then_some(replica.since),
            ready: is_up.then_some((true, replica.since)),
            requests: requests.clone(),
            usage: told.chain(busy).collect(),
        }
    };
    replicas.iter().map(pod).collect()
}
