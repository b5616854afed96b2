//! Queues whose waits are known in closed form, and a queue computed in another way.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ergate_events::backtest::{self, Arrival, Arrivals, Report, Setup};
use ergate_events::time::Micros;

use crate::support::{BEGAN, Lots, fixed, work};

/// The chance that a task has to wait for one of `servers` with this load (Erlang C), by the recurrence of Erlang B.
fn erlang_c(servers: u32, load: f64) -> f64 {
    let blocked = (1..=servers).fold(1.0, |blocked, n| load * blocked / (f64::from(n) + load * blocked));
    blocked / (1.0 - load / f64::from(servers) * (1.0 - blocked))
}

/// Mean and half width of a confidence interval, four standard errors wide, of independent runs.
fn estimate(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, 4.0 * (variance / count).sqrt())
}

fn runs(replicas: u32, slots: u32, rate: f64, service: impl Fn(&mut Lots) -> f64 + Copy) -> Vec<Report> {
    let setup = Setup { wait_target: Micros(0), warm_up: Micros::from_secs(300), ..fixed(replicas, slots) };
    let run = |seed| backtest::run(&work(seed, 4_000.0, rate, |_| rate, service), &setup).unwrap();
    (0..24).map(run).collect()
}

fn expect(values: &[f64], expected: f64) {
    let (mean, half) = estimate(values);
    assert!((mean - expected).abs() < half, "{mean} ± {half}, expected {expected}");
    // An interval that contains everything shows nothing.
    assert!(half < expected * 0.25, "{mean} ± {half}");
}

#[test]
fn many_servers_wait_as_erlang_says() {
    for (replicas, slots, rate) in [(1, 1, 0.7), (5, 1, 4.0), (3, 4, 10.0), (20, 1, 17.0)] {
        let servers = replicas * slots;
        let reports = runs(replicas, slots, rate, Lots::exponential);
        let waits = erlang_c(servers, rate);
        expect(&reports.iter().map(|report| report.waits.share_over()).collect::<Vec<_>>(), waits);
        let mean = waits / (f64::from(servers) - rate);
        expect(&reports.iter().map(|report| report.waits.mean.0 as f64 / 1e6).collect::<Vec<_>>(), mean);
        // Busy for as much of the time as there is load.
        let busy: Vec<_> = reports.iter().map(|report| report.shares.busy).collect();
        expect(&busy, rate / f64::from(servers));
    }
}

#[test]
fn one_server_with_equal_tasks_waits_as_pollaczek_and_khinchine_say() {
    for rate in [0.5, 0.8] {
        let reports = runs(1, 1, rate, |_| 1.0);
        let waits: Vec<_> = reports.iter().map(|report| report.waits.mean.0 as f64 / 1e6).collect();
        expect(&waits, rate / (2.0 * (1.0 - rate)));
    }
}

/// Waits of a plain queue, first come, first served: each task takes the server that is free first.
fn plain(arrivals: &Arrivals, servers: u32) -> Vec<u64> {
    let mut free: BinaryHeap<Reverse<u64>> = (0..servers).map(|_| Reverse(0)).collect();
    let wait = |task: &Arrival| {
        let Reverse(at) = free.pop().unwrap();
        let start = at.max(task.at.0);
        free.push(Reverse(start + task.service.0));
        start - task.at.0
    };
    arrivals.tasks().iter().map(wait).collect()
}

/// The same with priorities, each step of which counts as half a minute of waiting, by looking at every task again and again.
fn plain_by_priority(arrivals: &Arrivals, servers: usize) -> Vec<u64> {
    let tasks = arrivals.tasks();
    let mut waits = vec![None; tasks.len()];
    let mut free = vec![0_u64; servers];
    for _ in tasks {
        let server = (0..servers).min_by_key(|server| free[*server]).unwrap();
        let left = || tasks.iter().enumerate().filter(|(index, _)| waits[*index].is_none());
        let first = left().map(|(_, task)| task.at.0).min().unwrap().max(free[server]);
        let there = left().filter(|(_, task)| task.at.0 <= first);
        let seems_ready = |task: &Arrival| task.at.0 + (9 - u64::from(task.priority)) * 30_000_000;
        let (index, task) = there.min_by_key(|(index, task)| (seems_ready(task), *index)).unwrap();
        waits[index] = Some(first - task.at.0);
        free[server] = first + task.service.0;
    }
    waits.into_iter().map(Option::unwrap).collect()
}

