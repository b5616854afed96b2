//! `hpa` beyond its scenarios: where its two memories differ, and its words.

use ergate_events::scaling::decision::{By, LimitKind, Reason};
use ergate_events::scaling::hpa::{
    Behavior, Change, ConditionReason, Hpa, Memories, Memory, Metric, Pace, PaceKind, Rules, Target,
};
use ergate_events::scaling::{Decision, Policy};

use crate::support::{Pool, at, broken, external, secs, seen, signal};

fn policy(memory: Memories, up: (u32, u64), down: (u32, u64)) -> Hpa {
    let rules = |(value, period): (u32, u64)| Rules {
        stabilization: Some(secs(0)),
        policies: Some(vec![Pace { kind: PaceKind::Pods, value, period: secs(period) }]),
        ..Rules::default()
    };
    let behavior = Behavior { scale_up: rules(up), scale_down: rules(down) };
    Hpa { metrics: vec![external("jobs", 1)], behavior: Some(behavior), memory, ..Hpa::default() }
}

/// The decision after 3 and then 4 replicas were added 61 s and 15 s before.
fn after_two_steps(memory: Memories) -> Decision {
    let policy = policy(memory, (4, 60), (1, 120));
    let mut pool = Pool::new(&policy, (1, 20), 1);
    assert_eq!(pool.look(0, vec![signal("jobs", 4.0)]).wanted, 4);
    assert_eq!(pool.look(61, vec![signal("jobs", 20.0)]).wanted, 8);
    pool.look(76, vec![signal("jobs", 1.0)])
}

#[test]
fn the_compatible_memory_forgets_a_change_whose_slot_it_used_again_and_the_native_one_does_not() {
    // Shrinking by 1 in 120 s starts from 8 less what came in that time: 4, or 4 and 3.
    let compatible = after_two_steps(Memories::Compatible);
    assert_eq!((compatible.wanted, compatible.limits[0].kind), (3, LimitKind::DownRate));
    assert_eq!(compatible.limits[0].by, By::Rule { rule: 0, start: 4, since: Some(at(61)) });
    let native = after_two_steps(Memories::Native);
    assert_eq!((native.wanted, native.limits), (1, vec![]));
}

#[test]
fn a_restart_gives_the_controller_its_budget_again_and_what_is_folded_from_the_log_keeps_it() {
    for (memory, expected) in [(Memories::Compatible, 9), (Memories::Native, 5)] {
        let policy = policy(memory, (4, 60), (1, 60));
        let log: Vec<_> = [(0, 1), (15, 5)].map(|(second, from)| seen(second, from, (1, 20), vec![signal("jobs", 20.0)])).into();
        let mut before = Memory::default();
        log.iter().for_each(|observation| drop(policy.evaluate(&mut before, observation)));
        // The controller starts with nothing; an engine folds its memory from what it recorded, and gets the same.
        let mut after = Memory::default();
        if memory == Memories::Native {
            log.iter().for_each(|observation| drop(policy.evaluate(&mut after, observation)));
            assert_eq!(after, before);
        }
        assert_eq!(policy.evaluate(&mut after, &seen(30, 5, (1, 20), vec![signal("jobs", 20.0)])).wanted, expected, "{memory:?}");
    }
}

#[test]
fn a_longer_period_sees_older_changes_in_the_native_memory_only() {
    // 4 at 0 s and 3 at 31 s; then somebody makes the period longer, 4 in 90 s, of which 3 or 7 are used.
    for (memory, expected) in [(Memories::Compatible, 9), (Memories::Native, 8)] {
        let short = policy(memory, (4, 30), (9, 30));
        let mut pool = Pool::new(&short, (1, 20), 1);
        for (second, replicas) in [(0, 5), (31, 8)] {
            assert_eq!(pool.look(second, vec![signal("jobs", f64::from(replicas))]).wanted, replicas);
        }
        let long = policy(memory, (4, 90), (9, 30));
        let mut longer = Pool { policy: &long, memory: pool.memory, bounds: (1, 20), wanted: 8 };
        assert_eq!(longer.look(62, vec![signal("jobs", 20.0)]).wanted, expected, "{memory:?}");
    }
}

