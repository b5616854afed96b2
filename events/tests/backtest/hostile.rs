//! Work that nobody would hand in on purpose.

use ergate_events::backtest::{self, Arrival, Arrivals, ArrivalsError, BacktestError, Report, Setup, SetupError, bounds};
use ergate_events::scaling::AnyPolicy;
use ergate_events::scaling::kpa::Kpa;
use ergate_events::scaling::rate::Rate;
use ergate_events::scaling::signal::Bounds;
use ergate_events::scaling::threshold::{Rule, Threshold};
use ergate_events::time::Micros;

use crate::support::{BEGAN, fixed, real};

fn arrivals(spans: &[(u64, u64)]) -> Arrivals {
    Arrivals::new(BEGAN, spans.iter().map(|(at, service)| Arrival::new(Micros(*at), Micros(*service))).collect()).unwrap()
}

fn run(spans: &[(u64, u64)], policy: AnyPolicy, max: u32) -> Report {
    let report = backtest::run(&arrivals(spans), &Setup::new(policy, Bounds { min: 0, max })).unwrap();
    assert_eq!((report.tasks, report.waits.count, report.unserved), (spans.len(), spans.len(), 0));
    report
}

fn both() -> [AnyPolicy; 2] {
    [AnyPolicy::Rate(Rate::default()), AnyPolicy::Kpa(Kpa::default())]
}

const SECOND: u64 = 1_000_000;

#[test]
fn nothing_costs_nothing() {
    for policy in both() {
        let report = run(&[], policy, 5);
        assert_eq!((report.billed, report.waits.max, report.events, report.looks), (Micros(0), Micros(0), 0, 0));
        assert_eq!((report.shares.busy, report.cost), (0.0, 0.0));
    }
    let nothing = arrivals(&[]);
    assert_eq!(bounds::work_floor(&nothing, 1), Micros(0));
    assert_eq!(bounds::zero_wait(&nothing, 1, Micros(5)).optimum, Micros(0));
    assert_eq!(bounds::clairvoyant(&nothing, 1, Micros(5), Micros(5)).billed, Micros(0));
}

#[test]
fn everything_at_once_is_done_in_turn() {
    let all: Vec<_> = (0..10_000).map(|_| (0, SECOND)).collect();
    for policy in both() {
        let report = run(&all, policy, 50);
        assert_eq!(report.backlog_max, 10_000);
        // 50 replicas do 10,000 s of work in 200 s, after a start.
        assert!((258..270).contains(&(report.waits.max.0 / SECOND)), "{}", report.waits.max);
    }
}

#[test]
fn tasks_that_take_no_time_are_done_as_well() {
    let all: Vec<_> = (0..1_000).map(|index| (index * 10, 0)).collect();
    for policy in both() {
        let report = run(&all, policy, 5);
        assert!(report.shares.busy.abs() < f64::EPSILON);
    }
    let (least, start) = (arrivals(&all), Micros(7));
    assert_eq!(bounds::zero_wait(&least, 1, start).optimum, Micros(0));
    assert_eq!(bounds::clairvoyant(&least, 1, start, Micros(0)).replicas, 1);
}

