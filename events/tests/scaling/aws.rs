//! `target-tracking` and `step`: alarms, cooldowns, and the steps of a metric beyond its threshold.

use ergate_events::scaling::decision::{LimitKind, Reason};
use ergate_events::scaling::step::{Adjustment, Part, Side, Stair, Step};
use ergate_events::scaling::target_tracking::{Alarms, TargetTracking};

use crate::support::{Pool, broken, real, secs, signal};

fn tracking() -> TargetTracking {
    serde_json::from_str(r#"{"signal": "cpu", "target": 50.0}"#).unwrap()
}

/// Looks every 20 s and gives the counts after the looks that end a minute.
fn minutes<P: ergate_events::scaling::Policy>(pool: &mut Pool<'_, P>, from: u64, name: &str, values: &[f64]) -> Vec<u32> {
    let minute = |(minute, value): (u64, &f64)| {
        let before = from + minute * 60;
        let wanted = pool.look(before, vec![signal(name, *value)]).wanted;
        pool.look(before + 20, vec![signal(name, *value)]);
        pool.look(before + 40, vec![signal(name, *value)]);
        wanted
    };
    (0..).zip(values).map(minute).collect()
}

#[test]
fn one_calm_minute_breaks_an_alarm() {
    let policy = tracking();
    let mut pool = Pool::new(&policy, (1, 40), 4);
    assert_eq!(minutes(&mut pool, 0, "cpu", &[80.0, 80.0, 50.0, 80.0, 80.0, 80.0, 80.0]), [4, 4, 4, 4, 4, 4, 7]);
}

#[test]
fn in_the_cooldown_only_a_larger_step_goes_through() {
    let policy = tracking();
    let mut pool = Pool::new(&policy, (1, 40), 4);
    // 4 × 80 / 50 = 6.4. Then 80 % of what was there, 4, still wants 7; 100 % wants 8.
    assert_eq!(minutes(&mut pool, 0, "cpu", &[80.0, 80.0, 80.0, 80.0, 100.0, 100.0]), [4, 4, 4, 7, 7, 8]);
    // That was larger and begins a cooldown of its own, from 7: 100 % wants 14.
    assert_eq!(minutes(&mut pool, 360, "cpu", &[100.0]), [14]);
}

#[test]
fn shrinking_needs_fifteen_points_and_may_be_disabled() {
    let mut policy = tracking();
    let low = [20.0; 17];
    let mut pool = Pool::new(&policy, (1, 40), 10);
    let counts = minutes(&mut pool, 0, "cpu", &low);
    // 10 × 20 / 50 = 4, and then the cooldown.
    assert_eq!(counts[13..], [10, 10, 4, 4]);
    policy.disable_scale_in = true;
    let mut pool = Pool::new(&policy, (1, 40), 10);
    assert_eq!(minutes(&mut pool, 0, "cpu", &low)[16], 10);
    // Between the lower threshold, 45, and the target nothing happens.
    let policy = tracking();
    let mut pool = Pool::new(&policy, (1, 40), 10);
    assert_eq!(minutes(&mut pool, 0, "cpu", &[46.0; 17])[16], 10);
}

#[test]
fn missing_data_never_shrinks() {
    let policy = TargetTracking { alarms: Alarms { low_points: 3, ..Alarms::default() }, ..tracking() };
    let mut pool = Pool::new(&policy, (1, 40), 10);
    assert_eq!(minutes(&mut pool, 0, "cpu", &[20.0, 20.0]), [10, 10]);
    let decision = pool.look(120, vec![broken("cpu")]);
    assert_eq!((decision.wanted, decision.reason), (10, Reason::Unknown));
    // Nobody looked for ten minutes.
    assert_eq!(minutes(&mut pool, 720, "cpu", &[20.0, 20.0, 20.0, 20.0]), [10, 10, 10, 4]);
}

#[test]
fn a_metric_of_each_replica_does_not_wake_a_pool() {
    let policy = tracking();
    let mut pool = Pool::new(&policy, (0, 40), 0);
    let counts = minutes(&mut pool, 0, "cpu", &[90.0; 5]);
    assert_eq!(counts, [0; 5]);
}

fn part(side: Side, adjustment: Adjustment, steps: &[(Option<f64>, Option<f64>, i64)]) -> Part {
    let stair =
        |&(lower, upper, by): &(Option<f64>, Option<f64>, i64)| Stair { lower: lower.map(real), upper: upper.map(real), by };
    Part {
        signal: "lag".into(),
        statistic: ergate_events::scaling::points::Statistic::Average,
        side,
        threshold: real(100.0),
        period: secs(60),
        points: 1,
        adjustment,
        steps: steps.iter().map(stair).collect(),
        min_adjustment: 0,
        cooldown: secs(0),
    }
}

/// The count after one minute of a value, from a count.
fn stepped(part: Part, from: u32, value: f64) -> u32 {
    let policy = Step { parts: vec![part] };
    let mut pool = Pool::new(&policy, (0, 100), from);
    minutes(&mut pool, 0, "lag", &[value, value])[1]
}

#[test]
fn steps_above_contain_their_lower_ends_and_steps_below_their_upper_ones() {
    let up = || part(Side::Above, Adjustment::Change, &[(Some(0.0), Some(50.0), 1), (Some(50.0), None, 3)]);
    for (value, expected) in [(99.0, 10), (100.0, 11), (149.0, 11), (150.0, 13), (1e9, 13)] {
        assert_eq!(stepped(up(), 10, value), expected, "{value}");
    }
    let down = || part(Side::Below, Adjustment::Change, &[(None, Some(-50.0), -3), (Some(-50.0), Some(0.0), -1)]);
    for (value, expected) in [(101.0, 10), (100.0, 9), (51.0, 9), (50.0, 7), (0.0, 7)] {
        assert_eq!(stepped(down(), 10, value), expected, "{value}");
    }
}

#[test]
fn per_cent_are_rounded_as_in_the_user_guide() {
    let by = |percent, least, from| {
        let mut part = part(Side::Above, Adjustment::Percent, &[(Some(0.0), None, percent)]);
        part.min_adjustment = least;
        stepped(part, from, 200.0)
    };
    // 12.5 and 1.5 are cut down, 0.5 becomes 1, −0.5 becomes −1, −1.5 becomes −1.
    assert_eq!([by(125, 0, 10), by(15, 0, 10), by(5, 0, 10)], [22, 11, 11]);
    assert_eq!([by(-5, 0, 10), by(-15, 0, 10), by(-60, 0, 10)], [9, 9, 4]);
    assert_eq!([by(10, 4, 10), by(-10, 4, 10), by(50, 4, 10)], [14, 6, 15]);
    assert_eq!(stepped(part(Side::Above, Adjustment::Exact, &[(Some(0.0), None, 7)]), 10, 200.0), 7);
    // A share of nothing is nothing, and a number is a number: such a policy wakes a pool.
    assert_eq!(by(100, 0, 0), 0);
    assert_eq!(stepped(part(Side::Above, Adjustment::Change, &[(Some(0.0), None, 2)]), 0, 200.0), 2);
}

#[test]
fn steps_have_cooldowns_that_growing_cancels() {
    let mut up = part(Side::Above, Adjustment::Change, &[(Some(0.0), Some(50.0), 2), (Some(50.0), None, 5)]);
    let mut down = part(Side::Below, Adjustment::Change, &[(None, Some(-50.0), -1)]);
    (up.cooldown, down.cooldown) = (secs(300), secs(300));
    let policy = Step { parts: vec![up, down] };
    let mut pool = Pool::new(&policy, (0, 100), 10);
    // 12; then what wants 2 more has them already, and what wants 5 gets the 3 that are missing.
    assert_eq!(minutes(&mut pool, 0, "lag", &[120.0, 120.0, 120.0, 160.0, 160.0]), [10, 12, 12, 12, 15]);
    let decision = pool.look(300, vec![signal("lag", 10.0)]);
    assert_eq!(decision.wanted, 17, "{decision:?}");
    assert_eq!(minutes(&mut pool, 320, "lag", &[10.0, 10.0])[1], 17);
    // After the cooldown, and a whole minute that was seen, it shrinks, once in five minutes, and grows in between.
    assert_eq!(minutes(&mut pool, 660, "lag", &[10.0, 10.0, 10.0]), [17, 16, 16]);
    assert_eq!(minutes(&mut pool, 840, "lag", &[120.0, 120.0, 120.0])[1..], [18, 18]);
}

#[test]
fn who_cannot_see_is_not_shrunk() {
    let down = part(Side::Below, Adjustment::Change, &[(None, Some(0.0), -1)]);
    let mut other = part(Side::Above, Adjustment::Change, &[(Some(0.0), None, 1)]);
    other.signal = "age".into();
    let policy = Step { parts: vec![down, other] };
    let mut pool = Pool::new(&policy, (0, 100), 10);
    pool.look(0, vec![signal("lag", 1.0), broken("age")]);
    let decision = pool.look(60, vec![signal("lag", 1.0), broken("age")]);
    assert_eq!((decision.wanted, decision.reason), (10, Reason::Unknown));
    pool.look(90, vec![signal("lag", 1.0), signal("age", 1.0)]);
    assert_eq!(pool.look(120, vec![signal("lag", 1.0), signal("age", 1.0)]).wanted, 9);
    let kinds: Vec<LimitKind> = decision.limits.iter().map(|limit| limit.kind).collect();
    assert_eq!(kinds, []);
}
