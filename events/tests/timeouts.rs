//! The five limits on how long something may take, and the slots that overdue attempts still hold.

mod common;

use std::time::{Duration, Instant};

use common::{Story, failure, plain, stale, success};
use ergate_events::command::Command;
use ergate_events::event::Envelope;
use ergate_events::id::{Ordinal, ReplicaId, ShardId, TypeId};
use ergate_events::shard::Shard;
use ergate_events::state::State;
use ergate_events::task::{Ask, RetryPolicy, Timeouts, TypeSettings};
use ergate_events::time::{Micros, Timestamp};

fn limits() -> Timeouts {
    Timeouts { start_to_close: Micros::from_secs(10), ..Timeouts::default() }
}

#[test]
fn an_attempt_that_runs_too_long_is_repeated_and_its_slot_is_held() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[Ask::Timeouts(limits())]);
    story.news();
    story.pass(9_999);
    story.expect(&[]);
    story.pass(1);
    story.expect(&["timed out 0.1 StartToClose", "retry 0 in 100ms"]);
    story.pass(1_000);
    story.expect(&["ready 0"]);
    assert_eq!(story.used(0), 1, "the executor has not said that it stopped");
    story.release(0, 1, 0).expect("it holds the slot");
    story.expect(&["released 0.1 r0", "started 0.2 r0"]);
}

#[test]
fn a_late_success_of_a_timed_out_attempt_gives_the_slot_back_and_is_not_taken() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[Ask::Timeouts(limits())]);
    story.pass(11_000);
    story.news();
    story.tell(&success(0, 1)).expect("its slot is welcome");
    story.expect(&["released 0.1 r0", "started 0.2 r0"]);
    story.refuses(&success(0, 1), stale(0, 1));
    story.refuses(&Command::ReleaseSlot { task: Ordinal(0), attempt: 1, replica: ReplicaId(0) }, stale(0, 1));
}

#[test]
fn a_late_failure_of_a_timed_out_attempt_gives_the_slot_back_and_costs_no_attempt() {
    let mut story = Story::running(&plain(), 2);
    story.request(&[Ask::Timeouts(limits())]);
    story.pass(11_000);
    story.news();
    assert_eq!(story.used(0), 2, "the second attempt runs beside the first one's slot");
    story.tell(&failure(0, 1)).expect("its slot is welcome");
    story.expect(&["released 0.1 r0"]);
    let task = story.shard.state().work.tasks.get(Ordinal(0)).expect("it runs");
    assert_eq!((task.attempt, task.failures, story.used(0)), (2, 1, 1));
}

#[test]
fn a_slot_held_on_a_replica_that_leaves_is_forgotten_with_it() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[Ask::Timeouts(limits())]);
    story.pass(11_000);
    story.leave(0);
    story.news();
    story.refuses(&success(0, 1), stale(0, 1));
    assert_eq!(story.shard.state().work.replicas.gone().count(), 0);
    story.join(1, 1);
    story.expect(&["joined r1 1", "started 0.2 r1"]);
}

#[test]
fn the_last_attempt_that_runs_too_long_ends_the_task() {
    let mut story = Story::running(&TypeSettings { retry: RetryPolicy::NEVER, ..plain() }, 1);
    story.request(&[Ask::Timeouts(limits())]);
    story.news();
    story.pass(10_000);
    story.expect(&["timed out 0.1 StartToClose", "dead 0 AttemptsExhausted"]);
    assert_eq!(story.used(0), 1);
    story.succeed(0, 1).expect("the slot is welcome, the result is not");
    story.expect(&["released 0.1 r0"]);
}

#[test]
fn a_task_that_no_slot_takes_in_time_ends() {
    let mut story = Story::with(&plain());
    let timeouts = Timeouts { schedule_to_start: Some(Micros::from_secs(3)), ..limits() };
    story.request(&[Ask::Timeouts(timeouts)]);
    story.news();
    story.pass(2_999);
    story.expect(&[]);
    story.pass(1);
    story.expect(&["timed out 0.0 ScheduleToStart", "dead 0 TimedOut(ScheduleToStart)"]);
}

