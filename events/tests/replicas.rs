//! Replicas and pools: slots that come, drain and go, and sizes that are set.

mod common;

use common::{Story, plain, request, stale, success};
use ergate_events::command::{Command, Rejection};
use ergate_events::due::DUE_MAX;
use ergate_events::event::{Departure, PoolMode};
use ergate_events::id::{Ordinal, ReplicaId};
use ergate_events::state::control::ReplicaPhase;
use ergate_events::state::replicas::SLOTS_MAX;

fn size(story: &mut Story, replicas: u32) {
    story.tell(&Command::DefinePool { pool: "default", replicas, slots: 2, by: "me", reason: "" }).expect("it is in range");
    story.pass(0);
}

fn ready(replica: u32) -> Command<'static> {
    Command::ReadyReplica { replica: ReplicaId(replica) }
}

fn stop(story: &mut Story, replica: u32, departure: Departure) {
    story.tell(&Command::StopReplica { replica: ReplicaId(replica), departure }).expect("the replica is known");
    story.pass(0);
}

#[test]
fn a_replica_joins_drains_and_leaves_without_losing_anything() {
    let mut story = Story::running(&plain(), 2);
    story.request(&[]);
    story.drain(0);
    story.request(&[]);
    story.drain(0);
    story.expect(&["requested type-0", "started 0.1 r0", "draining r0", "requested type-0"]);
    story.succeed(0, 1).expect("a draining replica finishes its work");
    story.tell(&Command::LeaveReplica { replica: ReplicaId(0), departure: Departure::Drained }).expect("it is there");
    story.pass(0);
    story.expect(&["succeeded 0.1", "left r0 Drained"]);
    let replicas = &story.shard.state().work.replicas;
    assert_eq!((replicas.iter().count(), replicas.gone().count()), (0, 0));
}

#[test]
fn a_replica_id_is_used_once_at_a_time() {
    let mut story = Story::running(&plain(), 2);
    let join = Command::JoinReplica { replica: ReplicaId(0), pool: "default", slots: 1 };
    story.refuses(&join, Rejection::WrongReplica(ReplicaId(0)));
    story.request(&[]);
    // In one batch: what it ran is not returned yet, so its id is not free.
    let leave = Command::LeaveReplica { replica: ReplicaId(0), departure: Departure::Lost };
    let answers = story.tell_all(&[leave, join.clone()]);
    assert_eq!(answers[1], Err(Rejection::WrongReplica(ReplicaId(0))));
    let answers = story.tell_all(&[join]);
    assert!(answers[0].is_ok(), "its attempts are returned, so the id is free");
    story.expect(&["requested type-0", "started 0.1 r0", "left r0 Lost", "lost 0.1", "joined r0 1", "started 0.2 r0"]);
    story.refuses(&success(0, 1), stale(0, 1));
}

#[test]
fn a_report_from_a_replica_that_just_left_still_counts_in_the_same_batch_and_not_in_the_next() {
    let mut story = Story::running(&plain(), 2);
    story.request(&[]);
    story.request(&[]);
    story.news();
    let leave = Command::LeaveReplica { replica: ReplicaId(0), departure: Departure::Lost };
    let answers = story.tell_all(&[leave, success(1, 1)]);
    assert!(answers.iter().all(Result::is_ok));
    let answers = story.tell_all(&[success(0, 1)]);
    assert_eq!(answers, [Err(stale(0, 1))]);
    story.expect(&["left r0 Lost", "succeeded 1.1", "lost 0.1"]);
    assert_eq!(story.shard.state().work.replicas.gone().count(), 0);
}

/// An attempt failed, or missed its heartbeat, in the very batch in which its replica left. The replica was then never forgotten, and
/// since a replica that is gone has something to return at once, the shard was asked for another batch for ever.
#[test]
fn a_replica_that_is_gone_is_forgotten_however_its_last_attempt_ended() {
    let last_seen = ergate_events::time::Timestamp(0);
    for last in [
        common::failure(0, 1),
        success(0, 1),
        Command::MissHeartbeat { task: Ordinal(0), attempt: 1, last_seen },
        Command::Kill { task: Ordinal(0), by: "", reason: "" },
    ] {
        let mut story = Story::running(&plain(), 2);
        story.request(&[]);
        let leave = Command::LeaveReplica { replica: ReplicaId(0), departure: Departure::Lost };
        let answers = story.tell_all(&[leave, last.clone()]);
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(story.shard.state().work.replicas.gone().count(), 0, "{last:?}");
        assert!(story.shard.next_due().0 > 0, "{last:?}");
    }
}

#[test]
fn a_lost_attempt_returns_to_the_queue_and_burns_no_attempt() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.leave(0);
    story.join(1, 1);
    let task = story.shard.state().work.tasks.get(Ordinal(0)).expect("it runs again");
    assert_eq!((task.attempt, task.failures, task.losses, task.replica), (2, 0, 1, ReplicaId(1)));
}

