//! One decision for one pool with five signals: `cargo bench -p ergate-events --bench scaling`.
//!
//! The signals change from one look to the next, so that windows, paces and keep-alives have something to do.
#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ergate_events::scaling::signal::{Bounds, Observation, Reading, Replicas, Signal, Value};
use ergate_events::scaling::{AnyPolicy, Memory, Policy};
use ergate_events::time::Timestamp;

/// A policy of each kind that reads five signals, or as many as it can.
const POLICIES: [(&str, &str); 8] = [
    ("hpa", r#"{"policy": "hpa", "metrics": [METRICS]}"#),
    (
        "hpa with behavior",
        r#"{"policy": "hpa", "metrics": [METRICS], "behavior": {"scale_up": {"policies": [{"kind": "Percent", "value": 100, "period": 60000000}, {"kind": "Pods", "value": 2, "period": 60000000}]},
            "scale_down": {"policies": [{"kind": "Percent", "value": 50, "period": 120000000}, {"kind": "Pods", "value": 1, "period": 120000000}]}}}"#,
    ),
    ("keda", r#"{"policy": "keda", "follows_events": true, "triggers": [TRIGGERS]}"#),
    ("target tracking", r#"{"policy": "target_tracking", "signal": "signal_4", "target": 50}"#),
    ("kpa", r#"{"policy": "kpa", "signal": "signal_4"}"#),
    ("rate", r#"{"policy": "rate", "arrivals": "signal_0", "backlog": "signal_1", "service": "signal_2", "start": "signal_3"}"#),
    ("threshold", r#"{"policy": "threshold", "up": [RULES]}"#),
    (
        "composite of hpa and rate",
        r#"{"policy": "composite", "members": [{"name": "queue", "rule": {"policy": "hpa", "metrics": [METRICS]}},
            {"name": "rate", "rule": {"policy": "rate", "arrivals": "signal_0", "backlog": "signal_1", "service": "signal_2", "start": "signal_3"}}]}"#,
    ),
];

fn policy(text: &str) -> AnyPolicy {
    let five = |each: fn(u32) -> String| (0..5).map(each).collect::<Vec<_>>().join(", ");
    let metrics = five(|it| {
        format!(r#"{{"source": {{"external": {{}}}}, "name": "signal_{it}", "target": {{"average_value_milli": 5000}}}}"#)
    });
    let triggers = five(|it| format!(r#"{{"signal": "signal_{it}", "target": {{"average_value_milli": 5000}}}}"#));
    let rules = five(|it| format!(r#"{{"signal": "signal_{it}", "limit": 70, "lasting": 300000000}}"#));
    let text = text.replace("METRICS", &metrics).replace("TRIGGERS", &triggers).replace("RULES", &rules);
    serde_json::from_str(&text).unwrap()
}

/// An hour of looks, every 15 s.
fn observations() -> Vec<Observation> {
    let look = |index: u64| {
        let load = 20 + (index * 7) % 60;
        let signal = |it: u64| Signal {
            name: format!("signal_{it}"),
            reading: Reading::Value(Value::Integer(((load + it * 3) % 90).try_into().unwrap())),
        };
        Observation {
            at: Timestamp(1_772_366_400_000_000 + index * 15_000_000),
            bounds: Bounds { min: 1, max: 50 },
            ceiling: None,
            replicas: Replicas { wanted: 10, live: 10, ready: 10, slots: 1, ..Replicas::default() },
            signals: (0..5).map(signal).collect(),
            pods: None,
        }
    };
    (0..240).map(look).collect()
}

fn evaluate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("evaluate");
    for (name, text) in POLICIES {
        let policy = policy(text);
        policy.check(Bounds { min: 1, max: 50 }).unwrap();
        let mut observations = observations();
        let (mut memory, mut wanted, mut next) = (Memory::default(), 10, 0);
        let hour = observations.len() as u64 * 15_000_000;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let observation = &mut observations[next];
                observation.replicas.wanted = wanted;
                let decision = policy.evaluate(&mut memory, black_box(observation));
                wanted = decision.wanted;
                // The next time this look comes it is an hour later.
                observation.at.0 += hour;
                next = (next + 1) % 240;
                decision
            });
        });
    }
    group.finish();
}

criterion_group!(benches, evaluate);
criterion_main!(benches);
