//! What holds for every policy, whatever it is shown.

use ergate_events::resources::{Fit, Resource};
use ergate_events::scaling::hpa::{Behavior, Hpa, Pace, PaceKind, Rules, Source, Target};
use ergate_events::scaling::real::Real;
use ergate_events::scaling::signal::{Bounds, Phase, Pods, Reading, Replicas, Requested, Signal, Usage, Value};
use ergate_events::scaling::{AnyPolicy, Decision, Memory, Observation, Policy};
use ergate_events::time::{Micros, Timestamp};
use proptest::prelude::*;

use crate::support::{START, real};

/// A policy of each kind, as text; an `S` after a number makes it a span of so many seconds.
const POLICIES: [&str; 11] = [
    r#"{"policy": "hpa", "metrics": [
        {"source": {"external": {}}, "name": "a", "target": {"average_value_milli": 2500}},
        {"source": {"object": {"kind": "Queue"}}, "name": "b", "target": {"value_milli": 30000}},
        {"source": "resource", "name": "cpu", "target": {"utilization": 70}},
        {"source": "pods", "name": "busy", "target": {"average_value_milli": 500}}],
       "controller": {"sync_period": 15S, "downscale_stabilization": 300S, "cpu_initialization": 300S, "initial_readiness": 30S}}"#,
    r#"{"policy": "hpa", "memory": "compatible", "metrics": [
        {"source": {"external": {}}, "name": "a", "target": {"average_value_milli": 2500}}],
       "behavior": {"scale_up": {"stabilization": 30S, "policies": [{"kind": "Percent", "value": 50, "period": 60S}, {"kind": "Pods", "value": 3, "period": 20S}]},
                    "scale_down": {"stabilization": 90S, "select": "Min", "policies": [{"kind": "Percent", "value": 10, "period": 60S}, {"kind": "Pods", "value": 2, "period": 120S}], "tolerance_milli": 50}},
       "controller": {"sync_period": 15S, "downscale_stabilization": 300S, "cpu_initialization": 300S, "initial_readiness": 30S}}"#,
    r#"{"policy": "keda", "triggers": [{"signal": "a", "target": {"average_value_milli": 5000}, "activation": 1}, {"signal": "b", "target": {"value_milli": 9000}}],
       "polling": 30S, "cooldown": 300S, "initial_cooldown": 20S, "fallback": {"failures": 1, "replicas": 4},
       "controller": {"sync_period": 15S, "downscale_stabilization": 300S, "cpu_initialization": 300S, "initial_readiness": 30S}}"#,
    r#"{"policy": "target_tracking", "signal": "a", "target": 10, "scale_out_cooldown": 120S, "scale_in_cooldown": 60S, "alarms": {"period": 60S, "high_points": 1, "low_points": 2}}"#,
    r#"{"policy": "step", "parts": [
        {"signal": "a", "side": "above", "threshold": 20, "points": 1, "period": 60S, "adjustment": "percent", "min_adjustment": 2, "cooldown": 60S, "steps": [{"lower": 0, "upper": 10, "by": 10}, {"lower": 10, "by": 100}]},
        {"signal": "b", "side": "below", "threshold": 5, "points": 2, "period": 60S, "adjustment": "change", "cooldown": 60S, "steps": [{"upper": 0, "by": -1}]}]}"#,
    r#"{"policy": "kpa", "signal": "a", "concurrency": 3, "tick": 2S, "stable_window": 60S, "scale_down_delay": 10S, "scale_to_zero_grace": 30S}"#,
    r#"{"policy": "rate", "arrivals": "a", "backlog": "b", "service": "c", "start": "d", "catch_up": 30S, "keep_alive": 45S}"#,
    r#"{"policy": "threshold", "spacing": 20S, "up": [{"signal": "a", "limit": 10, "lasting": 60S}, {"signal": "b", "limit": 30, "by": 3}],
       "down": [{"signal": "a", "limit": 2, "lasting": 30S}], "idle": {"signal": "c", "lasting": 100S}}"#,
    r#"{"policy": "composite", "members": [
        {"name": "queue", "rule": {"policy": "hpa", "metrics": [{"source": {"external": {}}, "name": "b", "target": {"average_value_milli": 2500}}],
          "controller": {"sync_period": 15S, "downscale_stabilization": 300S, "cpu_initialization": 300S, "initial_readiness": 30S}}},
        {"name": "rate", "rule": {"policy": "rate", "arrivals": "a", "backlog": "b", "service": "c", "start": "d", "catch_up": 30S, "keep_alive": 45S}}]}"#,
    r#"{"policy": "keda", "triggers": [{"name": "lag", "signal": "a", "target": {"average_value_milli": 5000}}, {"signal": "b", "target": {"value_milli": 9000}}],
       "scaling_modifiers": {"formula": "lag > 40 ? max(lag, b) / 2 : lag / (b - 7)", "target": {"average_value_milli": 4000}, "activation": 1},
       "polling": 30S, "cooldown": 300S, "initial_cooldown": 20S, "fallback": {"failures": 1, "replicas": 4},
       "controller": {"sync_period": 15S, "downscale_stabilization": 300S, "cpu_initialization": 300S, "initial_readiness": 30S}}"#,
    r#"{"policy": "composite", "formula": "(queue + steady) / 2", "members": [
        {"name": "queue", "rule": {"policy": "hpa", "metrics": [{"source": {"external": {}}, "name": "b", "target": {"average_value_milli": 2500}}],
          "controller": {"sync_period": 15S, "downscale_stabilization": 300S, "cpu_initialization": 300S, "initial_readiness": 30S}}},
        {"name": "steady", "rule": {"policy": "kpa", "signal": "a", "concurrency": 3, "tick": 2S, "stable_window": 60S, "scale_to_zero_grace": 30S}}]}"#,
];

