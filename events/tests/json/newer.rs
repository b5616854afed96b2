//! Events of the formats from 3 on: limits, progress, dependencies, schedules, modes of pools, workers.

use ergate_events::event::{Event, PoolMode};
use ergate_events::id::{LimitId, ScheduleId};
use ergate_events::limit::{LimitSettings, Rate};
use ergate_events::ran::{CudaVersion, KernelDigest, Ran};
use ergate_events::resources::{Asked, Ceiling, PoolResources};
use ergate_events::scaling::real::Real;
use ergate_events::scaling::signal::{Reading, Value};
use ergate_events::scaling::usage::{ReplicaReading, Stage, Used};
use ergate_events::schedule::{CatchUp, Label, Overlap, PassedOver, ScheduleSettings, When};
use ergate_events::worker::{WorkerFacts, WorkerId};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use crate::any::{count, moment, number, pool_id, replica, span, task, text, type_id};

fn name() -> impl Strategy<Value = String> {
    text().prop_map(str::to_owned)
}

fn limit_id() -> impl Strategy<Value = LimitId> {
    any::<u16>().prop_map(LimitId)
}

fn allows() -> impl Strategy<Value = Box<LimitSettings>> {
    let rate = (count(), span(), count()).prop_map(|(permits, per, burst)| Rate { permits, per, burst });
    (of(name()), of(count()), of(rate), of(count()))
        .prop_map(|(key, concurrency, rate, ready)| Box::new(LimitSettings { key, concurrency, rate, ready }))
}

fn schedule() -> impl Strategy<Value = ScheduleId> {
    any::<u16>().prop_map(ScheduleId)
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![name().prop_map(When::Cron), span().prop_map(When::Every), moment().prop_map(When::At)]
}

fn plan() -> impl Strategy<Value = Box<ScheduleSettings>> {
    let label = (name(), name()).prop_map(|(name, value)| Label { name, value });
    let labels = proptest::collection::vec(label, 0..3);
    let catch_up = select(vec![CatchUp::Skip, CatchUp::RunOnce, CatchUp::RunAll]);
    let overlap = select(vec![Overlap::Allow, Overlap::Skip, Overlap::CancelPrevious]);
    let priority = of(any::<u8>());
    (when(), (name(), name(), name()), labels, priority, catch_up, overlap).prop_map(
        |(when, (timezone, task, payload), labels, priority, catch_up, overlap)| {
            Box::new(ScheduleSettings { when, timezone, task, payload, labels, priority, catch_up, overlap })
        },
    )
}

fn ran() -> impl Strategy<Value = Box<Ran>> {
    let driver = of((any::<u32>(), count()).prop_map(|(major, minor)| CudaVersion { major, minor }));
    let spans = (span(), span(), span());
    (name(), driver, any::<[u8; 32]>(), count(), spans, number()).prop_map(
        |(device, driver, kernel, batch_size, (queue, copy, compute), memory_bytes)| {
            let kernel = KernelDigest(kernel);
            Box::new(Ran { device, driver, kernel, batch_size, queue, copy, compute, memory_bytes })
        },
    )
}

/// Limits, dependencies, how far attempts are, and where they ran.
fn of_flow() -> impl Strategy<Value = Event<'static>> {
    let limits = proptest::collection::vec(limit_id(), 0..4);
    prop_oneof![
        (limit_id(), text(), allows(), text()).prop_map(|(limit, name, allows, by)| Event::LimitDefined {
            limit,
            name,
            allows,
            by
        }),
        (type_id(), limits, text()).prop_map(|(task_type, limits, by)| Event::TypeLimited { task_type, limits, by }),
        (task(), count(), of(any::<u8>()), text(), text())
            .prop_map(|(task, attempt, percent, stage, message)| Event::Progressed { task, attempt, percent, stage, message }),
        (task(), count(), ran()).prop_map(|(task, attempt, ran)| Event::AttemptRan { task, attempt, ran }),
        (task(), limit_id()).prop_map(|(task, limit)| Event::Limited { task, limit }),
        task().prop_map(|task| Event::Admitted { task }),
        (task(), task(), count()).prop_map(|(task, dependency, left)| Event::DependencyMet { task, dependency, left }),
    ]
}

/// Schedules, and the modes of pools.
fn of_control() -> impl Strategy<Value = Event<'static>> {
    let mode = select(vec![PoolMode::Running, PoolMode::Paused, PoolMode::Drained]);
    prop_oneof![
        (schedule(), text(), plan(), text()).prop_map(|(schedule, name, plan, by)| Event::ScheduleDefined {
            schedule,
            name,
            plan,
            by
        }),
        (schedule(), text()).prop_map(|(schedule, by)| Event::ScheduleRemoved { schedule, by }),
        (schedule(), text(), text()).prop_map(|(schedule, by, reason)| Event::SchedulePaused { schedule, by, reason }),
        (schedule(), text(), text()).prop_map(|(schedule, by, reason)| Event::ScheduleResumed { schedule, by, reason }),
        (schedule(), moment(), task()).prop_map(|(schedule, slot, task)| Event::Fired { schedule, slot, task }),
        (schedule(), moment(), task(), text(), text()).prop_map(|(schedule, slot, task, by, reason)| Event::Triggered {
            schedule,
            slot,
            task,
            by,
            reason
        }),
        (schedule(), moment(), moment(), number(), select(PassedOver::ALL.to_vec()))
            .prop_map(|(schedule, from, to, count, because)| Event::SlotsPassed { schedule, from, to, count, because }),
        (pool_id(), text(), mode, text(), text()).prop_map(|(pool, name, mode, by, reason)| Event::PoolModeSet {
            pool,
            name,
            mode,
            by,
            reason
        }),
    ]
}

