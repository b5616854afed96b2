//! `threshold` beyond the tables of `services.rs`.

use ergate_events::scaling::decision::{Answer, Failure, LimitKind, Reason};
use ergate_events::scaling::threshold::{Idle, Rule, Threshold};

use crate::support::{Pool, at, broken, real, secs, signal};

fn policy() -> Threshold {
    let rule = |signal: &str, limit, lasting| Rule { signal: signal.into(), limit: real(limit), lasting: secs(lasting), by: 1 };
    Threshold {
        up: vec![rule("cpu", 70.0, 300), rule("queue", 10.0, 0)],
        down: vec![rule("cpu", 20.0, 60)],
        idle: Some(Idle::default()),
        ..Threshold::default()
    }
}

#[test]
fn a_dip_starts_the_time_anew() {
    let policy = policy();
    let mut pool = Pool::new(&policy, (0, 9), 2);
    let mut look = |second, cpu| pool.look(second, vec![signal("cpu", cpu), signal("queue", 0.0), signal("work", 1.0)]);
    assert_eq!(look(0, 80.0).look_again, Some(at(300)));
    assert_eq!(look(299, 80.0).wanted, 2);
    assert_eq!(look(299, 69.0).look_again, None);
    assert_eq!(look(300, 80.0).look_again, Some(at(600)));
    assert_eq!(look(599, 80.0).wanted, 2);
    assert_eq!(look(600, 80.0).wanted, 3);
}

#[test]
fn what_is_unknown_is_neither_above_nor_below_nor_idle() {
    let policy = policy();
    let mut pool = Pool::new(&policy, (0, 9), 2);
    pool.look(0, vec![signal("cpu", 10.0), signal("queue", 0.0), signal("work", 0.0)]);
    let decision = pool.look(100, vec![broken("cpu"), signal("queue", 0.0)]);
    assert_eq!((decision.wanted, decision.reason), (2, Reason::Unknown));
    let failures: Vec<_> = decision.failures().map(|(index, failure)| (index, failure.clone())).collect();
    let away = Failure::Source("the broker is away".to_owned());
    assert_eq!(failures, [(0, away.clone()), (2, away), (3, Failure::Missing)]);
    // The clock of idleness starts anew, too.
    assert_eq!(pool.look(301, vec![signal("cpu", 30.0), signal("queue", 0.0), signal("work", 0.0)]).wanted, 2);
    // One rule is enough to grow, whatever is unknown.
    assert_eq!(pool.look(310, vec![broken("cpu"), signal("queue", 11.0)]).wanted, 3);
}

#[test]
fn of_several_rules_the_one_that_adds_most_wins_and_the_sentence_says_it() {
    let mut policy = policy();
    policy.up.push(Rule { signal: "age".into(), limit: real(60.0), lasting: secs(0), by: 3 });
    let mut pool = Pool::new(&policy, (0, 9), 7);
    let load = || vec![signal("cpu", 50.0), signal("queue", 11.0), signal("age", 61.5), signal("work", 12.0)];
    let decision = pool.look(0, load());
    assert_eq!((decision.winner, decision.wanted, decision.verdicts[2].answer.clone()), (Some(2), 9, Answer::Replicas(10)));
    assert_eq!(
        pool.sentence(&decision),
        "from 7 to 9 replicas: the signals ask for it; age is 61.5 (1.025 of its target) and asks for 10; the pool's maximum makes 9 of 10"
    );
    pool.bounds.1 = 20;
    let decision = pool.look(59, load());
    assert_eq!((decision.wanted, decision.limits[0].kind, decision.look_again), (9, LimitKind::UpCooldown, Some(at(60))));
    assert_eq!(pool.look(60, load()).wanted, 12);
}

#[test]
fn idleness_waits_for_nothing_and_work_wakes_without_a_rule() {
    let policy = policy();
    let mut pool = Pool::new(&policy, (0, 9), 2);
    let idle = || vec![signal("cpu", 30.0), signal("queue", 0.0), signal("work", 0.0)];
    let decision = pool.look(0, idle());
    assert_eq!((decision.reason, decision.look_again), (Reason::CoolingDown, Some(at(300))));
    let decision = pool.look(300, idle());
    assert_eq!((decision.reason, decision.wanted), (Reason::Idle, 0));
    let decision = pool.look(301, vec![signal("cpu", 0.0), signal("queue", 1.0), signal("work", 1.0)]);
    assert_eq!((decision.reason, decision.wanted), (Reason::Woken, 1));
}
