//! What replicas use, as policies are told: the table of `usage.rs`, and the rules about CPU that people really have.

use ergate_events::resources::Asked;
use ergate_events::scaling::decision::{Answer, Failure};
use ergate_events::scaling::hpa::{Hpa, Metric, Source, Target};
use ergate_events::scaling::signal::{Reading, Signal, Value};
use ergate_events::scaling::threshold::{Rule, Threshold};
use ergate_events::scaling::usage::{ReplicaReading, Stage, TOLD_WITHIN, Used, pods, read};
use ergate_events::scaling::{Observation, Policy};
use ergate_events::time::{Micros, Timestamp};

use crate::support::{at, real, secs, seen};

const GIB: u64 = 1 << 30;
/// Two cores and 4 GiB, as `[pool.models] cpu = 2, memory = "4GiB"` says.
const ASKED: Asked = Asked { cpu_milli: Some(2_000), memory_bytes: Some(4 * GIB) };
const NOW: u64 = 10_000;

/// A replica that is up for an hour and uses so many thousandths of a core and bytes.
fn using(cpu_milli: u64, memory_bytes: u64) -> ReplicaReading {
    let used = Used { cpu_milli: Some(cpu_milli), memory_bytes: Some(memory_bytes), at: at(NOW - 2), over: secs(2) };
    ReplicaReading { stage: Stage::Ready, since: at(NOW - 3_600), busy_milli: 1_000, used: Some(used) }
}

/// One that has told nothing lately.
fn silent() -> ReplicaReading {
    ReplicaReading { used: None, ..using(0, 0) }
}

/// One that came up so many seconds ago and has told nothing yet.
fn new(seconds: u64) -> ReplicaReading {
    ReplicaReading { since: at(NOW - seconds), ..silent() }
}

fn in_stage(stage: Stage, replica: ReplicaReading) -> ReplicaReading {
    ReplicaReading { stage, ..replica }
}

fn told(name: &str, replicas: &[ReplicaReading]) -> Result<f64, String> {
    match read(name, replicas, &ASKED, at(NOW)).unwrap() {
        Reading::Value(value) => Ok(value.real()),
        Reading::Failed(reason) => Err(reason),
    }
}

#[test]
fn totals_means_and_shares_are_of_the_replicas_that_take_work() {
    let all = [
        using(1_500, 3 * GIB),
        using(500, GIB),
        in_stage(Stage::Draining, using(2_000, 4 * GIB)),
        in_stage(Stage::Starting, silent()),
    ];
    for (name, expected) in [
        ("cpu_cores", 2.0),
        ("cpu_cores_mean", 1.0),
        ("cpu_percent", 50.0),
        ("memory_bytes", 4.0 * GIB as f64),
        ("memory_bytes_mean", 2.0 * GIB as f64),
        ("memory_percent", 50.0),
    ] {
        assert_eq!(told(name, &all), Ok(expected), "{name}");
    }
    assert_eq!(read("busy_percent", &all, &ASKED, at(NOW)), None, "that is another signal");
}

#[test]
fn what_cannot_be_read_says_why_and_is_never_a_zero() {
    let nothing = Err("no replica takes work, so there is no CPU to measure".to_owned());
    assert_eq!(told("cpu_percent", &[]), nothing);
    assert_eq!(told("cpu_percent", &[in_stage(Stage::Starting, silent()), in_stage(Stage::Draining, using(1, 1))]), nothing);
    // One of three is missing: the mean of the others says something, and a sum without a part is none.
    let one_missing = [using(1_000, GIB), using(2_000, GIB), silent()];
    assert_eq!(told("cpu_percent", &one_missing), Ok(75.0));
    assert_eq!(told("cpu_cores", &one_missing), Err("2 of 3 replicas told lately how much CPU they use".to_owned()));
    let most_missing = [using(1_000, GIB), silent(), silent()];
    assert_eq!(told("memory_percent", &most_missing), Err("1 of 3 replicas told lately how much memory they use".to_owned()));
    assert_eq!(told("cpu_percent", &[using(1_000, GIB), silent()]), Ok(50.0), "half is enough");
    // One that came up just now is on its way to tell.
    let limit = TOLD_WITHIN.0 / 1_000_000;
    assert_eq!(told("cpu_cores", &[using(1_000, GIB), new(limit - 1)]), Ok(1.0));
    assert!(told("cpu_cores", &[using(1_000, GIB), new(limit)]).is_err());
    assert_eq!(told("cpu_cores", &[new(1)]), Err("no replica has told yet how much CPU it uses".to_owned()));
    // Some measure one thing and not the other.
    let half = Used { memory_bytes: None, ..using(500, 0).used.unwrap() };
    let half = ReplicaReading { used: Some(half), ..silent() };
    assert_eq!(told("cpu_percent", std::slice::from_ref(&half)), Ok(25.0));
    assert!(told("memory_bytes", &[half]).is_err());
    // A share of what nobody said.
    let unsaid = read("cpu_percent", &[using(1, 1)], &Asked::default(), at(NOW));
    let expected = "nobody said how much CPU a replica asks for: set `cpu` of the pool";
    assert_eq!(unsaid, Some(Reading::Failed(expected.to_owned())));
    assert!(matches!(read("cpu_cores", &[using(1, 1)], &Asked::default(), at(NOW)), Some(Reading::Value(_))));
}

