//! The controller of concurrency against servers of many kinds: how soon it finds the best fixed limit, and whether it stays there.
//!
//! `docs/decisions/0011-concurrency.md` has a table of what `compare` prints, beside others.

#![allow(clippy::print_stdout, reason = "the figures are what the tests are about")]

mod drive;
mod judge;
mod rules;
mod server;

use drive::{Adaptive, SETTINGS, drive, full};
use judge::{Judge, Verdict};
use server::{Server, Spread, places};

const SPREADS: [Spread; 3] = [Spread::Constant, Spread::Exponential, Spread::Lognormal(1.0)];

/// A server whose latency grows by this share until its batch of 16 is full.
fn batch(slower: f64, service: f64, spread: Spread) -> Server {
    Server { slower, ..places(16, service, spread) }
}

/// A server with a lock that each holds for a part of its time.
fn locked(share: f64, service: f64, spread: Spread) -> Server {
    Server { locked: share, ..places(64, service, spread) }
}

/// Runs of 2,000 requests of 50 ms, 200 ms and 1 s: at least this share of those after the first 400 must find the limit right (the smallest fixed one with the
/// whole throughput, to 20 % and one more), and the throughput, probes and all, be at least this share of the best.
fn check(make: impl Fn(f64) -> Server, share: f64, throughput: f64) {
    for service in [0.05, 0.2, 1.0] {
        let (server, judge) = (make(service), Judge::of(make(service)));
        let verdict = judge.runs(|| Adaptive::new(SETTINGS));
        println!("{server:?} wants {judge:?}: {verdict:?}");
        assert!(verdict.share >= share, "{server:?} wants {judge:?}: {verdict:?}, at least {share}");
        assert!(verdict.throughput >= throughput, "{server:?} wants {judge:?}: {verdict:?}, at least {throughput}");
    }
}

#[test]
fn places_are_counted() {
    for count in [1, 2, 4] {
        check(|service| places(count, service, Spread::Constant), 0.95, 0.95);
        check(|service| places(count, service, Spread::Exponential), 0.9, 0.93);
        check(|service| places(count, service, Spread::Lognormal(1.0)), 0.85, 0.93);
    }
    for count in [8, 32] {
        check(|service| places(count, service, Spread::Constant), 0.75, 0.97);
        check(|service| places(count, service, Spread::Exponential), 0.65, 0.96);
        check(|service| places(count, service, Spread::Lognormal(1.0)), 0.6, 0.96);
    }
}

#[test]
fn places_stay_busy_while_the_next_request_is_on_its_way() {
    for (count, away) in [(1, 0.5), (4, 0.5), (8, 0.25)] {
        let server = |service, spread| Server { away: away * service, ..places(count, service, spread) };
        check(|service| server(service, Spread::Constant), 0.9, 0.95);
        check(|service| server(service, Spread::Even), 0.9, 0.95);
        // A round knee.
        check(|service| server(service, Spread::Exponential), 0.0, 0.85);
    }
}

#[test]
fn a_batch_is_filled() {
    for spread in [Spread::Constant, Spread::Even, Spread::Exponential] {
        check(|service| batch(0.3, service, spread), 0.6, 0.95);
        // Half of what one more would bring is lost to those that are there: the limit lies one or two below the knee.
        check(|service| batch(1.0, service, spread), 0.2, 0.92);
    }
}

#[test]
fn a_lock_is_kept_busy() {
    for share in [1.0 / 3.0, 1.0 / 9.0] {
        check(|service| locked(share, service, Spread::Constant), 0.95, 0.96);
        check(|service| locked(share, service, Spread::Even), 0.7, 0.96);
        // A round knee: the last tenth of the throughput costs as many in flight as half of the rest.
        check(|service| locked(share, service, Spread::Exponential), 0.0, 0.87);
    }
}

#[test]
fn a_server_that_turns_requests_away_is_asked_for_what_it_takes() {
    for count in [1, 2, 8] {
        let server = Server { queue: 4, ..places(count, 0.2, Spread::Exponential) };
        check(|service| Server { service, ..server }, 0.8, 0.93);
        let verdict = Judge::of(server).runs(|| Adaptive::new(SETTINGS));
        assert!(verdict.refused < 40.0, "{count} places: {verdict:?}");
    }
}

