//! What is told of this process: its log, its actors, its place among the engines.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use ergate_actors::generate::BatchOutcome;
use ergate_actors::observe::ObserverCounts;

use super::Labels;
use super::family::{Family, Form, number};
use super::table;
use crate::Runtime;
use crate::runtime::UNDECIDED_BYTES_MAX;
use crate::wiring::Parts;

/// The families of the process.
pub(super) fn families(runtime: &Runtime, labels: &mut Labels, form: Form) -> Vec<Family> {
    let mut families = log(runtime, form);
    families.extend(shards(runtime, labels, form));
    families.extend(actors(runtime, form));
    families.extend(plugins(runtime, form));
    #[cfg(feature = "requests")]
    families.extend(sources(runtime, form));
    families
}

fn log(runtime: &Runtime, form: Form) -> Vec<Family> {
    let (counters, space) = (runtime.log_counters(), runtime.space());
    vec![
        Family::timings(&table::APPEND, form, &counters.append),
        Family::timings(&table::FSYNC, form, &counters.sync),
        Family::of(&table::BLOCKS, form, number(counters.blocks.load(Relaxed))),
        Family::of(&table::BYTES, form, number(counters.bytes.load(Relaxed))),
        Family::of(&table::FAILED, form, f64::from(u8::from(runtime.failure().is_some()))),
        Family::of(&table::FREE, form, number(space.free_bytes)),
        Family::of(&table::LOW_WATER, form, number(space.low_water_bytes)),
        Family::timings(&table::REPLAY, form, &runtime.figures().replays),
        Family::of(&table::HOLDS, form, number(counters.holds.load(Relaxed))),
    ]
}

fn actors(runtime: &Runtime, form: Form) -> Vec<Family> {
    let restarts = runtime.restarts();
    let counts = [
        ("executor", &restarts.executors),
        ("dispatcher", &restarts.dispatchers),
        ("projector", &restarts.projectors),
        ("scheduler", &restarts.schedulers),
        ("process", &restarts.processes),
        ("autoscaler", &restarts.autoscalers),
    ];
    let restarted = counts
        .iter()
        .fold(Family::new(&table::RESTARTS, form), |family, (actor, count)| family.with(&[actor], number(count.load(Relaxed))));
    let free = runtime.room_bytes().min(UNDECIDED_BYTES_MAX as u64);
    let log = if runtime.is_on_kafka() { "kafka" } else { "local" };
    vec![
        Family::of(&table::BUSY, form, number(runtime.busy())),
        Family::of(&table::UNDECIDED, form, number(UNDECIDED_BYTES_MAX as u64 - free)),
        restarted,
        Family::new(&table::BUILD, form).with(&[env!("CARGO_PKG_VERSION"), log], 1.0),
    ]
}

/// A runtime has at most so many plug-ins that their names need no bound of their own.
fn plugins(runtime: &Runtime, form: Form) -> [Family; 2] {
    let [mut generated, mut observed] = [&table::GENERATED, &table::OBSERVED].map(|metric| Family::new(metric, form));
    let running = runtime.plugins();
    for generator in &running.generators {
        for (outcome, name) in BatchOutcome::ALL {
            generated.add(&[generator.task_type(), name], number(generator.counts().get(outcome)));
        }
    }
    for observer in running.observers.iter() {
        let ObserverCounts { told, dropped, panicked } = observer.counts();
        for (name, count) in [("told", told), ("dropped", dropped), ("panicked", panicked)] {
            observed.add(&[observer.task_type(), name], number(count.load(Relaxed)));
        }
    }
    [generated, observed]
}

/// A runtime has at most so many sources that their names need no bound of their own.
#[cfg(feature = "requests")]
fn sources(runtime: &Runtime, form: Form) -> [Family; 2] {
    let [mut lines, mut unread] = [&table::SOURCE_LINES, &table::SOURCE_UNREAD].map(|metric| Family::new(metric, form));
    runtime.each_led(|parts| {
        for (source, counts) in parts.sources.counts() {
            for (outcome, count) in [("taken", &counts.taken), ("duplicate", &counts.duplicate), ("refused", &counts.refused)] {
                lines.add(&[source, outcome], number(count.load(Relaxed)));
            }
            unread.add(&[source], number(counts.unread_bytes.load(Relaxed)));
        }
    });
    [lines, unread]
}

#[cfg_attr(not(feature = "kafka"), allow(unused_mut, unused_variables, reason = "lag is Kafka's"))]
fn shards(runtime: &Runtime, labels: &mut Labels, form: Form) -> Vec<Family> {
    let [mut position, mut view, mut leads, mut lag, mut unstable] =
        [&table::POSITION, &table::VIEW_POSITION, &table::LEADS, &table::LAG, &table::UNSTABLE]
            .map(|metric| Family::new(metric, form));
    let (mut submissions, mut reports) = (0, 0);
    runtime.each_led(|parts| {
        let name = parts.shard.to_string();
        // Past so many the rest is left out: their sum would say nothing.
        if labels.shards.label(&name) == name {
            let (folded, next) = folded(parts);
            position.add(&[&name], number(parts.tail.borrow().head.next.0));
            view.add(&[&name], number(folded));
            leads.add(&[&name], 1.0);
            #[cfg(feature = "kafka")]
            if let Some(end) = runtime.ends(parts.shard) {
                lag.add(&[&name], number(end.requests.saturating_sub(next)));
                end.unstable.into_iter().for_each(|count| unstable.add(&[&name], number(count)));
            }
        }
        submissions += parts.submissions.max_capacity() - parts.submissions.capacity();
        reports += parts.reports.upgrade().map_or(0, |lane| lane.max_capacity() - lane.capacity());
    });
    let waiting = [("submissions", submissions), ("reports", reports)];
    let mailboxes = waiting
        .iter()
        .fold(Family::new(&table::MAILBOX, form), |family, (lane, depth)| family.with(&[lane], number(*depth as u64)));
    let mut families = vec![position, view, mailboxes, leads, lag, unstable];
    if runtime.is_on_kafka() {
        families.push(Family::of(&table::REBALANCES, form, number(runtime.figures().rebalances.load(Relaxed))));
    }
    families
}

/// Up to which position a shard was counted, and the offset of its next request record.
fn folded(parts: &Parts) -> (u64, u64) {
    let tally = parts.tally.lock().unwrap_or_else(PoisonError::into_inner);
    (tally.position.0, tally.source_next)
}
