//! Events of every kind, with values that JSON could stumble over.

use ergate_events::event::{Cause, Departure, Digest, Event, RuleVersions, ShardReading, Timeout};
use ergate_events::id::{Epoch, Ordinal, PoolId, Position, ReplicaId, ShardId, TypeId};
use ergate_events::task::{Ask, Dependency, Failure, IdempotencyKey, OnFailure, Outcome, RetryPolicy, Timeouts, TypeSettings};
use ergate_events::time::{Micros, Timestamp};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;

pub(crate) use proptest::prelude::any;

const TEXTS: [&str; 10] = [
    "",
    "name",
    "ünï\u{202e}\0\u{1}\u{1f}\u{7f}",
    "\"\\/\u{8}\u{c}\n\r\t",
    "{\"hex\":\"00ff\"}",
    "\\u0000",
    "null",
    "0-1",
    "\u{2028}\u{feff}\u{1f41c}",
    "a text that is longer than the thirty-two bytes which are looked at together\"",
];

pub(crate) fn text() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => select(&TEXTS[..]), 1 => any::<String>().prop_map(|text| &*text.leak())]
}

fn bytes() -> impl Strategy<Value = &'static [u8]> {
    prop_oneof![
        4 => text().prop_map(str::as_bytes),
        1 => select(vec![&[0xff, 0, 0x80][..], b"{\"a\": [1, \"\\u0000\"]}", &[0xc3], b"abc\xed\xa0\x80"]),
        1 => any::<Vec<u8>>().prop_map(|bytes| &*bytes.leak()),
    ]
}

pub(crate) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0_u64..300, 1 => select(vec![u64::MAX, 1 << 53, (1 << 53) + 1, u64::from(u32::MAX)]), 1 => any::<u64>()]
}

/// Times that never go back.
pub(crate) fn times() -> impl Strategy<Value = Vec<Timestamp>> {
    proptest::collection::vec(prop_oneof![3 => 0_u64..2, 1 => number()], 12..13).prop_map(|spans| {
        let steps = spans.into_iter().scan(0_u64, |at, span| {
            *at = at.saturating_add(span);
            Some(Timestamp(*at))
        });
        steps.collect()
    })
}

pub(crate) fn count() -> impl Strategy<Value = u32> {
    prop_oneof![0_u32..4, Just(u32::MAX)]
}

pub(crate) fn task() -> impl Strategy<Value = Ordinal> {
    number().prop_map(Ordinal)
}

pub(crate) fn moment() -> impl Strategy<Value = Timestamp> {
    number().prop_map(Timestamp)
}

pub(crate) fn span() -> impl Strategy<Value = Micros> {
    number().prop_map(Micros)
}

fn limit() -> impl Strategy<Value = Option<Micros>> {
    proptest::option::of(span())
}

pub(crate) fn replica() -> impl Strategy<Value = ReplicaId> {
    count().prop_map(ReplicaId)
}

pub(crate) fn type_id() -> impl Strategy<Value = TypeId> {
    any::<u16>().prop_map(TypeId)
}

pub(crate) fn pool_id() -> impl Strategy<Value = PoolId> {
    any::<u16>().prop_map(PoolId)
}

fn policy() -> impl Strategy<Value = RetryPolicy> {
    (count(), span(), count(), span(), count()).prop_map(|(attempts, initial, coefficient_milli, max, jitter_milli)| {
        RetryPolicy { attempts, initial, coefficient_milli, max, jitter_milli }
    })
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    (limit(), span(), limit(), limit()).prop_map(|(schedule_to_start, start_to_close, schedule_to_close, heartbeat)| Timeouts {
        schedule_to_start,
        start_to_close,
        schedule_to_close,
        heartbeat,
    })
}

