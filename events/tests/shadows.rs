//! Shadows and holds: what decides beside the policy of a pool changes nothing of it, and who holds a size does so until the moment that was said.

mod common;

use common::{Story, plain};
use ergate_events::command::{Command, PoolRef, Rejection};
use ergate_events::event::{Event, PoolMode};
use ergate_events::id::{PoolId, ReplicaId};
use ergate_events::scaling::decision::{By, Decision, LimitKind};
use ergate_events::scaling::signal::{Reading, Value};
use ergate_events::scaling::usage::{ReplicaReading, Stage, Used};
use ergate_events::sizing::{HOLD_MAX, SHADOWS_MAX};
use ergate_events::state::State;
use ergate_events::time::{Micros, Timestamp};

const POOL: PoolId = PoolId(0);
/// Keeps an idle replica for ten seconds.
const RATE: &str = r#"{"policy":"rate","keep_alive":10000000}"#;
/// Wants one more while anything waits, and looks at one signal.
const ONE_MORE: &str = r#"{"policy":"threshold","spacing":0,"up":[{"signal":"ready","limit":0}]}"#;
/// The same of a signal that nobody else reads.
const BY_LAG: &str = r#"{"policy":"threshold","spacing":0,"up":[{"signal":"lag","limit":0}]}"#;
/// An HPA over a queue, two tasks a replica.
const HPA: &str =
    r#"{"policy":"hpa","metrics":[{"source":{"external":{}},"name":"ready","target":{"average_value_milli":2000}}]}"#;
const LIVE: u32 = 1;

fn set(policy: &'static str, least: u32, most: u32) -> Command<'static> {
    Command::SetPolicy { pool: PoolRef::Name("models"), policy, least, most, by: "me", reason: "a test" }
}

fn shadow(name: &'static str, policy: &'static str) -> Command<'static> {
    Command::SetShadow { pool: PoolRef::Name("models"), shadow: name, policy, by: "me", reason: "to see" }
}

fn hold(replicas: Option<u32>, until: Timestamp) -> Command<'static> {
    Command::HoldSize { pool: PoolRef::Name("models"), replicas, until, by: "me", reason: "the launch" }
}

/// A pool with nothing in it, between 0 and 8 replicas with two slots each.
fn pool(policy: &'static str) -> Story {
    let mut story = Story::with(&plain());
    story.tell(&Command::DefinePool { pool: "models", replicas: 0, slots: 2, by: "me", reason: "" }).expect("it is in range");
    story.tell(&set(policy, 0, 8)).expect("it is a policy");
    story.news();
    story
}

/// Ready tasks, arrivals a second, seconds of service and of a start, in thousandths: what a rate reads.
fn seen(ready: i64) -> Vec<Reading> {
    let milli = |number| Reading::Value(Value::Milli(number));
    vec![count(ready), count(0), milli(0), milli(1_000), milli(0)]
}

const fn count(number: i64) -> Reading {
    Reading::Value(Value::Integer(number))
}

#[track_caller]
fn look(story: &mut Story, asked: u32, readings: &[Reading]) -> Vec<String> {
    story
        .tell(&Command::ObservePool { pool: POOL, readings, work: &[], asked, seen: &[] })
        .expect("it is asked as it wants to be");
    story.pass(1);
    story.news().into_iter().filter(|line| !line.starts_with("wanted") && !line.starts_with("unwanted")).collect()
}

fn last(story: &Story) -> Decision {
    story.shard.state().control.scaling[&POOL].live.last.clone().expect("it was looked at").decision
}

fn size(story: &Story) -> u32 {
    story.shard.state().control.pools[0].replicas
}

#[test]
fn a_shadow_is_told_when_it_wants_something_else_and_moves_nothing() {
    let mut story = pool(RATE);
    story.tell(&shadow("more", ONE_MORE)).expect("it is a policy");
    story.expect(&["shadow set pool-0 more"]);
    // Both are asked: the pool gets what its policy wants, and the shadow wants one more than there were.
    assert_eq!(look(&mut story, 3, &seen(30)), ["observed pool-0 5 for 11", "scaled pool-0 1", "shadow pool-0 more 1"]);
    assert_eq!(size(&story), 1);
    // Only the shadow: it reads one signal, starts from what there is, and the pool stays.
    assert_eq!(look(&mut story, 2, &[count(30)]), ["observed pool-0 1 for 10", "shadow pool-0 more 2"]);
    assert_eq!((size(&story), last(&story).wanted), (1, 1));
    let before = story.shard.open_block().body_len();
    assert_eq!(look(&mut story, 2, &[count(30)]), ["observed pool-0 1 for 10"], "the same is not told again");
    let cost = story.shard.open_block().body_len() - before;
    assert!(cost <= 16, "{cost} bytes");
    // What has changed of the pool is no other wish.
    story.tell(&shadow("more", "")).expect("it is there");
    story.expect(&["no shadow pool-0 more"]);
    story.tell(&shadow("more", "")).expect("it is gone");
    story.expect(&[]);
    assert!(story.tell(&Command::ObservePool { pool: POOL, readings: &[count(1)], work: &[], asked: 2, seen: &[] }).is_err());
}