#[test]
fn the_order_in_which_tasks_are_given_means_nothing() {
    let sorted: Vec<_> = (0..500_u64).map(|index| (index * index * 9_973, (index * 7_919) % 5_000_000)).collect();
    let mut shuffled = sorted.clone();
    shuffled.sort_by_key(|(at, _)| at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    assert_ne!(sorted, shuffled);
    for policy in both() {
        assert_eq!(run(&sorted, policy.clone(), 9), run(&shuffled, policy, 9));
    }
}

#[test]
fn a_task_of_thirty_years_and_one_thirty_years_later() {
    let long = 1_000_000_000 * SECOND;
    let setup = fixed(1, 1);
    let report = backtest::run(&arrivals(&[(0, long), (1, 1)]), &setup);
    // Every 15 s for 30 years is 66 million looks.
    assert!(matches!(report, Err(BacktestError::TooManyLooks { .. })) || report.is_ok());
    let late =
        backtest::run(&arrivals(&[(0, 1), (long, 1)]), &Setup::new(AnyPolicy::Kpa(Kpa::default()), Bounds { min: 0, max: 1 }));
    assert_eq!(late, Err(BacktestError::TooManyLooks { looks: 500_000_000, max: 50_000_000 }));
    let all = arrivals(&[(0, long), (long, long)]);
    assert_eq!(bounds::work_floor(&all, 1), Micros(2 * long));
    assert_eq!(bounds::zero_wait(&all, 1, Micros(SECOND)).optimum, Micros(2 * long + SECOND));
    assert_eq!(bounds::clairvoyant(&all, 1, Micros(SECOND), Micros(long)).wait_max, Micros(0));
}

#[test]
fn numbers_beyond_reason_are_refused_by_name() {
    let one = |task: Arrival| Arrivals::new(BEGAN, vec![Arrival::new(Micros(0), Micros(0)), task]).unwrap_err();
    let most = Arrivals::SPAN_MAX;
    let task = Arrival::new(Micros(most.0 + 1), Micros(0));
    assert_eq!(one(task), ArrivalsError::TooLong { task: 2, what: "an arrival", value: task.at, max: most });
    let task = Arrival::new(Micros(0), Micros(u64::MAX));
    assert_eq!(one(task), ArrivalsError::TooLong { task: 2, what: "a service time", value: task.service, max: most });
    let task = Arrival { priority: 10, ..Arrival::new(Micros(0), Micros(0)) };
    assert_eq!(one(task).to_string(), "task 2: priority 10 is not in 0 to 9");
}

#[test]
fn a_pool_that_makes_no_sense_is_refused_by_name() {
    let good = Setup::new(AnyPolicy::Rate(Rate::default()), Bounds { min: 0, max: 5 });
    let bounds = |min, max| Setup { bounds: Bounds { min, max }, ..good.clone() };
    let key = |setup: &Setup| match setup.check().unwrap_err() {
        SetupError::Pool { key, .. } => key.to_owned(),
        SetupError::Policy(error) => error.key,
    };
    assert_eq!(good.check(), Ok(()));
    assert_eq!(key(&bounds(6, 5)), "min");
    assert_eq!(key(&bounds(0, 0)), "max");
    assert_eq!(key(&bounds(0, u32::MAX)), "max × slots");
    assert_eq!(key(&Setup { slots: 0, ..good.clone() }), "slots");
    assert_eq!(key(&Setup { start: Micros(u64::MAX), ..good.clone() }), "start cost");
    assert_eq!(key(&Setup { wait_target: Micros(u64::MAX), ..good.clone() }), "wait target");
    assert_eq!(key(&Setup { window: Micros(0), ..good.clone() }), "window");
    for price in [f64::NAN, f64::INFINITY, -1.0] {
        assert_eq!(key(&Setup { price_per_hour: price, ..good.clone() }), "price");
    }
    let policy = AnyPolicy::Rate(Rate { reserve: real(-1.0), ..Rate::default() });
    assert_eq!(key(&Setup { policy, ..good.clone() }), "reserve");
    assert!(backtest::run(&arrivals(&[]), &bounds(6, 5)).is_err());
}

#[test]
fn a_policy_that_starts_nobody_ends_all_the_same_and_is_told() {
    // It waits for a signal that nobody measures.
    let rule = Rule { signal: "moon".to_owned(), limit: real(1.0), lasting: Micros(0), by: 1 };
    let policy = AnyPolicy::Threshold(Threshold { up: vec![rule], ..Threshold::default() });
    let setup = Setup::new(policy, Bounds { min: 0, max: 5 });
    let report = backtest::run(&arrivals(&[(0, SECOND), (SECOND, SECOND)]), &setup).unwrap();
    assert_eq!((report.unserved, report.waits.count, report.waits.over, report.billed), (2, 2, 2, Micros(0)));
}