fn settings() -> impl Strategy<Value = Box<TypeSettings>> {
    let classes = proptest::collection::vec(text().prop_map(str::to_owned), 0..3);
    (text(), any::<u8>(), policy(), timeouts(), (span(), span()), count(), any::<bool>(), classes).prop_map(
        |(pool, priority, retry, timeouts, (cancel_grace, key_window), losses_max, dead_letter, non_retryable)| {
            let pool = pool.to_owned();
            Box::new(TypeSettings {
                pool,
                priority,
                retry,
                timeouts,
                cancel_grace,
                losses_max,
                dead_letter,
                key_window,
                non_retryable,
            })
        },
    )
}

fn ask() -> impl Strategy<Value = Ask<'static>> {
    prop_oneof![
        any::<u8>().prop_map(Ask::Priority),
        moment().prop_map(Ask::NotBefore),
        policy().prop_map(Ask::Retry),
        timeouts().prop_map(Ask::Timeouts),
        text().prop_map(Ask::ContentType),
        text().prop_map(Ask::TraceParent),
        (text(), text()).prop_map(|(name, value)| Ask::Label(name, value)),
        text().prop_map(Ask::ReplyTo),
        text().prop_map(Ask::CorrelationId),
        dependency().prop_map(Ask::After),
        select(vec![OnFailure::Cancel, OnFailure::Run]).prop_map(Ask::OnFailure),
    ]
}

fn dependency() -> impl Strategy<Value = Dependency<'static>> {
    prop_oneof![
        task().prop_map(Dependency::Task),
        (task(), outcome()).prop_map(|(task, outcome)| Dependency::Ended(task, outcome)),
        (proptest::option::of(text()), text()).prop_map(|(task_type, key)| Dependency::Key(task_type, key)),
    ]
}

fn asks() -> impl Strategy<Value = Vec<Ask<'static>>> {
    prop_oneof![Just(Vec::new()), proptest::collection::vec(ask(), 0..4)]
}

fn key() -> impl Strategy<Value = Option<IdempotencyKey<'static>>> {
    proptest::option::of((text(), limit()).prop_map(|(key, window)| IdempotencyKey { key, window }))
}

