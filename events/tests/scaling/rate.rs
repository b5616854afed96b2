//! `rate`: the formula, and for how long it keeps what it has.

use ergate_events::scaling::decision::{By, LimitKind, Reason};
use ergate_events::scaling::rate::Rate;

use crate::support::{Pool, at, broken, real, secs, seen, signal};

fn load(backlog: f64, arrivals: f64) -> Vec<ergate_events::scaling::signal::Signal> {
    vec![
        signal("ready", backlog),
        signal("arrivals_per_s", arrivals),
        signal("service_s_mean", 2.0),
        signal("start_s_mean", 40.0),
    ]
}

#[test]
fn the_count_is_that_of_the_formula() {
    let policy = Rate { target_utilization: real(0.8), ..Rate::default() };
    // (arrivals + backlog / 30 s) × 2 s / (0.8 × slots), rounded up.
    for (backlog, arrivals, slots, expected) in [
        (0.0, 0.0, 1, 0),
        (0.0, 4.0, 1, 10),
        (0.0, 4.01, 1, 11),
        (60.0, 4.0, 1, 15),
        (60.0, 4.0, 4, 4),
        (1.0, 0.0, 8, 1),
        (3_000.0, 0.0, 1, 100),
    ] {
        let mut observation = seen(0, 0, (0, 100), load(backlog, arrivals));
        observation.replicas.slots = slots;
        let mut pool = Pool::new(&policy, (0, 100), 0);
        assert_eq!(pool.see(&observation).wanted, expected, "{backlog} waiting, {arrivals} a second, {slots} slots");
    }
}

#[test]
fn the_first_task_wakes_a_sleeping_pool_before_anything_is_known_of_it() {
    let policy = Rate::default();
    let mut pool = Pool::new(&policy, (0, 20), 0);
    let signals = vec![signal("ready", 7.0), signal("arrivals_per_s", 7.0), broken("service_s_mean"), broken("start_s_mean")];
    let mut observation = seen(0, 0, (0, 20), signals.clone());
    let decision = pool.see(&observation);
    // A slot for each, as nobody knows how long they take.
    assert_eq!((decision.wanted, decision.reason), (7, Reason::Woken));
    observation = seen(1, 7, (0, 20), signals);
    observation.replicas.running = 4;
    assert_eq!(pool.see(&observation).wanted, 11);
}

#[test]
fn an_idle_replica_is_kept_as_long_as_a_start_takes_level_by_level() {
    let policy = Rate { target_utilization: real(1.0), ..Rate::default() };
    let mut pool = Pool::new(&policy, (0, 20), 0);
    assert_eq!(pool.look(0, load(0.0, 5.0)).wanted, 10);
    // 10 were needed until now; 6 from now on.
    let decision = pool.look(100, load(0.0, 3.0));
    assert_eq!((decision.wanted, decision.look_again), (10, Some(at(140))));
    assert_eq!((decision.limits[0].kind, decision.limits[0].by), (LimitKind::KeepAlive, By::Decision(at(100))));
    let decision = pool.look(130, load(0.0, 1.0));
    assert_eq!((decision.wanted, decision.look_again), (10, Some(at(140))));
    // The upper four go, and two more were needed until 130 s.
    let decision = pool.look(140, load(0.0, 1.0));
    assert_eq!((decision.wanted, decision.look_again), (6, Some(at(170))));
    assert_eq!(pool.look(169, load(0.0, 0.0)).wanted, 6);
    assert_eq!(pool.look(170, load(0.0, 0.0)).wanted, 2);
    // What is needed again is not started again.
    assert_eq!(pool.look(180, load(0.0, 1.0)).wanted, 2);
    assert_eq!(pool.look(209, load(0.0, 0.0)).wanted, 2);
    assert_eq!(pool.look(248, load(0.0, 0.0)).wanted, 2);
    let decision = pool.look(249, load(0.0, 0.0));
    assert_eq!((decision.wanted, decision.look_again), (0, None));
}

#[test]
fn the_keep_alive_may_be_set_and_has_a_value_before_anything_was_measured() {
    let short = Rate { keep_alive: Some(secs(5)), ..Rate::default() };
    let mut pool = Pool::new(&short, (0, 20), 9);
    pool.look(0, load(0.0, 3.0));
    assert_eq!(pool.look(1, load(0.0, 0.0)).look_again, Some(at(6)));
    let unmeasured = Rate::default();
    let mut pool = Pool::new(&unmeasured, (0, 20), 9);
    let signals = |arrivals| vec![signal("ready", 0.0), signal("arrivals_per_s", arrivals), signal("service_s_mean", 2.0)];
    pool.look(0, signals(3.0));
    assert_eq!(pool.look(1, signals(0.0)).look_again, Some(at(61)));
}

#[test]
fn what_cannot_be_read_changes_nothing_but_the_bounds_do() {
    let policy = Rate::default();
    let mut pool = Pool::new(&policy, (2, 20), 9);
    let decision = pool.look(0, vec![broken("ready"), signal("arrivals_per_s", 0.0)]);
    assert_eq!((decision.wanted, decision.reason), (9, Reason::Unknown));
    let decision = pool.look(1, vec![signal("ready", -1.0), signal("arrivals_per_s", 0.0)]);
    assert_eq!((decision.wanted, decision.reason), (9, Reason::Unknown));
    pool.bounds = (2, 5);
    assert_eq!(pool.look(2, vec![broken("ready")]).wanted, 5);
}

#[test]
fn the_sentence_has_the_numbers() {
    let policy = Rate { target_utilization: real(1.0), ..Rate::default() };
    let mut pool = Pool::new(&policy, (0, 4), 2);
    let decision = pool.look(0, load(30.0, 2.0));
    assert_eq!(
        pool.sentence(&decision),
        "from 2 to 4 replicas: the signals ask for it; the number of busy slots is 6 (3 of its target) and asks for 6; \
         the pool's maximum makes 4 of 6"
    );
}

#[test]
fn one_long_task_keeps_one_replica() {
    let policy = Rate { keep_alive: Some(secs(0)), ..Rate::default() };
    let mut pool = Pool::new(&policy, (0, 20), 1);
    let mut observation = seen(0, 1, (0, 20), load(0.0, 0.0));
    observation.replicas.running = 1;
    assert_eq!(pool.see(&observation).wanted, 1);
    observation.replicas.running = 0;
    assert_eq!(pool.see(&observation).wanted, 0);
}

#[test]
fn a_reserve_grows_with_the_root_of_the_load_and_works_off_backlogs_before_more_is_added() {
    let policy =
        |catch_up| Rate { target_utilization: real(1.0), reserve: real(2.0), catch_up: secs(catch_up), ..Rate::default() };
    // Loads of 4 and 16 slots; 20 that wait need 4 slots for 10 s, which the reserve has; 60 need 12, which it has not. A task that waits has
    // use for one slot, however soon it should be done.
    for (catch_up, backlog, arrivals, expected) in
        [(10, 0.0, 2.0, 8), (10, 0.0, 8.0, 24), (10, 20.0, 8.0, 24), (10, 60.0, 8.0, 28), (1, 3.0, 0.0, 3)]
    {
        let policy = policy(catch_up);
        let mut pool = Pool::new(&policy, (0, 100), 0);
        assert_eq!(pool.look(0, load(backlog, arrivals)).wanted, expected, "{backlog} waiting, {arrivals} a second");
    }
}
