//! Workers: what they are given when they ask, and what becomes of it when they are silent, give it back or leave.

mod common;

use common::{Story, plain, stale, worker};
use ergate_events::command::{Command, Rejection};
use ergate_events::event::{Departure, RuleVersions};
use ergate_events::id::{Ordinal, ReplicaId, TypeId};
use ergate_events::task::{Ask, TypeSettings};
use ergate_events::time::Micros;
use ergate_events::worker::{WORKER_FIRST, WorkerFacts};

const R: ReplicaId = WORKER_FIRST;

fn ask(replica: ReplicaId, slots: u32) -> Command<'static> {
    Command::AskWork { replica, slots }
}

/// A story with one type, `job`, `ready` requests for it, and a worker with so many slots.
fn with_worker(ready: usize, slots: u32) -> Story {
    let mut story = Story::with(&plain());
    for _ in 0..ready {
        story.request(&[]);
    }
    assert_eq!(story.join_worker("default", slots, &worker("a", &[])), R);
    story.news();
    story
}

#[test]
fn a_worker_gets_what_it_asks_for_and_nothing_before_or_after() {
    let mut story = with_worker(3, 8);
    story.pass(60_000);
    story.expect(&[]);
    story.tell(&ask(R, 2)).expect("it is there");
    story.expect(&["asked r2147483648 2", "started 0.1 r2147483648", "started 1.1 r2147483648"]);
    story.tell_all(&[]);
    story.succeed(0, 1).expect("it runs");
    story.expect(&["succeeded 0.1"]);
    // It asked for more than there is: the rest of its wish is forgotten with the batch.
    story.tell(&ask(R, 5)).expect("it is there");
    story.expect(&["asked r2147483648 5", "started 2.1 r2147483648"]);
    story.request(&[]);
    story.expect(&["requested type-0"]);
}

#[test]
fn a_worker_never_gets_more_than_it_has_slots() {
    let mut story = with_worker(5, 2);
    story.tell(&ask(R, 50)).expect("it is there");
    story.tell(&ask(R, 50)).expect("it is there");
    story.expect(&["asked r2147483648 50", "started 0.1 r2147483648", "started 1.1 r2147483648", "asked r2147483648 50"]);
}

#[test]
fn a_worker_that_asks_twice_at_once_is_given_its_free_slots_once() {
    let mut story = with_worker(5, 3);
    story.tell(&ask(R, 1)).expect("it is there");
    story.news();
    let answers = story.tell_all(&[ask(R, 2), ask(R, 2)]);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    story.expect(&["asked r2147483648 2", "asked r2147483648 2", "started 1.1 r2147483648", "started 2.1 r2147483648"]);
    story.succeed(0, 1).expect("it runs");
    story.expect(&["succeeded 0.1"]);
}

#[test]
fn workers_that_ask_together_are_dealt_to_in_turn_the_least_used_first() {
    let mut story = with_worker(4, 4);
    let second = story.join_worker("default", 4, &worker("b", &[]));
    story.tell(&ask(R, 1)).expect("it is there");
    story.news();
    let answers = story.tell_all(&[ask(R, 3), ask(second, 2)]);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let started = ["started 1.1 r2147483649", "started 2.1 r2147483648", "started 3.1 r2147483649"];
    story.expect(&[&["asked r2147483648 3", "asked r2147483649 2"][..], &started].concat());
}

#[test]
fn a_worker_gets_only_types_that_it_can_run_and_the_others_do_not_stand_in_the_way() {
    let mut story = Story::with(&plain());
    story.define("other", &plain());
    let other = Command::Request { task_type: TypeId(1), payload: b"", key: None, asks: &[] };
    for _ in 0..3 {
        story.request(&[Ask::Priority(9)]);
    }
    story.submit(&other);
    let replica = story.join_worker("default", 8, &worker("a", &["other"]));
    story.news();
    story.tell(&ask(replica, 8)).expect("it is there");
    story.expect(&["asked r2147483648 8", "started 3.1 r2147483648"]);
}

#[test]
fn a_new_definition_of_a_type_is_run_by_whoever_ran_the_old_one() {
    let mut story = Story::with(&plain());
    let replica = story.join_worker("default", 8, &worker("a", &["job"]));
    story.define("job", &TypeSettings { priority: 3, ..plain() });
    story.submit(&Command::Request { task_type: TypeId(1), payload: b"", key: None, asks: &[] });
    story.news();
    story.tell(&ask(replica, 1)).expect("it is there");
    story.expect(&["asked r2147483648 1", "started 0.1 r2147483648"]);
}