#[test]
fn waiting_for_a_slot_counts_from_each_time_that_the_task_is_ready() {
    let mut story = Story::running(&plain(), 1);
    let timeouts = Timeouts { schedule_to_start: Some(Micros::from_secs(3)), ..limits() };
    let due = story.now.after(Micros::from_secs(5));
    story.request(&[Ask::Timeouts(timeouts), Ask::NotBefore(due)]);
    story.pass(5_000);
    story.expect(&["requested type-0", "ready 0", "started 0.1 r0"]);
    story.pass(9_000);
    story.fail(0, 1).expect("it runs");
    story.drain(0);
    story.news();
    story.pass(3_099);
    story.expect(&["ready 0"]);
    story.pass(1);
    story.expect(&["timed out 0.1 ScheduleToStart", "dead 0 TimedOut(ScheduleToStart)"]);
}

#[test]
fn a_task_may_take_only_so_long_in_all_whatever_it_is_doing() {
    let timeouts = Timeouts { schedule_to_close: Some(Micros::from_secs(4)), ..limits() };
    let ends = ["timed out 0.1 ScheduleToClose", "dead 0 TimedOut(ScheduleToClose)"];
    // Running.
    let mut story = Story::running(&plain(), 1);
    story.request(&[Ask::Timeouts(timeouts)]);
    story.news();
    story.pass(4_000);
    story.expect(&ends);
    assert_eq!(story.used(0), 1, "the attempt still holds its slot");
    story.release(0, 1, 0).expect("it does");
    // Waiting for another attempt.
    let mut story =
        Story::running(&TypeSettings { retry: RetryPolicy { initial: Micros::from_secs(10), ..plain().retry }, ..plain() }, 1);
    story.request(&[Ask::Timeouts(timeouts)]);
    story.fail(0, 1).expect("it runs");
    story.news();
    story.pass(4_000);
    story.expect(&ends);
    // Ready and delayed.
    let mut story = Story::with(&plain());
    story.request(&[Ask::Timeouts(timeouts)]);
    story.request(&[Ask::Timeouts(timeouts), Ask::NotBefore(Timestamp::NEVER)]);
    story.news();
    story.pass(5_000);
    assert_eq!(story.news().len(), 4);
    assert!(story.shard.state().work.timers.is_empty());
}

#[test]
fn a_cancelled_attempt_that_takes_too_long_in_all_ends_as_cancelled() {
    let timeouts = Timeouts { schedule_to_close: Some(Micros::from_secs(4)), ..limits() };
    let mut story = Story::running(&plain(), 1);
    story.request(&[Ask::Timeouts(timeouts)]);
    story.cancel(0).expect("it runs");
    story.news();
    story.pass(4_000);
    story.expect(&["timed out 0.1 ScheduleToClose", "ended 0 CANCELLED Cancelled"]);
}

#[test]
fn a_missed_heartbeat_repeats_the_attempt_and_holds_its_slot() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.pass(5_000);
    story.news();
    let last_seen = Timestamp(1);
    story.tell(&Command::MissHeartbeat { task: Ordinal(0), attempt: 1, last_seen }).expect("it runs");
    story.expect(&["heartbeat missed 0.1", "timed out 0.1 Heartbeat", "retry 0 in 100ms"]);
    assert_eq!(story.used(0), 1);
    story.refuses(&Command::MissHeartbeat { task: Ordinal(0), attempt: 1, last_seen }, stale(0, 1));
    story.succeed(0, 1).expect("its slot is welcome");
    story.pass(100);
    story.expect(&["released 0.1 r0", "ready 0", "started 0.2 r0"]);
}

