//! Every policy in a run: the same every time, from its own observations, and from nothing that comes later.

use ergate_events::backtest::{self, Arrivals, Setup};
use ergate_events::scaling::composite::{Composite, Member};
use ergate_events::scaling::hpa::{Hpa, Metric, Source, Target};
use ergate_events::scaling::keda::Keda;
use ergate_events::scaling::kpa::Kpa;
use ergate_events::scaling::policy::Single;
use ergate_events::scaling::rate::Rate;
use ergate_events::scaling::signal::Bounds;
use ergate_events::scaling::{AnyPolicy, Decision, Memory, Observation, Policy};

use crate::support::{Lots, real, work};

fn json<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap()
}

fn policies() -> Vec<AnyPolicy> {
    let work = Metric {
        source: Source::External { selector: None },
        name: "work".to_owned(),
        signal: None,
        target: Target::AverageValueMilli(1_000),
    };
    let hpa = Hpa { metrics: vec![work], ..Hpa::default() };
    let keda: Keda = json(r#"{"triggers": [{"signal": "work", "target": {"average_value_milli": 1000}}]}"#);
    let rate = Rate { reserve: real(1.0), ..Rate::default() };
    let members = [("queue", Single::Hpa(hpa.clone())), ("load", Single::Rate(rate.clone()))];
    let members = members.map(|(name, rule)| Member { name: name.to_owned(), rule }).to_vec();
    let tracking = r#"{"policy": "target_tracking", "signal": "busy_percent", "target": 70.0}"#;
    let step = r#"{"policy": "step", "parts": [{"signal": "ready", "side": "above", "threshold": 5.0, "period": 60000000, "points": 1, "adjustment": "change",
        "steps": [{"by": 2}]}]}"#;
    let rules = r#"{"policy": "threshold", "up": [{"signal": "wait_s_p99", "limit": 5.0}, {"signal": "ready_per_s", "limit": 0.5}],
        "idle": {"lasting": 60000000, "replicas": 1}}"#;
    vec![
        AnyPolicy::Hpa(hpa),
        // By the CPU of its replicas.
        AnyPolicy::Hpa(Hpa::default()),
        AnyPolicy::Keda(keda),
        AnyPolicy::Kpa(Kpa::default()),
        AnyPolicy::Rate(rate),
        AnyPolicy::Composite(Composite { members, formula: None }),
        json(tracking),
        json(step),
        json(rules),
    ]
}

fn load() -> Arrivals {
    let on_off = |at: f64| if at % 800.0 < 400.0 { 3.0 } else { 0.1 };
    work(11, 2_400.0, 3.0, on_off, |lots: &mut Lots| 4.0 * lots.exponential())
}

fn setup(policy: AnyPolicy) -> Setup {
    let min = u32::from(!matches!(policy, AnyPolicy::Keda(_) | AnyPolicy::Kpa(_) | AnyPolicy::Rate(_)));
    Setup::new(policy, Bounds { min, max: 30 })
}

fn record(arrivals: &Arrivals, setup: &Setup) -> Vec<(Observation, Decision)> {
    let mut record = Vec::new();
    backtest::run_with(arrivals, setup, |observation, decision| record.push((observation.clone(), decision.clone()))).unwrap();
    record
}

#[test]
fn two_runs_are_equal_to_the_last_bit_and_another_setup_has_another_digest() {
    let arrivals = load();
    let mut digests = Vec::new();
    for policy in policies() {
        let setup = setup(policy);
        let (one, two) = (backtest::run(&arrivals, &setup).unwrap(), backtest::run(&arrivals, &setup).unwrap());
        assert_eq!(one, two);
        assert_eq!(format!("{one:?}"), format!("{two:?}"));
        assert!(one.events > 0, "{:?} never changes anything", setup.policy);
        let other = Setup { bounds: Bounds { max: 31, ..setup.bounds }, ..setup };
        digests.extend([one.digest, backtest::run(&arrivals, &other).unwrap().digest]);
    }
    let count = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), count);
}

#[test]
fn a_policy_that_is_fed_its_own_observations_decides_the_same() {
    for policy in policies() {
        let setup = setup(policy);
        let mut memory = Memory::default();
        for (observation, decision) in record(&load(), &setup) {
            assert_eq!(setup.policy.evaluate(&mut memory, &observation), decision);
        }
    }
}

#[test]
fn what_comes_later_changes_nothing_before() {
    let all = load();
    let half = all.tasks()[..all.len() / 2].to_vec();
    let last = half.last().unwrap().at;
    let half = Arrivals::new(all.began(), half).unwrap();
    for policy in policies() {
        let setup = setup(policy);
        let until = all.began().after(last);
        let before =
            |record: Vec<(Observation, Decision)>| -> Vec<_> { record.into_iter().filter(|(seen, _)| seen.at < until).collect() };
        let (one, two) = (before(record(&all, &setup)), before(record(&half, &setup)));
        assert!(one.len() > 10);
        assert_eq!(one, two);
    }
}

#[test]
fn decisions_are_carried_out_and_never_beyond_the_bounds() {
    for policy in policies() {
        let setup = setup(policy);
        let record = record(&load(), &setup);
        for pair in record.windows(2) {
            let ((_, before), (seen, _)) = (&pair[0], &pair[1]);
            let replicas = seen.replicas;
            assert_eq!(replicas.wanted, before.wanted);
            assert_eq!(replicas.live, replicas.starting + replicas.ready + replicas.draining);
            assert_eq!(replicas.starting + replicas.ready, replicas.wanted, "those that drain come on top");
            assert!(replicas.running <= replicas.ready + replicas.draining);
            assert!((setup.bounds.min..=setup.bounds.max).contains(&replicas.wanted));
        }
    }
}