#[test]
fn what_the_process_cannot_run_itself_waits_for_a_worker() {
    let mut story = Story::running(&plain(), 4);
    story.tell(&Command::ServeTypes { types: &["noop".to_owned()] }).expect("they are in order");
    story.request(&[]);
    story.expect(&["serves noop", "requested type-0"]);
    story.tell(&Command::ServeTypes { types: &["noop".to_owned()] }).expect("it is so already");
    story.expect(&[]);
    story.tell(&Command::ServeTypes { types: &["job".to_owned(), "noop".to_owned()] }).expect("they are in order");
    story.expect(&["serves job noop", "started 0.1 r0"]);
}

#[test]
fn a_worker_of_another_pool_is_given_nothing() {
    let mut story = with_worker(1, 1);
    let gpu = story.join_worker("gpu", 1, &worker("b", &[]));
    story.news();
    story.tell(&ask(gpu, 1)).expect("it is there");
    story.expect(&["asked r2147483649 1"]);
}

#[test]
fn the_attempts_of_a_silent_worker_return_after_its_lease_and_count_as_losses() {
    let mut story = with_worker(2, 2);
    story.tell(&ask(R, 2)).expect("it is there");
    let last_seen = story.now;
    story.pass(4_999);
    story.news();
    let early = Rejection::OutOfRange { what: "the silence of the worker", rule: "at least as long as its lease" };
    story.refuses(&Command::MissWorker { replica: R, last_seen }, early);
    story.pass(1);
    story.tell(&Command::MissWorker { replica: R, last_seen }).expect("it was silent for long");
    story.pass(0);
    story.expect(&["missed r2147483648 5s", "lost 1.1", "lost 0.1"]);
    let tasks = &story.shard.state().work.tasks;
    assert!([0, 1].iter().all(|task| tasks.get(Ordinal(*task)).is_some_and(|task| (task.failures, task.losses) == (0, 1))));
    // It comes back and finds that its time is over.
    story.refuses(&common::success(0, 1), stale(0, 1));
    story.refuses(&ask(R, 1), Rejection::WrongReplica(R));
    let again = story.join_worker("default", 2, &worker("a", &[]));
    assert_eq!(again, ReplicaId(R.0 + 1), "no id is given out twice");
    story.tell(&ask(again, 2)).expect("it is there");
    story.succeed(0, 2).expect("it runs again");
    story.refuses(&common::success(0, 1), stale(0, 1));
}

#[test]
fn an_attempt_that_is_given_back_is_ready_again_and_costs_the_task_nothing() {
    let mut story = with_worker(1, 1);
    for attempt in 1..=20 {
        story.tell(&ask(R, 1)).expect("it is there");
        story.tell(&Command::ReturnAttempt { task: Ordinal(0), attempt }).expect("it runs");
        let expected = ["asked r2147483648 1", &format!("started 0.{attempt} r2147483648"), &format!("returned 0.{attempt}")];
        story.expect(&[&expected[..], &[&format!("lost 0.{attempt}")]].concat());
    }
    let task = story.shard.state().work.tasks.get(Ordinal(0)).expect("it is live");
    assert_eq!((task.failures, task.losses), (0, 0));
    story.refuses(&Command::ReturnAttempt { task: Ordinal(0), attempt: 20 }, stale(0, 20));
}

#[test]
fn a_cancelled_task_ends_when_its_attempt_is_given_back() {
    let mut story = with_worker(1, 1);
    story.tell(&ask(R, 1)).expect("it is there");
    story.cancel(0).expect("it runs");
    story.news();
    story.tell(&Command::ReturnAttempt { task: Ordinal(0), attempt: 1 }).expect("it runs");
    story.expect(&["returned 0.1", "lost 0.1", "ended 0 CANCELLED Cancelled"]);
}

#[test]
fn a_task_that_takes_its_workers_with_it_ends_after_its_losses() {
    let losses_max = 2;
    let mut story = Story::with(&TypeSettings { losses_max, ..plain() });
    story.request(&[]);
    for loss in 0..=losses_max {
        let replica = story.join_worker("default", 1, &worker("a", &[]));
        story.tell(&ask(replica, 1)).expect("it is there");
        let last_seen = story.now;
        story.pass(5_000);
        assert!(story.shard.state().work.tasks.get(Ordinal(0)).is_some(), "it was lost {loss} times");
        story.tell(&Command::MissWorker { replica, last_seen }).expect("it was silent for long");
        story.pass(0);
    }
    assert_eq!(story.news().last().map(String::as_str), Some("dead 0 LossesExhausted"));
}

#[test]
fn a_draining_worker_gets_nothing_and_what_it_leaves_with_returns_unburned() {
    let mut story = with_worker(2, 2);
    story.tell(&ask(R, 1)).expect("it is there");
    story.tell(&Command::DrainReplica { replica: R }).expect("it is there");
    story.refuses(&ask(R, 1), Rejection::WrongReplica(R));
    story.news();
    story.tell(&Command::LeaveReplica { replica: R, departure: Departure::Drained }).expect("it is there");
    story.pass(0);
    story.expect(&["left r2147483648 Drained", "lost 0.1"]);
    assert!(story.shard.state().work.tasks.get(Ordinal(0)).is_some_and(|task| task.losses == 0));
    assert!(story.shard.state().work.workers.is_empty());
}