#[test]
fn losing_a_replica_with_three_thousand_attempts_takes_three_batches() {
    let mut story = Story::running(&plain(), 3_000);
    for _ in 0..6 {
        story.tell_all(&(0..500).map(|_| request(b"", &[])).collect::<Vec<_>>());
    }
    story.leave(0);
    let mut batches = Vec::new();
    while story.shard.state().work.replicas.gone().next().is_some() {
        story.news();
        story.tell_all(&[]);
        batches.push(story.news().len());
    }
    assert_eq!(batches, [DUE_MAX, DUE_MAX, 3_000 - 2 * DUE_MAX]);
    story.join(1, 3_000);
    assert_eq!(story.news().len(), 3_001);
}

#[test]
fn a_pool_gets_the_replicas_it_wants_and_loses_the_newest_first() {
    let mut story = Story::with(&plain());
    size(&mut story, 3);
    story.expect(&["sized pool-0 3x2", "wanted r0 pool-0", "wanted r1 pool-0", "wanted r2 pool-0"]);
    for replica in 0..3 {
        story.tell(&ready(replica)).expect("it was wanted");
    }
    size(&mut story, 1);
    story.expect(&["up r0", "up r1", "up r2", "sized pool-0 1x2", "unwanted r2", "unwanted r1"]);
    stop(&mut story, 2, Departure::Drained);
    stop(&mut story, 1, Departure::Drained);
    story.expect(&["stopped r2 Drained", "stopped r1 Drained"]);
    size(&mut story, 0);
    stop(&mut story, 0, Departure::Drained);
    story.expect(&["sized pool-0 0x2", "unwanted r0", "stopped r0 Drained"]);
    assert!(story.shard.state().control.replicas.is_empty());
}

#[test]
fn a_replica_that_dies_is_replaced_under_a_new_id() {
    let mut story = Story::with(&plain());
    size(&mut story, 1);
    story.tell(&ready(0)).expect("it was wanted");
    story.news();
    stop(&mut story, 0, Departure::Lost);
    story.expect(&["stopped r0 Lost", "wanted r1 pool-0"]);
}

#[test]
fn the_same_size_again_changes_nothing_and_only_new_replicas_get_new_slots() {
    let mut story = Story::with(&plain());
    size(&mut story, 1);
    story.news();
    size(&mut story, 1);
    story.expect(&[]);
    story.tell(&Command::DefinePool { pool: "default", replicas: 1, slots: 9, by: "me", reason: "" }).expect("it is in range");
    story.pass(0);
    story.expect(&["sized pool-0 1x9"]);
}

/// A replica was told to start, the pool shrank, and only then it was up. Its report made it count again, so a second, newer and
/// busy replica was sent away in its place.
#[test]
fn a_replica_that_is_up_only_when_nobody_wants_it_any_more_does_not_count_again() {
    let mut story = Story::with(&plain());
    size(&mut story, 2);
    story.tell(&ready(0)).expect("it was wanted");
    size(&mut story, 1);
    size(&mut story, 2);
    story.tell(&ready(2)).expect("it was wanted");
    story.expect(&[
        "sized pool-0 2x2",
        "wanted r0 pool-0",
        "wanted r1 pool-0",
        "up r0",
        "sized pool-0 1x2",
        "unwanted r1",
        "sized pool-0 2x2",
        "wanted r2 pool-0",
        "up r2",
    ]);
    story.refuses(&ready(1), Rejection::WrongReplica(ReplicaId(1)));
    story.pass(0);
    story.expect(&[]);
    assert_eq!(story.shard.state().control.replicas[&ReplicaId(1)].phase, ReplicaPhase::Draining);
}

#[test]
fn being_up_twice_is_being_up_once() {
    let mut story = Story::with(&plain());
    size(&mut story, 1);
    story.tell(&ready(0)).expect("it was wanted");
    story.news();
    story.tell(&ready(0)).expect("it is up");
    story.expect(&[]);
}

#[test]
fn ten_thousand_replicas_are_wanted_in_batches() {
    let mut story = Story::with(&plain());
    story.tell(&Command::DefinePool { pool: "default", replicas: 2_500, slots: 1, by: "", reason: "" }).expect("it is in range");
    let mut batches = Vec::new();
    loop {
        story.news();
        story.tell_all(&[]);
        match story.news().len() {
            0 => break,
            count => batches.push(count),
        }
    }
    assert_eq!(batches, [DUE_MAX, DUE_MAX, 2_500 - 2 * DUE_MAX]);
}