fn utilization(name: &str, percent: u32) -> Metric {
    Metric { source: Source::Resource, name: name.to_owned(), signal: None, target: Target::Utilization(percent) }
}

fn look(replicas: &[ReplicaReading], wanted: u32) -> Observation {
    Observation { pods: Some(pods(replicas, &ASKED)), ..seen(NOW, wanted, (1, 10), Vec::new()) }
}

/// What an HPA wants of these replicas, and its pods: counted, unready, missing, ignored.
fn hpa(metric: Metric, replicas: &[ReplicaReading], wanted: u32) -> (Answer, Option<[u64; 4]>) {
    let policy = Hpa { metrics: vec![metric], ..Hpa::default() };
    policy.check(ergate_events::scaling::signal::Bounds { min: 1, max: 10 }).unwrap();
    let decision = policy.evaluate(&mut Default::default(), &look(replicas, wanted));
    let verdict = &decision.verdicts[0];
    (verdict.answer.clone(), verdict.pods.map(|pods| [pods.counted, pods.unready, pods.missing, pods.ignored]))
}

/// Seed 2: "CPU utilization > 70 %" of speech to text, and its numbers by the controller's formula.
#[test]
fn the_controller_is_shown_live_replicas_with_what_is_missing_and_unready() {
    // Two at 91 % of 70 %: ceil(1.3 × 2) = 3.
    let busy = || using(1_820, GIB);
    assert_eq!(hpa(utilization("cpu", 70), &[busy(), busy()], 2), (Answer::Replicas(3), Some([2, 0, 0, 0])));
    // One that tells nothing is taken for idle when it grows: 182 % of three are 60 % each, on the other side of the target, so nothing.
    assert_eq!(hpa(utilization("cpu", 70), &[busy(), busy(), silent()], 3), (Answer::Replicas(3), Some([2, 0, 1, 0])));
    // And for full when it shrinks: (20 + 100) / 2 = 60 % of 70 %, times 2.
    assert_eq!(hpa(utilization("cpu", 70), &[using(400, GIB), silent()], 2), (Answer::Replicas(2), Some([1, 0, 1, 0])));
    // Starting ones are unready, draining ones are ignored.
    let all = [busy(), in_stage(Stage::Starting, silent()), in_stage(Stage::Draining, busy())];
    assert_eq!(hpa(utilization("cpu", 70), &all, 2), (Answer::Replicas(2), Some([1, 1, 0, 1])));
    // The CPU of one that came up two seconds ago is that of its start.
    let used = Used { at: at(NOW - 2), over: secs(2), ..busy().used.unwrap() };
    let young = ReplicaReading { since: at(NOW - 2), used: Some(used), ..silent() };
    assert_eq!(hpa(utilization("cpu", 70), &[busy(), young.clone()], 2).1, Some([1, 1, 0, 0]));
    assert_eq!(hpa(utilization("memory", 70), &[busy(), young], 2).1, Some([2, 0, 0, 0]), "memory is memory");
    // Memory of 3 GiB of 4 is 75 %; as a value, 3 GiB against 2 GiB each.
    let full = || using(100, 3 * GIB);
    assert_eq!(hpa(utilization("memory", 50), &[full(), full()], 2).0, Answer::Replicas(3));
    let target = Target::AverageValueMilli(i64::try_from(2 * GIB).unwrap() * 1_000);
    assert_eq!(hpa(Metric { target, ..utilization("memory", 1) }, &[full(), full()], 2).0, Answer::Replicas(3));
    let cores = Metric { target: Target::AverageValueMilli(500), ..utilization("cpu", 1) };
    assert_eq!(hpa(cores, &[using(750, GIB), using(750, GIB)], 2).0, Answer::Replicas(3));
    assert_eq!(hpa(utilization("cpu", 70), &[silent()], 1).0, Answer::Failed(Failure::NoSamples));
    assert_eq!(hpa(utilization("cpu", 70), &[], 1).0, Answer::Failed(Failure::NoPods));
    // How busy slots are is a metric of pods.
    let busy_slots =
        Metric { source: Source::Pods, name: "busy_percent".to_owned(), signal: None, target: Target::AverageValueMilli(80_000) };
    assert_eq!(hpa(busy_slots, &[busy(), busy()], 2).0, Answer::Replicas(3));
}

