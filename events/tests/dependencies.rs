//! Tasks that come after others: who starts when, what a failure leads to, and which names a request may use.

mod common;

use common::{Story, plain};
use ergate_events::command::{Command, Rejection};
use ergate_events::id::{Ordinal, TypeId};
use ergate_events::limit::LimitSettings;
use ergate_events::shard::Answer;
use ergate_events::slab::Phase;
use ergate_events::task::{AFTER_MAX, Ask, Dependency, IdempotencyKey, OnFailure, Outcome, RetryPolicy, Timeouts, TypeSettings};
use ergate_events::time::Micros;
use proptest::prelude::*;

const RUN: Ask<'static> = Ask::OnFailure(OnFailure::Run);

/// Every failure is final, and nothing is kept.
fn once() -> TypeSettings {
    TypeSettings { retry: RetryPolicy::NEVER, dead_letter: false, ..plain() }
}

fn after(tasks: &[u64]) -> Vec<Ask<'static>> {
    tasks.iter().map(|task| Ask::After(Dependency::Task(Ordinal(*task)))).collect()
}

fn with<'a>(mut asks: Vec<Ask<'a>>, more: &[Ask<'a>]) -> Vec<Ask<'a>> {
    asks.extend(more);
    asks
}

fn ask(story: &mut Story, asks: &[Ask<'_>]) -> Answer {
    story.tell(&common::request(b"", asks))
}

fn keyed<'a>(key: &'a str, asks: &'a [Ask<'a>]) -> Command<'a> {
    Command::Request { task_type: TypeId(0), payload: b"", key: Some(IdempotencyKey { key, window: None }), asks }
}

const fn by_key(key: &str) -> Ask<'_> {
    Ask::After(Dependency::Key(None, key))
}

#[test]
fn a_task_starts_in_the_batch_in_which_the_last_one_succeeded_that_it_comes_after() {
    let mut story = Story::running(&once(), 8);
    (0..3).for_each(|_| _ = story.request(&[]));
    story.request(&after(&[2, 0, 2, 1]));
    story.news();
    story.succeed(1, 1).unwrap();
    story.expect(&["succeeded 1.1", "met 3 1 2 left"]);
    story.succeed(0, 1).unwrap();
    story.expect(&["succeeded 0.1", "met 3 0 1 left"]);
    story.succeed(2, 1).unwrap();
    story.expect(&["succeeded 2.1", "met 3 2 0 left", "started 3.1 r0"]);
    assert!(story.shard.state().work.holds.is_empty());
}

#[test]
fn a_diamond_runs_from_its_first_task_to_its_last() {
    let mut story = Story::running(&once(), 8);
    for of in [&[][..], &[0], &[0], &[1, 2]] {
        story.request(&after(of));
    }
    story.news();
    story.succeed(0, 1).unwrap();
    story.expect(&["succeeded 0.1", "met 1 0 0 left", "met 2 0 0 left", "started 1.1 r0", "started 2.1 r0"]);
    story.succeed(2, 1).unwrap();
    story.succeed(1, 1).unwrap();
    story.expect(&["succeeded 2.1", "met 3 2 1 left", "succeeded 1.1", "met 3 1 0 left", "started 3.1 r0"]);
}

#[test]
fn a_failure_cancels_what_comes_after_it_and_what_comes_after_that() {
    let mut story = Story::running(&once(), 8);
    for asks in [vec![], after(&[0]), after(&[1]), with(after(&[0]), &[RUN]), with(after(&[2, 3]), &[RUN])] {
        story.request(&asks);
    }
    story.news();
    story.fail(0, 1).unwrap();
    story.expect(&[
        "failed 0.1 boom",
        "ended 0 FAILED AttemptsExhausted",
        "ended 1 CANCELLED Dependency(Ordinal(0))",
        "met 3 0 0 left",
        "ended 2 CANCELLED Dependency(Ordinal(1))",
        "met 4 2 1 left",
        "started 3.1 r0",
    ]);
    story.succeed(3, 1).unwrap();
    story.expect(&["succeeded 3.1", "met 4 3 0 left", "started 4.1 r0"]);
}