fn failure() -> impl Strategy<Value = Failure<'static>> {
    (text(), text(), any::<bool>(), limit()).prop_map(|(class, message, retryable, delay)| Failure {
        class,
        message,
        retryable,
        delay,
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    select(&Outcome::ALL[..])
}

fn timeout() -> impl Strategy<Value = Timeout> {
    select(vec![
        Timeout::ScheduleToStart,
        Timeout::StartToClose,
        Timeout::ScheduleToClose,
        Timeout::Heartbeat,
        Timeout::CancelGrace,
    ])
}

fn cause() -> impl Strategy<Value = Cause> {
    let plain = [Cause::AttemptsExhausted, Cause::NotRetryable, Cause::LossesExhausted, Cause::Cancelled, Cause::Killed];
    prop_oneof![select(plain.to_vec()), timeout().prop_map(Cause::TimedOut), task().prop_map(Cause::Dependency)]
}

fn departure() -> impl Strategy<Value = Departure> {
    select(vec![Departure::Drained, Departure::Lost])
}

fn reading() -> impl Strategy<Value = ShardReading> {
    (any::<u16>(), number(), number(), number(), number()).prop_map(|(shard, position, waiting, running, lag)| ShardReading {
        shard: ShardId(shard),
        position: Position(position),
        waiting,
        running,
        lag,
    })
}

/// Any event; that none is forgotten is a test of its own.
pub(crate) fn event() -> impl Strategy<Value = Event<'static>> {
    let rules = any::<(u16, u16, u16)>().prop_map(|(task, retry, dispatch)| RuleVersions { task, retry, dispatch });
    let (attempt, by, reason) = (count, text, text);
    Union::new([
        (count(), rules, text()).prop_map(|(epoch, rules, writer)| Event::Opened { epoch: Epoch(epoch), rules, writer }).boxed(),
        (type_id(), text(), settings(), by())
            .prop_map(|(task_type, name, settings, by)| Event::TypeDefined { task_type, name, settings, by })
            .boxed(),
        (type_id(), bytes(), key(), asks())
            .prop_map(|(task_type, payload, key, asks)| Event::Requested { task_type, payload, key, asks })
            .boxed(),
        (type_id(), bytes())
            .prop_map(|(task_type, payload)| Event::Requested { task_type, payload, key: None, asks: vec![] })
            .boxed(),
        (type_id(), text(), any::<[u8; 16]>(), task())
            .prop_map(|(task_type, key, digest, of)| Event::Deduplicated { task_type, key, digest: Digest(digest), of })
            .boxed(),
        (task(), attempt(), outcome(), bytes())
            .prop_map(|(task, attempt, outcome, result)| Event::Succeeded { task, attempt, outcome, result })
            .boxed(),
        (task(), attempt(), failure()).prop_map(|(task, attempt, failure)| Event::Failed { task, attempt, failure }).boxed(),
        (task(), attempt(), replica())
            .prop_map(|(task, attempt, replica)| Event::SlotReleased { task, attempt, replica })
            .boxed(),
        (task(), attempt(), bytes()).prop_map(|(task, attempt, details)| Event::Checkpointed { task, attempt, details }).boxed(),
        (task(), attempt(), moment())
            .prop_map(|(task, attempt, last_seen)| Event::HeartbeatMissed { task, attempt, last_seen })
            .boxed(),
        (task(), by(), reason()).prop_map(|(task, by, reason)| Event::CancelRequested { task, by, reason }).boxed(),
        (task(), by(), reason()).prop_map(|(task, by, reason)| Event::KillRequested { task, by, reason }).boxed(),
        (task(), by(), reason()).prop_map(|(task, by, reason)| Event::Redriven { task, by, reason }).boxed(),
        (replica(), text(), count()).prop_map(|(replica, pool, slots)| Event::ReplicaJoined { replica, pool, slots }).boxed(),
        replica().prop_map(|replica| Event::ReplicaDraining { replica }).boxed(),
        (replica(), departure()).prop_map(|(replica, departure)| Event::ReplicaLeft { replica, departure }).boxed(),
        (pool_id(), text(), count(), count(), by(), reason())
            .prop_map(|(pool, name, replicas, slots, by, reason)| Event::PoolDefined { pool, name, replicas, slots, by, reason })
            .boxed(),
        replica().prop_map(|replica| Event::ReplicaReady { replica }).boxed(),
        (replica(), departure()).prop_map(|(replica, departure)| Event::ReplicaStopped { replica, departure }).boxed(),
        (moment(), moment()).prop_map(|(from, to)| Event::ClockStepped { from, to }).boxed(),
        (number(), by(), reason()).prop_map(|(missing, by, reason)| Event::LossAccepted { missing, by, reason }).boxed(),
        (task(), attempt(), replica()).prop_map(|(task, attempt, replica)| Event::Started { task, attempt, replica }).boxed(),
        task().prop_map(|task| Event::Ready { task }).boxed(),
        (task(), attempt(), timeout()).prop_map(|(task, attempt, timeout)| Event::TimedOut { task, attempt, timeout }).boxed(),
        (task(), moment()).prop_map(|(task, due)| Event::RetryScheduled { task, due }).boxed(),
        (task(), attempt(), departure()).prop_map(|(task, attempt, departure)| Event::Lost { task, attempt, departure }).boxed(),
        (task(), outcome(), cause()).prop_map(|(task, outcome, cause)| Event::Ended { task, outcome, cause }).boxed(),
        (task(), cause()).prop_map(|(task, cause)| Event::DeadLettered { task, cause }).boxed(),
        task().prop_map(|task| Event::DeadLetterDropped { task }).boxed(),
        (replica(), pool_id()).prop_map(|(replica, pool)| Event::ReplicaRequested { replica, pool }).boxed(),
        replica().prop_map(|replica| Event::DrainRequested { replica }).boxed(),
        number().prop_map(|next| Event::SourceMoved { next }).boxed(),
        text().prop_map(|reason| Event::RequestRefused { reason: reason.into() }).boxed(),
        crate::newer::event().boxed(),
        proptest::collection::vec(reading(), 0..3).prop_map(|shards| Event::ShardsObserved { shards }).boxed(),
    ])
}
