//! The life of a task from request to its end, and what is refused on the way.

mod common;

use common::{Story, failure, plain, request, stale, success};
use ergate_events::command::{Accepted, Command, Rejection};
use ergate_events::decide::{POOLS_MAX, REPLICAS_MAX, TYPES_MAX};
use ergate_events::event::RuleVersions;
use ergate_events::id::{Ordinal, ReplicaId, TypeId};
use ergate_events::slab::Phase;
use ergate_events::state::replicas::SLOTS_MAX;
use ergate_events::task::{
    ASKS_MAX, Ask, CHECKPOINT_BYTES_MAX, Failure, IdempotencyKey, MESSAGE_BYTES_MAX, Outcome, PAYLOAD_BYTES_MAX, RetryPolicy,
    TEXT_BYTES_MAX, Timeouts, TypeSettings,
};
use ergate_events::time::{Micros, Timestamp};

#[test]
fn a_task_is_requested_started_and_succeeds() {
    let mut story = Story::running(&plain(), 1);
    let task = story.request(&[]);
    story.expect(&["requested type-0", "started 0.1 r0"]);
    let accepted = story.succeed(task.0, 1).expect("it is the current attempt");
    let position = story.shard.state().position;
    assert_eq!(accepted, Accepted { position, task: Some(task), duplicate: false, released: false });
    story.expect(&["succeeded 0.1"]);
    assert!(story.shard.state().work.tasks.is_empty());
    assert_eq!((story.used(0), story.shard.state().work.ended), (0, [1, 0, 0, 0, 0]));
}

#[test]
fn a_slot_that_falls_free_is_used_again_in_the_same_batch() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.request(&[]);
    story.expect(&["requested type-0", "started 0.1 r0", "requested type-0"]);
    story.succeed(0, 1).expect("it runs");
    story.expect(&["succeeded 0.1", "started 1.1 r0"]);
}

#[test]
fn a_success_may_be_partial_or_skipped_but_neither_failed_nor_cancelled() {
    let mut story = Story::running(&plain(), 4);
    for (outcome, word) in [(Outcome::Partial, "partial"), (Outcome::Skipped, "skipped")] {
        let task = story.request(&[]);
        story.news();
        story.tell(&Command::Succeed { task, attempt: 1, outcome, result: b"" }).expect("it is an outcome of a success");
        story.expect(&[&format!("{word} {task}.1")]);
    }
    let task = story.request(&[]);
    for outcome in [Outcome::Failed, Outcome::Cancelled] {
        let what = "the outcome of a success";
        story.refuses(
            &Command::Succeed { task, attempt: 1, outcome, result: b"" },
            Rejection::OutOfRange { what, rule: "SUCCEEDED, PARTIAL or SKIPPED" },
        );
    }
}

#[test]
fn a_stale_outcome_is_refused() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.fail(0, 1).expect("it runs");
    story.pass(100);
    story.expect(&["requested type-0", "started 0.1 r0", "failed 0.1 boom", "retry 0 in 100ms", "ready 0", "started 0.2 r0"]);
    story.refuses(&success(0, 1), stale(0, 1));
    story.refuses(&failure(0, 1), stale(0, 1));
    story.refuses(&Command::Checkpoint { task: Ordinal(0), attempt: 1, details: b"x" }, stale(0, 1));
    story.refuses(&Command::MissHeartbeat { task: Ordinal(0), attempt: 1, last_seen: Timestamp(0) }, stale(0, 1));
    story.refuses(&success(0, 3), stale(0, 3));
    story.succeed(0, 2).expect("it is the current attempt");
}

#[test]
fn an_outcome_before_the_start_and_after_the_end_is_refused() {
    let mut story = Story::with(&plain());
    story.request(&[]);
    story.refuses(&success(0, 0), stale(0, 0));
    story.refuses(&success(0, 1), stale(0, 1));
    story.join(0, 1);
    story.succeed(0, 1).expect("it runs");
    story.refuses(&success(0, 1), stale(0, 1));
    story.refuses(&failure(0, 1), stale(0, 1));
}

#[test]
fn a_delayed_task_waits_for_its_moment_and_one_from_the_past_does_not() {
    let mut story = Story::running(&plain(), 2);
    let due = story.now.after(Micros::from_secs(5));
    story.request(&[Ask::NotBefore(due)]);
    story.request(&[Ask::NotBefore(Timestamp(7))]);
    story.expect(&["requested type-0", "requested type-0", "started 1.1 r0"]);
    assert_eq!(story.shard.next_due(), due);
    story.pass(4_999);
    story.expect(&[]);
    story.pass(2);
    story.expect(&["ready 0", "started 0.1 r0"]);
}

