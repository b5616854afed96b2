//! Figures: `cargo test -p ergate-events --release --test backtest -- --ignored --nocapture --test-threads 1`.

use ergate_events::backtest::{self, Arrivals, Report, Setup, bounds};
use ergate_events::scaling::hpa::{Behavior, Hpa, Metric, Rules, Source, Target};
use ergate_events::scaling::kpa::Kpa;
use ergate_events::scaling::rate::Rate;
use ergate_events::scaling::signal::Bounds;
use ergate_events::scaling::{AnyPolicy, Policy};
use ergate_events::time::Micros;

use crate::support::{Lots, published, real, work};

fn hpa(signal: &str, window: Option<u64>) -> AnyPolicy {
    let target = Target::AverageValueMilli(1_000);
    let metric = Metric { source: Source::External { selector: None }, name: signal.to_owned(), signal: None, target };
    let down = Rules { stabilization: window.map(Micros::from_secs), ..Rules::default() };
    let behavior = window.map(|_| Behavior { scale_down: down, ..Behavior::default() });
    AnyPolicy::Hpa(Hpa { metrics: vec![metric], behavior, ..Hpa::default() })
}

/// The settings of the presets in config/examples/policies.
fn preset(reserve: f64, catch_up: u64, keep_alive: Option<u64>) -> AnyPolicy {
    let (target_utilization, reserve, catch_up) = (real(1.0), real(reserve), Micros::from_secs(catch_up));
    AnyPolicy::Rate(Rate {
        target_utilization,
        reserve,
        catch_up,
        keep_alive: keep_alive.map(Micros::from_secs),
        ..Rate::default()
    })
}

fn policies() -> Vec<(&'static str, AnyPolicy)> {
    vec![
        ("low-cost", preset(0.5, 30, None)),
        ("balanced", preset(1.0, 5, None)),
        ("low-latency", preset(2.0, 5, Some(300))),
        ("rate", AnyPolicy::Rate(Rate::default())),
        ("kpa", AnyPolicy::Kpa(Kpa::default())),
        ("hpa", hpa("work", None)),
        ("hpa, 60 s down", hpa("work", Some(60))),
        ("hpa-waiting", hpa("ready", None)),
    ]
}

fn synthetic() -> Vec<(&'static str, Arrivals)> {
    let exponential = |mean: f64| move |lots: &mut Lots| mean * lots.exponential();
    let heavy = |lots: &mut Lots| {
        // Lognormal with a mean of 20 s and a deviation of 27 s.
        let normal = (-2.0 * lots.share().ln()).sqrt() * (std::f64::consts::TAU * lots.share()).cos();
        (2.482 + 1.016 * normal).exp()
    };
    let on_off = |at: f64| if at % 1_200.0 < 300.0 { 12.0 } else { 0.4 };
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
         busy {:4.1} idle {:4.1} starting {:4.1} %, {:6} looks in {:.3} s of CPU",
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
        let begin = spent();
        let report = backtest::run(arrivals, &setup).unwrap();
        line(name, &report, spent() - begin);
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

/// Seconds of CPU that this thread has had: other programs on the machine do not count.
fn spent() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse::<u64>().unwrap() as f64 / 1e9
}

/// The most memory that this process has had, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1_024
}

#[test]
#[ignore = "figures"]
fn a_million_tasks() {
    let arrivals = work(9, 50_000.0, 20.0, |_| 20.0, |lots: &mut Lots| 4.0 * lots.exponential());
    println!("{} tasks, 20 a second, 4 s each: {} MiB before", arrivals.len(), peak());
    for (name, policy) in policies() {
        let setup = Setup::new(policy, Bounds { min: 1, max: 200 });
        let begin = spent();
        let report = backtest::run(&arrivals, &setup).unwrap();
        line(name, &report, spent() - begin);
        println!("    {} MiB at most", peak());
    }
}