#[test]
fn a_policy_does_not_see_what_only_its_shadow_looks_at() {
    // Where nobody looks at replicas, an HPA of something outside counts those that the log knows; one that is shown none that is ready counts none.
    const OUTSIDE: &str =
        r#"{"policy":"hpa","metrics":[{"source":{"external":{}},"name":"ready","target":{"value_milli":2000}}]}"#;
    const BY_CPU: &str =
        r#"{"policy":"hpa","metrics":[{"source":"resource","name":"cpu","target":{"average_value_milli":1000}}]}"#;
    // Somebody's signal is called as what the controller measures itself.
    const NAMED_CPU: &str = r#"{"policy":"threshold","spacing":0,"up":[{"signal":"cpu","limit":0}]}"#;
    let told = |used| ReplicaReading { stage: Stage::Ready, since: Timestamp(0), busy_milli: 0, used };
    let used = Used { cpu_milli: Some(2_500), memory_bytes: None, at: Timestamp(600_000_000), over: Micros::from_secs(1) };
    let decide = |policy, beside: &[(&'static str, &'static str)], readings: &[Reading], seen: &[ReplicaReading]| {
        let mut story = Story::with(&plain());
        story.tell(&Command::DefinePool { pool: "models", replicas: 2, slots: 2, by: "me", reason: "" }).expect("it is in range");
        story.tell(&set(policy, 1, 8)).expect("it is a policy");
        for (name, policy) in beside {
            story.tell(&shadow(name, policy)).expect("it is a policy");
        }
        story.pass(1);
        for replica in [0, 1].map(ReplicaId) {
            story.tell(&Command::ReadyReplica { replica }).expect("it was asked for");
        }
        story.pass(600_000);
        let asked = (1 << (beside.len() + 1)) - 1;
        story
            .tell(&Command::ObservePool { pool: POOL, readings, work: &[], asked, seen })
            .expect("it is asked as it wants to be");
        last(&story)
    };
    let alone = decide(OUTSIDE, &[], &[count(6)], &[]);
    assert_eq!(alone.wanted, 4, "as many again as are ready, three times, and no more than twice as many: {alone:?}");
    for seen in [vec![], vec![ReplicaReading { stage: Stage::Draining, ..told(None) }]] {
        assert_eq!(decide(OUTSIDE, &[("cpu", BY_CPU)], &[count(6)], &seen), alone);
    }
    let each = [told(Some(used)), told(Some(used))];
    let alone = decide(BY_CPU, &[], &[], &each);
    assert!(alone.wanted > 2 && alone.failures().next().is_none(), "{alone:?}");
    let failed = [Reading::Failed("nobody answers".to_owned())];
    assert_eq!(decide(BY_CPU, &[("named", NAMED_CPU)], &failed, &each), alone);
}

#[test]
fn a_policy_decides_the_same_whatever_runs_in_its_shadow() {
    let readings: Vec<_> = [30, 0, 7, 7, 600, 2, 0, 0, 0, 9].map(seen).to_vec();
    let run = |shadows: &[(&'static str, &'static str)]| {
        let mut story = pool(RATE);
        for (name, policy) in shadows {
            story.tell(&shadow(name, policy)).expect("it is a policy");
        }
        let mut decisions = Vec::new();
        for (index, readings) in readings.iter().enumerate() {
            story.pass(4_000);
            if !shadows.is_empty() && index % 2 == 0 {
                // `lag` is the first that is asked for, and nothing that a rate reads.
                look(&mut story, 2, &[count(1)]);
            }
            let mut all = readings.clone();
            let asked = if shadows.is_empty() {
                LIVE
            } else {
                all.push(count(5));
                7
            };
            look(&mut story, asked, &all);
            let Decision { from, wanted, reason, limits, .. } = last(&story);
            decisions.push((from, wanted, reason, limits.iter().map(|limit| limit.kind).collect::<Vec<_>>()));
        }
        decisions
    };
    let alone = run(&[]);
    assert!(alone.iter().any(|(from, wanted, ..)| from != wanted));
    assert_eq!(run(&[("a", BY_LAG), ("b", HPA)]), alone);
}