#[test]
fn a_task_delayed_for_ever_waits_and_can_be_cancelled() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[Ask::NotBefore(Timestamp::NEVER)]);
    story.pass(100_000_000_000);
    story.expect(&["requested type-0"]);
    story.cancel(0).expect("it lives");
    story.expect(&["cancel 0", "ended 0 CANCELLED Cancelled"]);
}

#[test]
fn checkpoints_reach_the_next_attempt_and_the_same_one_again_is_not_recorded() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.news();
    let command = Command::Checkpoint { task: Ordinal(0), attempt: 1, details: &[0xab] };
    story.tell(&command).expect("it runs");
    story.tell(&command).expect("it runs");
    story.expect(&["checkpoint 0.1 ab"]);
    story.fail(0, 1).expect("it runs");
    story.pass(200);
    let task = story.shard.state().work.tasks.get(Ordinal(0)).expect("it runs again");
    assert_eq!((task.attempt, task.checkpoint()), (2, Some(&[0xab][..])));
}

#[test]
fn a_redefined_type_keeps_the_old_settings_for_old_tasks() {
    let mut story = Story::running(&TypeSettings { retry: RetryPolicy::NEVER, ..plain() }, 2);
    story.request(&[]);
    story.define("job", &TypeSettings { dead_letter: false, ..plain() });
    story.tell(&Command::Request { task_type: TypeId(1), payload: b"", key: None, asks: &[] }).expect("type 1 is defined");
    story.news();
    story.fail(0, 1).expect("it runs");
    story.fail(1, 1).expect("it runs");
    story.expect(&["failed 0.1 boom", "dead 0 AttemptsExhausted", "failed 1.1 boom", "retry 1 in 100ms"]);
    let types = &story.shard.state().work;
    assert_eq!((types.types.len(), types.type_names.get("job")), (2, Some(&TypeId(1))));
}

#[test]
fn the_same_definition_again_changes_nothing_and_an_older_one_again_is_a_new_one() {
    let mut story = Story::with(&plain());
    story.define("job", &plain());
    story.expect(&[]);
    story.define("job", &TypeSettings { priority: 7, ..plain() });
    story.define("job", &plain());
    story.expect(&["defined type-1 job", "defined type-2 job"]);
}

#[test]
fn what_a_request_asks_for_wins_over_its_type() {
    let mut story = Story::running(&plain(), 1);
    let retry = RetryPolicy { attempts: 2, initial: Micros::from_secs(9), ..plain().retry };
    let asks = [
        Ask::Priority(9),
        Ask::Retry(retry),
        Ask::ContentType("text/plain"),
        Ask::TraceParent("00-ab-cd-01"),
        Ask::Label("team", "red"),
    ];
    story.request(&asks);
    story.fail(0, 1).expect("it runs");
    story.expect(&["requested type-0", "started 0.1 r0", "failed 0.1 boom", "retry 0 in 9s"]);
    let task = story.shard.state().work.tasks.get(Ordinal(0)).expect("it waits");
    let extra = task.extra.as_ref().expect("it has a policy of its own");
    assert_eq!((task.priority, task.phase), (9, Phase::Backoff));
    assert_eq!((extra.content_type.as_deref(), extra.trace_parent.as_deref()), (Some("text/plain"), Some("00-ab-cd-01")));
}

#[test]
fn unknown_things_are_refused_by_name() {
    let mut story = Story::running(&plain(), 1);
    story.refuses(
        &Command::Request { task_type: TypeId(9), payload: b"", key: None, asks: &[] },
        Rejection::UnknownType(TypeId(9)),
    );
    let unknown = Rejection::UnknownTask(Ordinal(77));
    story.refuses(&success(77, 1), unknown);
    story.refuses(&failure(77, 1), unknown);
    story.refuses(&Command::Checkpoint { task: Ordinal(77), attempt: 1, details: b"" }, unknown);
    story.refuses(&Command::MissHeartbeat { task: Ordinal(77), attempt: 1, last_seen: Timestamp(0) }, unknown);
    story.refuses(&Command::Cancel { task: Ordinal(77), by: "", reason: "" }, unknown);
    story.refuses(&Command::Kill { task: Ordinal(u64::MAX), by: "", reason: "" }, Rejection::UnknownTask(Ordinal(u64::MAX)));
    story.refuses(&Command::Redrive { task: Ordinal(77), by: "", reason: "" }, unknown);
    story.refuses(&Command::ReleaseSlot { task: Ordinal(77), attempt: 1, replica: ReplicaId(0) }, stale(77, 1));
    for command in [
        Command::DrainReplica { replica: ReplicaId(5) },
        Command::LeaveReplica { replica: ReplicaId(5), departure: ergate_events::event::Departure::Lost },
        Command::ReadyReplica { replica: ReplicaId(5) },
        Command::StopReplica { replica: ReplicaId(5), departure: ergate_events::event::Departure::Lost },
    ] {
        story.refuses(&command, Rejection::WrongReplica(ReplicaId(5)));
    }
}

