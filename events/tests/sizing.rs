//! Policies that size pools: what they see and decide is in the log, and decides again alike.

mod common;

use common::{Story, plain};
use ergate_events::command::{Command, PoolRef, Rejection};
use ergate_events::event::{Event, PoolMode};
use ergate_events::id::{PoolId, ReplicaId};
use ergate_events::scaling::decision::{Decision, Reason};
use ergate_events::scaling::signal::{Reading, Value};
use ergate_events::state::State;

const POOL: PoolId = PoolId(0);
/// Keeps an idle replica for ten seconds.
const RATE: &str = r#"{"policy":"rate","keep_alive":10000000}"#;

/// A pool with nothing in it that a rate may size, between 0 and 8 replicas with two slots each.
fn pool() -> Story {
    let mut story = Story::with(&plain());
    story.tell(&Command::DefinePool { pool: "models", replicas: 0, slots: 2, by: "me", reason: "" }).expect("it is in range");
    story.tell(&set(RATE, 0, 8)).expect("it is a policy");
    story.news();
    story
}

fn set(policy: &'static str, least: u32, most: u32) -> Command<'static> {
    Command::SetPolicy { pool: PoolRef::Name("models"), policy, least, most, by: "me", reason: "a test" }
}

/// Ready tasks, arrivals a second, seconds of service and of a start, in thousandths.
fn seen(ready: i64, arrivals: i64, service: i64, start: i64) -> Vec<Reading> {
    let milli = |number| Reading::Value(Value::Milli(number));
    let count = |number| Reading::Value(Value::Integer(number));
    vec![count(ready), count(0), milli(arrivals), milli(service), milli(start)]
}

/// What is decided now, and what the pool's replicas do about it a moment later.
fn observe(story: &mut Story, readings: &[Reading]) -> Vec<String> {
    story.tell(&Command::ObservePool { pool: POOL, readings, work: &[], asked: 1, seen: &[] }).expect("the pool has a policy");
    story.pass(1);
    story.news()
}

#[test]
fn a_pool_wakes_for_the_first_task_and_sleeps_when_none_came_for_long_enough() {
    let mut story = pool();
    assert_eq!(observe(&mut story, &seen(1, 0, 1_000, 0)), ["observed pool-0 5", "scaled pool-0 1", "wanted r0 pool-0"]);
    story.tell(&Command::ReadyReplica { replica: ReplicaId(0) }).expect("it was asked for");
    story.news();
    // Nothing to do, and kept: that is said once.
    assert_eq!(observe(&mut story, &seen(0, 0, 1_000, 0)), ["observed pool-0 5", "scaled pool-0 1"]);
    story.pass(5_000);
    assert_eq!(observe(&mut story, &seen(0, 0, 1_000, 0)), ["observed pool-0 5"]);
    story.pass(6_000);
    assert_eq!(observe(&mut story, &seen(0, 0, 1_000, 0)), ["observed pool-0 5", "scaled pool-0 0", "unwanted r0"]);
}

#[test]
fn a_decision_has_every_number_and_a_burst_asks_for_all_at_once_up_to_the_most() {
    let mut story = pool();
    let readings = seen(600, 0, 1_000, 0);
    let mut decided = None;
    let mut hear = |envelope: &ergate_events::event::Envelope<'_>, _: &State| {
        if let Event::PoolScaled { ref decision, .. } = envelope.event {
            decided = serde_json::from_str::<Decision>(decision).ok();
        }
    };
    let now = story.now.after(ergate_events::time::Micros(1));
    story.shard.batch(
        now,
        &[Command::ObservePool { pool: POOL, readings: &readings, work: &[], asked: 1, seen: &[] }],
        &mut Vec::new(),
        &mut hear,
    );
    let decision: Decision = decided.expect("it decided");
    // 600 in 30 s are 20 a second, of a second each: 20 busy slots, of which each replica has 2 for 70 % of the time.
    assert_eq!((decision.from, decision.wanted, decision.reason), (0, 8, Reason::Woken), "{decision:?}");
    assert_eq!((decision.limits.len(), decision.limits[0].from, decision.limits[0].to), (1, 15, 8), "{decision:?}");
    story.pass(1);
    assert_eq!(story.shard.state().control.replicas.len(), 8);
}

#[test]
fn a_copy_of_the_state_goes_on_with_the_same_decisions() {
    let mut story = pool();
    observe(&mut story, &seen(20, 3_000, 900, 2_500));
    let mut bytes = Vec::new();
    story.shard.state().encode(&mut bytes).expect("memory takes it");
    let copy = State::decode(&bytes).expect("it was just written");
    assert_eq!(copy.digest(), story.shard.state().digest());
    let scaling = |state: &State| state.control.scaling[&POOL].clone();
    assert_eq!(scaling(&copy), scaling(story.shard.state()));
    assert!(scaling(&copy).live.last.is_some_and(|last| last.decision.wanted > 0));
}

