//! `kpa`: two windows, panic, and sleep.

use ergate_events::scaling::decision::{LimitKind, Reason};
use ergate_events::scaling::kpa::Kpa;

use crate::support::{Pool, at, broken, real, secs, seen, signal};

fn work(number: f64) -> Vec<ergate_events::scaling::signal::Signal> {
    vec![signal("work", number)]
}

fn policy() -> Kpa {
    Kpa { concurrency: Some(real(10.0)), ..Kpa::default() }
}

#[test]
fn the_stable_window_is_an_average_over_a_minute() {
    let policy = policy();
    let mut pool = Pool::new(&policy, (0, 100), 4);
    for second in (0..60).step_by(2) {
        assert_eq!(pool.look(second, work(28.0)).wanted, 4, "28 at 7 each");
    }
    // Five of 30 samples are 35: 29.17 on average; the short window has three of them, and 35 / 7 is 5, no panic.
    let decisions: Vec<_> = (60..70).step_by(2).map(|second| pool.look(second, work(35.0)).wanted).collect();
    assert_eq!(decisions, [5, 5, 5, 5, 5]);
}

#[test]
fn a_burst_is_panic_and_nothing_shrinks_until_a_minute_after_it() {
    let policy = policy();
    let mut pool = Pool::new(&policy, (0, 100), 2);
    for second in (0..60).step_by(2) {
        pool.look(second, work(14.0));
    }
    // The short window: (14 + 14 + 140) / 3 = 56, 8 replicas, four times the two that are ready.
    let decision = pool.look(60, work(140.0));
    assert_eq!((decision.wanted, decision.reason, decision.winner), (8, Reason::Panic, Some(1)));
    let decision = pool.look(62, work(140.0));
    assert_eq!(decision.wanted, 14);
    let decision = pool.look(64, work(140.0));
    assert_eq!((decision.wanted, decision.reason), (20, Reason::Panic));
    let mut shrunk = None;
    for second in (66..200).step_by(2) {
        if pool.look(second, work(7.0)).wanted < 20 {
            shrunk.get_or_insert(second);
        }
    }
    // The last reason for panic was at 60 s (14 are less than twice the 8 that were ready at 62 s); over is more than a minute later.
    assert_eq!(shrunk, Some(122));
}

#[test]
fn one_step_down_is_at_most_to_half() {
    let policy = Kpa { stable_window: secs(6), ..policy() };
    let mut pool = Pool::new(&policy, (0, 100), 16);
    let wanted: Vec<_> = (0..20).step_by(2).map(|second| pool.look(second, work(1.0)).wanted).collect();
    assert_eq!(wanted[..5], [8, 4, 2, 1, 1]);
}

#[test]
fn the_last_replica_goes_after_the_grace_and_work_brings_it_back() {
    let policy = policy();
    let mut pool = Pool::new(&policy, (0, 100), 1);
    let mut gone = None;
    for second in (0..60).step_by(2) {
        let decision = pool.look(second, work(0.0));
        if decision.wanted == 0 {
            gone.get_or_insert(second);
        } else {
            assert_eq!((decision.reason, decision.look_again), (Reason::CoolingDown, Some(at(30))));
        }
    }
    assert_eq!(gone, Some(30));
    assert_eq!(pool.look(60, work(1.0)).wanted, 1);
}

#[test]
fn a_delay_keeps_the_highest_proposal() {
    let policy = Kpa { scale_down_delay: secs(20), stable_window: secs(4), panic_window: real(1.0), ..policy() };
    let mut pool = Pool::new(&policy, (1, 100), 4);
    pool.look(0, work(28.0));
    pool.look(2, work(7.0));
    let decision = pool.look(4, work(7.0));
    assert_eq!((decision.wanted, decision.limits[0].kind), (4, LimitKind::DownWindow));
    assert_eq!(pool.look(18, work(7.0)).wanted, 4);
    assert!(pool.look(24, work(7.0)).wanted < 4);
}

#[test]
fn without_its_signal_it_stays() {
    let policy = policy();
    let mut pool = Pool::new(&policy, (0, 100), 3);
    let decision = pool.look(0, vec![broken("work")]);
    assert_eq!((decision.wanted, decision.reason), (3, Reason::Unknown));
}

#[test]
fn panic_does_not_take_away_what_is_still_starting() {
    let policy = policy();
    let mut pool = Pool::new(&policy, (0, 100), 20);
    let mut observation = seen(0, 20, (0, 100), work(56.0));
    (observation.replicas.ready, observation.replicas.starting) = (2, 18);
    let decision = pool.see(&observation);
    assert_eq!((decision.wanted, decision.reason), (20, Reason::Panic));
    assert_eq!((decision.limits[0].kind, decision.limits[0].from), (LimitKind::Panic, 8));
}