#[test]
fn a_retry_is_no_end_and_a_dead_letter_is_one() {
    let mut story = Story::running(&plain(), 8);
    story.request(&[]);
    story.request(&after(&[0]));
    for (attempt, delay) in [(1, 100), (2, 200), (3, 400)] {
        story.fail(0, attempt).unwrap();
        story.pass(delay);
    }
    assert!(story.shard.state().work.holds.get(Ordinal(1)).is_some(), "it waits through every attempt");
    story.news();
    story.fail(0, 4).unwrap();
    story.expect(&["failed 0.4 boom", "dead 0 AttemptsExhausted", "ended 1 CANCELLED Dependency(Ordinal(0))"]);
    // A dead letter that is tried again is a new task, and nothing comes after it.
    story.redrive(0).unwrap();
    story.expect(&["redriven 0", "started 2.1 r0"]);
}

#[test]
fn a_held_task_can_be_cancelled_and_killed_and_can_run_out_of_time() {
    let timeouts = Timeouts { schedule_to_close: Some(Micros::from_secs(5)), ..plain().timeouts };
    let mut story = Story::running(&TypeSettings { timeouts, ..once() }, 8);
    story.request(&[]);
    (0..3).for_each(|_| _ = story.request(&after(&[0])));
    story.request(&after(&[1]));
    story.news();
    story.cancel(1).unwrap();
    story.expect(&["cancel 1", "ended 1 CANCELLED Cancelled", "ended 4 CANCELLED Dependency(Ordinal(1))"]);
    story.kill(2).unwrap();
    story.expect(&["kill 2", "ended 2 CANCELLED Killed"]);
    story.pass(4_999);
    story.succeed(0, 1).unwrap();
    story.expect(&["succeeded 0.1", "met 3 0 0 left", "started 3.1 r0"]);
    story.pass(1);
    story.expect(&["timed out 3.1 ScheduleToClose", "ended 3 FAILED TimedOut(ScheduleToClose)"]);
}

#[test]
fn what_has_succeeded_keeps_nothing_and_what_has_failed_decides_at_once() {
    let mut story = Story::running(&once(), 8);
    (0..2).for_each(|_| _ = story.request(&[]));
    story.succeed(0, 1).unwrap();
    story.fail(1, 1).unwrap();
    story.news();
    let ended = |task, outcome| Ask::After(Dependency::Ended(Ordinal(task), outcome));
    let (good, bad) = (ended(0, Outcome::Succeeded), ended(1, Outcome::Failed));
    ask(&mut story, &[good]).unwrap();
    story.expect(&["requested type-0", "started 2.1 r0"]);
    ask(&mut story, &[good, bad]).unwrap();
    story.expect(&["requested type-0", "ended 3 CANCELLED Dependency(Ordinal(1))"]);
    ask(&mut story, &[good, bad, RUN]).unwrap();
    story.expect(&["requested type-0", "started 4.1 r0"]);
    // One failed, and the other one goes on: there is nothing to wait for.
    ask(&mut story, &[bad, Ask::After(Dependency::Task(Ordinal(4)))]).unwrap();
    story.expect(&["requested type-0", "ended 5 CANCELLED Dependency(Ordinal(1))"]);
    for outcome in [Outcome::Partial, Outcome::Skipped] {
        ask(&mut story, &[ended(0, outcome)]).unwrap();
    }
    assert_eq!(story.news().iter().filter(|line| line.starts_with("started")).count(), 2, "a result is a result");
}

