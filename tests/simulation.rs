//! The real core in a world where everything fails: one thread, a manual clock, a seed that gives the same run every time.
//!
//! `ERGATE_SIM_SEEDS=2000` runs more seeds, `ERGATE_SIM_SEED=17` only that one.
#![expect(clippy::print_stdout, reason = "a simulation says what it ran, so that a failure can be repeated")]

#[path = "support/simulation/mod.rs"]
mod simulation;

use simulation::{Report, simulate};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn whatever_fails_everything_acknowledged_happens_once_and_everything_accepted_ends() {
    let started = std::time::Instant::now();
    let one = number("ERGATE_SIM_SEED");
    let seeds = one.map_or(0..number("ERGATE_SIM_SEEDS").unwrap_or(200), |seed| seed..seed + 1);
    let mut sum = Report::default();
    for seed in seeds.clone() {
        let report = simulate(seed).unwrap_or_else(|violation| panic!("{violation}"));
        if one.is_some() {
            println!("seed {seed}: {report:?}");
        }
        sum.add(&report);
    }
    let seconds = started.elapsed().as_secs_f64();
    let hours = sum.simulated_micros as f64 / 3.6e9;
    println!(
        "seeds {seeds:?}: {hours:.1} simulated hours ({:.2} an actual second), {} events ({:.0} a second), {} steps, {} restarts",
        hours / seconds,
        sum.events,
        sum.events as f64 / seconds,
        sum.steps,
        sum.restarts
    );
    println!("what happened: {:?}", sum.coverage);
    if one.is_none() && sum.runs >= 100 {
        let missing: Vec<_> = simulation::COVERED.iter().filter(|what| !sum.coverage.contains_key(**what)).collect();
        assert!(missing.is_empty(), "no seed ever met {missing:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 4, 5] {
        let hashes = [0, 1].map(|_| simulate(seed).unwrap_or_else(|violation| panic!("{violation}")).trace);
        assert_eq!(hashes[0], hashes[1], "seed {seed}");
    }
    let other = [6, 7].map(|seed| simulate(seed).unwrap_or_else(|violation| panic!("{violation}")).trace);
    assert_ne!(other[0], other[1]);
}