#[test]
fn several_limits_at_one_moment_fall_due_in_the_order_of_the_rule() {
    let mut story = Story::running(&plain(), 3);
    let all = Timeouts {
        start_to_close: Micros::from_secs(2),
        schedule_to_close: Some(Micros::from_secs(2)),
        schedule_to_start: Some(Micros::from_secs(2)),
        heartbeat: None,
    };
    let commands: Vec<_> = (0..4).map(|_| common::request(b"", &[])).collect();
    let asks = [Ask::Timeouts(all)];
    let commands: Vec<_> = commands.iter().map(|_| common::request(b"", &asks)).collect();
    story.tell_all(&commands);
    story.news();
    story.pass(2_000);
    let news = story.news();
    let kinds: Vec<&str> = news.iter().map(|line| line.rsplit(' ').next().expect("a line has words")).collect();
    assert_eq!(&news[..2], &["timed out 0.1 ScheduleToClose", "dead 0 TimedOut(ScheduleToClose)"]);
    assert_eq!(&news[6..8], &["timed out 3.0 ScheduleToStart", "dead 3 TimedOut(ScheduleToStart)"]);
    assert_eq!(kinds.len(), 8, "each task ends once: {news:?}");
}

/// More attempts run out of time at one moment than one batch takes; the rest follows in the next batches.
#[test]
fn three_thousand_attempts_that_are_overdue_at_once_are_spread_over_batches() {
    let mut story = Story::running(&plain(), 4_000);
    let asks = [Ask::Timeouts(limits())];
    for _ in 0..6 {
        let commands: Vec<_> = (0..500).map(|_| common::request(b"", &asks)).collect();
        story.tell_all(&commands);
    }
    story.news();
    story.pass(10_001);
    let news = story.news();
    assert_eq!(news.iter().filter(|line| line.starts_with("timed out")).count(), 3_000);
    assert_eq!(story.used(0), 3_000);
}

/// Decides commands, and then whatever is due, in as many batches as it takes.
fn settle(shard: &mut Shard, at: u64, commands: &[Command<'_>]) {
    let (mut rest, mut answers) = (commands, Vec::new());
    while !rest.is_empty() || shard.next_due() <= Timestamp(at) {
        let taken = shard.batch(Timestamp(at), rest, &mut answers, &mut |_: &Envelope<'_>, _: &State| {});
        drop(shard.take_open());
        rest = &rest[taken..];
    }
    assert!(answers.iter().all(Result::is_ok), "every command is taken");
}

/// Each overdue attempt was looked for from the first slot on, and each late report among all slots: the square of their number, and most
/// of a minute without an answer.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test takes the time, not the core")]
fn sixty_five_thousand_attempts_time_out_together_and_report_late_in_a_moment() {
    const ATTEMPTS: u32 = 65_536;
    let once = TypeSettings { retry: RetryPolicy::NEVER, dead_letter: false, ..plain() };
    let mut shard = Shard::new(ShardId(0), State::default());
    let request = Command::Request { task_type: TypeId(0), payload: b"", key: None, asks: &[] };
    let mut begin = vec![
        Command::DefineType { name: "job", settings: &once, by: "test" },
        Command::JoinReplica { replica: ReplicaId(0), pool: "default", slots: ATTEMPTS },
    ];
    begin.extend(std::iter::repeat_n(request, ATTEMPTS as usize));
    settle(&mut shard, 1, &begin);
    let used = |shard: &Shard| shard.state().work.replicas.get(ReplicaId(0)).map_or(0, |replica| replica.used());
    assert_eq!(used(&shard), ATTEMPTS as usize);

    let begun = Instant::now();
    settle(&mut shard, 61_000_000, &[]);
    let overdue = begun.elapsed();
    assert_eq!(shard.state().work.ended[2], u64::from(ATTEMPTS));
    let late: Vec<_> = (0..u64::from(ATTEMPTS)).rev().map(|task| success(task, 1)).collect();
    let begun = Instant::now();
    settle(&mut shard, 62_000_000, &late);
    let reported = begun.elapsed();
    assert_eq!(used(&shard), 0);
    // A tenth of it is usual; the rest is for machines that do other things.
    let moment = Duration::from_secs(5);
    assert!(overdue < moment && reported < moment, "overdue in {overdue:?}, reported late in {reported:?}");
}