/// A policy whose spans, the numbers before an `S`, are so many times as many seconds.
fn spans(text: &str, times: u64) -> AnyPolicy {
    let mut out = String::new();
    let mut digits = String::new();
    for letter in text.chars() {
        match letter {
            '0'..='9' => digits.push(letter),
            'S' if !digits.is_empty() => {
                let seconds: u64 = digits.parse().unwrap();
                out.push_str(&(seconds * times * 1_000_000).to_string());
                digits.clear();
            }
            _ => {
                out.push_str(&digits);
                digits.clear();
                out.push(letter);
            }
        }
    }
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{out}: {error}"))
}

fn reading() -> impl Strategy<Value = Reading> {
    prop_oneof![
        10 => (0.0..60.0_f64).prop_map(|number| Reading::Value(Value::Real(real(number)))),
        3 => Just(Reading::Value(Value::Integer(0))),
        1 => Just(Reading::Failed("away".into())),
    ]
}

/// One look: how many seconds after the last one, the four signals, CPU and another sample of the pods, and how many tasks run.
type Look = (u64, [Reading; 4], i64, i64, u32);

fn looks() -> impl Strategy<Value = Vec<Look>> {
    let look = (1..70_u64, [reading(), reading(), reading(), reading()], 0..2_000_i64, 0..2_000_i64, 0..20_u32);
    proptest::collection::vec(look, 1..60)
}

fn observation(look: &Look, at: Timestamp, times: u64, bounds: Bounds, wanted: u32) -> Observation {
    let (_, readings, cpu, busy, running) = look;
    let signals = ["a", "b", "c", "d"].into_iter().zip(readings);
    let usage = [("cpu", *cpu), ("busy", *busy)];
    let usage = usage.map(|(metric, milli)| Usage { metric: metric.into(), milli, at, window: Micros(30_000_000 * times) });
    let started = Timestamp(at.0.saturating_sub(3_600_000_000 * times));
    let pods = Pods {
        count: wanted,
        phase: Phase::Running,
        is_deleted: false,
        started: Some(started),
        ready: Some((true, started)),
        requests: ["cpu", "busy"].map(|metric| Requested { metric: metric.into(), milli: 1_000 }).into(),
        usage: usage.into(),
    };
    Observation {
        at,
        bounds,
        ceiling: None,
        replicas: Replicas { wanted, live: wanted, ready: wanted, slots: 2, running: *running, ..Replicas::default() },
        signals: signals.map(|(name, reading)| Signal { name: name.into(), reading: reading.clone() }).collect(),
        pods: Some(vec![pods]),
    }
}

/// What a policy decides in a row of looks, with every span and every moment so many times as long.
fn decisions(policy: &AnyPolicy, looks: &[Look], times: u64, bounds: Bounds) -> (Vec<Decision>, Memory) {
    let (mut memory, mut wanted, mut at) = (Memory::default(), bounds.min, START * 1_000_000 * times);
    let mut all = Vec::new();
    for look in looks {
        at += look.0 * 1_000_000 * times;
        let decision = policy.evaluate(&mut memory, &observation(look, Timestamp(at), times, bounds, wanted));
        wanted = decision.wanted;
        all.push(decision);
    }
    (all, memory)
}

const POOL: Bounds = Bounds { min: 0, max: 30 };

