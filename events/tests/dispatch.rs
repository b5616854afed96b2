//! Which ready task goes to which free slot.

mod common;

use common::{Story, plain, request};
use ergate_events::command::Command;
use ergate_events::dispatch::{PRIORITY_STEP, STARTS_MAX};
use ergate_events::id::{ReplicaId, TypeId};
use ergate_events::task::{Ask, TypeSettings};
use ergate_events::time::Micros;

fn starts(story: &mut Story) -> Vec<String> {
    story.news().into_iter().filter_map(|line| line.strip_prefix("started ").map(str::to_owned)).collect()
}

#[test]
fn a_higher_priority_goes_first_and_equals_go_in_order() {
    let mut story = Story::with(&plain());
    for priority in [0, 4, 9, 4, 9] {
        story.request(&[Ask::Priority(priority)]);
    }
    story.join(0, 8);
    assert_eq!(starts(&mut story), ["2.1 r0", "4.1 r0", "1.1 r0", "3.1 r0", "0.1 r0"]);
}

#[test]
fn a_lower_priority_goes_first_once_it_has_waited_a_step_longer_for_each_level() {
    let mut story = Story::with(&plain());
    story.request(&[Ask::Priority(4)]);
    story.pass(PRIORITY_STEP.0 / 1_000 - 1_000);
    story.request(&[Ask::Priority(5)]);
    story.pass(2_000);
    story.request(&[Ask::Priority(5)]);
    story.join(0, 8);
    assert_eq!(starts(&mut story), ["1.1 r0", "0.1 r0", "2.1 r0"]);
}

#[test]
fn the_lowest_priority_is_overtaken_for_nine_steps_at_most() {
    let mut story = Story::with(&plain());
    story.request(&[Ask::Priority(0)]);
    story.pass(9 * PRIORITY_STEP.0 / 1_000 + 1);
    story.request(&[Ask::Priority(9)]);
    story.join(0, 1);
    assert_eq!(starts(&mut story), ["0.1 r0"]);
}

#[test]
fn tasks_are_dealt_in_turn_beginning_with_the_least_used_replica() {
    let mut story = Story::running(&plain(), 3);
    story.request(&[]);
    story.join(1, 2);
    story.join(2, 1);
    story.news();
    story.tell_all(&(0..5).map(|_| request(b"", &[])).collect::<Vec<_>>());
    assert_eq!(starts(&mut story), ["1.1 r1", "2.1 r2", "3.1 r0", "4.1 r1", "5.1 r0"]);
}

#[test]
fn a_pool_gets_only_tasks_of_its_own() {
    let mut story = Story::with(&plain());
    story.define("gpu", &TypeSettings { pool: "gpu".to_owned(), ..plain() });
    story.tell_all(&[request(b"", &[]), Command::Request { task_type: TypeId(1), payload: b"", key: None, asks: &[] }]);
    story.news();
    story.tell(&Command::JoinReplica { replica: ReplicaId(0), pool: "gpu", slots: 8 }).expect("it is new");
    assert_eq!(starts(&mut story), ["1.1 r0"]);
    story.join(1, 1);
    assert_eq!(starts(&mut story), ["0.1 r1"]);
}

#[test]
fn a_draining_replica_gets_nothing() {
    let mut story = Story::running(&plain(), 4);
    story.drain(0);
    story.request(&[]);
    assert!(starts(&mut story).is_empty());
    story.join(1, 1);
    assert_eq!(starts(&mut story), ["0.1 r1"]);
}

#[test]
fn a_task_that_is_repeated_queues_again_behind_those_that_were_ready_before() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.fail(0, 1).expect("it runs");
    story.drain(0);
    story.pass(50);
    story.request(&[]);
    story.pass(50);
    story.request(&[]);
    story.news();
    story.join(1, 3);
    assert_eq!(starts(&mut story), ["1.1 r1", "0.2 r1", "2.1 r1"]);
}

#[test]
fn one_batch_starts_a_bounded_number_and_the_next_one_goes_on() {
    let mut story = Story::with(&plain());
    for _ in 0..10 {
        story.tell_all(&(0..500).map(|_| request(b"", &[])).collect::<Vec<_>>());
    }
    story.news();
    story.join(0, 10_000);
    assert_eq!(starts(&mut story).len(), STARTS_MAX);
    assert_eq!(story.shard.next_due().0, 0, "there is more to start, and nobody need ask for it");
    story.tell_all(&[]);
    assert_eq!(starts(&mut story).len(), 5_000 - STARTS_MAX);
    story.pass(Micros::from_secs(1).0 / 1_000);
}

#[test]
fn a_type_may_set_the_priority_of_its_tasks() {
    let mut story = Story::with(&TypeSettings { priority: 1, ..plain() });
    story.define("urgent", &TypeSettings { priority: 2, ..plain() });
    story.tell_all(&[request(b"", &[]), Command::Request { task_type: TypeId(1), payload: b"", key: None, asks: &[] }]);
    story.join(0, 2);
    assert_eq!(starts(&mut story), ["1.1 r0", "0.1 r0"]);
}
