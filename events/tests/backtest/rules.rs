//! What a run does, by examples with numbers that a person can check.

use ergate_events::backtest::{self, Arrival, Arrivals, Report, Setup};
use ergate_events::scaling::rate::Rate;
use ergate_events::scaling::signal::{Bounds, Reading, Value};
use ergate_events::scaling::threshold::{Idle, Rule, Threshold};
use ergate_events::scaling::{AnyPolicy, Observation};
use ergate_events::time::Micros;

use crate::support::{BEGAN, fixed, real};

const fn secs(seconds: u64) -> Micros {
    Micros::from_secs(seconds)
}

fn tasks(spans: &[(u64, u64)]) -> Arrivals {
    Arrivals::new(BEGAN, spans.iter().map(|(at, service)| Arrival::new(secs(*at), secs(*service))).collect()).unwrap()
}

fn rate(max: u32) -> Setup {
    Setup::new(AnyPolicy::Rate(Rate { target_utilization: real(1.0), ..Rate::default() }), Bounds { min: 0, max })
}

/// One replica while there is work, none as soon as there is none, and one more for more than four that wait.
fn eager(max: u32) -> Setup {
    let rule = Rule { signal: "ready".to_owned(), limit: real(4.0), lasting: Micros(0), by: 1 };
    let idle = Idle { lasting: Micros(0), ..Idle::default() };
    let policy = Threshold { up: vec![rule], idle: Some(idle), spacing: secs(1), ..Threshold::default() };
    Setup { start: secs(10), ..Setup::new(AnyPolicy::Threshold(policy), Bounds { min: 0, max }) }
}

fn waits(report: &Report) -> [u64; 4] {
    [report.waits.p50, report.waits.p95, report.waits.p99, report.waits.max].map(|wait| wait.0 / 1_000_000)
}

#[test]
fn a_first_task_waits_for_a_start_and_both_are_billed() {
    let report = backtest::run(&tasks(&[(0, 10)]), &rate(5)).unwrap();
    assert_eq!(waits(&report), [60; 4]);
    assert_eq!((report.billed, report.length, report.replicas_started), (secs(70), secs(70), 1));
    // Exactly the limit is not over it.
    assert_eq!((report.waits.over, report.events, report.backlog_max), (0, 1, 1));
    assert_eq!((report.shares.starting, report.shares.busy), (6.0 / 7.0, 1.0 / 7.0));
    let impatient = Setup { wait_target: secs(59), ..rate(5) };
    assert_eq!(backtest::run(&tasks(&[(0, 10)]), &impatient).unwrap().waits.over, 1);
}

#[test]
fn replicas_of_the_beginning_are_ready_and_have_paid_their_starts() {
    let report = backtest::run(&tasks(&[(0, 10), (0, 10)]), &Setup { initial: Some(2), ..rate(5) }).unwrap();
    assert_eq!((waits(&report), report.billed, report.replicas_started), ([0; 4], secs(2 * (60 + 10)), 2));
}

#[test]
fn a_pool_that_goes_to_sleep_pays_the_next_start_again() {
    // Idle at 20 s, asleep at once; awake again at 110 s.
    let report = backtest::run(&tasks(&[(0, 10), (100, 10)]), &eager(5)).unwrap();
    assert_eq!((waits(&report), report.billed), ([10; 4], secs(40)));
    // 0 to 1, 1 to 0, 0 to 1: each turn within 300 s of the one before.
    assert_eq!((report.events, report.flips, report.replicas_started), (3, 2, 2));
    // 1000 s later it is no flip.
    let report = backtest::run(&tasks(&[(0, 10), (1_000, 10)]), &eager(5)).unwrap();
    assert_eq!((report.events, report.flips), (3, 1));
}

#[test]
fn a_replica_that_is_let_go_finishes_what_it_has() {
    // Two replicas of the beginning, of which the rule "nothing waits" takes one away at once.
    let rule = Rule { signal: "ready".to_owned(), limit: real(1.0), lasting: Micros(0), by: 1 };
    let policy = AnyPolicy::Threshold(Threshold { down: vec![rule], spacing: secs(1), ..Threshold::default() });
    let setup = Setup { start: Micros(0), initial: Some(2), ..Setup::new(policy, Bounds { min: 1, max: 2 }) };
    let report = backtest::run(&tasks(&[(0, 30), (0, 50), (40, 20)]), &setup).unwrap();
    // The newer one drains until 50 s. The older one has done its own at 30 s and takes the last at 40 s, to the end at 60 s.
    assert_eq!((waits(&report), report.billed, report.interrupted), ([0; 4], secs(60 + 50), 0));
    assert_eq!((report.shares.draining, report.shares.busy, report.shares.idle), (50.0 / 110.0, 50.0 / 110.0, 10.0 / 110.0));
}

#[test]
fn slots_of_a_replica_work_side_by_side() {
    let setup = Setup { slots: 3, start: Micros(0), initial: Some(1), ..rate(1) };
    let report = backtest::run(&tasks(&[(0, 10), (0, 10), (0, 10), (0, 10)]), &setup).unwrap();
    assert_eq!((waits(&report), report.billed, report.time_at_max), ([0, 10, 10, 10], secs(20), secs(20)));
    assert!((report.shares.busy - 40.0 / 60.0).abs() < 1e-12);
}