#[test]
fn a_key_names_a_task_of_the_own_type_or_of_another() {
    let mut story = Story::running(&once(), 8);
    story.define("other", &once());
    story.tell(&keyed("a", &[])).unwrap();
    let elsewhere = Ask::After(Dependency::Key(Some("other"), "a"));
    story.refuses(&keyed("b", &[elsewhere]), Rejection::UnknownDependency { index: 0 });
    story.tell(&common::keyed(1, "a", b"")).unwrap();
    story.tell_all(&[keyed("b", &[elsewhere, by_key("a")]), keyed("c", &[by_key("b")])]);
    let holds = &story.shard.state().work.holds;
    assert_eq!(*holds.get(Ordinal(2)).unwrap().after, [Ordinal(0), Ordinal(1)]);
    assert_eq!(*holds.get(Ordinal(3)).unwrap().after, [Ordinal(2)]);
}

#[test]
fn a_name_that_nobody_knows_is_refused_and_so_is_itself() {
    let mut story = Story::running(&once(), 8);
    story.request(&[]);
    let known = Ask::After(Dependency::Task(Ordinal(0)));
    let unknown = |index| Rejection::UnknownDependency { index };
    story.refuses(&common::request(b"", &[known, known, Ask::After(Dependency::Task(Ordinal(1)))]), unknown(2));
    story.refuses(&keyed("a", &[known, by_key("a")]), unknown(1));
    story.succeed(0, 1).unwrap();
    let ended = Rejection::DependencyEnded { index: 0, task: Ordinal(0) };
    story.refuses(&common::request(b"", &[known]), ended);
    let many = Rejection::OutOfRange { what: "the number of tasks that one comes after", rule: "at most 64" };
    let said = [Ask::After(Dependency::Ended(Ordinal(0), Outcome::Succeeded)); AFTER_MAX + 1];
    story.refuses(&common::request(b"", &said), many);
    ask(&mut story, &said[1..]).unwrap();
    // The same request again is the same task, whether its names are still known or not.
    story.tell(&keyed("z", &[])).unwrap();
    assert!(story.tell(&keyed("z", &[by_key("gone")])).unwrap().duplicate);
}

#[test]
fn moments_priorities_and_limits_count_from_the_release() {
    let mut story = Story::running(&once(), 1);
    story.limit(&[LimitSettings { concurrency: Some(1), ..LimitSettings::default() }]);
    story.request(&[]);
    let due = story.now.after(Micros::from_millis(500));
    story.request(&with(after(&[0]), &[Ask::NotBefore(due)]));
    story.request(&with(after(&[0]), &[Ask::Priority(0)]));
    story.request(&with(after(&[0]), &[Ask::Priority(9)]));
    story.news();
    story.succeed(0, 1).unwrap();
    story.expect(&[
        "succeeded 0.1",
        "met 1 0 0 left",
        "met 2 0 0 left",
        "met 3 0 0 left",
        "admitted 2",
        "limited 3 limit-0",
        "started 2.1 r0",
    ]);
    story.pass(500);
    story.expect(&["ready 1", "limited 1 limit-0"]);
    story.succeed(2, 1).unwrap();
    story.expect(&["succeeded 2.1", "admitted 3", "started 3.1 r0"]);
}

/// What a naive reader of the rules expects: it looks at all tasks again after every step.
#[derive(Default)]
struct Model {
    tasks: Vec<(Vec<usize>, OnFailure, Expected)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Held,
    Running,
    Ended(Outcome),
}

impl Model {
    fn ended(&self, task: usize) -> Option<Outcome> {
        if let Expected::Ended(outcome) = self.tasks[task].2 { Some(outcome) } else { None }
    }

    fn settle(&mut self) {
        while let Some((task, next)) = (0..self.tasks.len()).find_map(|task| Some((task, self.next(task)?))) {
            self.tasks[task].2 = next;
        }
    }

    fn next(&self, task: usize) -> Option<Expected> {
        let (after, policy, now) = &self.tasks[task];
        let ends: Vec<_> = after.iter().map(|of| self.ended(*of)).collect();
        let has_failed = ends.iter().flatten().any(|outcome| !outcome.is_success());
        match (*now == Expected::Held, has_failed && *policy == OnFailure::Cancel) {
            (false, _) => None,
            (true, true) => Some(Expected::Ended(Outcome::Cancelled)),
            (true, false) => ends.iter().all(Option::is_some).then_some(Expected::Running),
        }
    }

