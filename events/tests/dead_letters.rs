//! Tasks that failed for good: kept within limits, and tried again as new tasks.

mod common;

use common::{Story, plain, request};
use ergate_events::command::{Command, Rejection};
use ergate_events::decide::{DEAD_LETTER_BYTES_MAX, DEAD_LETTERS_MAX};
use ergate_events::event::Cause;
use ergate_events::id::{Ordinal, ReplicaId};
use ergate_events::task::{Ask, Failure, RetryPolicy, TypeSettings};

fn fragile() -> TypeSettings {
    TypeSettings { retry: RetryPolicy::NEVER, ..plain() }
}

fn fail(task: u64) -> Command<'static> {
    let failure = Failure { class: "boom", message: "", retryable: true, delay: None };
    Command::Fail { task: Ordinal(task), attempt: 1, failure }
}

#[test]
fn a_dead_letter_keeps_its_payload_and_a_redrive_is_a_new_task_with_a_full_budget() {
    let mut story = Story::running(&fragile(), 1);
    let asks = [Ask::Retry(RetryPolicy { attempts: 2, ..plain().retry }), Ask::Priority(8)];
    story.submit(&request(b"precious", &asks));
    story.fail(0, 1).expect("it runs");
    story.pass(100);
    story.fail(0, 2).expect("it runs");
    let letter = story.shard.state().work.dead[&Ordinal(0)].clone();
    assert_eq!((&*letter.payload, letter.cause, letter.task.attempt), (&b"precious"[..], Cause::AttemptsExhausted, 2));
    story.news();
    let accepted = story.redrive(0).expect("it is a dead letter");
    assert_eq!(accepted.task, Some(Ordinal(1)));
    story.expect(&["redriven 0", "started 1.1 r0"]);
    let state = story.shard.state();
    let task = state.work.tasks.get(Ordinal(1)).expect("it runs");
    assert_eq!((task.failures, task.losses, task.priority), (0, 0, 8));
    assert_eq!(
        (state.work.tasks.payload(Ordinal(1)), state.work.dead.len(), state.work.dead_bytes),
        (Some(&b"precious"[..]), 0, 0)
    );
    story.refuses(&Command::Redrive { task: Ordinal(0), by: "", reason: "" }, Rejection::NotDead(Ordinal(0)));
    story.fail(1, 1).expect("it runs");
    story.expect(&["failed 1.1 boom", "retry 1 in 100ms"]);
}

#[test]
fn only_dead_letters_are_redriven() {
    let mut story = Story::running(&fragile(), 2);
    story.request(&[]);
    story.request(&[]);
    story.succeed(0, 1).expect("it runs");
    for task in [0, 1] {
        story.refuses(&Command::Redrive { task: Ordinal(task), by: "", reason: "" }, Rejection::NotDead(Ordinal(task)));
    }
}

#[test]
fn a_type_without_dead_letters_ends_its_tasks() {
    let mut story = Story::running(&TypeSettings { dead_letter: false, ..fragile() }, 1);
    story.request(&[]);
    story.news();
    story.fail(0, 1).expect("it runs");
    story.expect(&["failed 0.1 boom", "ended 0 FAILED AttemptsExhausted"]);
    assert!(story.shard.state().work.dead.is_empty());
}

#[test]
fn a_task_that_takes_its_executor_with_it_too_often_is_a_dead_letter() {
    let mut story = Story::with(&TypeSettings { losses_max: 2, ..plain() });
    story.request(&[]);
    for replica in 0..3 {
        story.join(replica, 1);
        story.leave(replica);
        story.pass(0);
    }
    story.expect(&[
        "requested type-0",
        "joined r0 1",
        "started 0.1 r0",
        "left r0 Lost",
        "lost 0.1",
        "joined r1 1",
        "started 0.2 r1",
        "left r1 Lost",
        "lost 0.2",
        "joined r2 1",
        "started 0.3 r2",
        "left r2 Lost",
        "lost 0.3",
        "dead 0 LossesExhausted",
    ]);
}

#[test]
fn losses_are_counted_apart_from_failures() {
    let mut story = Story::with(&TypeSettings { losses_max: 5, ..plain() });
    story.request(&[]);
    for replica in 0..5 {
        story.join(replica, 1);
        story.leave(replica);
    }
    story.join(5, 1);
    story.news();
    story.fail(0, 6).expect("it runs for the sixth time");
    story.expect(&["failed 0.6 boom", "retry 0 in 100ms"]);
}

#[test]
fn the_oldest_dead_letter_makes_room_when_there_are_too_many() {
    let mut story = Story::running(&fragile(), 1_000);
    let total = DEAD_LETTERS_MAX as u64 + 2;
    for first in (0..total).step_by(1_000) {
        let tasks = first..total.min(first + 1_000);
        story.tell_all(&tasks.clone().map(|_| request(b"p", &[])).collect::<Vec<_>>());
        story.seal();
        story.tell_all(&tasks.map(fail).collect::<Vec<_>>());
        story.seal();
    }
    let news = story.news();
    assert_eq!(
        news[news.len() - 6..][..3],
        [format!("failed {}.1 boom", total - 2), format!("dead {} AttemptsExhausted", total - 2), "dropped 0".to_owned()]
    );
    let work = &story.shard.state().work;
    assert_eq!(
        (work.dead.len(), work.dead_bytes, work.dead.first_key_value().map(|(task, _)| task.0)),
        (DEAD_LETTERS_MAX, DEAD_LETTERS_MAX, Some(2))
    );
    story.refuses(&Command::Redrive { task: Ordinal(0), by: "", reason: "" }, Rejection::NotDead(Ordinal(0)));
}

#[test]
fn dead_payloads_are_bounded_in_bytes_too() {
    let mut story = Story::running(&fragile(), 1);
    let payload = vec![0_u8; 1 << 20];
    let kept = (DEAD_LETTER_BYTES_MAX >> 20) as u64;
    for task in 0..kept + 3 {
        story.submit(&request(&payload, &[]));
        story.tell(&fail(task)).expect("it runs");
        story.seal();
    }
    let work = &story.shard.state().work;
    assert_eq!((work.dead.len() as u64, work.dead_bytes), (kept, DEAD_LETTER_BYTES_MAX));
    assert_eq!(story.news().iter().filter(|line| line.starts_with("dropped")).count(), 3);
    // The fold of a quarter of a gigabyte is the business of no other test, so the log ends here.
    std::mem::forget(story);
}

/// A redriven task keeps the settings of the definition it was accepted under, not those of the newest one.
#[test]
fn a_redriven_task_keeps_its_type() {
    let mut story = Story::running(&fragile(), 1);
    story.request(&[]);
    story.fail(0, 1).expect("it runs");
    story.define("job", &plain());
    story.redrive(0).expect("it is a dead letter");
    story.news();
    story.fail(1, 1).expect("it runs");
    story.expect(&["failed 1.1 boom", "dead 1 AttemptsExhausted"]);
    assert_eq!(story.shard.state().work.replicas.get(ReplicaId(0)).map(ergate_events::state::replicas::Replica::free), Some(1));
}
