//! Stopping a task: asked for, waited for, or done at once.

mod common;

use common::{Story, failure, plain, stale, success};
use ergate_events::command::Rejection;
use ergate_events::id::Ordinal;
use ergate_events::slab::Phase;
use ergate_events::task::{Ask, Timeouts, TypeSettings};
use ergate_events::time::{Micros, Timestamp};

#[test]
fn a_waiting_task_is_cancelled_at_once_whatever_it_waits_for() {
    let mut story = Story::with(&plain());
    story.request(&[]);
    story.request(&[Ask::NotBefore(Timestamp::NEVER)]);
    story.news();
    story.cancel(0).expect("it waits");
    story.cancel(1).expect("it waits");
    story.expect(&["cancel 0", "ended 0 CANCELLED Cancelled", "cancel 1", "ended 1 CANCELLED Cancelled"]);
    story.join(0, 1);
    story.request(&[]);
    story.fail(2, 1).expect("it runs");
    story.news();
    story.cancel(2).expect("it waits for its next attempt");
    story.expect(&["cancel 2", "ended 2 CANCELLED Cancelled"]);
    assert!(story.shard.state().work.timers.is_empty());
    story.refuses(
        &ergate_events::command::Command::Cancel { task: Ordinal(2), by: "", reason: "" },
        Rejection::TaskEnded(Ordinal(2)),
    );
}

#[test]
fn a_running_task_may_clean_up_and_its_failure_then_ends_it_as_cancelled() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.news();
    story.cancel(0).expect("it runs");
    story.expect(&["cancel 0"]);
    assert_eq!(story.shard.state().work.tasks.get(Ordinal(0)).map(|task| task.phase), Some(Phase::Cancelling));
    story.cancel(0).expect("asking twice is asking once");
    story.expect(&[]);
    story.tell(&failure(0, 1)).expect("it runs");
    story.expect(&["failed 0.1 boom", "ended 0 CANCELLED Cancelled"]);
    assert_eq!((story.used(0), story.shard.state().work.ended), (0, [0, 0, 0, 1, 0]));
}

#[test]
fn a_cancelled_task_that_succeeds_all_the_same_has_succeeded() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.cancel(0).expect("it runs");
    story.news();
    story.tell(&success(0, 1)).expect("it runs");
    story.expect(&["succeeded 0.1"]);
    story.pass(100_000);
    story.expect(&[]);
    assert_eq!(story.shard.state().work.ended, [1, 0, 0, 0, 0]);
}

#[test]
fn a_cancelled_attempt_that_does_not_stop_in_time_is_ended_and_holds_its_slot() {
    let settings = TypeSettings { cancel_grace: Micros::from_secs(2), ..plain() };
    let mut story = Story::running(&settings, 1);
    story.request(&[]);
    story.cancel(0).expect("it runs");
    story.news();
    story.pass(1_999);
    story.expect(&[]);
    story.pass(1);
    story.expect(&["timed out 0.1 CancelGrace", "ended 0 CANCELLED Cancelled"]);
    assert_eq!(story.used(0), 1);
    story.release(0, 1, 0).expect("it holds the slot");
    assert_eq!(story.used(0), 0);
}

#[test]
fn a_cancelled_attempt_that_misses_its_own_limit_or_its_executor_ends_as_cancelled() {
    let settings = TypeSettings { cancel_grace: Micros::from_secs(600), ..plain() };
    let timeouts = Timeouts { start_to_close: Micros::from_secs(5), ..Timeouts::default() };
    let mut story = Story::running(&settings, 2);
    story.request(&[Ask::Timeouts(timeouts)]);
    story.request(&[]);
    story.cancel(0).expect("it runs");
    story.cancel(1).expect("it runs");
    story.news();
    story.pass(5_000);
    story.expect(&["timed out 0.1 StartToClose", "ended 0 CANCELLED Cancelled"]);
    story.leave(0);
    story.pass(0);
    story.expect(&["left r0 Lost", "lost 1.1", "ended 1 CANCELLED Cancelled"]);
    assert!(story.shard.state().work.timers.is_empty());
}

#[test]
fn a_killed_task_ends_at_once_waiting_or_running_and_a_running_one_holds_its_slot() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.request(&[]);
    story.news();
    story.kill(1).expect("it waits");
    story.kill(0).expect("it runs");
    story.expect(&["kill 1", "ended 1 CANCELLED Killed", "kill 0", "ended 0 CANCELLED Killed"]);
    assert_eq!(story.used(0), 1);
    story.request(&[]);
    story.expect(&["requested type-0"]);
    story.tell(&success(0, 1)).expect("its slot is welcome");
    story.expect(&["released 0.1 r0", "started 2.1 r0"]);
    story.refuses(&success(1, 1), stale(1, 1));
}

#[test]
fn a_task_that_is_being_cancelled_can_be_killed() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.cancel(0).expect("it runs");
    story.news();
    story.kill(0).expect("it still runs");
    story.expect(&["kill 0", "ended 0 CANCELLED Killed"]);
    assert!(story.shard.state().work.timers.is_empty());
}

#[test]
fn stale_queue_entries_of_cancelled_tasks_start_nothing_and_do_not_pile_up() {
    let mut story = Story::with(&plain());
    for round in 0..5_u64 {
        let commands: Vec<_> = (0..500).map(|_| common::request(b"", &[])).collect();
        story.tell_all(&commands);
        let reason = "";
        let cancels: Vec<_> = (round * 500 + 1..(round + 1) * 500)
            .map(|task| ergate_events::command::Command::Cancel { task: Ordinal(task), by: "", reason })
            .collect();
        story.tell_all(&cancels);
        story.seal();
    }
    let work = &story.shard.state().work;
    assert_eq!(work.ready_count(&work.pools[0]), 5);
    story.news();
    story.join(0, 10);
    assert_eq!(
        story.news()[1..],
        ["started 0.1 r0", "started 500.1 r0", "started 1000.1 r0", "started 1500.1 r0", "started 2000.1 r0"]
    );
}