#[test]
fn workers_stay_when_another_process_opens_the_log() {
    let mut story = with_worker(1, 1);
    story.tell(&ask(R, 1)).expect("it is there");
    story.tell(&Command::Open { rules: RuleVersions::CURRENT, writer: "the next one" }).expect("a log can be opened again");
    story.succeed(0, 1).expect("its worker knows nothing of that");
}

#[test]
fn a_worker_that_cannot_be_is_refused_by_name() {
    let mut story = Story::with(&plain());
    let good = worker("a", &[]);
    let texts = |count: usize| (0..count).map(|number| format!("{number:05}")).collect::<Vec<_>>();
    let wrong = [
        (WorkerFacts { name: "x".repeat(257), ..good.clone() }, "a text about the worker"),
        (WorkerFacts { types: texts(1_025), ..good.clone() }, "the task types of the worker"),
        (WorkerFacts { types: vec!["b".to_owned(), "a".to_owned()], ..good.clone() }, "the task types of the worker"),
        (WorkerFacts { lease: Micros::from_millis(499), ..good.clone() }, "the lease of the worker"),
        (WorkerFacts { lease: Micros::from_secs(901), ..good.clone() }, "the lease of the worker"),
    ];
    for (worker, expected) in &wrong {
        let join = Command::JoinWorker { replica: R, pool: "default", slots: 1, worker };
        match story.tell(&join) {
            Err(Rejection::OutOfRange { what, .. }) => assert_eq!(what, *expected),
            other => panic!("{other:?}"),
        }
    }
    let ahead = ReplicaId(R.0 + 1);
    let join = |replica, slots| Command::JoinWorker { replica, pool: "default", slots, worker: &good };
    story.refuses(&join(ahead, 1), Rejection::WrongReplica(ahead));
    story.refuses(&join(ReplicaId(0), 1), Rejection::WrongReplica(ReplicaId(0)));
    assert!(story.tell(&join(R, 0)).is_err());
    story.refuses(&ask(R, 1), Rejection::WrongReplica(R));
    story.join(0, 1);
    story.refuses(&ask(ReplicaId(0), 1), Rejection::WrongReplica(ReplicaId(0)));
    story.refuses(&Command::MissWorker { replica: ReplicaId(0), last_seen: story.now }, Rejection::WrongReplica(ReplicaId(0)));
}

#[test]
fn a_worker_tells_how_much_it_does_at_a_time_and_that_changes_nothing_else() {
    let mut story = with_worker(0, 8);
    let change = |before, concurrency, reason| Command::ChangeConcurrency { replica: R, before, concurrency, reason };
    let before = story.shard.state().clone();
    story.tell(&change(8, 5, "it took twice as long")).expect("it is there");
    story.expect(&["concurrency r2147483648 8 5"]);
    assert_eq!((&story.shard.state().work.workers, &story.shard.state().control), (&before.work.workers, &before.control));
    let long = "x".repeat(ergate_events::task::MESSAGE_BYTES_MAX + 1);
    for wrong in [change(5, 5, ""), change(5, 0, ""), change(5, 65_537, ""), change(5, 6, &long)] {
        assert!(story.tell(&wrong).is_err(), "{wrong:?}");
    }
    let nobody = ReplicaId(R.0 + 1);
    let change = Command::ChangeConcurrency { replica: nobody, before: 1, concurrency: 2, reason: "" };
    story.refuses(&change, Rejection::WrongReplica(nobody));
}

#[test]
fn a_process_exits_as_a_replica_that_was_asked_for() {
    let mut story = Story::with(&plain());
    let exit =
        |replica| Command::ExitProcess { replica, code: Some(1), signal: None, note: "no model", wait: Micros::from_secs(1) };
    story.refuses(&exit(ReplicaId(0)), Rejection::WrongReplica(ReplicaId(0)));
    story.tell(&Command::DefinePool { pool: "models", replicas: 1, slots: 2, by: "me", reason: "" }).expect("it is in range");
    story.pass(1);
    story.news();
    story.tell(&exit(ReplicaId(0))).expect("it was asked for");
    story.expect(&["exited r0 Some(1) None"]);
    // It ended: that it is gone is said apart, and asks for the next one.
    story.tell(&Command::StopReplica { replica: ReplicaId(0), departure: Departure::Lost }).expect("it was asked for");
    story.pass(1);
    let next = story.news();
    assert!(next.iter().any(|line| line.contains("r1")), "{next:?}");
}
