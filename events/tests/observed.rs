//! What observers are told: every start has one end, and an end says what follows from it.

mod common;

use std::sync::Arc;

use common::{Story, plain};
use ergate_events::command::Command;
use ergate_events::id::Ordinal;
use ergate_events::state::State;
use ergate_events::task::{RetryPolicy, TypeSettings};
use ergate_events::time::Micros;
use ergate_events::view::Observed;
use ergate_events::view::observed::{Happened, Notice};

fn jobs() -> Arc<[String]> {
    Arc::from(["job".to_owned()])
}

/// Everything that observers of `job` are told of a log.
fn told(story: &mut Story) -> Vec<String> {
    let (mut view, mut notices) = (Observed::of(&State::default(), jobs()), Vec::new());
    for block in story.log() {
        for envelope in block.records() {
            view.apply(&envelope.expect("it was just recorded"), &mut |notice| notices.push(notice));
        }
        view.end_block(&mut |notice| notices.push(notice));
    }
    notices.iter().map(line).collect()
}

fn line(Notice { task, attempt, at, what, .. }: &Notice) -> String {
    let what = match what {
        Happened::Started => "start".to_owned(),
        Happened::Progressed { percent, stage, message } => format!("progress {percent:?} {stage} {message}"),
        Happened::Succeeded { outcome, result } => format!("success {} {}", outcome.name(), String::from_utf8_lossy(result)),
        Happened::Cancelled { cause } => format!("cancelled {cause:?}"),
        Happened::Failed { class, again: Some(due), .. } => format!("error {class}, again in {}", due.since(*at)),
        Happened::Failed { class, cause, .. } => format!("error {class}, {cause:?}"),
    };
    format!("{task}.{attempt} {what}")
}

#[test]
fn a_failed_attempt_is_told_with_what_follows_from_it() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    for attempt in 1..4 {
        story.fail(0, attempt).expect("it runs");
        story.pass(1_000);
    }
    story.fail(0, 4).expect("it runs");
    assert_eq!(
        told(&mut story),
        [
            "0.1 start",
            "0.1 error boom, again in 100ms",
            "0.2 start",
            "0.2 error boom, again in 200ms",
            "0.3 start",
            "0.3 error boom, again in 400ms",
            "0.4 start",
            "0.4 error boom, Some(AttemptsExhausted)",
        ]
    );
}

#[test]
fn progress_success_and_a_redrive_are_told_of_the_right_task() {
    let mut story = Story::running(&TypeSettings { retry: RetryPolicy::NEVER, ..plain() }, 1);
    story.request(&[]);
    story.fail(0, 1).expect("it runs");
    story.redrive(0).expect("it is a dead letter");
    let (percent, stage, message) = (Some(40), "copying", "4 of 10");
    let progress = Command::Progress { task: Ordinal(1), attempt: 1, percent, stage, message };
    story.tell(&progress).expect("it runs");
    story.succeed(1, 1).expect("it runs");
    assert_eq!(
        told(&mut story),
        [
            "0.1 start",
            "0.1 error boom, Some(AttemptsExhausted)",
            "1.1 start",
            "1.1 progress Some(40) copying 4 of 10",
            "1.1 success SUCCEEDED ok",
        ]
    );
}

#[test]
fn cancelled_killed_and_overdue_attempts_are_told_apart() {
    let mut settings = TypeSettings { cancel_grace: Micros::from_millis(20), ..plain() };
    settings.timeouts.start_to_close = Micros::from_millis(500);
    let mut story = Story::running(&settings, 4);
    (0..4).for_each(|_| _ = story.request(&[]));
    story.cancel(0).expect("it runs");
    story.fail(0, 1).expect("it cleaned up");
    story.cancel(1).expect("it runs");
    story.pass(50);
    story.kill(2).expect("it runs");
    story.pass(460);
    let told: Vec<_> = told(&mut story).into_iter().filter(|line| !line.ends_with("start")).collect();
    assert_eq!(
        told,
        ["0.1 cancelled Cancelled", "1.1 cancelled Cancelled", "2.1 cancelled Killed", "3.1 error timeout, again in 100ms"]
    );
}

#[test]
fn an_attempt_that_went_with_its_replica_is_told_at_once_and_with_its_task_where_that_ends() {
    let mut story = Story::running(&TypeSettings { losses_max: 1, ..plain() }, 1);
    story.request(&[]);
    story.leave(0);
    story.pass(1);
    assert_eq!(told(&mut story), ["0.1 start", "0.1 error lost, again in 0ns"]);
    story.join(1, 1);
    story.leave(1);
    story.pass(1);
    assert_eq!(told(&mut story)[2..], ["0.2 start", "0.2 error lost, Some(LossesExhausted)"]);
}

#[test]
fn a_task_that_never_started_is_told_with_attempt_0() {
    let mut story = Story::with(&plain());
    story.request(&[]);
    story.cancel(0).expect("it waits");
    assert_eq!(told(&mut story), ["0.0 cancelled Cancelled"]);
}

#[test]
fn other_types_are_not_told_and_what_was_folded_is_not_told_again() {
    let mut story = Story::running(&plain(), 1);
    story.define("other", &plain());
    story.request(&[]);
    let mut view = Observed::of(story.shard.state(), jobs());
    assert_eq!(view.position, story.shard.state().position);
    let mut none = Observed::of(&State::default(), Arc::from(["third".to_owned()]));
    let mut notices = Vec::new();
    story.succeed(0, 1).expect("it runs");
    let log = story.log();
    for _ in 0..2 {
        for envelope in log.iter().flat_map(|block| block.records()).map(|envelope| envelope.expect("it was just recorded")) {
            view.apply(&envelope, &mut |notice| notices.push(notice));
            none.apply(&envelope, &mut |notice| panic!("nobody observes {notice:?}"));
        }
    }
    // From the state on: the start lies before it.
    assert_eq!(notices.iter().map(line).collect::<Vec<_>>(), ["0.1 success SUCCEEDED ok"]);
}
