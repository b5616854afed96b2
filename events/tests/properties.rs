//! What holds for every sequence of commands, and for every sequence of bytes and events, however hostile.

mod common;

use common::{audit, copy};
use ergate_events::block::{Block, Hash, Header, OpenBlock};
use ergate_events::codec::v1;
use ergate_events::command::Command;
use ergate_events::event::{Cause, Departure, Digest, Envelope, Event, PoolMode, RuleVersions, Timeout};
use ergate_events::id::{Epoch, Ordinal, PoolId, Position, ReplicaId, ShardId, TypeId};
use ergate_events::invariant;
use ergate_events::ran::Ran;
use ergate_events::resources::{Ceiling, PoolResources};
use ergate_events::scaling::signal::{Reading, Value};
use ergate_events::shard::Shard;
use ergate_events::state::State;
use ergate_events::task::{Ask, Dependency, Failure, IdempotencyKey, OnFailure, Outcome, RetryPolicy, Timeouts, TypeSettings};
use ergate_events::time::{Micros, Timestamp};
use ergate_events::view::Tally;
use ergate_events::view::tally::Counts;
use ergate_events::worker::{WORKER_FIRST, WorkerFacts, WorkerId};
use proptest::prelude::*;
use proptest::sample::select;

const NAMES: [&str; 3] = ["default", "gpu", "ünï\u{202e}\0"];

fn task() -> impl Strategy<Value = Ordinal> {
    prop_oneof![20 => (0_u64..8).prop_map(Ordinal), 1 => select(vec![255, 256, 100_000, u64::MAX]).prop_map(Ordinal)]
}

fn attempt() -> impl Strategy<Value = u32> {
    prop_oneof![20 => 0_u32..4, 1 => Just(u32::MAX)]
}

/// Any replica, workers among them.
fn replica() -> impl Strategy<Value = ReplicaId> {
    prop_oneof![20 => (0_u32..4).prop_map(ReplicaId), 5 => worker_replica(), 1 => Just(ReplicaId(u32::MAX))]
}

fn worker_replica() -> impl Strategy<Value = ReplicaId> {
    (0_u32..3).prop_map(|number| ReplicaId(WORKER_FIRST.0 + number))
}

fn worker() -> impl Strategy<Value = WorkerFacts> {
    let types = proptest::collection::vec(name().prop_map(str::to_owned), 0..2);
    (any::<[u8; 16]>(), name(), types, span()).prop_map(|(id, name, types, lease)| WorkerFacts {
        id: WorkerId(id),
        name: name.to_owned(),
        types,
        labels: Vec::new(),
        lease,
    })
}

fn type_id() -> impl Strategy<Value = TypeId> {
    prop_oneof![20 => (0_u16..3).prop_map(TypeId), 1 => Just(TypeId(u16::MAX))]
}

fn span() -> impl Strategy<Value = Micros> {
    prop_oneof![10 => (0_u64..50).prop_map(Micros), 1 => Just(Micros(u64::MAX))]
}

fn moment() -> impl Strategy<Value = Timestamp> {
    prop_oneof![10 => (0_u64..2_000).prop_map(Timestamp), 1 => Just(Timestamp::NEVER)]
}

fn name() -> impl Strategy<Value = &'static str> {
    select(&NAMES[..])
}

fn bytes() -> impl Strategy<Value = &'static [u8]> {
    select(vec![&b""[..], b"{}", b"other", &[0xff, 0], &[7; 3_000]])
}

fn policy() -> impl Strategy<Value = RetryPolicy> {
    (0_u32..4, span(), 0_u32..3_000, span(), 0_u32..1_100).prop_map(
        |(attempts, initial, coefficient_milli, max, jitter_milli)| RetryPolicy {
            attempts,
            initial,
            coefficient_milli,
            max,
            jitter_milli,
        },
    )
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    let limit = || proptest::option::of(span());
    (limit(), span(), limit(), limit()).prop_map(|(schedule_to_start, start_to_close, schedule_to_close, heartbeat)| Timeouts {
        schedule_to_start,
        start_to_close,
        schedule_to_close,
        heartbeat,
    })
}

fn settings() -> impl Strategy<Value = TypeSettings> {
    (name(), 0_u8..12, policy(), timeouts(), span(), 0_u32..3, any::<bool>()).prop_map(
        |(pool, priority, retry, timeouts, cancel_grace, losses_max, dead_letter)| TypeSettings {
            pool: pool.to_owned(),
            priority,
            retry,
            timeouts,
            cancel_grace,
            losses_max,
            dead_letter,
            key_window: Micros(300),
            non_retryable: vec!["fatal".to_owned()],
        },
    )
}

