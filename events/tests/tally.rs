//! What is counted for metrics: a story with everything in it, and what counting costs.

mod common;

use std::time::Instant;

use common::{Story, plain};
use ergate_events::event::{Envelope, Event};
use ergate_events::id::{Ordinal, PoolId, Position, ReplicaId, TypeId};
use ergate_events::limit::LimitSettings;
use ergate_events::task::{Ask, Dependency, Outcome, RetryPolicy, TypeSettings};
use ergate_events::time::{Micros, Timestamp};
use ergate_events::view::tally::{Counts, PHASES};
use ergate_events::view::{Progress, Tally};

/// The tally of everything that has happened so far.
fn tally(story: &mut Story) -> Tally {
    let mut tally = Tally::default();
    let log = story.log();
    log.iter().flat_map(|block| block.records()).for_each(|envelope| tally.apply(&envelope.expect("it was just recorded")));
    tally
}

/// Live tasks by phase; those that are in none are left out.
fn phases(tally: &Tally) -> Vec<(&'static str, u64)> {
    let counts = PHASES.iter().zip(tally.types[0].phases);
    counts.filter(|(_, count)| *count > 0).map(|((_, name), count)| (*name, count)).collect()
}

#[test]
fn a_held_task_goes_where_it_waits_next() {
    let mut story = Story::running(&plain(), 4);
    story.limit(&[LimitSettings { concurrency: Some(1), ..LimitSettings::default() }]);
    (0..2).for_each(|_| _ = story.request(&[]));
    let after = |task| Ask::After(Dependency::Task(Ordinal(task)));
    let due = story.now.after(Micros::from_secs(60));
    for asks in [&[after(0), after(1)][..], &[after(0), Ask::NotBefore(due)], &[after(2)], &[after(1), Ask::NotBefore(due)]] {
        story.request(asks);
    }
    assert_eq!(phases(&tally(&mut story)), [("held", 4), ("limited", 1), ("running", 1)]);
    story.succeed(0, 1).expect("it runs");
    assert_eq!(phases(&tally(&mut story)), [("held", 3), ("delayed", 1), ("running", 1)]);
    // A tally that begins with a state knows who waits for a moment after that.
    let mut later = Tally::of(story.shard.state());
    let from = later.position;
    story.succeed(1, 1).expect("it runs");
    let log = story.log();
    let records = log.iter().flat_map(|block| block.records()).map(|envelope| envelope.expect("it was just recorded"));
    records.filter(|envelope| envelope.position >= from).for_each(|envelope| later.apply(&envelope));
    let expected = [("held", 1), ("delayed", 2), ("running", 1)];
    for found in [tally(&mut story), later, Tally::of(story.shard.state())] {
        assert_eq!(phases(&found), expected);
    }
}

#[test]
fn every_turn_of_a_task_is_counted_once() {
    let settings = TypeSettings { cancel_grace: Micros::from_millis(20), ..plain() };
    let mut story = Story::running(&settings, 4);
    story.limit(&[LimitSettings { concurrency: Some(1), ..LimitSettings::default() }]);
    (0..2).for_each(|_| _ = story.request(&[]));
    story.request(&[Ask::NotBefore(Timestamp(u64::MAX / 2))]);
    assert_eq!(phases(&tally(&mut story)), [("delayed", 1), ("limited", 1), ("running", 1)]);
    story.pass(30);
    story.fail(0, 1).expect("it runs");
    assert_eq!(phases(&tally(&mut story)), [("delayed", 1), ("running", 1), ("backoff", 1)]);
    story.pass(100);
    assert_eq!(phases(&tally(&mut story)), [("delayed", 1), ("limited", 1), ("running", 1)]);
    story.succeed(1, 1).expect("it runs");
    story.cancel(0).expect("it runs");
    assert_eq!(phases(&tally(&mut story)), [("delayed", 1), ("cancelling", 1)]);
    story.pass(20);
    let found = tally(&mut story);
    assert_eq!((phases(&found), found.types[0].depth()), (vec![("delayed", 1)], 0));
    let counts = &found.types[0].counts;
    let expected = Counts {
        requests: 3,
        attempts: 3,
        failures: 1,
        retries: 1,
        limited: 2,
        timeouts: [0, 0, 0, 0, 1],
        ended: [1, 0, 0, 1, 0],
        waits: counts.waits.clone(),
        runs: counts.runs.clone(),
        ..Counts::default()
    };
    assert_eq!(counts, &expected);
    // Each attempt started as soon as its limit let it through; they ran for 30, 100 and 20 ms.
    assert_eq!((counts.waits.count(), counts.waits.sum()), (3, Micros(0)));
    assert_eq!((counts.runs.count(), counts.runs.sum().0 / 1_000), (3, 150), "batches take some µs");
}