#[test]
fn without_what_a_replica_asks_for_a_share_of_it_fails_and_a_value_does_not() {
    let unsaid = |metric: Metric| {
        let policy = Hpa { metrics: vec![metric], ..Hpa::default() };
        let pods = Some(pods(&[using(900, GIB)], &Asked::default()));
        policy.evaluate(&mut Default::default(), &Observation { pods, ..seen(NOW, 1, (1, 10), Vec::new()) }).verdicts[0]
            .answer
            .clone()
    };
    assert_eq!(unsaid(utilization("cpu", 70)), Answer::Failed(Failure::NoRequest));
    assert_eq!(unsaid(Metric { target: Target::AverageValueMilli(500), ..utilization("cpu", 70) }), Answer::Replicas(2));
}

/// Seed 4: "CPU utilization > 70 % for 5 min: add instance", on what live replicas tell.
#[test]
fn five_minutes_above_seventy_per_cent_add_one_and_a_worker_that_stops_telling_adds_none() {
    let rule = Rule { signal: "cpu_percent".into(), limit: real(70.0), lasting: secs(300), by: 1 };
    let policy = Threshold { up: vec![rule], ..Threshold::default() };
    let (mut memory, mut wanted) = (Default::default(), 2);
    let mut look = |second: u64, replicas: &[ReplicaReading]| {
        let reading = read("cpu_percent", replicas, &ASKED, at(NOW)).unwrap();
        let signals = vec![Signal { name: "cpu_percent".to_owned(), reading }];
        let decision = policy.evaluate(&mut memory, &seen(second, wanted, (2, 10), signals));
        wanted = decision.wanted;
        wanted
    };
    // 71 % from the beginning.
    let above = [using(1_420, GIB), using(1_420, GIB)];
    assert_eq!((0..300).step_by(10).map(|second| look(second, &above)).max(), Some(2));
    assert_eq!(look(300, &above), 3);
    // 70 % is not above 70 %; and five minutes more in which both were silent for a moment begin anew.
    assert_eq!(look(400, &[using(1_400, GIB), using(1_400, GIB)]), 3);
    assert_eq!(look(410, &above), 3);
    assert_eq!(look(700, &[silent(), silent()]), 3);
    assert_eq!(look(711, &above), 3);
    assert_eq!(look(1_010, &above), 3);
    assert_eq!(look(1_011, &above), 4);
}

#[test]
fn readings_are_numbers_of_the_unit_that_the_name_says() {
    let Some(Reading::Value(Value::Real(number))) = read("cpu_cores", &[using(2_250, 0)], &ASKED, at(NOW)) else {
        panic!("no number")
    };
    assert_eq!(number.get(), 2.25);
    assert_eq!(Micros::from_secs(30), TOLD_WITHIN);
    assert_eq!(
        read("cpu_cores", &[using(0, 0)], &ASKED, Timestamp(0)).map(|it| matches!(it, Reading::Value(_))),
        Some(true),
        "who uses nothing says so"
    );
}