fn ask() -> impl Strategy<Value = Ask<'static>> {
    prop_oneof![
        (0_u8..12).prop_map(Ask::Priority),
        moment().prop_map(Ask::NotBefore),
        policy().prop_map(Ask::Retry),
        timeouts().prop_map(Ask::Timeouts),
        name().prop_map(Ask::ContentType),
        name().prop_map(Ask::TraceParent),
        (name(), name()).prop_map(|(name, value)| Ask::Label(name, value)),
        dependency().prop_map(Ask::After),
        select(vec![OnFailure::Cancel, OnFailure::Run]).prop_map(Ask::OnFailure),
    ]
}

fn dependency() -> impl Strategy<Value = Dependency<'static>> {
    prop_oneof![
        4 => task().prop_map(Dependency::Task),
        2 => (task(), outcome()).prop_map(|(task, outcome)| Dependency::Ended(task, outcome)),
        1 => (proptest::option::of(name()), name()).prop_map(|(task_type, key)| Dependency::Key(task_type, key)),
    ]
}

fn asks() -> impl Strategy<Value = Vec<Ask<'static>>> {
    prop_oneof![3 => Just(Vec::new()), 1 => proptest::collection::vec(ask(), 0..4)]
}

fn key() -> impl Strategy<Value = Option<IdempotencyKey<'static>>> {
    proptest::option::weighted(0.3, (name(), proptest::option::of(span())))
        .prop_map(|key| key.map(|(key, window)| IdempotencyKey { key, window }))
}