#[test]
fn a_dead_letter_and_its_redrive_and_a_lost_replica_are_counted() {
    let mut story = Story::running(&TypeSettings { retry: RetryPolicy::NEVER, ..plain() }, 1);
    (0..3).for_each(|_| _ = story.request(&[]));
    story.fail(0, 1).expect("it runs");
    story.pass(40);
    story.leave(0);
    // What it did is returned in the batch after.
    story.pass(1);
    let found = tally(&mut story);
    assert_eq!((phases(&found), found.types[0].depth(), found.types[0].dead), (vec![("ready", 2)], 2, 1));
    assert_eq!((found.slots().count(), found.types[0].counts.lost), (0, 1));
    story.pass(5_000);
    let oldest = tally(&mut story).types[0].oldest().expect("two wait");
    assert!(story.now.since(oldest) >= Micros::from_secs(5), "{oldest:?} at {:?}", story.now);
    story.join(1, 2);
    story.redrive(0).expect("it is a dead letter");
    let found = tally(&mut story);
    assert_eq!((found.slots().collect::<Vec<_>>(), found.types[0].dead), (vec![("default", 2)], 0));
    let counts = &found.types[0].counts;
    assert_eq!((counts.requests, counts.redrives, counts.dead_letters, counts.attempts), (3, 1, 1, 4));
    assert_eq!((counts.runs.count(), counts.ended), (1, [0, 0, 1, 0, 0]), "an attempt that was lost has no length");
    // The one that was lost and the third waited for five seconds.
    assert_eq!(
        counts.waits.cumulative().filter(|(bound, _)| *bound == Micros(1_000_000)).map(|(_, count)| count).next(),
        Some(2)
    );
}

/// Tasks that are live at one time in the measurement.
const WINDOW: u64 = 1_000;

/// `cargo test --release -p ergate-events --test tally -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stderr, clippy::disallowed_methods, reason = "it measures, and says what")]
fn what_counting_costs_an_event() {
    const TASKS: u64 = 2_000_000;
    let mut events = vec![
        Event::TypeDefined { task_type: TypeId(0), name: "job", settings: Box::new(plain()), by: "" },
        Event::PoolDefined { pool: PoolId(0), name: "default", replicas: 1, slots: 1_024, by: "", reason: "" },
    ];
    for first in (0..TASKS).step_by(WINDOW as usize) {
        let tasks = || (first..first + WINDOW).map(Ordinal);
        events.extend(tasks().map(|_| Event::Requested { task_type: TypeId(0), payload: b"null", key: None, asks: Vec::new() }));
        events.extend(tasks().map(|task| Event::Started { task, attempt: 1, replica: ReplicaId(0) }));
        let outcome = Outcome::Succeeded;
        events.extend(tasks().map(|task| Event::Succeeded { task, attempt: 1, outcome, result: b"null" }));
    }
    let count = events.len() as u64;
    let envelope = |(position, event)| Envelope { position: Position(position), recorded_at: Timestamp(position * 10), event };
    let envelopes: Vec<Envelope<'_>> = (0..).zip(events).map(envelope).collect();
    for _ in 0..3 {
        let (mut tally, began) = (Tally::default(), Instant::now());
        envelopes.iter().for_each(|envelope| tally.apply(envelope));
        let counting = began.elapsed();
        assert_eq!(tally.types[0].counts.ended[0], TASKS);
        let (mut progress, began) = (Progress::default(), Instant::now());
        envelopes.iter().for_each(|envelope| progress.apply(envelope));
        let viewing = began.elapsed();
        assert_eq!(progress.done(), TASKS);
        let ns = |span: std::time::Duration| span.as_nanos() as u64 / count;
        eprintln!("{count} events: {} ns an event to count, {} ns for the view of progress", ns(counting), ns(viewing));
    }
}