#[test]
fn the_warm_up_is_billed_and_does_not_count() {
    let all = [(0, 10), (100, 10), (101, 10)];
    let report = backtest::run(&tasks(&all), &Setup { warm_up: secs(100), ..eager(1) }).unwrap();
    assert_eq!((report.tasks, report.waits.count, report.waits.max), (3, 2, secs(19)));
    assert_eq!(report.billed, backtest::run(&tasks(&all), &eager(1)).unwrap().billed);
}

/// The value of a signal.
fn value(observation: &Observation, name: &str) -> Option<f64> {
    let signal = observation.signals.iter().find(|signal| signal.name == name)?;
    match &signal.reading {
        Reading::Value(value) => Some(Value::real(*value)),
        Reading::Failed(_) => None,
    }
}

/// What is seen at certain seconds by a policy that never changes anything and looks at everything.
fn seen(arrivals: &Arrivals, at: &[u64]) -> Vec<Vec<Option<f64>>> {
    const NAMES: [&str; 15] = [
        "ready",
        "work",
        "running",
        "oldest_s",
        "arrivals_per_s",
        "ready_per_s",
        "busy_percent",
        "service_s_mean",
        "run_s_p50",
        "run_s_p95",
        "run_s_p99",
        "wait_s_p50",
        "wait_s_p99",
        "start_s_mean",
        "cpu_temperature",
    ];
    let rule = |name: &&str| Rule { signal: (*name).to_owned(), limit: real(1e9), lasting: Micros(0), by: 1 };
    let policy = AnyPolicy::Threshold(Threshold { up: NAMES.iter().map(rule).collect(), ..Threshold::default() });
    let setup = Setup { start: secs(5), ..Setup::new(policy, Bounds { min: 2, max: 2 }) };
    let mut seen = Vec::new();
    backtest::run_with(arrivals, &setup, |observation, _| {
        if at.contains(&(observation.at.since(BEGAN).0 / 1_000_000)) && observation.at.0 % 1_000_000 == 0 {
            seen.push(NAMES.iter().map(|name| value(observation, name)).collect());
        }
    })
    .unwrap();
    seen
}

#[test]
fn signals_are_what_happened_until_then() {
    // Two slots: at 0 s two start and one waits until 4 s; the fourth starts at once at 50 s; at 61 s the first three are out of the window.
    let arrivals = tasks(&[(0, 4), (0, 8), (0, 6), (50, 2), (60, 5), (61, 1)]);
    let found = seen(&arrivals, &[0, 4, 10, 50, 61]);
    let of = |index: usize, from: usize, to: usize| found[index][from..to].to_vec();
    let some = |numbers: &[f64]| numbers.iter().map(|number| Some(*number)).collect::<Vec<_>>();
    // Rates are those of the time that was watched, which is a second at least; two of the three have started.
    assert_eq!(of(0, 0, 7), some(&[1.0, 3.0, 2.0, 0.0, 3.0, 1.0, 100.0]));
    assert_eq!(of(0, 7, 15), [None, None, None, None, Some(0.001), Some(0.001), None, None]);
    // One has ended and the last one has started after 4 s, within the bucket that ends at 5 s.
    assert_eq!(of(1, 0, 9), some(&[0.0, 2.0, 2.0, 0.0, 0.75, 0.0, 100.0, 4.0, 5.0]));
    assert_eq!(of(1, 11, 13), some(&[0.001, 5.0]));
    // All three have: 4, 8 and 6 s, in the buckets that end at 5 and 10 s.
    assert_eq!(of(2, 0, 11), some(&[0.0, 0.0, 0.0, 0.0, 0.3, 0.0, 0.0, 6.0, 10.0, 10.0, 10.0]));
    assert_eq!(of(3, 4, 7), some(&[4.0 / 50.0, 0.0, 50.0]));
    // The window begins at 1 s.
    assert_eq!(of(4, 4, 5), some(&[3.0 / 60.0]));
    assert_eq!(of(4, 13, 15), [None, None], "nobody was started, and nobody measures the temperature");
}

#[test]
fn events_are_looked_at_at_once_and_bursts_together() {
    let times = |arrivals: &Arrivals, setup: &Setup| {
        let mut times = Vec::new();
        let note = |observation: &Observation, _: &_| times.push(observation.at.since(BEGAN).0 / 1_000);
        backtest::run_with(arrivals, setup, note).unwrap();
        times
    };
    let task = |micros, service| Arrival::new(Micros(micros), Micros(service));
    // 20 tasks in a millisecond, 100 ms after the first look: one look at the first, one for the rest 10 ms later.
    let mut burst: Vec<_> = (0..20).map(|index| task(100_000 + index * 50, 900_000)).collect();
    burst.push(task(20_000_000, 1_000));
    let arrivals = Arrivals::new(BEGAN, burst).unwrap();
    // A pool that may grow: the first task finds a slot, and the second one does not.
    let may_grow = Setup { bounds: Bounds { min: 1, max: 20 }, ..fixed(1, 1) };
    assert_eq!(times(&arrivals, &may_grow)[..4], [0, 100, 110, 1_000]);
    // One that may not is looked at a second after the last look.
    assert_eq!(times(&arrivals, &fixed(20, 1))[..3], [0, 1_000, 2_000]);
    // A policy with a period looks when it is over.
    let kpa = AnyPolicy::Kpa(ergate_events::scaling::kpa::Kpa::default());
    assert_eq!(times(&arrivals, &Setup::new(kpa, Bounds { min: 1, max: 20 }))[..4], [0, 2_000, 4_000, 6_000]);
}