fn failure() -> impl Strategy<Value = Failure<'static>> {
    (select(vec!["boom", "fatal"]), any::<bool>(), proptest::option::of(span())).prop_map(|(class, retryable, delay)| Failure {
        class,
        message: "it broke",
        retryable,
        delay,
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    select(&Outcome::ALL[..])
}

fn cause() -> impl Strategy<Value = Cause> {
    select(vec![
        Cause::AttemptsExhausted,
        Cause::NotRetryable,
        Cause::TimedOut(Timeout::Heartbeat),
        Cause::LossesExhausted,
        Cause::Cancelled,
        Cause::Dependency(Ordinal(1)),
    ])
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

fn mode() -> impl Strategy<Value = PoolMode> {
    select(vec![PoolMode::Running, PoolMode::Paused, PoolMode::Drained])
}

fn departure() -> impl Strategy<Value = Departure> {
    select(vec![Departure::Drained, Departure::Lost])
}

/// Any event at all, about few things, so that many of them meet.
fn event() -> impl Strategy<Value = Event<'static>> {
    let work = prop_oneof![
        6 => (type_id(), bytes(), key(), asks())
            .prop_map(|(task_type, payload, key, asks)| Event::Requested { task_type, payload, key, asks }),
        1 => (type_id(), name(), task()).prop_map(|(task_type, key, of)| Event::Deduplicated { task_type, key, digest: Digest::of(b""), of }),
        2 => (task(), attempt(), outcome(), bytes())
            .prop_map(|(task, attempt, outcome, result)| Event::Succeeded { task, attempt, outcome, result }),
        2 => (task(), attempt(), failure()).prop_map(|(task, attempt, failure)| Event::Failed { task, attempt, failure }),
        2 => (task(), attempt(), replica()).prop_map(|(task, attempt, replica)| Event::SlotReleased { task, attempt, replica }),
        1 => (task(), attempt(), bytes()).prop_map(|(task, attempt, details)| Event::Checkpointed { task, attempt, details }),
        1 => (task(), attempt(), moment()).prop_map(|(task, attempt, last_seen)| Event::HeartbeatMissed { task, attempt, last_seen }),
        2 => (task(), name()).prop_map(|(task, by)| Event::CancelRequested { task, by, reason: "" }),
        1 => (task(), name()).prop_map(|(task, by)| Event::KillRequested { task, by, reason: "" }),
        1 => (task(), name()).prop_map(|(task, by)| Event::Redriven { task, by, reason: "" }),
        8 => (task(), attempt(), replica()).prop_map(|(task, attempt, replica)| Event::Started { task, attempt, replica }),
        3 => task().prop_map(|task| Event::Ready { task }),
        3 => (task(), attempt(), timeout()).prop_map(|(task, attempt, timeout)| Event::TimedOut { task, attempt, timeout }),
        3 => (task(), moment()).prop_map(|(task, due)| Event::RetryScheduled { task, due }),
        2 => (task(), attempt(), departure()).prop_map(|(task, attempt, departure)| Event::Lost { task, attempt, departure }),
        1 => (task(), outcome(), cause()).prop_map(|(task, outcome, cause)| Event::Ended { task, outcome, cause }),
        1 => (task(), cause()).prop_map(|(task, cause)| Event::DeadLettered { task, cause }),
        1 => task().prop_map(|task| Event::DeadLetterDropped { task }),
        1 => (task(), attempt()).prop_map(|(task, attempt)| Event::AttemptReturned { task, attempt }),
        2 => (task(), attempt(), 0_u32..3).prop_map(|(task, attempt, batch_size)| Event::AttemptRan {
            task,
            attempt,
            ran: Box::new(Ran { batch_size, ..common::ran() }),
        }),
        3 => (task(), task(), 0_u32..3).prop_map(|(task, dependency, left)| Event::DependencyMet { task, dependency, left }),
    ];
    let control = prop_oneof![
        1 => (0_u32..5, 0_u16..3).prop_map(|(epoch, version)| Event::Opened {
            epoch: Epoch(epoch),
            rules: RuleVersions { task: 1, retry: version, dispatch: version },
            writer: "w",
        }),
        3 => (type_id(), name(), settings())
            .prop_map(|(task_type, name, settings)| Event::TypeDefined { task_type, name, settings: Box::new(settings), by: "" }),
        4 => (replica(), name(), 0_u32..4).prop_map(|(replica, pool, slots)| Event::ReplicaJoined { replica, pool, slots }),
        3 => (worker_replica(), name(), 0_u32..4, worker())
            .prop_map(|(replica, pool, slots, worker)| Event::WorkerJoined { replica, pool, slots, worker: Box::new(worker) }),
        3 => (worker_replica(), 0_u32..4).prop_map(|(replica, slots)| Event::WorkAsked { replica, slots }),
        1 => (worker_replica(), moment()).prop_map(|(replica, last_seen)| Event::WorkerMissed { replica, last_seen }),
        1 => (worker_replica(), 0_u32..3).prop_map(|(replica, concurrency)| Event::ConcurrencyChanged { replica, before: 1, concurrency, reason: "" }),
        1 => replica().prop_map(|replica| Event::ProcessExited { replica, code: None, signal: Some(9), note: "", wait: Micros(1) }),
        1 => proptest::collection::vec(name().prop_map(str::to_owned), 0..2).prop_map(|types| Event::TypesServed { types }),
        1 => replica().prop_map(|replica| Event::ReplicaDraining { replica }),
        2 => (replica(), departure()).prop_map(|(replica, departure)| Event::ReplicaLeft { replica, departure }),
        2 => (0_u16..3, name(), 0_u32..4).prop_map(|(pool, name, replicas)| Event::PoolDefined {
            pool: PoolId(pool),
            name,
            replicas,
            slots: 2,
            by: "",
            reason: "",
        }),
        1 => (0_u16..3, name(), mode()).prop_map(|(pool, name, mode)| Event::PoolModeSet {
            pool: PoolId(pool),
            name,
            mode,
            by: "",
            reason: "",
        }),
        1 => replica().prop_map(|replica| Event::ReplicaReady { replica }),
        1 => (0_u16..3, 0_u32..3, 0_u32..5).prop_map(|(pool, least, most)| Event::PolicySet {
            pool: PoolId(pool),
            policy: if least == 2 { "".into() } else { r#"{"policy":"rate"}"#.into() },
            least,
            most,
            by: "",
            reason: "",
        }),
        2 => (0_u16..3, 0_i64..40, 0_usize..6).prop_map(|(pool, number, count)| Event::PoolObserved {
            pool: PoolId(pool),
            readings: vec![Reading::Value(Value::Integer(number)); count],
            work: vec![number.unsigned_abs(); count],
            asked: count as u32 % 4,
            seen: Vec::new(),
        }),
        1 => (0_u16..3, 1_u64..40).prop_map(|(pool, slots)| Event::PoolResourcesSet {
            pool: PoolId(pool),
            resources: Box::new(PoolResources { ceiling: Ceiling { slots: Some(slots), ..Ceiling::default() }, ..PoolResources::default() }),
            by: "",
            reason: "",
        }),
        1 => (0_u16..3, any::<bool>()).prop_map(|(pool, is_set)| Event::ShadowSet {
            pool: PoolId(pool),
            shadow: "other",
            policy: if is_set { r#"{"policy":"rate","reserve":1}"#.into() } else { "".into() },
            by: "",
            reason: "",
        }),
        1 => (0_u16..3, proptest::option::of(0_u32..5), moment()).prop_map(|(pool, replicas, until)| Event::SizeHeld {
            pool: PoolId(pool),
            replicas,
            until,
            by: "me",
            reason: "",
        }),
        1 => (replica(), departure()).prop_map(|(replica, departure)| Event::ReplicaStopped { replica, departure }),
        1 => (moment(), moment()).prop_map(|(from, to)| Event::ClockStepped { from, to }),
        1 => any::<u64>().prop_map(|missing| Event::LossAccepted { missing, by: "", reason: "" }),
        1 => (replica(), 0_u16..3).prop_map(|(replica, pool)| Event::ReplicaRequested { replica, pool: PoolId(pool) }),
        1 => replica().prop_map(|replica| Event::DrainRequested { replica }),
    ];
    prop_oneof![3 => work, 1 => control]
}

/// The command that would record an input, and a request for a duplicate.
fn command_of<'a>(event: &'a Event<'a>) -> Command<'a> {
    let request = Command::Request { task_type: TypeId(0), payload: b"{}", key: None, asks: &[] };
    Command::of_input(event).unwrap_or(request)
}

/// Batches of commands with the time that passes before each.
fn batches() -> impl Strategy<Value = Vec<(u64, Vec<Event<'static>>, bool)>> {
    let elapsed = prop_oneof![4 => 0_u64..3, 3 => 0_u64..120, 1 => Just(10_000_u64)];
    proptest::collection::vec((elapsed, proptest::collection::vec(event(), 0..6), proptest::bool::weighted(0.3)), 1..60)
}

/// A log as a shard writes it: opened, with one type and one replica, then the batches; sealed where a batch says so.
fn run(batches: &[(u64, Vec<Event<'static>>, bool)]) -> Result<(Shard, Vec<Vec<u8>>), TestCaseError> {
    let mut shard = Shard::new(ShardId(0), State::default());
    let (mut head, mut blocks, mut now, mut answers) = (Hash::ZERO, Vec::new(), Timestamp(1), Vec::new());
    let settings = TypeSettings { cancel_grace: Micros(20), key_window: Micros(100), ..common::plain() };
    let setup = [
        Command::Open { rules: RuleVersions::CURRENT, writer: "test" },
        Command::DefineType { name: "job", settings: &settings, by: "" },
        Command::JoinReplica { replica: ReplicaId(0), pool: "default", slots: 2 },
    ];
    let mut observer = |_: &Envelope<'_>, _: &State| {};
    shard.batch(now, &setup, &mut answers, &mut observer);
    for (elapsed, events, seal) in batches {
        now = now.after(Micros(*elapsed));
        let commands: Vec<_> = events.iter().map(command_of).collect();
        shard.batch(now, &commands, &mut answers, &mut observer);
        if let Err(broken) = invariant::check(shard.state()) {
            return Err(TestCaseError::fail(format!("{broken}")));
        }
        if let Some(sealed) = Some(()).filter(|()| *seal).and_then(|()| shard.seal(head)) {
            head = sealed.hash;
            blocks.push(sealed.bytes);
        }
    }
    blocks.extend(shard.seal(head).map(|sealed| sealed.bytes));
    Ok((shard, blocks))
}

fn parse(blocks: &[Vec<u8>]) -> Vec<Block> {
    blocks.iter().map(|bytes| Block::parse(bytes).expect("it was just sealed")).collect()
}

fn fold(state: &mut State, blocks: &[Block]) {
    blocks.iter().flat_map(Block::records).for_each(|envelope| state.apply(&envelope.expect("it was just recorded")));
}

/// What is there, as a tally shows it.
fn shown(tally: &Tally) -> impl PartialEq + std::fmt::Debug {
    let types = tally
        .types
        .iter()
        .map(|known| (known.name.clone(), known.pool.clone(), known.phases, known.depth(), known.oldest().is_some(), known.dead));
    let slots: Vec<_> = tally.slots().map(|(pool, slots)| (pool.to_owned(), slots)).collect();
    let replicas: Vec<_> = tally.replicas().map(|(pool, phase)| (pool.to_owned(), phase)).collect();
    (tally.position, tally.source_next, types.collect::<Vec<_>>(), slots, replicas)
}

/// Applies any events and returns the state with the moment after them.
fn folded(events: Vec<Event<'_>>) -> (State, Timestamp) {
    let mut state = State::default();
    let mut at = 1;
    for (event, position) in events.into_iter().zip(0..) {
        at += position % 3 * 5;
        state.apply(&Envelope { position: Position(position), recorded_at: Timestamp(at), event });
    }
    (state, Timestamp(at))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replay_equals_live_and_the_audit_agrees_and_a_snapshot_anywhere_leads_to_the_same(batches in batches(), cut in 0_usize..100) {
        let (shard, bytes) = run(&batches)?;
        let blocks = parse(&bytes);
        let audited = audit(&blocks).map_err(|finding| TestCaseError::fail(format!("{finding}")))?;
        prop_assert_eq!(audited.state().digest(), shard.state().digest());
        let cut = cut % blocks.len();
        let mut state = State::default();
        fold(&mut state, &blocks[..cut]);
        let mut state = copy(&state);
        prop_assert_eq!(invariant::check(&state), Ok(()));
        fold(&mut state, &blocks[cut..]);
        prop_assert_eq!(state.digest(), shard.state().digest());
        copy(&state);
    }

    #[test]
    fn every_event_and_every_block_comes_back_as_it_was(events in proptest::collection::vec((event(), 0_u64..1_000_000), 1..40), previous in any::<[u8; 32]>()) {
        let mut open = OpenBlock::new(ShardId(3), Epoch(9), Position(77), Ordinal(5));
        let mut at = Timestamp(1_000);
        let mut expected = Vec::new();
        for (index, (event, elapsed)) in events.iter().enumerate() {
            at = at.after(Micros(*elapsed));
            open.push(at, event);
            expected.push(Envelope { position: Position(77 + index as u64), recorded_at: at, event: event.clone() });
            let mut body = Vec::new();
            v1::encode(*elapsed, event, &mut body);
            let (found, decoded, used) = v1::decode(&body).expect("it was just encoded");
            prop_assert_eq!((found, &decoded, used), (*elapsed, event, body.len()));
        }
        let sealed = open.seal(Hash(previous));
        let block = Block::parse(&sealed.bytes).expect("it was just sealed");
        prop_assert_eq!(block.header, sealed.header);
        prop_assert_eq!(block.hash(), sealed.hash);
        let found: Vec<_> = block.records().map(|record| record.expect("it was just recorded")).collect();
        prop_assert_eq!(found, expected);
    }

    /// Replay must not fail where the run did not: whatever a log says, folding it neither panics nor leaves a state in which the
    /// shard panics or decides the same thing for ever.
    #[test]
    fn any_events_in_any_order_fold_to_a_state_that_goes_on(events in proptest::collection::vec(event(), 1..150)) {
        let types = [0_u16, 1].map(|id| Event::TypeDefined { task_type: TypeId(id), name: "job", settings: Box::new(common::plain()), by: "" });
        let inputs = events.clone();
        let (state, at) = folded(types.into_iter().chain(events).collect());
        if let Err(broken) = invariant::check(&state) {
            // Budgets and skipped ordinals are what a run decides; a failure without what follows it is half a batch.
            let tolerated = broken.name.contains("used up") || broken.name.contains("skipped") || broken.details.contains(&format!("no timer Wake at {}", u64::MAX));
            prop_assert!(tolerated, "{}", broken);
        }
        prop_assert!(state.work.timers.iter().all(|(_, ordinal, _)| state.work.tasks.get(*ordinal).is_some()), "a timer without a task");
        let mut copied = copy(&state);
        copied.refresh(at);
        let mut shard = Shard::new(ShardId(0), state);
        let (mut answers, mut count) = (Vec::new(), 0_usize);
        let commands: Vec<_> = inputs.iter().map(command_of).collect();
        shard.batch(at, &commands, &mut answers, &mut |_: &Envelope<'_>, _: &State| {});
        let (end, mut batches) = (Timestamp(at.0 + 1_000_000), 0);
        while shard.next_due() <= end {
            let now = shard.next_due().max(shard.state().last_at);
            shard.batch(now, &[], &mut answers, &mut |_: &Envelope<'_>, _: &State| count += 1);
            batches += 1;
            prop_assert!(batches < 1_500 && count < 20_000, "the shard does not settle: {} events in {} batches", count, batches);
        }
    }

    /// What metrics show of a shard is what is there, whether it was counted from the first event on or from a state on.
    #[test]
    fn a_tally_of_events_shows_what_the_state_has(batches in batches(), cut in 0_usize..100) {
        let (shard, bytes) = run(&batches)?;
        let blocks = parse(&bytes);
        let cut = cut % blocks.len();
        let mut state = State::default();
        fold(&mut state, &blocks[..cut]);
        let (mut whole, mut rest) = (Tally::default(), Tally::of(&state));
        blocks.iter().flat_map(Block::records).for_each(|envelope| {
            let envelope = envelope.expect("it was just recorded");
            whole.apply(&envelope);
            if envelope.position >= rest.position {
                rest.apply(&envelope);
            }
        });
        let now = Tally::of(shard.state());
        prop_assert_eq!(shown(&whole), shown(&now));
        prop_assert_eq!(shown(&rest), shown(&now));
        let sum = |count: fn(&Counts) -> u64| whole.types.iter().map(|known| count(&known.counts)).sum::<u64>();
        prop_assert_eq!(sum(|counts| counts.requests + counts.redrives), shard.state().next_ordinal().0);
        prop_assert_eq!(sum(|counts| counts.ended.iter().sum()), shard.state().work.ended.iter().sum::<u64>());
        prop_assert_eq!(sum(|counts| counts.attempts), sum(|counts| counts.waits.count()));
    }

    #[test]
    fn random_bytes_are_refused_by_every_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Header::parse(&bytes);
        prop_assert!(Block::parse(&bytes).is_err());
        let _ = v1::decode(&bytes);
        let _ = State::decode(&bytes);
        let mut image = vec![2];
        image.extend_from_slice(&bytes);
        let _ = State::decode(&image);
    }

    /// A state image with a few wrong bytes is refused, or is a state that the shard can go on with.
    #[test]
    fn a_damaged_state_image_is_refused_or_usable(batches in batches(), edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let (shard, _) = run(&batches)?;
        let mut bytes = Vec::new();
        shard.state().encode(&mut bytes).expect("a vector takes every byte");
        for (index, byte) in edits {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Ok(state) = State::decode(&bytes) {
            let at = state.last_at;
            if at < Timestamp(u64::MAX / 2) {
                let mut shard = Shard::new(ShardId(0), state);
                let inputs = [Command::Request { task_type: TypeId(0), payload: b"", key: None, asks: &[] }];
                for _ in 0..3 {
                    shard.batch(at.after(Micros(50)), &inputs, &mut Vec::new(), &mut |_: &Envelope<'_>, _: &State| {});
                }
            }
        }
    }

    /// A record with a few wrong bytes, in a block whose checksum is right all the same.
    #[test]
    fn damaged_records_are_refused_or_folded(events in proptest::collection::vec(event(), 1..30), edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut body = Vec::new();
        events.iter().for_each(|event| v1::encode(3, event, &mut body));
        for (index, byte) in edits {
            let index = index.index(body.len());
            body[index] = byte;
        }
        let (mut rest, mut state, mut position) = (&body[..], State::default(), 0);
        while let Ok((_, event, used)) = v1::decode(rest) {
            let joins_many = matches!(event, Event::ReplicaJoined { slots, .. } if slots > 1_000);
            if !joins_many {
                state.apply(&Envelope { position: Position(position), recorded_at: Timestamp(position), event });
            }
            position += 1;
            rest = &rest[used..];
            if rest.is_empty() {
                break;
            }
        }
        copy(&state);
    }
}

/// Lengths that a few hostile bytes may claim: each is refused, quickly and without asking for the memory.
#[test]
fn hostile_lengths_ask_for_no_memory() {
    for length in [u64::MAX, 1 << 40, 1 << 31, (8 << 20) + 1] {
        let mut claim = vec![253];
        claim.extend_from_slice(&length.to_le_bytes());
        // A request (variant 2) of type 0 whose payload claims the length; and an open event whose writer does.
        for prefix in [&[0, 2, 0][..], &[0, 0, 1, 1, 1, 1], &[0, 2, 0, 0, 0]] {
            let bytes: Vec<u8> = prefix.iter().chain(&claim).copied().collect();
            assert!(v1::decode(&bytes).is_err(), "{bytes:?}");
        }
        let image: Vec<u8> = [2, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0].iter().chain(&claim).copied().collect();
        assert!(State::decode(&image).is_err());
    }
    let mut open = OpenBlock::new(ShardId(0), Epoch(0), Position(0), Ordinal(0));
    open.push(Timestamp(1), &Event::Ready { task: Ordinal(0) });
    let sealed = open.seal(Hash::ZERO).bytes;
    for at in [44, 48] {
        let mut bytes = sealed.clone();
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Block::parse(&bytes).is_err());
    }
}