#[test]
fn what_is_no_policy_or_does_not_fit_is_refused() {
    let mut story = pool();
    for policy in ["{}", "rate", r#"{"policy":"rates"}"#, r#"{"policy":"rate","catch_up":0}"#, r#"{"policy":"rate","more":1}"#] {
        story.refuses(&set(policy, 0, 8), Rejection::Policy);
    }
    assert!(story.tell(&set(RATE, 5, 4)).is_err());
    assert!(story.tell(&set(RATE, 0, 10_001)).is_err());
    let elsewhere = Command::SetPolicy { pool: PoolRef::Name("nowhere"), policy: RATE, least: 0, most: 1, by: "", reason: "" };
    story.refuses(&elsewhere, Rejection::UnknownPool);
    // The same again is no news; none is.
    story.tell(&set(RATE, 0, 8)).expect("it is the same");
    story.expect(&[]);
    let readings = seen(1, 0, 0, 0);
    assert!(
        story.tell(&Command::ObservePool { pool: POOL, readings: &readings[1..], work: &[], asked: 1, seen: &[] }).is_err(),
        "one is missing"
    );
    story.refuses(
        &Command::ObservePool { pool: PoolId(1), readings: &readings, work: &[], asked: 1, seen: &[] },
        Rejection::UnknownPool,
    );
    story.tell(&set("", 0, 0)).expect("none is fine");
    story.expect(&["no policy pool-0 0 0"]);
    story.refuses(
        &Command::ObservePool { pool: POOL, readings: &readings, work: &[], asked: 1, seen: &[] },
        Rejection::UnknownPool,
    );
}

#[test]
fn a_paused_pool_is_not_sized_and_a_failed_reading_changes_nothing() {
    let mut story = pool();
    let pause = |mode| Command::SetPoolMode { pool: "models", mode, by: "me", reason: "" };
    story.tell(&pause(PoolMode::Paused)).expect("it is there");
    let readings = seen(9, 0, 1_000, 0);
    assert!(story.tell(&Command::ObservePool { pool: POOL, readings: &readings, work: &[], asked: 1, seen: &[] }).is_err());
    story.tell(&pause(PoolMode::Running)).expect("it is there");
    story.news();
    assert!(observe(&mut story, &readings).iter().any(|line| line == "scaled pool-0 1"));
    let mut failed = readings;
    failed[0] = Reading::Failed("nobody answers".to_owned());
    let told = observe(&mut story, &failed);
    assert_eq!(told, ["observed pool-0 5", "scaled pool-0 1"], "why nothing changes is said");
    assert_eq!(observe(&mut story, &failed), ["observed pool-0 5"]);
}

#[test]
fn an_unchanged_decision_costs_little() {
    let mut story = pool();
    let real = |number: f64| Reading::Value(Value::Real(ergate_events::scaling::real::Real::new(number).expect("it is finite")));
    let readings = vec![
        Reading::Value(Value::Integer(12_345)),
        Reading::Value(Value::Integer(640)),
        real(123.456),
        real(0.012_3),
        real(1.5),
    ];
    observe(&mut story, &readings);
    // It has what it wanted: that is another reason to stay.
    observe(&mut story, &readings);
    let before = story.shard.open_block().body_len();
    assert_eq!(observe(&mut story, &readings), ["observed pool-0 5"]);
    let cost = story.shard.open_block().body_len() - before;
    assert!(cost <= 64, "{cost} bytes");
}

#[test]
fn shards_share_what_is_decided_by_their_work_and_keep_their_parts_over_a_snapshot() {
    let mut story = pool();
    let parts = |state: &State| state.control.scaling[&POOL].parts.clone();
    let look = |story: &mut Story, work: &[u64]| {
        let readings = seen(i64::try_from(work.iter().sum::<u64>()).expect("it is small"), 0, 60_000, 0);
        story
            .tell(&Command::ObservePool { pool: POOL, readings: &readings, work, asked: 1, seen: &[] })
            .expect("the pool has a policy");
        story.pass(1);
        parts(story.shard.state())
    };
    // Two slots a replica, at seven tenths: three for four tasks that take a minute each, of which two have use for all of them.
    assert_eq!(look(&mut story, &[4, 0, 0, 0]), [2, 0, 0, 1]);
    // One goes where it lacks, and no other moves.
    assert_eq!(look(&mut story, &[2, 0, 2, 0]), [1, 0, 1, 1]);
    let state = story.shard.state();
    let mut image = Vec::new();
    state.encode(&mut image).expect("a vector takes everything");
    let read = State::decode(&image).expect("it was just written");
    assert_eq!((parts(&read), read.digest()), (vec![1, 0, 1, 1], state.digest()));
    // The same work at twice as many shards begins evenly.
    assert_eq!(look(&mut story, &[0; 8]).iter().sum::<u32>(), 3);
}
