//! What this process and its descendants use: CPU and memory, from the files in which Linux says so. Elsewhere nothing is known, and nothing is told.
//!
//! A cgroup that holds nothing else is asked first: it also knows what has left the family. Otherwise the process and its descendants are added up, those
//! that have ended among them, whose time their parents inherit.

mod cgroup;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ergate_events::scaling::usage::Used;
use ergate_events::time::{Micros, Timestamp};

use self::tree::Tree;

/// Shortest time between two measurements: the clock of processes ticks a hundred times a second, and less says little.
pub const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// What is used now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// CPU, in cores; `None` before there were two measurements to compare.
    pub cpu_cores: Option<f64>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Over how long the CPU was measured.
    pub over: Duration,
}

/// Measures this process again and again.
#[derive(Debug)]
pub struct Meter {
    before: Option<Sample>,
    /// What processes had used at the last look that are not to be counted.
    apart: BTreeMap<u32, Duration>,
    /// What such processes had used that have ended: their time is that of this process from then on.
    inherited: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    /// Processor time since the beginning.
    cpu: Duration,
    is_cgroup: bool,
}

impl Default for Meter {
    fn default() -> Self {
        let mut meter = Meter { before: None, apart: BTreeMap::new(), inherited: Duration::ZERO };
        meter.measure(&BTreeSet::new());
        meter
    }
}

impl Meter {
    /// What is used, on average since the last measurement. Of these processes and their descendants, somebody else tells.
    pub fn measure(&mut self, apart: &BTreeSet<u32>) -> Option<Usage> {
        let tree = Tree::read(std::process::id(), apart)?;
        for (process, used) in std::mem::replace(&mut self.apart, tree.apart.clone()) {
            if !tree.apart.contains_key(&process) {
                self.inherited += used;
            }
        }
        let own = if apart.is_empty() { cgroup::read(&tree.processes) } else { None };
        let (cpu, memory) = match own {
            Some(own) => (own.cpu, own.memory_bytes),
            None => (tree.cpu.saturating_sub(self.inherited), tree.memory_bytes),
        };
        let now = Sample { at: Instant::now(), cpu, is_cgroup: own.is_some() };
        let before = self.before.replace(now).filter(|before| before.is_cgroup == now.is_cgroup);
        let over = before.map_or(Duration::ZERO, |before| now.at - before.at);
        let cpu_cores = before.filter(|_| !over.is_zero()).map(|before| {
            // A descendant that left the family takes its time along; nobody uses less than nothing.
            now.cpu.saturating_sub(before.cpu).as_secs_f64() / over.as_secs_f64()
        });
        Some(Usage { cpu_cores, memory_bytes: Some(memory), over })
    }
}

/// What an engine itself uses, for whoever asks.
#[derive(Debug)]
pub struct Own {
    state: Mutex<(Meter, Option<(Usage, Instant)>)>,
    /// Processes that are workers: they tell themselves what they use.
    workers: Mutex<BTreeSet<u32>>,
    begun: Instant,
}

impl Default for Own {
    fn default() -> Self {
        Own { state: Mutex::default(), workers: Mutex::default(), begun: Instant::now() }
    }
}

impl Own {
    /// A process of this engine is a worker from here on.
    pub fn add_worker(&self, process: u32) {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).insert(process);
    }

    /// It has ended.
    pub fn remove_worker(&self, process: u32) {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).remove(&process);
    }

    /// For how long it has been measured.
    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// What the engine uses; measured again where that is long enough ago.
    pub fn read(&self, now: Timestamp) -> Option<Used> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (meter, last) = &mut *state;
        if last.as_ref().is_none_or(|(_, at)| at.elapsed() >= MEASURE_EVERY) {
            let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner).clone();
            *last = meter.measure(&workers).map(|usage| (usage, Instant::now()));
        }
        let (usage, at) = last.as_ref()?;
        Some(used(usage, at.elapsed(), now))
    }
}

/// What was told so long ago, as decisions are shown it.
pub fn used(usage: &Usage, ago: Duration, now: Timestamp) -> Used {
    Used {
        cpu_milli: usage.cpu_cores.filter(|cores| *cores >= 0.0).map(|cores| (cores * 1_000.0).round() as u64),
        memory_bytes: usage.memory_bytes,
        at: Timestamp(now.0.saturating_sub(Micros::from(ago).0)),
        over: Micros::from(usage.over),
    }
}