/// Nothing bounded how many replicas may join, nor how many pools they may name: a worker that registers in a loop under new ids
/// would have grown the state until memory was gone.
#[test]
fn replicas_and_their_slots_are_bounded() {
    let mut story = Story::with(&plain());
    let join = |replica, slots| Command::JoinReplica { replica: ReplicaId(replica), pool: "default", slots };
    let empty = Command::JoinReplica { replica: ReplicaId(0), pool: "", slots: 1 };
    story.refuses(&empty, Rejection::OutOfRange { what: "the pool's name", rule: "at least one byte" });
    let answers = story.tell_all(&(0..16).map(|replica| join(replica, SLOTS_MAX)).collect::<Vec<_>>());
    assert!(answers.iter().all(Result::is_ok));
    let rule = "at most 1048576 slots on 65536 replicas";
    story.refuses(&join(16, 1), Rejection::OutOfRange { what: "the number of slots in all", rule });
    story.leave(3);
    story.tell(&join(16, 1)).expect("there is room again");
}

#[test]
fn the_pools_that_replicas_name_are_bounded() {
    let mut story = Story::with(&plain());
    let names: Vec<String> = (0..5_200).map(|index| format!("pool {index}")).collect();
    let joins: Vec<_> =
        names.iter().zip(0..).map(|(pool, id)| Command::JoinReplica { replica: ReplicaId(id), pool, slots: 1 }).collect();
    let answers: Vec<_> = joins.chunks(500).flat_map(|joins| story.tell_all(joins)).collect();
    let refused = Rejection::OutOfRange { what: "the number of pools", rule: "at most 5120 that types and replicas name" };
    assert_eq!(answers.iter().filter(|answer| **answer == Err(refused)).count(), 5_200 - 5_119);
    story.join(16_000, 1);
}

fn mode(story: &mut Story, mode: PoolMode) {
    story.tell(&Command::SetPoolMode { pool: "default", mode, by: "me", reason: "" }).expect("it has a size");
    story.pass(0);
}

fn has_wanted(story: &mut Story, replica: u32) {
    story.tell(&ready(replica)).expect("it was wanted");
    story.join(replica, 2);
    story.news();
}

#[test]
fn a_paused_pool_starts_nothing_keeps_its_replicas_and_goes_on_where_it_was() {
    let mut story = Story::with(&plain());
    size(&mut story, 1);
    has_wanted(&mut story, 0);
    story.request(&[]);
    mode(&mut story, PoolMode::Paused);
    story.request(&[]);
    // Again is once.
    mode(&mut story, PoolMode::Paused);
    story.succeed(0, 1).expect("what runs goes on");
    story.pass(1_000);
    story.expect(&["requested type-0", "started 0.1 r0", "paused pool-0", "requested type-0", "succeeded 0.1"]);
    mode(&mut story, PoolMode::Running);
    story.expect(&["running pool-0", "started 1.1 r0"]);
}

#[test]
fn a_drained_pool_lets_its_replicas_go_and_has_its_size_again_when_it_is_resumed() {
    let mut story = Story::with(&plain());
    size(&mut story, 2);
    (0..2).for_each(|replica| has_wanted(&mut story, replica));
    story.request(&[]);
    mode(&mut story, PoolMode::Drained);
    story.expect(&["requested type-0", "started 0.1 r0", "drained pool-0", "unwanted r1", "unwanted r0"]);
    // A new size counts when it runs again.
    size(&mut story, 1);
    story.request(&[]);
    story.expect(&["sized pool-0 1x2", "requested type-0"]);
    story.succeed(0, 1).expect("what runs goes on");
    for replica in [0, 1] {
        story.leave(replica);
        stop(&mut story, replica, Departure::Drained);
    }
    story.news();
    mode(&mut story, PoolMode::Running);
    story.expect(&["running pool-0", "wanted r2 pool-0"]);
    has_wanted(&mut story, 2);
    assert!(story.shard.state().work.tasks.get(Ordinal(1)).is_some_and(|task| task.has_slot()), "it runs at last");
}

#[test]
fn a_pool_without_a_size_has_no_mode_and_other_pools_go_on() {
    let mut story = Story::with(&plain());
    let pause = Command::SetPoolMode { pool: "default", mode: PoolMode::Paused, by: "me", reason: "" };
    story.refuses(&pause, Rejection::UnknownPool);
    size(&mut story, 1);
    story.tell(&Command::DefinePool { pool: "other", replicas: 1, slots: 1, by: "me", reason: "" }).expect("it is in range");
    story.tell(&Command::SetPoolMode { pool: "other", mode: PoolMode::Drained, by: "me", reason: "" }).expect("it has a size");
    has_wanted(&mut story, 0);
    story.request(&[]);
    story.expect(&["requested type-0", "started 0.1 r0"]);
    let state = story.shard.state();
    let mut image = Vec::new();
    state.encode(&mut image).expect("a vector takes every byte");
    let again = ergate_events::state::State::decode(&image).expect("it was just written");
    assert_eq!((again.control.mode(ergate_events::id::PoolId(1)), again.digest()), (PoolMode::Drained, state.digest()));
}