#[test]
fn without_a_behavior_the_native_memory_counts_changes_for_the_one_that_comes() {
    for (memory, expected) in [(Memories::Compatible, 8), (Memories::Native, 5)] {
        let plain = Hpa { metrics: vec![external("jobs", 1)], memory, ..Hpa::default() };
        let mut pool = Pool::new(&plain, (1, 20), 1);
        assert_eq!(pool.look(0, vec![signal("jobs", 4.0)]).wanted, 4);
        let paced = policy(memory, (4, 60), (1, 60));
        let mut paced = Pool { policy: &paced, memory: pool.memory, bounds: (1, 20), wanted: 4 };
        assert_eq!(paced.look(30, vec![signal("jobs", 9.0)]).wanted, expected, "{memory:?}");
    }
}

#[test]
fn the_native_memory_is_bounded_by_time_and_equal_recommendations_are_one() {
    let policy = Hpa { metrics: vec![external("jobs", 1)], ..Hpa::default() };
    let mut pool = Pool::new(&policy, (1, 20), 8);
    for second in (0..100_000).step_by(15) {
        pool.look(second, vec![signal("jobs", if second % 30 == 0 { 8.0 } else { 7.0 })]);
    }
    assert_eq!(pool.memory.recommendations.len(), 241);
    for second in (100_000..110_000).step_by(15) {
        pool.look(second, vec![signal("jobs", 8.0)]);
    }
    assert_eq!(pool.memory.recommendations.len(), 1);
}

#[test]
fn what_held_a_pool_is_named_with_its_moment() {
    let policy = Hpa { metrics: vec![external("jobs", 1)], ..Hpa::default() };
    let mut pool = Pool::new(&policy, (1, 20), 3);
    pool.look(0, vec![signal("jobs", 6.0)]);
    let decision = pool.look(100, vec![signal("jobs", 2.0)]);
    assert_eq!((decision.wanted, decision.limits[0].by), (6, By::Decision(at(0))));
    assert_eq!(
        pool.sentence(&decision),
        "stays at 6 replicas: the signals ask for it; external metric jobs(nil) is 2 (0.3333 of its target) and asks for 2; \
         the window for shrinking makes 6 of 2"
    );
    let decision = pool.look(301, vec![signal("jobs", 2.0)]);
    assert_eq!((decision.wanted, decision.limits.len()), (2, 0));
}

#[test]
fn conditions_have_the_texts_of_the_controller() {
    let policy = Hpa { metrics: vec![external("jobs", 1)], ..Hpa::default() };
    let mut pool = Pool::new(&policy, (1, 20), 3);
    let texts = |pool: &Pool<'_, Hpa>| -> Vec<_> { pool.memory.conditions.named().map(|(_, it)| it.message(&policy)).collect() };
    let decision = pool.look(0, vec![signal("jobs", 9.0)]);
    assert_eq!(policy.event(&decision).as_deref(), Some("New size: 6; reason: external metric jobs(nil) above target"));
    assert_eq!(
        texts(&pool),
        [
            "the HPA controller was able to update the target scale to 6",
            "the HPA was able to successfully calculate a replica count from external metric jobs(nil)",
            "the desired replica count is increasing faster than the maximum scale rate",
            "the HPA controller did not scale the workload to zero",
        ]
    );
    let decision = pool.look(15, vec![broken("jobs")]);
    assert_eq!((decision.reason, policy.event(&decision)), (Reason::Unknown, None));
    assert_eq!(texts(&pool)[1], "the HPA was unable to compute the replica count: the broker is away");
    assert_eq!(pool.memory.conditions.scaling_active.as_ref().unwrap().reason, ConditionReason::FailedGetExternalMetric);
}

#[test]
fn a_change_that_was_not_made_is_not_counted() {
    let policy = policy(Memories::Native, (4, 60), (4, 60));
    let mut memory = Memory::default();
    let observation = seen(0, 2, (1, 20), vec![signal("jobs", 20.0)]);
    assert_eq!(policy.evaluate(&mut memory, &observation).wanted, 6);
    assert_eq!(memory.up, [Change { at: at(0), by: 4, is_outdated: false }]);
    policy.overruled(&mut memory, &observation, 3);
    assert_eq!(memory.up, [Change { at: at(0), by: 1, is_outdated: false }]);
    policy.overruled(&mut memory, &observation, 2);
    assert_eq!((memory.up.len(), memory.down.len()), (0, 0));
}

