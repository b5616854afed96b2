//! Observations, decisions, settings and memories as bytes and as JSON: what is read back is the same, to the last bit.

use bincode::config;
use ergate_events::scaling::decision::{Answer, By, Failure, Limit, LimitKind, Reason, Verdict};
use ergate_events::scaling::hpa::Hpa;
use ergate_events::scaling::real::Real;
use ergate_events::scaling::signal::{Reading, Signal, Value};
use ergate_events::scaling::{AnyPolicy, Decision, Memory, Observation, Policy};
use proptest::prelude::*;

use crate::support::{Pool, at, broken, external, pods, real, seen, signal};

const LIMIT: usize = 1 << 20;

fn through_bytes<T: bincode::Encode + bincode::Decode<()>>(value: &T) -> T {
    let bytes = bincode::encode_to_vec(value, config::standard()).unwrap();
    let (back, used) = bincode::decode_from_slice(&bytes, config::standard().with_limit::<LIMIT>()).unwrap();
    assert_eq!(used, bytes.len());
    back
}

fn through_json<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

#[test]
fn what_is_no_number_is_refused_wherever_it_comes_from() {
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(Real::new(number), None);
        let bytes = bincode::encode_to_vec(number, config::standard()).unwrap();
        assert!(bincode::decode_from_slice::<Real, _>(&bytes, config::standard()).is_err());
    }
    assert!(serde_json::from_str::<Real>("1e999").is_err());
    assert!(serde_json::from_str::<Real>("null").is_err());
    // One zero, so that equal numbers have equal bits.
    assert_eq!(real(-0.0).get().to_bits(), 0);
    assert_eq!(serde_json::from_str::<Real>("-0.0").unwrap().get().to_bits(), 0);
    let bytes = bincode::encode_to_vec(-0.0_f64, config::standard()).unwrap();
    assert_eq!(bincode::decode_from_slice::<Real, _>(&bytes, config::standard()).unwrap().0.get().to_bits(), 0);
}

#[test]
fn numbers_print_for_people() {
    let printed = [0.0, 5.0, 1.0 / 3.0, -2.5, 1e20, 1e-9, 123_456.789_01].map(|number| real(number).to_string());
    assert_eq!(printed, ["0", "5", "0.3333", "-2.5", "1e20", "1e-9", "123456.789"]);
    let printed =
        [Value::Integer(-3), Value::Milli(1_500), Value::Milli(2_000), Value::Real(real(0.25))].map(|it| it.to_string());
    assert_eq!(printed, ["-3", "1.5", "2", "0.25"]);
}

#[test]
fn an_observation_and_its_decision_are_read_back_as_they_were() {
    let policy = Hpa { metrics: vec![external("lag", 10), external("age", 60)], ..Hpa::default() };
    let mut observation = seen(0, 4, (1, 20), vec![signal("lag", 100.0 / 3.0), broken("age")]);
    observation.pods = Some(pods(4, &[("cpu", 123)], at(0)));
    let mut pool = Pool::new(&policy, (1, 20), 4);
    let decision = pool.see(&observation);
    assert_eq!(through_bytes(&observation), observation);
    assert_eq!(through_json(&observation), observation);
    assert_eq!(through_bytes(&decision), decision);
    assert_eq!(through_json(&decision), decision);
    let (policy, memory) = (AnyPolicy::Hpa(policy.clone()), Memory::Hpa(pool.memory));
    assert_eq!((through_bytes(&policy), through_bytes(&memory)), (policy.clone(), memory.clone()));
    assert_eq!((through_json(&policy), through_json(&memory)), (policy, memory));
}

#[test]
fn a_decision_that_says_nothing_new_is_known_as_such() {
    let policy = Hpa { metrics: vec![external("lag", 10)], ..Hpa::default() };
    let mut pool = Pool::new(&policy, (1, 20), 4);
    let first = pool.look(0, vec![signal("lag", 40.0)]);
    let same = pool.look(15, vec![signal("lag", 41.0)]);
    assert!(!first.is_change() && same.says_the_same(&first) && same != first);
    let held = pool.look(30, vec![signal("lag", 10.0)]);
    assert!(!held.is_change() && !held.says_the_same(&same), "a window holds it now");
    assert!(!pool.look(45, vec![broken("lag")]).says_the_same(&held), "nobody knows now");
    let change = pool.look(60, vec![signal("lag", 90.0)]);
    assert!(change.is_change() && !change.says_the_same(&change));
    // The same count for the same reason, but one more of them cannot be read.
    let policy = Hpa { metrics: vec![external("lag", 10), external("age", 60)], ..Hpa::default() };
    let mut pool = Pool::new(&policy, (1, 20), 4);
    let known = pool.look(0, vec![signal("lag", 40.0), signal("age", 1.0)]);
    let unknown = pool.look(15, vec![signal("lag", 40.0), broken("age")]);
    assert_eq!((unknown.wanted, unknown.reason, unknown.winner), (known.wanted, known.reason, known.winner));
    assert!(!unknown.says_the_same(&known));
}