#[test]
fn readings_are_those_of_the_asked_ones_each_once() {
    let mut story = pool(RATE);
    story.tell(&shadow("b", BY_LAG)).expect("it is a policy");
    story.tell(&shadow("a", HPA)).expect("it is a policy");
    let scaling = &story.shard.state().control.scaling[&POOL];
    let rate = ["ready", "running", "arrivals_per_s", "service_s_mean", "start_s_mean"];
    assert_eq!(scaling.signals(1), rate);
    assert_eq!((scaling.signals(2), scaling.signals(4), scaling.signals(6)), (vec!["ready"], vec!["lag"], vec!["ready", "lag"]));
    assert_eq!(scaling.signals(7), [&rate[..], &["lag"]].concat());
    let all = scaling.deciders().map(|(bit, name, _)| (bit, name)).collect::<Vec<_>>();
    assert_eq!(all, [(1, None), (2, Some("a")), (4, Some("b"))]);
    story.news();
    assert!(
        story.tell(&Command::ObservePool { pool: POOL, readings: &seen(1), work: &[], asked: 7, seen: &[] }).is_err(),
        "one is missing"
    );
    for asked in [0, 8, 9] {
        assert!(
            story.tell(&Command::ObservePool { pool: POOL, readings: &seen(1), work: &[], asked, seen: &[] }).is_err(),
            "{asked}"
        );
    }
}

#[test]
fn what_is_no_shadow_is_refused() {
    let mut story = pool(RATE);
    story.refuses(&shadow("x", "{}"), Rejection::Policy);
    for name in ["", "a b", "a.b", "ä", "a/b", "x23456789012345678901234567890123456789012345678901234567890123456"] {
        assert!(story.tell(&shadow(name, RATE)).is_err(), "{name}");
    }
    let elsewhere = Command::SetShadow { pool: PoolRef::Name("nowhere"), shadow: "x", policy: RATE, by: "", reason: "" };
    story.refuses(&elsewhere, Rejection::UnknownPool);
    let names: Vec<String> = (0..=SHADOWS_MAX).map(|number| format!("s{number}")).collect();
    let set = |name| Command::SetShadow { pool: PoolRef::Name("models"), shadow: name, policy: RATE, by: "", reason: "" };
    assert!(names[1..].iter().all(|name| story.tell(&set(name)).is_ok()), "there is room");
    assert!(story.tell(&set(&names[0])).is_err(), "one too many");
    // One that is there may be another policy, and the same again is no news.
    story.news();
    story.tell(&set(&names[1])).expect("it is the same");
    story.expect(&[]);
    let other = Command::SetShadow { pool: PoolRef::Name("models"), shadow: "s1", policy: ONE_MORE, by: "", reason: "" };
    story.tell(&other).expect("it takes the place of the one before");
    story.expect(&["shadow set pool-0 s1"]);
    // Without a policy there is nothing beside which it could be.
    story.tell(&self::set("", 0, 0)).expect("none is fine");
    assert!(story.tell(&shadow("x", RATE)).is_err());
    assert!(story.shard.state().control.scaling.is_empty());
}

#[test]
fn shadows_and_a_hold_stay_when_the_policy_changes_and_over_a_snapshot() {
    let mut story = pool(RATE);
    story.tell(&shadow("more", ONE_MORE)).expect("it is a policy");
    let until = story.now.after(Micros::from_secs(3_600));
    story.tell(&hold(Some(3), until)).expect("a policy sizes the pool");
    look(&mut story, 3, &seen(4));
    story.tell(&set(ONE_MORE, 0, 8)).expect("it is a policy");
    let state = story.shard.state();
    let mut bytes = Vec::new();
    state.encode(&mut bytes).expect("memory takes it");
    let copy = State::decode(&bytes).expect("it was just written");
    assert_eq!((copy.digest(), &copy.control.scaling), (state.digest(), &state.control.scaling));
    let scaling = &copy.control.scaling[&POOL];
    assert_eq!(scaling.shadows["more"].last.as_ref().map(|last| last.decision.wanted), Some(4));
    assert_eq!(scaling.hold.as_ref().map(|hold| (hold.replicas, hold.until, hold.by.as_str())), Some((3, until, "me")));
    look(&mut story, LIVE, &[count(9)]);
    assert_eq!(size(&story), 3, "who holds it does so whatever the policy is");
}

