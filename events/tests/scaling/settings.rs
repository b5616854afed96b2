//! Settings that make no sense are refused, by key, value and what is allowed.

use ergate_events::scaling::signal::Bounds;
use ergate_events::scaling::{AnyPolicy, Policy};

const POOL: Bounds = Bounds { min: 1, max: 10 };
const SLEEPER: Bounds = Bounds { min: 0, max: 10 };

fn refused(bounds: Bounds, text: &str, key: &str, value: &str) {
    let policy: AnyPolicy = serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let error = policy.check(bounds).expect_err(text);
    assert_eq!((error.key.as_str(), error.value.as_str()), (key, value), "{text}");
    let message = error.to_string();
    assert!(
        message.contains(key) && message.contains(value) && message.contains("allowed is") && !error.allowed.is_empty(),
        "{message}"
    );
}

#[test]
fn every_policy_says_what_is_wrong_with_its_settings() {
    let hpa = |metric: &str, more: &str| format!(r#"{{"policy": "hpa", "metrics": [{metric}]{more}}}"#);
    let lag = r#"{"source": {"external": {}}, "name": "lag", "target": {"average_value_milli": 1000}}"#;
    let cpu = r#"{"source": "resource", "name": "cpu", "target": {"utilization": 80}}"#;
    refused(POOL, &hpa("", ""), "metrics", "a list of 0");
    refused(POOL, &hpa(&lag.replace("1000", "0"), ""), "metrics[0].target", "0");
    refused(POOL, &hpa(&lag.replace("average_value_milli", "utilization"), ""), "metrics[0].target", "utilization");
    refused(POOL, &hpa(&cpu.replace("utilization", "value_milli"), ""), "metrics[0].target", "value_milli");
    refused(POOL, &hpa(&cpu.replace("80", "0"), ""), "metrics[0].target", "0");
    refused(POOL, &hpa(&lag.replace("\"lag\"", "\"\""), ""), "metrics[0].name", "\"\"");
    refused(SLEEPER, &hpa(cpu, ""), "min", "0");
    refused(Bounds { min: 3, max: 2 }, &hpa(cpu, ""), "max", "2");
    refused(POOL, &hpa(cpu, r#", "controller": {"tolerance": -0.1}"#), "controller.tolerance", "-0.1");
    let behavior = |rules: &str| format!(r#", "behavior": {{"scale_up": {rules}}}"#);
    refused(POOL, &hpa(lag, &behavior(r#"{"stabilization": 3601000000}"#)), "behavior.scale_up.stabilization", "3601s");
    let pace = |kind: &str, value: u32, period: u64| {
        behavior(&format!(r#"{{"policies": [{{"kind": "{kind}", "value": {value}, "period": {period}000000}}]}}"#))
    };
    refused(POOL, &hpa(lag, &pace("Pods", 0, 15)), "behavior.scale_up.policies[0].value", "0");
    refused(POOL, &hpa(lag, &pace("Pods", 1, 1_801)), "behavior.scale_up.policies[0].period", "1801s");
    refused(POOL, &hpa(lag, &behavior(r#"{"policies": []}"#)), "behavior.scale_up.policies", "a list of 0");
    // A share of nothing is nothing: such a pool would sleep for ever.
    refused(SLEEPER, &hpa(lag, &pace("Percent", 900, 15)), "behavior.scale_up.policies", "a list that never leaves 0");
    refused(
        SLEEPER,
        &hpa(lag, &behavior(r#"{"select": "Disabled"}"#)),
        "behavior.scale_up.policies",
        "a list that never leaves 0",
    );

    let keda = |more: &str| {
        format!(r#"{{"policy": "keda", "triggers": [{{"signal": "lag", "target": {{"average_value_milli": 1}}}}]{more}}}"#)
    };
    refused(SLEEPER, r#"{"policy": "keda", "triggers": []}"#, "triggers", "a list of 0");
    refused(SLEEPER, &keda("").replace("average_value_milli", "utilization"), "triggers[0].target", "utilization");
    refused(SLEEPER, &keda(r#", "polling": 1000"#), "polling", "1ms");
    refused(POOL, &keda(r#", "idle_replicas": 1"#), "idle_replicas", "1");
    refused(POOL, &keda(r#", "controller": {"sync_period": 0}"#), "controller.sync_period", "0ns");

    let tracking = |more: &str| format!(r#"{{"policy": "target_tracking", "signal": "cpu", "target": 50{more}}}"#);
    refused(POOL, &tracking("").replace("50", "0"), "target", "0");
    refused(POOL, &tracking(r#", "alarms": {"low_share": 1.1}"#), "alarms.low_share", "1.1");
    refused(POOL, &tracking(r#", "alarms": {"high_points": 0}"#), "alarms.high_points", "0");
    refused(POOL, &tracking(r#", "scale_in_cooldown": 999999999999"#), "scale_in_cooldown", "999999.999999s");

    let step = |stairs: &str| {
        format!(
            r#"{{"policy": "step", "parts": [{{"signal": "lag", "side": "above", "threshold": 1, "points": 1, "adjustment": "exact", "steps": [{stairs}]}}]}}"#
        )
    };
    refused(POOL, &step(""), "parts[0].steps", "a list of 0");
    refused(
        POOL,
        &step(r#"{"lower": 0, "upper": 5, "by": 1}, {"lower": 6, "by": 2}"#),
        "parts[0].steps[0]",
        "a step with a gap or an overlap after it",
    );
    refused(
        POOL,
        &step(r#"{"lower": 5, "upper": 5, "by": 1}"#),
        "parts[0].steps[0]",
        "a step that ends where it begins or before",
    );
    refused(POOL, &step(r#"{"lower": 0, "by": -1}"#), "parts[0].steps[0]", "-1");

    let kpa = |more: &str| format!(r#"{{"policy": "kpa"{more}}}"#);
    refused(POOL, &kpa(r#", "target_utilization": 1.5"#), "target_utilization", "1.5");
    refused(POOL, &kpa(r#", "panic_threshold": 1"#), "panic_threshold", "1");
    refused(POOL, &kpa(r#", "concurrency": 0"#), "concurrency", "0");
    refused(POOL, &kpa(r#", "stable_window": 1000000"#), "stable_window", "1s");

    let rate = |more: &str| format!(r#"{{"policy": "rate"{more}}}"#);
    refused(POOL, &rate(r#", "target_utilization": 0"#), "target_utilization", "0");
    refused(POOL, &rate(r#", "catch_up": 0"#), "catch_up", "0ns");
    refused(POOL, &rate(r#", "backlog": """#), "backlog", "\"\"");
    refused(POOL, &rate(r#", "keep_alive": 999999999999"#), "keep_alive", "999999.999999s");

    let rule = r#"{"signal": "cpu", "limit": 70}"#;
    let threshold = |more: &str| format!(r#"{{"policy": "threshold", {more}}}"#);
    refused(POOL, &threshold(r#""up": []"#), "up, down and idle", "a list of 0");
    refused(POOL, &threshold(&format!(r#""up": [{}]"#, rule.replace("70", r#"70, "by": 0"#))), "up[0].by", "0");
    refused(POOL, &threshold(r#""idle": {"replicas": 0}"#), "idle.replicas", "0");

    let member = |inner: &str| format!(r#"{{"policy": "composite", "members": [{{"name": "a", "rule": {inner}}}]}}"#);
    refused(POOL, &member(&rate(r#", "catch_up": 0"#)), "members[0].rule.catch_up", "0ns");
    refused(POOL, r#"{"policy": "composite", "members": []}"#, "members", "a list of 0");
}

#[test]
fn what_nobody_knows_is_refused_by_name() {
    let unknown = |text: &str| serde_json::from_str::<AnyPolicy>(text).unwrap_err().to_string();
    assert!(unknown(r#"{"policy": "guess"}"#).contains("guess"));
    assert!(unknown(r#"{"policy": "rate", "catchup": 1}"#).contains("catchup"));
    assert!(unknown(r#"{"policy": "rate", "target_utilization": 1e999}"#).contains("out of range"));
    // Settings that contain themselves have no bound.
    assert!(
        unknown(r#"{"policy": "composite", "members": [{"name": "a", "rule": {"policy": "composite", "members": []}}]}"#)
            .contains("composite")
    );
}

#[test]
fn what_ships_as_a_default_makes_sense() {
    for text in [r#"{"policy": "rate"}"#, r#"{"policy": "kpa"}"#] {
        serde_json::from_str::<AnyPolicy>(text).unwrap().check(SLEEPER).unwrap();
    }
    AnyPolicy::Hpa(Default::default()).check(POOL).unwrap();
}