#[test]
fn every_policy_here_is_one_that_may_be_used() {
    for text in POLICIES {
        let min = u32::from(text.contains("resource") && !text.contains("external"));
        spans(text, 1).check(Bounds { min, ..POOL }).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_count_lies_within_the_bounds(looks in looks(), min in 0..5_u32, more in 0..20_u32) {
        let bounds = Bounds { min, max: (min + more).max(1) };
        for text in POLICIES {
            for decision in decisions(&spans(text, 1), &looks, 1, bounds).0 {
                prop_assert!(bounds.min <= decision.wanted && decision.wanted <= bounds.max, "{text}: {decision:?}");
                let last = decision.limits.last().map_or(decision.wanted, |limit| limit.to);
                prop_assert_eq!(last, decision.wanted);
            }
        }
    }

    #[test]
    fn what_was_decided_is_decided_again(looks in looks()) {
        for text in POLICIES {
            let policy = spans(text, 1);
            let (first, memory) = decisions(&policy, &looks, 1, POOL);
            let (second, again) = decisions(&policy, &looks, 1, POOL);
            prop_assert_eq!(&first, &second);
            prop_assert_eq!(&memory, &again);
            let bytes = |all: &Vec<Decision>| bincode::encode_to_vec(all, bincode::config::standard()).unwrap();
            prop_assert_eq!(bytes(&first), bytes(&second));
        }
    }

    #[test]
    fn a_memory_that_was_written_down_decides_the_same(looks in looks(), cut in 0..60_usize) {
        for text in POLICIES {
            let policy = spans(text, 1);
            let cut = cut.min(looks.len());
            let (all, _) = decisions(&policy, &looks, 1, POOL);
            let (head, memory) = decisions(&policy, &looks[..cut], 1, POOL);
            let mut memory: Memory = serde_json::from_str(&serde_json::to_string(&memory).unwrap()).unwrap();
            let mut wanted = head.last().map_or(POOL.min, |decision| decision.wanted);
            let mut at = START * 1_000_000 + looks[..cut].iter().map(|look| look.0 * 1_000_000).sum::<u64>();
            for (look, expected) in looks[cut..].iter().zip(&all[cut..]) {
                at += look.0 * 1_000_000;
                let decision = policy.evaluate(&mut memory, &observation(look, Timestamp(at), 1, POOL, wanted));
                prop_assert_eq!(&decision, expected);
                wanted = decision.wanted;
            }
        }
    }

    #[test]
    fn when_all_times_are_doubled_the_counts_are_the_same(looks in looks()) {
        for text in POLICIES {
            let counts = |times| {
                let looks: Vec<Look> = looks.iter().map(|look| doubled(text, look, times)).collect();
                let (all, _) = decisions(&spans(text, times), &looks, times, POOL);
                all.into_iter().map(|decision| (decision.wanted, decision.reason, decision.winner)).collect::<Vec<_>>()
            };
            prop_assert_eq!(counts(1), counts(2), "{}", text);
        }
    }
}

/// Where arrivals are counted by the second (`a`) and service is measured in seconds (`c`), these are half and twice as much when time is twice as
/// long.
fn doubled(text: &str, look: &Look, times: u64) -> Look {
    let mut look = look.clone();
    if text.contains("\"rate\"") {
        scale(&mut look.1[0], 1.0 / times as f64);
        scale(&mut look.1[2], times as f64);
    }
    look
}

fn scale(reading: &mut Reading, by: f64) {
    if let Reading::Value(value) = reading {
        *value = Value::Real(Real::new(value.real() * by).unwrap());
    }
}

fn hostile_number() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Integer(i64::MAX)),
        Just(Value::Integer(i64::MIN)),
        Just(Value::Integer(0)),
        Just(Value::Milli(i64::MIN)),
        Just(Value::Milli(i64::MAX)),
        Just(Value::Real(real(1e308))),
        Just(Value::Real(real(-1e308))),
        Just(Value::Real(real(f64::MIN_POSITIVE))),
        any::<i64>().prop_map(Value::Milli),
        (-1e9..1e9_f64).prop_map(|number| Value::Real(real(number))),
    ]
}

fn hostile_count() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(1), Just(u32::MAX), Just(u32::MAX - 1), 0..100_u32, any::<u32>()]
}