fn worker() -> impl Strategy<Value = Box<WorkerFacts>> {
    let label = (name(), name()).prop_map(|(name, value)| Label { name, value });
    let (types, labels) = (proptest::collection::vec(name(), 0..3), proptest::collection::vec(label, 0..3));
    (any::<[u8; 16]>().prop_map(WorkerId), name(), types, labels, span())
        .prop_map(|(id, name, types, labels, lease)| Box::new(WorkerFacts { id, name, types, labels, lease }))
}

/// Workers and what they hold.
fn of_workers() -> impl Strategy<Value = Event<'static>> {
    prop_oneof![
        proptest::collection::vec(name(), 0..3).prop_map(|types| Event::TypesServed { types }),
        (replica(), text(), count(), worker()).prop_map(|(replica, pool, slots, worker)| Event::WorkerJoined {
            replica,
            pool,
            slots,
            worker
        }),
        (replica(), count()).prop_map(|(replica, slots)| Event::WorkAsked { replica, slots }),
        (replica(), moment()).prop_map(|(replica, last_seen)| Event::WorkerMissed { replica, last_seen }),
        (task(), count()).prop_map(|(task, attempt)| Event::AttemptReturned { task, attempt }),
        (replica(), of(any::<u8>()), of(any::<u8>()), text(), span())
            .prop_map(|(replica, code, signal, note, wait)| Event::ProcessExited { replica, code, signal, note, wait }),
        (replica(), count(), count(), text()).prop_map(|(replica, before, concurrency, reason)| Event::ConcurrencyChanged {
            replica,
            before,
            concurrency,
            reason
        }),
    ]
}

fn reading() -> impl Strategy<Value = Reading> {
    prop_oneof![
        any::<i64>().prop_map(|number| Reading::Value(Value::Integer(number))),
        any::<i64>().prop_map(|number| Reading::Value(Value::Milli(number))),
        any::<f64>().prop_map(|number| Reading::Value(Value::Real(Real::new(number).unwrap_or_default()))),
        name().prop_map(Reading::Failed),
    ]
}

fn amount() -> impl Strategy<Value = Option<u64>> {
    of(any::<u64>())
}

fn seen() -> impl Strategy<Value = ReplicaReading> {
    let stage = prop_oneof![Just(Stage::Starting), Just(Stage::Ready), Just(Stage::Draining)];
    let used = (amount(), amount(), moment(), span());
    let used = used.prop_map(|(cpu_milli, memory_bytes, at, over)| Used { cpu_milli, memory_bytes, at, over });
    (stage, moment(), any::<u32>(), of(used)).prop_map(|(stage, since, busy_milli, used)| ReplicaReading {
        stage,
        since,
        busy_milli,
        used,
    })
}

fn resources() -> impl Strategy<Value = PoolResources> {
    (amount(), amount(), amount(), amount(), amount()).prop_map(|(cpu, memory, slots, all_cpu, all_memory)| PoolResources {
        asked: Asked { cpu_milli: cpu, memory_bytes: memory },
        ceiling: Ceiling { slots, cpu_milli: all_cpu, memory_bytes: all_memory },
    })
}

/// Policies, what they see and what they decide.
fn of_scaling() -> impl Strategy<Value = Event<'static>> {
    prop_oneof![
        (pool_id(), text(), count(), count(), text(), text()).prop_map(|(pool, policy, least, most, by, reason)| {
            Event::PolicySet { pool, policy: policy.into(), least, most, by, reason }
        }),
        (
            pool_id(),
            proptest::collection::vec(reading(), 0..4),
            proptest::collection::vec(any::<u64>(), 0..4),
            proptest::collection::vec(seen(), 0..3)
        )
            .prop_map(|(pool, readings, work, seen)| {
                Event::PoolObserved { pool, asked: readings.len() as u32, readings, work, seen }
            }),
        (pool_id(), resources(), text(), text()).prop_map(|(pool, resources, by, reason)| Event::PoolResourcesSet {
            pool,
            resources: Box::new(resources),
            by,
            reason
        }),
        (pool_id(), count(), text(), of(text())).prop_map(|(pool, replicas, decision, shadow)| Event::PoolScaled {
            pool,
            replicas,
            decision: decision.into(),
            shadow: shadow.map(Into::into),
        }),
        (pool_id(), text(), text(), text(), text()).prop_map(|(pool, shadow, policy, by, reason)| {
            Event::ShadowSet { pool, shadow, policy: policy.into(), by, reason }
        }),
        (pool_id(), of(count()), moment(), text(), text())
            .prop_map(|(pool, replicas, until, by, reason)| { Event::SizeHeld { pool, replicas, until, by, reason } }),
    ]
}

/// Any of them.
pub(crate) fn event() -> impl Strategy<Value = Event<'static>> {
    // On the heap: all of them together overflow the stack of a test that is not optimized.
    prop_oneof![of_flow().boxed(), of_control().boxed(), of_workers().boxed(), of_scaling().boxed()]
}