#[test]
fn a_hold_counts_at_once_and_until_its_end_whatever_the_policy_wants() {
    let mut story = pool(RATE);
    look(&mut story, LIVE, &seen(1));
    assert_eq!(size(&story), 1);
    let until = story.now.after(Micros::from_secs(60));
    story.tell(&hold(Some(5), until)).expect("a policy sizes the pool");
    assert_eq!(size(&story), 5, "nobody has to look for that");
    story.pass(1);
    assert_eq!(story.shard.state().control.replicas.len(), 5);
    story.news();
    assert_eq!(look(&mut story, LIVE, &seen(1)), ["observed pool-0 5", "scaled pool-0 5"]);
    let decision = last(&story);
    assert_eq!((decision.from, decision.wanted), (5, 5));
    let held = decision.limits.iter().find(|limit| limit.kind == LimitKind::Hold).expect("it was held");
    assert_eq!((held.to, matches!(held.by, By::Hold(_))), (5, true), "{decision:?}");
    assert_eq!(look(&mut story, LIVE, &seen(1)), ["observed pool-0 5"], "the same wish is not told again");
    assert_eq!(look(&mut story, LIVE, &seen(90)), ["observed pool-0 5", "scaled pool-0 5"], "another one is");
    assert_eq!(look(&mut story, LIVE, &seen(600)), ["observed pool-0 5", "scaled pool-0 5"], "as one that a bound cuts");
    let wish = last(&story).limits.iter().find(|limit| limit.kind == LimitKind::Hold).map(|limit| limit.from);
    assert_eq!(wish, Some(8));
    story.pass(59_000);
    look(&mut story, LIVE, &seen(1));
    assert_eq!(size(&story), 5);
    // Its end is nobody's event: the next decision is the policy's.
    story.pass(1_000);
    assert!(story.now >= until);
    look(&mut story, LIVE, &seen(600));
    assert_eq!((size(&story), &story.shard.state().control.scaling[&POOL].hold), (8, &None));
}

#[test]
fn a_hold_is_within_the_bounds_of_the_pool_and_ends_when_somebody_says_so() {
    let mut story = pool(RATE);
    let until = story.now.after(Micros::from_secs(600));
    story.tell(&hold(Some(20), until)).expect("a policy sizes the pool");
    assert_eq!(size(&story), 8, "no more than it may have");
    story.tell(&set(RATE, 2, 4)).expect("it is in range");
    look(&mut story, LIVE, &seen(0));
    assert_eq!(size(&story), 4, "nor of what it may have later");
    story.tell(&hold(Some(0), until)).expect("a later one takes the place of the one before");
    assert_eq!(size(&story), 2);
    look(&mut story, LIVE, &seen(600));
    assert_eq!(size(&story), 2);
    story.news();
    story.tell(&hold(None, Timestamp(0))).expect("it is held");
    story.expect(&["released pool-0"]);
    story.tell(&hold(None, Timestamp(0))).expect("nobody holds it");
    story.expect(&[]);
    look(&mut story, LIVE, &seen(600));
    assert_eq!(size(&story), 4);
}

#[test]
fn a_hold_that_makes_no_sense_is_refused() {
    let mut story = pool(RATE);
    let (now, hour) = (story.now, Micros::from_secs(3_600));
    for (replicas, until) in [(5, now), (5, Timestamp(0)), (10_001, now.after(hour)), (5, now.after(HOLD_MAX).after(hour))] {
        assert!(story.tell(&hold(Some(replicas), until)).is_err(), "{replicas} until {until:?}");
    }
    story.tell(&set("", 0, 0)).expect("none is fine");
    assert!(story.tell(&hold(Some(5), now.after(hour))).is_err(), "no policy would ever decide again");
    story.tell(&hold(None, Timestamp(0))).expect("nobody holds it");
    story.refuses(
        &Command::HoldSize { pool: PoolRef::Name("nowhere"), replicas: Some(1), until: now.after(hour), by: "", reason: "" },
        Rejection::UnknownPool,
    );
}

#[test]
fn a_hold_of_a_paused_pool_counts_while_it_is_paused_and_ends_meanwhile() {
    let mut story = pool(RATE);
    let mode = |mode| Command::SetPoolMode { pool: "models", mode, by: "me", reason: "" };
    let until = story.now.after(Micros::from_secs(60));
    story.tell(&mode(PoolMode::Paused)).expect("it is there");
    story.tell(&hold(Some(3), until)).expect("a policy sizes the pool");
    assert_eq!(size(&story), 3);
    story.pass(61_000);
    story.tell(&mode(PoolMode::Running)).expect("it is there");
    look(&mut story, LIVE, &seen(600));
    assert_eq!(size(&story), 8);
}