#[test]
fn every_length_is_taken_at_its_limit_and_refused_beyond_it() {
    let mut story = Story::running(&plain(), 8);
    let huge = vec![b'x'; PAYLOAD_BYTES_MAX + 1];
    let text = "x".repeat(TEXT_BYTES_MAX + 1);
    let fits = &text[..TEXT_BYTES_MAX];
    let too_large = |what, bytes, max| Rejection::TooLarge { what, bytes, max };
    story.submit(&request(&huge[..PAYLOAD_BYTES_MAX], &[]));
    story.refuses(&request(&huge, &[]), too_large("the payload", PAYLOAD_BYTES_MAX + 1, PAYLOAD_BYTES_MAX));
    let asks = vec![Ask::Label(fits, fits); ASKS_MAX + 1];
    story.submit(&request(b"", &asks[..ASKS_MAX]));
    story.refuses(&request(b"", &asks), too_large("the list of settings", ASKS_MAX + 1, ASKS_MAX));
    let label = [Ask::Label("a", &text)];
    story.refuses(&request(b"", &label), too_large("a label's value", TEXT_BYTES_MAX + 1, TEXT_BYTES_MAX));
    let content = [Ask::ContentType(&text)];
    story.refuses(&request(b"", &content), too_large("a setting of the request", TEXT_BYTES_MAX + 1, TEXT_BYTES_MAX));
    let key =
        |key| Command::Request { task_type: TypeId(0), payload: b"", key: Some(IdempotencyKey { key, window: None }), asks: &[] };
    story.submit(&key(fits));
    story.submit(&key(""));
    story.refuses(&key(&text), too_large("the idempotency key", TEXT_BYTES_MAX + 1, TEXT_BYTES_MAX));
    let checkpoint = |details| Command::Checkpoint { task: Ordinal(0), attempt: 1, details };
    story.tell(&checkpoint(&huge[..CHECKPOINT_BYTES_MAX])).expect("it fits");
    let over = too_large("the checkpoint", CHECKPOINT_BYTES_MAX + 1, CHECKPOINT_BYTES_MAX);
    story.refuses(&checkpoint(&huge[..=CHECKPOINT_BYTES_MAX]), over);
    let long = "x".repeat(MESSAGE_BYTES_MAX + 1);
    let fail = |class, message| Command::Fail {
        task: Ordinal(0),
        attempt: 1,
        failure: Failure { class, message, retryable: true, delay: None },
    };
    story.refuses(&fail("", &long), too_large("the failure's message", MESSAGE_BYTES_MAX + 1, MESSAGE_BYTES_MAX));
    story.refuses(&fail(&text, ""), too_large("the failure's class", TEXT_BYTES_MAX + 1, TEXT_BYTES_MAX));
    story.tell(&fail(fits, &long[1..])).expect("it fits");
    let result = |result| Command::Succeed { task: Ordinal(1), attempt: 1, outcome: Outcome::Succeeded, result };
    story.refuses(&result(&huge), too_large("the result", PAYLOAD_BYTES_MAX + 1, PAYLOAD_BYTES_MAX));
    story.tell(&result(&huge[1..])).expect("it fits");
    story.refuses(
        &Command::Cancel { task: Ordinal(0), by: "", reason: &text },
        too_large("the reason", TEXT_BYTES_MAX + 1, TEXT_BYTES_MAX),
    );
    story.refuses(
        &Command::Open { rules: RuleVersions::CURRENT, writer: &text },
        too_large("the writer's version", TEXT_BYTES_MAX + 1, TEXT_BYTES_MAX),
    );
}