    /// The names that a request uses at this moment.
    fn asks(&self, after: &[usize], policy: OnFailure) -> Vec<Ask<'static>> {
        let name = |task: &usize| {
            let ordinal = Ordinal(*task as u64);
            Ask::After(self.ended(*task).map_or(Dependency::Task(ordinal), |outcome| Dependency::Ended(ordinal, outcome)))
        };
        after.iter().map(name).chain([Ask::OnFailure(policy)]).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_task_is_where_a_naive_reader_of_the_rules_expects_it(
        steps in proptest::collection::vec((0_u8..8, any::<bool>(), proptest::collection::vec(any::<prop::sample::Index>(), 0..4)), 1..60),
    ) {
        let (mut story, mut model) = (Story::running(&once(), 64), Model::default());
        for (what, runs, picks) in steps {
            let picked: Vec<usize> = picks.iter().filter(|_| !model.tasks.is_empty()).map(|pick| pick.index(model.tasks.len())).collect();
            match (what, picked.first().map(|task| (*task, model.tasks[*task].2))) {
                (4.., Some((task, Expected::Running))) => {
                    let outcome = [Outcome::Succeeded, Outcome::Skipped, Outcome::Failed, Outcome::Cancelled][usize::from(what - 4)];
                    let (ordinal, attempt) = (Ordinal(task as u64), 1);
                    let command = match outcome {
                        Outcome::Failed => common::failure(ordinal.0, attempt),
                        Outcome::Cancelled => Command::Kill { task: ordinal, by: "me", reason: "" },
                        Outcome::Succeeded | Outcome::Partial | Outcome::Skipped => {
                            Command::Succeed { task: ordinal, attempt, outcome, result: b"" }
                        }
                    };
                    story.tell(&command).expect("it runs");
                    model.tasks[task].2 = Expected::Ended(outcome);
                }
                (4.., Some((task, Expected::Held))) if what > 5 => {
                    story.cancel(task as u64).expect("it is live");
                    model.tasks[task].2 = Expected::Ended(Outcome::Cancelled);
                }
                _ => {
                    let policy = if runs { OnFailure::Run } else { OnFailure::Cancel };
                    ask(&mut story, &model.asks(&picked, policy)).expect("every name is known");
                    model.tasks.push((picked, policy, Expected::Held));
                }
            }
            model.settle();
            for (task, (_, _, expected)) in model.tasks.iter().enumerate() {
                let found = story.shard.state().work.tasks.get(Ordinal(task as u64)).map(|task| task.phase);
                let wanted = match expected {
                    Expected::Held => Some(Phase::Held),
                    Expected::Running => Some(Phase::Running),
                    Expected::Ended(_) => None,
                };
                prop_assert_eq!(found, wanted, "task {}", task);
            }
        }
        let mut ended = [0; 5];
        for outcome in (0..model.tasks.len()).filter_map(|task| model.ended(task)) {
            ended[outcome as usize] += 1;
        }
        prop_assert_eq!(story.shard.state().work.ended, ended);
    }
}

/// More dependents of one task than one batch tells.
#[test]
fn a_crowd_that_waits_for_one_task_is_told_batch_by_batch() {
    let crowd = ergate_events::settle::ADMISSIONS_MAX as u64 + 904;
    let mut story = Story::running(&once(), 1);
    story.request(&[]);
    let asks = after(&[0]);
    for _ in 0..crowd / 500 {
        story.tell_all(&vec![common::request(b"", &asks); 500]);
    }
    story.news();
    story.fail(0, 1).unwrap();
    assert_eq!(story.news().len(), 2 + ergate_events::settle::ADMISSIONS_MAX);
    story.pass(0);
    assert_eq!(story.news().len() as u64, crowd - ergate_events::settle::ADMISSIONS_MAX as u64);
    assert!(story.shard.state().work.tasks.is_empty());
}
