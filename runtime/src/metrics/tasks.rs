//! What is told of tasks, pools and schedules: counts since this process began, and what is there on the shards that are led here now.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use ergate_actors::autoscaler::fleet::Told;
use ergate_events::event::PoolMode;
use ergate_events::id::PoolId;
use ergate_events::schedule::PassedOver;
use ergate_events::state::control::ReplicaPhase;
use ergate_events::state::schedules::Schedules;
use ergate_events::task::Outcome;
use ergate_events::time::Timestamp;
use ergate_events::view::Tally;
use ergate_events::view::tally::{Counts, PHASES, TIMEOUTS, TypeTally};

use super::Labels;
use super::family::{Family, Form, number, seconds};
use super::table::{self, Metric};
use crate::Runtime;
use crate::tallies::Kind;

/// A counter, and where its number is.
type Counter = (&'static Metric, fn(&Counts) -> u64);

/// Counters of task types.
static COUNTERS: [Counter; 9] = [
    (&table::REQUESTS, |counts| counts.requests),
    (&table::DEDUPLICATED, |counts| counts.deduplicated),
    (&table::REDRIVES, |counts| counts.redrives),
    (&table::ATTEMPTS, |counts| counts.attempts),
    (&table::FAILURES, |counts| counts.failures),
    (&table::LOST, |counts| counts.lost),
    (&table::RETRIES, |counts| counts.retries),
    (&table::LIMITED, |counts| counts.limited),
    (&table::DEAD_LETTERS, |counts| counts.dead_letters),
];

/// Outcomes in the order of [`Outcome::ALL`], as labels have them.
const OUTCOMES: [&str; Outcome::ALL.len()] = ["succeeded", "partial", "failed", "cancelled", "skipped"];
/// States of replicas, as labels have them.
const STATES: [(ReplicaPhase, &str); 3] =
    [(ReplicaPhase::Requested, "requested"), (ReplicaPhase::Ready, "ready"), (ReplicaPhase::Draining, "draining")];

/// What is there of a task type.
#[derive(Default)]
struct There {
    phases: [u64; PHASES.len()],
    depth: u64,
    oldest: Option<Timestamp>,
    dead: u64,
}

impl There {
    fn add(&mut self, known: &TypeTally) {
        self.phases.iter_mut().zip(known.phases).for_each(|(count, more)| *count += more);
        self.depth += known.depth();
        self.oldest = [self.oldest, known.oldest()].into_iter().flatten().min();
        self.dead += known.dead;
    }
}

/// What is there of a pool.
#[derive(Default)]
struct Pool {
    replicas: [u64; STATES.len()],
    wanted: u64,
    held: bool,
    slots: u64,
    has_threads: bool,
}

/// The families of tasks and pools.
pub(super) fn families(runtime: &Runtime, labels: &mut Labels, form: Form) -> Vec<Family> {
    let registered: Vec<Kind> = runtime.kinds().map(|(pool, name)| labels.kind(pool, name)).collect();
    let mut families = counted(runtime, labels, &registered, form);
    let (mut there, mut pools) = (BTreeMap::<Kind, There>::new(), BTreeMap::<String, Pool>::new());
    let mut schedules = [&table::FIRINGS, &table::LAST_SLOT].map(|metric| Family::new(metric, form));
    for kind in registered {
        there.entry(kind).or_default();
    }
    runtime.each_led(|parts| {
        let tally = parts.tally.lock().unwrap_or_else(PoisonError::into_inner);
        for known in tally.types.iter().filter(|known| known.dead > 0 || known.phases.iter().any(|count| *count > 0)) {
            there.entry(labels.kind(&known.pool, &known.name)).or_default().add(known);
        }
        add_pools(&tally, labels, &mut pools);
        add_schedules(&tally.control.schedules, &mut schedules);
    });
    for (name, wanted) in runtime.wanted_of_others() {
        pools.entry(labels.pools.label(&name).to_owned()).or_default().wanted = u64::from(wanted);
    }
    families.extend(shown(&there, runtime.now(), form));
    families.extend(shown_pools(&pools, form));
    families.extend(shown_usage(runtime, &pools, form));
    #[cfg(feature = "http")]
    families.push(shown_workers(runtime, labels, form));
    families.extend(schedules);
    families
}

/// What was counted, of types that are registered here and of those of which anything was.
fn counted(runtime: &Runtime, labels: &mut Labels, registered: &[Kind], form: Form) -> Vec<Family> {
    let totals = runtime.figures().tallies.totals(runtime.now());
    let mut rows: BTreeMap<Kind, Counts> = registered.iter().map(|kind| (kind.clone(), Counts::default())).collect();
    for ((pool, name), counts) in totals.kinds.iter().filter(|(_, counts)| **counts != Counts::default()) {
        rows.entry(labels.kind(pool, name)).or_default().merge(counts);
    }
    let mut families: Vec<Family> = COUNTERS.iter().map(|(metric, _)| Family::new(metric, form)).collect();
    let mut timeouts = Family::new(&table::TIMEOUTS, form);
    let mut completions = Family::new(&table::COMPLETIONS, form);
    let (mut waits, mut runs) = (Family::new(&table::WAITS, form), Family::new(&table::RUNS, form));
    for ((pool, name), counts) in &rows {
        let kind = [pool.as_str(), name.as_str()];
        families.iter_mut().zip(&COUNTERS).for_each(|(family, (_, count))| family.add(&kind, number(count(counts))));
        let with = |third| [kind[0], kind[1], third];
        TIMEOUTS.iter().zip(counts.timeouts).for_each(|((_, name), count)| timeouts.add(&with(name), number(count)));
        OUTCOMES.iter().zip(counts.ended).for_each(|(name, count)| completions.add(&with(name), number(count)));
        waits.add_spans(&kind, &counts.waits);
        runs.add_spans(&kind, &counts.runs);
    }
    let mut time = BTreeMap::<&str, f64>::new();
    for (pool, sum) in &totals.replica_time {
        *time.entry(labels.pools.label(pool)).or_default() += seconds(*sum);
    }
    let mut replica_time = Family::new(&table::REPLICA_TIME, form);
    time.iter().for_each(|(pool, sum)| replica_time.add(&[pool], *sum));
    families.extend([
        timeouts,
        completions,
        waits,
        runs,
        Family::of(&table::REFUSED, form, number(totals.refused)),
        replica_time,
    ]);
    families
}

/// What is there now.
fn shown(there: &BTreeMap<Kind, There>, now: Timestamp, form: Form) -> [Family; 4] {
    let [mut depth, mut oldest, mut tasks, mut dead] =
        [&table::DEPTH, &table::OLDEST, &table::TASKS, &table::DEAD_LETTERS_KEPT].map(|metric| Family::new(metric, form));
    for ((pool, name), there) in there {
        let kind = [pool.as_str(), name.as_str()];
        depth.add(&kind, number(there.depth));
        oldest.add(&kind, there.oldest.map_or(0.0, |since| seconds(now.since(since))));
        PHASES.iter().zip(there.phases).for_each(|((_, state), count)| tasks.add(&[kind[0], kind[1], state], number(count)));
        dead.add(&kind, number(there.dead));
    }
    [depth, oldest, tasks, dead]
}

fn add_pools(tally: &Tally, labels: &mut Labels, pools: &mut BTreeMap<String, Pool>) {
    for (id, size) in (0..).map(PoolId).zip(&tally.control.pools) {
        let pool = pools.entry(labels.pools.label(&size.name).to_owned()).or_default();
        let mode = tally.control.mode(id);
        pool.wanted += if mode == PoolMode::Drained { 0 } else { u64::from(size.replicas) };
        pool.held |= mode != PoolMode::Running;
    }
    for (pool, phase) in tally.replicas() {
        let index = STATES.iter().position(|(known, _)| *known == phase).expect("STATES lists every phase");
        pools.entry(labels.pools.label(pool).to_owned()).or_default().replicas[index] += 1;
    }
    for (pool, slots) in tally.slots() {
        pools.entry(labels.pools.label(pool).to_owned()).or_default().slots += slots;
    }
    for size in tally.control.pools.iter().filter(|size| tally.has_threads(&size.name)) {
        pools.entry(labels.pools.label(&size.name).to_owned()).or_default().has_threads = true;
    }
}

/// Schedules have at most as many names as a log takes in its life, so each is a label of its own.
fn add_schedules(schedules: &Schedules, [firings, last]: &mut [Family; 2]) {
    for (_, known) in schedules.active() {
        firings.add(&[&known.name, "fired"], number(known.fired));
        let passed = PassedOver::ALL.iter().zip(known.passed);
        passed.for_each(|(because, count)| firings.add(&[&known.name, because.name()], number(count)));
        last.add(&[&known.name], known.last.map_or(0.0, |last| seconds(last.slot.since(Timestamp(0)))));
    }
}

fn shown_pools(pools: &BTreeMap<String, Pool>, form: Form) -> [Family; 4] {
    let [mut replicas, mut wanted, mut held, mut slots] =
        [&table::REPLICAS, &table::REPLICAS_WANTED, &table::POOL_HELD, &table::SLOTS].map(|metric| Family::new(metric, form));
    for (name, pool) in pools {
        STATES.iter().zip(pool.replicas).for_each(|((_, state), count)| replicas.add(&[name, state], number(count)));
        wanted.add(&[name], number(pool.wanted));
        held.add(&[name], if pool.held { 1.0 } else { 0.0 });
        slots.add(&[name], number(pool.slots));
    }
    [replicas, wanted, held, slots]
}

/// What replicas use, of pools of which any has told.
fn shown_usage(runtime: &Runtime, pools: &BTreeMap<String, Pool>, form: Form) -> [Family; 3] {
    let [mut cpu, mut memory, mut told] =
        [&table::POOL_CPU, &table::POOL_MEMORY, &table::POOL_TOLD].map(|metric| Family::new(metric, form));
    for (name, pool) in pools {
        let used = Told::of(name, runtime.hub(), pool.has_threads, runtime.now());
        told.add(&[name], number(used.replicas));
        if used.replicas > 0 {
            cpu.add(&[name], used.cpu_cores);
            memory.add(&[name], number(used.memory_bytes));
        }
    }
    [cpu, memory, told]
}

/// Silence of a worker after which it counts as silent: longer than the longest question, which is no silence.
#[cfg(feature = "http")]
const SILENT_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

#[cfg(feature = "http")]
fn shown_workers(runtime: &Runtime, labels: &mut Labels, form: Form) -> Family {
    let mut counts: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    for session in runtime.workers() {
        let state = if session.is_draining() { 1 } else { 2 * usize::from(session.silence() >= SILENT_AFTER) };
        counts.entry(labels.pools.label(&session.spec().pool).to_owned()).or_default()[state] += 1;
    }
    let mut workers = Family::new(&table::WORKERS, form);
    for (pool, counts) in &counts {
        let states = ["working", "draining", "silent"].iter().zip(counts);
        states.for_each(|(state, count)| workers.add(&[pool, state], number(*count)));
    }
    workers
}