fn check(arrivals: &Arrivals, replicas: u32, slots: u32, mut waits: Vec<u64>) {
    let setup = Setup { wait_target: Micros::from_secs(2), ..fixed(replicas, slots) };
    let report = backtest::run(arrivals, &setup).unwrap();
    let over = waits.iter().filter(|wait| **wait > 2_000_000).count();
    let sum: u64 = waits.iter().sum();
    waits.sort_unstable();
    let at = |percent: usize| Micros(waits[(waits.len() * percent).div_ceil(100) - 1]);
    let found = &report.waits;
    assert_eq!((found.p50, found.p95, found.p99, found.max), (at(50), at(95), at(99), at(100)));
    assert_eq!((found.count, found.over, found.mean.0), (waits.len(), over, sum / waits.len() as u64));
    // Nobody comes or goes: as many are billed all the time.
    assert_eq!(report.billed.0, report.length.0 * u64::from(replicas));
    assert_eq!((report.events, report.flips, report.unserved, report.interrupted), (0, 0, 0, 0));
}

#[test]
fn a_pool_of_fixed_size_is_a_plain_queue() {
    for (seed, replicas, slots, rate) in [(1, 1, 1, 0.9), (2, 3, 1, 2.7), (3, 2, 4, 7.9), (4, 7, 1, 9.0)] {
        let arrivals = work(seed, 2_000.0, rate, |_| rate, Lots::exponential);
        check(&arrivals, replicas, slots, plain(&arrivals, replicas * slots));
    }
}

#[test]
fn higher_priorities_start_first_equal_ones_in_turn_and_none_waits_for_ever() {
    for seed in 0..6 {
        let mut lots = Lots(seed + 100);
        let priority = |task: &Arrival| Arrival { priority: (lots.share() * 9.99) as u8, ..*task };
        // So much that lower priorities wait for longer than the steps between them.
        let plain = work(seed, 300.0, 3.0, |_| 3.0, Lots::exponential);
        let arrivals = Arrivals::new(BEGAN, plain.tasks().iter().map(priority).collect()).unwrap();
        check(&arrivals, 2, 1, plain_by_priority(&arrivals, 2));
    }
}

#[test]
fn doubling_all_times_doubles_all_waits() {
    let once = work(7, 3_000.0, 4.5, |_| 4.5, Lots::exponential);
    let twice = |task: &Arrival| Arrival { at: Micros(task.at.0 * 2), service: Micros(task.service.0 * 2), ..*task };
    let doubled = Arrivals::new(BEGAN, once.tasks().iter().map(twice).collect()).unwrap();
    let double = |span: Micros| Micros(span.0 * 2);
    let kpa = ergate_events::scaling::kpa::Kpa::default();
    let slower = ergate_events::scaling::kpa::Kpa {
        stable_window: double(kpa.stable_window),
        scale_to_zero_grace: double(kpa.scale_to_zero_grace),
        tick: double(kpa.tick),
        ..kpa.clone()
    };
    let bounds = ergate_events::scaling::signal::Bounds { min: 0, max: 9 };
    let elastic = Setup::new(ergate_events::scaling::AnyPolicy::Kpa(kpa), bounds);
    let slow = Setup {
        start: double(elastic.start),
        wait_target: double(elastic.wait_target),
        window: double(elastic.window),
        ..Setup::new(ergate_events::scaling::AnyPolicy::Kpa(slower), bounds)
    };
    let still = Setup { wait_target: double(fixed(5, 1).wait_target), ..fixed(5, 1) };
    for (setup, twice) in [(fixed(5, 1), still), (elastic, slow)] {
        let (one, two) = (backtest::run(&once, &setup).unwrap(), backtest::run(&doubled, &twice).unwrap());
        let waits = |report: &Report| [report.waits.p50, report.waits.p95, report.waits.p99, report.waits.max];
        assert_eq!(waits(&one).map(double), waits(&two));
        assert!(one.waits.max > Micros(0));
        assert_eq!((one.events, one.waits.over, double(one.billed)), (two.events, two.waits.over, two.billed));
    }
}