/// A pool that begins with no replica stayed there for ever under an HPA, which leaves alone what somebody else has set to 0.
#[test]
fn an_hpa_wakes_a_pool_that_begins_with_no_replica_and_no_other() {
    const BOTH: &str = r#"{"policy":"composite","members":[{"name":"queue","rule":{"policy":"hpa","metrics":[{"source":{"external":{}},"name":"ready","target":{"average_value_milli":2000}}]}}]}"#;
    for policy in [HPA, BOTH] {
        let mut story = pool(policy);
        look(&mut story, LIVE, &[count(4)]);
        assert_eq!(size(&story), 2, "{policy}");
        // Somebody sets it to 0: that is a decision, and the HPA leaves it alone.
        story.pass(20_000);
        story.tell(&Command::DefinePool { pool: "models", replicas: 0, slots: 2, by: "me", reason: "" }).expect("it is in range");
        look(&mut story, LIVE, &[count(4)]);
        assert_eq!(size(&story), 0, "{policy}");
    }
    // One whose policy is set while it sleeps begins asleep as well; a shadow too.
    let mut story = pool(RATE);
    story.tell(&shadow("queue", HPA)).expect("it is a policy");
    story.news();
    assert_eq!(look(&mut story, 2, &[count(4)]), ["observed pool-0 1 for 10", "shadow pool-0 queue 2"]);
    story.tell(&set(HPA, 0, 8)).expect("it is a policy");
    look(&mut story, LIVE, &[count(4)]);
    assert_eq!(size(&story), 2);
}

#[test]
fn a_shadow_that_counts_its_changes_hears_that_it_made_none() {
    // One more at once, and never another one within a minute of the last change.
    const SLOW: &str = r#"{"policy":"hpa","metrics":[{"source":{"external":{}},"name":"ready","target":{"average_value_milli":2000}}],
        "behavior":{"scale_up":{"stabilization":0,"policies":[{"kind":"Pods","value":1,"period":60000000}]}}}"#;
    let mut story = Story::with(&plain());
    // Two more replicas are on their way out, which nobody wants.
    for replicas in [3, 1] {
        story.tell(&Command::DefinePool { pool: "models", replicas, slots: 2, by: "me", reason: "" }).expect("it is in range");
        story.pass(1);
    }
    assert_eq!(story.shard.state().control.replicas.len(), 3);
    story.tell(&set(RATE, 1, 8)).expect("it is a policy");
    story.tell(&shadow("slow", SLOW)).expect("it is a policy");
    story.news();
    let wants = |story: &Story| {
        let shadow = &story.shard.state().control.scaling[&POOL].shadows["slow"];
        shadow.last.clone().expect("it was looked at").decision.wanted
    };
    // The pool has one replica and keeps it: the shadow may always add its first one.
    for _ in 0..3 {
        look(&mut story, 2, &[count(40)]);
        assert_eq!(wants(&story), 2);
        story.pass(15_000);
    }
    assert_eq!(size(&story), 1);
}

#[test]
fn nothing_is_shared_out_over_shards_for_a_shadow() {
    let mut story = pool(RATE);
    story.tell(&shadow("more", ONE_MORE)).expect("it is a policy");
    let parts = |story: &Story| story.shard.state().control.scaling[&POOL].parts.clone();
    let observe = |story: &mut Story, asked, readings: &[Reading], work: &[u64]| {
        story
            .tell(&Command::ObservePool { pool: POOL, readings, work, asked, seen: &[] })
            .expect("it is asked as it wants to be");
        parts(story)
    };
    assert_eq!(observe(&mut story, LIVE, &seen(4), &[4, 0]), [1, 0]);
    assert_eq!(observe(&mut story, 2, &[count(4)], &[0, 4]), [1, 0]);
    assert_eq!(observe(&mut story, LIVE, &seen(4), &[0, 4]), [0, 1]);
}

#[test]
fn events_of_shadows_and_holds_are_read_back_from_json_and_bytes() {
    let text = Some("night".into());
    let event = Event::PoolScaled { pool: POOL, replicas: 2, decision: "{}".into(), shadow: text };
    assert_eq!((event.name(), event.format()), ("pool_scaled", 4));
    let held = Event::SizeHeld { pool: POOL, replicas: None, until: Timestamp(0), by: "", reason: "" };
    assert_eq!((held.name(), held.format()), ("size_held", 4));
}