fn hostile_pods() -> impl Strategy<Value = Pods> {
    let phase = prop_oneof![Just(Phase::Pending), Just(Phase::Running), Just(Phase::Succeeded), Just(Phase::Failed)];
    let moment = prop_oneof![Just(Timestamp(0)), Just(Timestamp::NEVER), any::<u64>().prop_map(Timestamp)];
    let usage =
        (prop_oneof![Just("cpu"), Just("busy")], prop_oneof![Just(i64::MAX), Just(i64::MIN), -5_000..5_000_i64], any::<u64>());
    let usage =
        usage.prop_map(|(metric, milli, at)| Usage { metric: metric.into(), milli, at: Timestamp(at), window: Micros(at) });
    let request = proptest::option::of(prop_oneof![Just(0), Just(i64::MAX), Just(i64::MIN), -10..2_000_i64]);
    let ready = proptest::option::of((any::<bool>(), moment.clone()));
    let times = (proptest::option::of(moment), ready);
    (hostile_count(), phase, any::<bool>(), times, request, proptest::collection::vec(usage, 0..3)).prop_map(
        |(count, phase, is_deleted, (started, ready), request_milli, usage)| Pods {
            count,
            phase,
            is_deleted,
            started,
            ready,
            requests: request_milli.map(|milli| Requested { metric: "cpu".into(), milli }).into_iter().collect(),
            usage,
        },
    )
}

fn hostile() -> impl Strategy<Value = Observation> {
    let reading = prop_oneof![4 => hostile_number().prop_map(Reading::Value), 1 => Just(Reading::Failed(String::new()))];
    let name = prop_oneof![Just("a"), Just("b"), Just("c"), Just("d")];
    let signals = proptest::collection::vec((name, reading), 0..6);
    let counts =
        [hostile_count(), hostile_count(), hostile_count(), hostile_count(), hostile_count(), hostile_count(), hostile_count()];
    let pods = proptest::option::of(proptest::collection::vec(hostile_pods(), 0..4));
    let at = prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 0..1_000_000_000_u64];
    (at, [hostile_count(), hostile_count()], counts, signals, pods).prop_map(|(at, [min, max], counts, signals, pods)| {
        let [wanted, live, starting, ready, draining, slots, running] = counts;
        Observation {
            at: Timestamp(at),
            bounds: Bounds { min, max },
            ceiling: (max % 2 == 0).then_some(Fit { of: Resource::Cpu, most: u64::from(max), each: 1 }),
            replicas: Replicas { wanted, live, starting, ready, draining, slots, running },
            signals: signals.into_iter().map(|(name, reading)| Signal { name: name.into(), reading }).collect(),
            pods,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_that_anybody_can_show_breaks_a_policy(observations in proptest::collection::vec(hostile(), 1..12)) {
        for text in POLICIES {
            let policy = spans(text, 1);
            let mut memory = Memory::default();
            let mut observations = observations.clone();
            // A log's time does not go back.
            observations.sort_by_key(|observation| observation.at);
            for observation in &observations {
                let decision = policy.evaluate(&mut memory, observation);
                prop_assert_eq!(decision.from, observation.replicas.wanted);
                let sentence = decision.sentence(|index| policy.input(index));
                prop_assert!(!sentence.contains("NaN") && !sentence.contains("inf"), "{}", sentence);
                // Every number can be written down and read back.
                let text = serde_json::to_string(&(&decision, &memory)).unwrap();
                let (back, known): (Decision, Memory) = serde_json::from_str(&text).unwrap();
                prop_assert!(back == decision && known == memory);
                policy.overruled(&mut memory, observation, observation.bounds.max);
            }
        }
    }
}

#[test]
fn settings_that_check_would_refuse_break_nothing_either() {
    let metric = |source, target| ergate_events::scaling::hpa::Metric { source, name: "a".into(), signal: None, target };
    let zero = Rules {
        stabilization: Some(Micros(u64::MAX)),
        policies: Some(vec![Pace { kind: PaceKind::Percent, value: u32::MAX, period: Micros(u64::MAX) }]),
        ..Rules::default()
    };
    let policy = Hpa {
        metrics: vec![
            metric(Source::External { selector: None }, Target::AverageValueMilli(0)),
            metric(Source::External { selector: None }, Target::ValueMilli(i64::MIN)),
            metric(Source::External { selector: None }, Target::Utilization(0)),
            metric(Source::Resource, Target::Utilization(0)),
            metric(Source::Pods, Target::ValueMilli(0)),
        ],
        behavior: Some(Behavior { scale_up: zero.clone(), scale_down: zero }),
        ..Hpa::default()
    };
    for wanted in [0, 1, u32::MAX] {
        let look: Look = (1, std::array::from_fn(|_| Reading::Value(Value::Integer(i64::MAX))), 1, 1, u32::MAX);
        let mut memory = Default::default();
        let decision = policy.evaluate(&mut memory, &observation(&look, Timestamp(1), 1, Bounds { min: 3, max: 2 }, wanted));
        assert!(decision.ratio_is_finite());
    }
}

/// What a decision promises about its numbers.
trait Finite {
    fn ratio_is_finite(&self) -> bool;
}

impl Finite for Decision {
    fn ratio_is_finite(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.ratio.is_none_or(|ratio| ratio.get().is_finite()))
    }
}