#[test]
fn a_server_that_grows_and_shrinks_is_followed() {
    for spread in SPREADS {
        let course = |served: usize| places(if (1_500..3_000).contains(&served) { 2 } else { 8 }, 0.2, spread);
        let (eight, two) = (Judge::of(course(0)), Judge::of(course(1_500)));
        let mut shares = [0.0; 3];
        for seed in 0..20 {
            let levels = drive(&mut Adaptive::new(SETTINGS), &course, full, 4_500, seed).levels;
            let parts = [eight.share(&levels[400..1_500]), two.share(&levels[2_000..3_000]), eight.share(&levels[3_600..])];
            shares.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part / 20.0);
        }
        println!("8, 2 and 8 places, {spread:?}: {shares:?}");
        assert!(shares[0] >= 0.6 && shares[1] >= 0.85 && shares[2] >= 0.55, "{spread:?}: {shares:?}");
    }
}

#[test]
fn a_load_that_does_not_reach_the_limit_says_nothing_of_it() {
    // 8 places do 40 a second; every other 300 requests come at 10 a second.
    fn tides(served: usize) -> Option<f64> {
        (served / 300 % 2 == 1).then_some(10.0)
    }
    let judge = Judge::of(places(8, 0.2, Spread::Constant));
    for spread in SPREADS {
        let mut share = 0.0;
        for seed in 0..20 {
            let levels = drive(&mut Adaptive::new(SETTINGS), &|_| places(8, 0.2, spread), tides, 3_000, seed).levels;
            share += judge.share(&levels[1_000..]) / 20.0;
            for low in levels.chunks(300).skip(1).step_by(2) {
                let ebb = &low[100..];
                assert!(ebb.iter().all(|level| *level == ebb[0]), "it moves at ebb: {spread:?}, seed {seed}: {ebb:?}");
            }
        }
        println!("tides, {spread:?}: {share}");
        assert!(share > 0.5, "{spread:?}: {share}");
    }
    fn drops(_: usize) -> Option<f64> {
        Some(2.0)
    }
    let levels = drive(&mut Adaptive::new(SETTINGS), &|_| places(8, 0.2, Spread::Exponential), drops, 2_000, 1).levels;
    assert!(levels.iter().all(|level| *level <= 2), "two a second need no more than one at a time: {:?}", levels.last());
}

#[test]
#[ignore = "prints the table of the decision"]
fn compare() {
    let mut rows = Vec::new();
    for count in [1, 2, 4, 8, 32] {
        for spread in SPREADS {
            rows.push((format!("{count} places, {spread:?}"), places(count, 0.2, spread)));
        }
    }
    for spread in [Spread::Constant, Spread::Even, Spread::Exponential] {
        rows.push((format!("batch of 16, {spread:?}"), batch(1.0, 0.2, spread)));
        rows.push((format!("lock of a third, {spread:?}"), locked(1.0 / 3.0, 0.2, spread)));
        rows.push((format!("lock of a ninth, {spread:?}"), locked(1.0 / 9.0, 0.2, spread)));
    }
    for count in [2, 8] {
        rows.push((format!("{count} places, queue of 4"), Server { queue: 4, ..places(count, 0.2, Spread::Exponential) }));
    }
    for spread in [Spread::Constant, Spread::Exponential] {
        rows.push((format!("batch of 16, gently, {spread:?}"), batch(0.3, 0.2, spread)));
    }
    println!("| server | best | right, % | throughput, % | limit | turned away |\n|---|---|---|---|---|---|");
    for (name, server) in rows {
        let judge = Judge::of(server);
        let Verdict { share, throughput, level, refused } = judge.runs(|| Adaptive::new(SETTINGS));
        println!("| {name} | {} | {:.0} | {:.0} | {level:.1} | {refused:.0} |", judge.best, 100.0 * share, 100.0 * throughput);
    }
}