#[test]
fn an_observation_without_its_names_and_a_repeated_decision_fit_into_64_bytes() {
    // What an event for an unchanged decision would hold: the moment and counts as varints, the values in the order of the policy.
    let signals = [12.0, 34.5, 0.125, 61.25, 3.0].map(|number| Value::Real(real(number)));
    let observation = seen(0, 4, (1, 20), vec![]);
    let short = (observation.at, observation.bounds, observation.replicas, signals);
    let size = bincode::encode_to_vec(short, config::standard()).unwrap().len();
    assert!(size <= 64, "{size} bytes");
}

fn reals() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>().prop_filter("finite", |it| it.is_finite()),
        any::<u64>().prop_map(|bits| {
            let number = f64::from_bits(bits);
            if number.is_finite() { number } else { 0.0 }
        })
    ]
}

proptest! {
    #[test]
    fn every_number_survives_bit_for_bit(number in reals()) {
        let number = real(number);
        prop_assert_eq!(through_json(&number).get().to_bits(), number.get().to_bits());
        prop_assert_eq!(through_bytes(&number).get().to_bits(), number.get().to_bits());
    }

    #[test]
    fn every_decision_survives(ratio in reals(), raw in reals(), wanted in any::<u32>(), start in any::<i64>(), text in ".{0,20}") {
        let decision = Decision {
            from: 1,
            wanted,
            reason: Reason::Panic,
            verdicts: vec![
                Verdict { raw: Some(Value::Real(real(raw))), ratio: Real::new(ratio), pods: None, answer: Answer::Replicas(wanted) },
                Verdict { raw: Some(Value::Milli(start)), ratio: None, pods: None, answer: Answer::Failed(Failure::Source(text.clone())) },
            ],
            winner: Some(0),
            limits: vec![Limit { kind: LimitKind::UpRate, from: 9, to: wanted, by: By::Rule { rule: 3, start, since: Some(at(5)) } }],
            look_again: Some(at(7)),
        };
        prop_assert_eq!(&through_json(&decision), &decision);
        prop_assert_eq!(&through_bytes(&decision), &decision);
        let observation = Observation { signals: vec![
            Signal { name: text.clone(), reading: Reading::Value(Value::Real(real(raw))) },
            Signal { name: "x".into(), reading: Reading::Failed(text) },
        ], ..seen(3, wanted, (0, wanted), vec![]) };
        prop_assert_eq!(&through_json(&observation), &observation);
        prop_assert_eq!(&through_bytes(&observation), &observation);
    }

    #[test]
    fn bytes_of_nobody_are_refused_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let limited = config::standard().with_limit::<LIMIT>();
        let _ = bincode::decode_from_slice::<Observation, _>(&bytes, limited);
        let _ = bincode::decode_from_slice::<Decision, _>(&bytes, limited);
        let _ = bincode::decode_from_slice::<AnyPolicy, _>(&bytes, limited);
        let _ = bincode::decode_from_slice::<Memory, _>(&bytes, limited);
    }
}

#[test]
fn a_policy_of_another_kind_starts_with_nothing() {
    let mut memory = Memory::default();
    let observation = seen(0, 4, (1, 20), vec![signal("lag", 40.0)]);
    let hpa = AnyPolicy::Hpa(Hpa { metrics: vec![external("lag", 10)], ..Hpa::default() });
    hpa.evaluate(&mut memory, &observation);
    assert!(matches!(memory, Memory::Hpa(_)));
    AnyPolicy::Rate(Default::default()).evaluate(&mut memory, &observation);
    assert!(matches!(memory, Memory::Rate(_)));
    // What another kind is told about its overruled decision does no harm.
    hpa.overruled(&mut memory, &observation, 3);
    assert!(matches!(memory, Memory::Rate(_)));
}
