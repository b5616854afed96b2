//! What follows a failure: another attempt after a delay, or the end.

mod common;

use common::{Story, failure, plain, request};
use ergate_events::command::Command;
use ergate_events::id::Ordinal;
use ergate_events::retry::delay_v1;
use ergate_events::task::{Ask, Failure, RetryPolicy, TypeSettings};
use ergate_events::time::Micros;

fn fail_with(story: &mut Story, attempt: u32, class: &str, retryable: bool, delay: Option<Micros>) {
    let failure = Failure { class, message: "", retryable, delay };
    story.tell(&Command::Fail { task: Ordinal(0), attempt, failure }).expect("it runs");
}

#[test]
fn delays_double_up_to_the_last_attempt_and_then_the_task_is_a_dead_letter() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    for attempt in 1..=4 {
        story.tell(&failure(0, attempt)).expect("it runs");
        story.pass(1_000);
    }
    story.expect(&[
        "requested type-0",
        "started 0.1 r0",
        "failed 0.1 boom",
        "retry 0 in 100ms",
        "ready 0",
        "started 0.2 r0",
        "failed 0.2 boom",
        "retry 0 in 200ms",
        "ready 0",
        "started 0.3 r0",
        "failed 0.3 boom",
        "retry 0 in 400ms",
        "ready 0",
        "started 0.4 r0",
        "failed 0.4 boom",
        "dead 0 AttemptsExhausted",
    ]);
}

#[test]
fn a_task_is_not_started_before_its_delay_is_over() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.fail(0, 1).expect("it runs");
    story.news();
    story.pass(99);
    story.expect(&[]);
    story.pass(1);
    story.expect(&["ready 0", "started 0.2 r0"]);
}

#[test]
fn jitter_is_taken_off_by_the_rule_and_differs_between_tasks() {
    let retry = RetryPolicy { jitter_milli: 500, ..plain().retry };
    let mut story = Story::running(&TypeSettings { retry, ..plain() }, 64);
    let mut delays = std::collections::BTreeSet::new();
    for task in 0..64 {
        story.request(&[]);
        story.news();
        story.fail(task, 1).expect("it runs");
        let delay = delay_v1(&retry, Ordinal(task), 1).expect("three attempts are left");
        assert!((50_000..=100_000).contains(&delay.0), "{delay}");
        story.expect(&[&format!("failed {task}.1 boom"), &format!("retry {task} in {delay}")]);
        delays.insert(delay);
    }
    assert!(delays.len() > 60, "{} different delays", delays.len());
}

#[test]
fn a_failure_that_says_so_is_not_retried() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.news();
    fail_with(&mut story, 1, "boom", false, None);
    story.expect(&["failed 0.1 boom", "dead 0 NotRetryable"]);
}

#[test]
fn a_class_that_the_type_lists_is_not_retried_and_others_are() {
    let settings = TypeSettings { non_retryable: vec!["bad_input".to_owned()], ..plain() };
    let mut story = Story::running(&settings, 1);
    story.request(&[]);
    fail_with(&mut story, 1, "bad_inputs", true, None);
    story.pass(100);
    story.news();
    fail_with(&mut story, 2, "bad_input", true, None);
    story.expect(&["failed 0.2 bad_input", "dead 0 NotRetryable"]);
}

#[test]
fn a_failure_may_ask_for_its_own_delay_but_not_for_another_attempt() {
    let retry = RetryPolicy { attempts: 2, ..plain().retry };
    let mut story = Story::running(&TypeSettings { retry, ..plain() }, 1);
    story.request(&[]);
    story.news();
    fail_with(&mut story, 1, "busy", true, Some(Micros::from_secs(7)));
    story.expect(&["failed 0.1 busy", "retry 0 in 7s"]);
    story.pass(7_000);
    story.expect(&["ready 0", "started 0.2 r0"]);
    fail_with(&mut story, 2, "busy", true, Some(Micros::from_secs(7)));
    story.expect(&["failed 0.2 busy", "dead 0 AttemptsExhausted"]);
}

#[test]
fn a_delay_of_zero_and_one_without_end_are_both_lived_with() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.news();
    fail_with(&mut story, 1, "now", true, Some(Micros(0)));
    story.pass(0);
    story.expect(&["failed 0.1 now", "retry 0 in 0ns", "ready 0", "started 0.2 r0"]);
    fail_with(&mut story, 2, "never", true, Some(Micros(u64::MAX)));
    story.pass(1_000_000_000);
    assert_eq!(story.news().len(), 2, "it failed and waits");
    story.kill(0).expect("it lives");
}

#[test]
fn a_type_without_retries_ends_at_once() {
    let settings = TypeSettings { retry: RetryPolicy::NEVER, dead_letter: false, ..plain() };
    let mut story = Story::running(&settings, 1);
    story.request(&[]);
    story.news();
    story.fail(0, 1).expect("it runs");
    story.expect(&["failed 0.1 boom", "ended 0 FAILED AttemptsExhausted"]);
}

/// The rule multiplied once for every failure before. Where a millesimal step rounds down to the same delay it never reached the
/// maximum, so a task that had failed a billion times would have held its shard for seconds with every further failure.
#[test]
fn a_delay_that_cannot_grow_is_found_without_counting_to_a_billion() {
    let policy = RetryPolicy {
        attempts: u32::MAX,
        initial: Micros(900),
        coefficient_milli: 1_001,
        max: Micros::from_secs(1),
        jitter_milli: 0,
    };
    assert_eq!(delay_v1(&policy, Ordinal(1), u32::MAX - 1), Some(Micros(900)));
}

#[test]
fn a_failed_task_leaves_its_slot_to_the_next_one_while_it_waits() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.submit(&request(b"second", &[Ask::Priority(0)]));
    story.news();
    story.fail(0, 1).expect("it runs");
    story.expect(&["failed 0.1 boom", "retry 0 in 100ms", "started 1.1 r0"]);
    story.pass(100);
    story.expect(&["ready 0"]);
    story.succeed(1, 1).expect("it runs");
    story.expect(&["succeeded 1.1", "started 0.2 r0"]);
}