#[test]
fn settings_outside_their_range_are_refused() {
    let mut story = Story::empty();
    let refused = |story: &mut Story, name: &str, settings: &TypeSettings, expected: &str| {
        let answer = story.tell(&Command::DefineType { name, settings, by: "" });
        match answer {
            Err(Rejection::OutOfRange { what, .. } | Rejection::TooLarge { what, .. }) => assert_eq!(what, expected),
            other => panic!("{expected}: {other:?}"),
        }
        story.expect(&[]);
    };
    let name = "the task type's name";
    refused(&mut story, "", &plain(), name);
    refused(&mut story, "a\nb", &plain(), name);
    refused(&mut story, &"x".repeat(257), &plain(), name);
    refused(&mut story, "a", &TypeSettings { pool: String::new(), ..plain() }, "the pool's name");
    refused(&mut story, "a", &TypeSettings { pool: "x".repeat(257), ..plain() }, "the pool's name");
    refused(&mut story, "a", &TypeSettings { priority: 10, ..plain() }, "the priority");
    let classes = vec![String::new(); 17];
    refused(&mut story, "a", &TypeSettings { non_retryable: classes, ..plain() }, "the list of failure classes");
    let classes = vec!["x".repeat(257)];
    refused(&mut story, "a", &TypeSettings { non_retryable: classes, ..plain() }, "the list of failure classes");
    let timeouts = Timeouts { start_to_close: Micros(0), ..Timeouts::default() };
    refused(&mut story, "a", &TypeSettings { timeouts, ..plain() }, "the start-to-close timeout");
    for retry in [
        RetryPolicy { attempts: 0, ..RetryPolicy::default() },
        RetryPolicy { coefficient_milli: 999, ..RetryPolicy::default() },
        RetryPolicy { jitter_milli: 1_001, ..RetryPolicy::default() },
    ] {
        refused(&mut story, "a", &TypeSettings { retry, ..plain() }, "the retry policy");
    }
    story.define("job", &plain());
    for ask in [
        Ask::Priority(10),
        Ask::Retry(RetryPolicy { attempts: 0, ..RetryPolicy::default() }),
        Ask::Timeouts(Timeouts { start_to_close: Micros(0), ..Timeouts::default() }),
    ] {
        assert!(matches!(story.tell(&request(b"", &[ask])), Err(Rejection::OutOfRange { .. })), "{ask:?}");
    }
}

#[test]
fn the_numbers_of_types_pools_replicas_and_slots_end_at_their_limits() {
    let mut story = Story::empty();
    for priority in (0..TYPES_MAX).map(|index| u8::from(index % 2 == 0)) {
        story.define("job", &TypeSettings { priority, ..plain() });
    }
    let settings = TypeSettings { priority: 5, ..plain() };
    let rule = "at most 4096 in the life of a log";
    story.refuses(
        &Command::DefineType { name: "job", settings: &settings, by: "" },
        Rejection::OutOfRange { what: "the number of task type definitions", rule },
    );
    let names: Vec<String> = (0..=POOLS_MAX).map(|index| format!("pool {index}")).collect();
    let pool = |pool, replicas, slots| Command::DefinePool { pool, replicas, slots, by: "", reason: "" };
    for name in &names[..POOLS_MAX] {
        story.tell(&pool(name, 0, 1)).expect("there is room");
    }
    let what = "the number of pools";
    story.refuses(&pool(&names[POOLS_MAX], 0, 1), Rejection::OutOfRange { what, rule: "at most 1024" });
    for (name, replicas, slots) in [("", 1, 1), ("pool 0", 1, 0), ("pool 0", 1, SLOTS_MAX + 1), ("pool 0", REPLICAS_MAX + 1, 1)] {
        assert!(matches!(story.tell(&pool(name, replicas, slots)), Err(Rejection::OutOfRange { what: "the pool", .. })));
    }
    for slots in [0, SLOTS_MAX + 1, u32::MAX] {
        let join = Command::JoinReplica { replica: ReplicaId(1), pool: "default", slots };
        assert!(matches!(story.tell(&join), Err(Rejection::OutOfRange { what: "the number of slots", .. })));
    }
    story.join(1, SLOTS_MAX);
}

#[test]
fn rule_versions_that_this_build_does_not_know_cannot_be_opened() {
    let mut story = Story::empty();
    let known = RuleVersions::CURRENT;
    for rules in [
        RuleVersions { task: known.task + 1, ..known },
        RuleVersions { retry: known.retry + 1, ..known },
        RuleVersions { dispatch: u16::MAX, ..known },
        RuleVersions { task: 0, ..known },
        RuleVersions { retry: 0, ..known },
        RuleVersions { dispatch: 0, ..known },
    ] {
        story.refuses(&Command::Open { rules, writer: "test" }, Rejection::UnknownRules);
    }
    story.tell(&Command::Open { rules: known, writer: "test" }).expect("these are known");
    story.expect(&["opened e2"]);
}

#[test]
fn a_message_of_progress_may_be_as_long_as_one_of_a_failure() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    let progress = |message| Command::Progress { task: Ordinal(0), attempt: 1, percent: None, stage: "", message };
    let long = "x".repeat(MESSAGE_BYTES_MAX + 1);
    story.tell(&progress(&long[1..])).expect("it is as long as it may be");
    let what = "the message of the progress";
    story.refuses(&progress(&long), Rejection::TooLarge { what, bytes: long.len(), max: MESSAGE_BYTES_MAX });
}