#[test]
fn a_tolerance_of_118_thousandths_is_the_product_and_not_the_quotient() {
    // 559 / 500 is 1 + 118 × 0.001 and more than 1 + 118 / 1000.
    let behavior = Behavior { scale_up: Rules { tolerance_milli: Some(118), ..Rules::default() }, ..Behavior::default() };
    let target = Target::ValueMilli(500_000);
    let metrics = vec![Metric { target, ..external("load", 1) }];
    let policy = Hpa { metrics, behavior: Some(behavior), ..Hpa::default() };
    assert_eq!(Pool::new(&policy, (1, 20), 5).look(0, vec![signal("load", 559.0)]).wanted, 5);
    assert_eq!(Pool::new(&policy, (1, 20), 5).look(0, vec![signal("load", 559.001)]).wanted, 6);
}

#[test]
fn of_several_old_slots_the_last_is_used_again() {
    let policy = policy(Memories::Compatible, (4, 60), (4, 120));
    let mut memory = Memory::default();
    let old = |second, by| Change { at: at(second), by, is_outdated: false };
    (memory.up, memory.down) = (vec![old(0, 1), old(30, 2), old(150, 1)], vec![old(10, 1)]);
    let decision = policy.evaluate(&mut memory, &seen(200, 8, (1, 20), vec![signal("jobs", 10.0)]));
    assert_eq!(decision.wanted, 10);
    let is_old = |change: &Change| (change.by, change.is_outdated);
    assert_eq!(memory.up.iter().map(is_old).collect::<Vec<_>>(), [(1, true), (2, false), (1, false)]);
    assert_eq!(memory.up[1].at, at(200));
    // Changes of the other direction are left alone.
    assert_eq!(memory.down, [old(10, 1)]);
}

#[test]
fn of_equals_the_first_gives_the_reason_and_a_zero_gives_its_place_away() {
    let policy = Hpa { metrics: vec![external("a", 1), external("b", 1), external("c", 1)], ..Hpa::default() };
    let winner = |numbers: [f64; 3]| {
        let signals = ["a", "b", "c"].into_iter().zip(numbers).map(|(name, number)| signal(name, number)).collect();
        Pool::new(&policy, (1, 20), 4).look(0, signals).winner
    };
    assert_eq!(winner([6.0, 6.0, 5.0]), Some(0));
    assert_eq!(winner([5.0, 6.0, 6.0]), Some(1));
    assert_eq!(winner([0.0, 0.0, 0.0]), Some(2));
    assert_eq!(winner([0.0, 1.0, 1.0]), Some(1));
}

#[test]
fn a_pool_that_begins_asleep_wakes_if_its_memory_says_that_it_sleeps() {
    let policy = Hpa { metrics: vec![external("jobs", 2)], ..Hpa::default() };
    let mut pool = Pool::new(&policy, (0, 20), 0);
    assert_eq!(pool.look(0, vec![signal("jobs", 7.0)]).reason, Reason::Asleep);
    pool.memory = Memory::asleep();
    // 3.5 replicas, and 4 at once from nothing.
    assert_eq!(pool.look(15, vec![signal("jobs", 7.0)]).wanted, 4);
}

#[test]
fn a_memory_that_was_compatible_goes_on_as_a_native_one() {
    let with = |memory| Hpa { metrics: vec![external("jobs", 1)], memory, ..Hpa::default() };
    let (compatible, native) = (with(Memories::Compatible), with(Memories::Native));
    let mut pool = Pool::new(&compatible, (1, 20), 8);
    // Slots older than 300 s are used again, so that the list is in no order of time.
    for second in (0..900).step_by(60) {
        pool.look(second, vec![signal("jobs", if second == 780 { 8.0 } else { 7.0 })]);
    }
    let moments: Vec<_> = pool.memory.recommendations.iter().map(|known| known.at).collect();
    assert!(!moments.is_sorted(), "{moments:?}");
    let mut pool = Pool { policy: &native, memory: pool.memory, bounds: (1, 20), wanted: 8 };
    assert_eq!(pool.look(1_080, vec![signal("jobs", 2.0)]).wanted, 8);
    assert_eq!(pool.look(1_081, vec![signal("jobs", 2.0)]).wanted, 7);
}
