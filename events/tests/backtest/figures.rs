//! Figures: `ERGATE_TRACES=… cargo test -p ergate-events --release --test backtest -- --ignored --nocapture`.

use std::time::Instant;

use ergate_events::backtest::{self, Arrivals, Report, Setup, bounds};
use ergate_events::scaling::hpa::{Behavior, Hpa, Metric, Rules, Source, Target};
use ergate_events::scaling::kpa::Kpa;
use ergate_events::scaling::rate::Rate;
use ergate_events::scaling::signal::Bounds;
use ergate_events::scaling::{AnyPolicy, Policy};
use ergate_events::time::Micros;

use crate::support::{published, work};

fn hpa(signal: &str, window: Option<u64>) -> AnyPolicy {
    let target = Target::AverageValueMilli(1_000);
    let metric = Metric { source: Source::External { selector: None }, name: signal.to_owned(), signal: None, target };
    let down = Rules { stabilization: window.map(Micros::from_secs), ..Rules::default() };
    let behavior = window.map(|_| Behavior { scale_down: down, ..Behavior::default() });
    AnyPolicy::Hpa(Hpa { metrics: vec![metric], behavior, ..Hpa::default() })
}

fn policies() -> Vec<(&'static str, AnyPolicy)> {
    let r = |u: f64, b: f64, c: u64, k: u64| {
        let real = crate::support::real;
        let keep_alive = (k > 0).then(|| Micros::from_secs(k));
        AnyPolicy::Rate(Rate {
            target_utilization: real(u),
            reserve: real(b),
            catch_up: Micros::from_secs(c),
            keep_alive,
            ..Rate::default()
        })
    };
    vec![
        ("b0.5 c30", r(1.0, 0.5, 30, 0)),
        ("b1 c10", r(1.0, 1.0, 10, 0)),
        ("b1 c5", r(1.0, 1.0, 5, 0)),
        ("b1 c2", r(1.0, 1.0, 2, 0)),
        ("b1 c10 k120", r(1.0, 1.0, 10, 120)),
        ("b1 c5 k120", r(1.0, 1.0, 5, 120)),
        ("b1 c10 k300", r(1.0, 1.0, 10, 300)),
        ("b1 c5 k300", r(1.0, 1.0, 5, 300)),
        ("b2 c5 k300", r(1.0, 2.0, 5, 300)),
        ("hpa ready/1", hpa("ready", None)),
        ("hpa work/1", hpa("work", None)),
        ("hpa work/1, 60 s", hpa("work", Some(60))),
        ("kpa 0.7", AnyPolicy::Kpa(Kpa::default())),
        ("rate", AnyPolicy::Rate(Rate::default())),
    ]
}

fn synthetic() -> Vec<(&'static str, Arrivals)> {
    let exponential = |mean: f64| move |lots: &mut crate::support::Lots| mean * lots.exponential();
    let heavy = |lots: &mut crate::support::Lots| {
        // Lognormal with a mean of 20 s and a deviation of 27 s.
        let normal = (-2.0 * lots.share().ln()).sqrt() * (std::f64::consts::TAU * lots.share()).cos();
        (2.482 + 1.016 * normal).exp()
    };
    let on_off = |at: f64| if (at / 300.0) as u64 % 4 == 0 { 12.0 } else { 0.4 };
    let diurnal = |at: f64| 4.0 * (1.0 - (std::f64::consts::TAU * at / 14_400.0).cos());
    let steps = |at: f64| [2.0, 8.0, 4.0, 10.0, 1.0, 6.0][(at / 1_200.0) as usize % 6];
    vec![
        ("poisson 5/s, 4 s", work(1, 7_200.0, 5.0, |_| 5.0, exponential(4.0))),
        ("poisson 1/s, heavy 20 s", work(2, 14_400.0, 1.0, |_| 1.0, heavy)),
        ("on/off 12 and 0.4/s, 4 s", work(3, 7_200.0, 12.0, on_off, exponential(4.0))),
        ("diurnal 0 to 8/s, 4 s", work(4, 28_800.0, 8.0, diurnal, exponential(4.0))),
        ("steps 1 to 10/s, 4 s", work(5, 7_200.0, 10.0, steps, exponential(4.0))),
        ("rare 0.01/s, 60 s", work(6, 86_400.0, 0.01, |_| 0.01, exponential(60.0))),
    ]
}

fn line(name: &str, report: &Report, took: f64) {
    let seconds = |span: Micros| span.0 as f64 / 1e6;
    let waits = &report.waits;
    println!(
        "  {name:22} {:7.2} h  p50 {:5.1} p95 {:6.1} p99 {:6.1} max {:6.1} s, {:6.3} % over, {:4} events, {:4} flips, {:4} starts, \
         busy {:4.1} idle {:4.1} starting {:4.1} %, {:6} looks in {:.3} s",
        report.hours(),
        seconds(waits.p50),
        seconds(waits.p95),
        seconds(waits.p99),
        seconds(waits.max),
        waits.share_over() * 100.0,
        report.events,
        report.flips,
        report.replicas_started,
        report.shares.busy * 100.0,
        report.shares.idle * 100.0,
        report.shares.starting * 100.0,
        report.looks,
        took
    );
}

fn compare(name: &str, arrivals: &Arrivals) {
    let hours = |span: Micros| span.0 as f64 / 3.6e9;
    let minute = Micros::from_secs(60);
    let free = bounds::zero_wait(arrivals, 1, minute);
    let known = bounds::clairvoyant(arrivals, 1, minute, minute);
    println!(
        "{name}: {} tasks, work floor {:.2} h, zero-wait optimum {:.2} h, break-even {:.2} h, clairvoyant for 60 s {:.2} h",
        arrivals.len(),
        hours(bounds::work_floor(arrivals, 1)),
        hours(free.optimum),
        hours(free.break_even),
        hours(known.billed)
    );
    for (name, policy) in policies() {
        let warm_up = Micros::from_secs(300);
        let setup = Setup { warm_up, ..Setup::new(policy, Bounds { min: 1, max: 80 }) };
        assert_eq!(setup.policy.check(setup.bounds), Ok(()));
        let begin = Instant::now();
        let report = backtest::run(arrivals, &setup).unwrap();
        line(name, &report, begin.elapsed().as_secs_f64());
    }
}

#[test]
#[ignore = "figures"]
fn policies_side_by_side() {
    for name in ["conv.csv", "code.csv"] {
        if let Some(arrivals) = published(name) {
            compare(name, &arrivals);
        }
    }
    for (name, arrivals) in synthetic() {
        compare(name, &arrivals);
    }
}
