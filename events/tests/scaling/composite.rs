//! `composite`: the largest of several, each with its own memory.

use ergate_events::scaling::Cadence;
use ergate_events::scaling::composite::{Composite, Member};
use ergate_events::scaling::decision::{Answer, Failure};
use ergate_events::scaling::hpa::{Behavior, Hpa, Pace, PaceKind, Rules};
use ergate_events::scaling::policy::Single;
use ergate_events::scaling::rate::Rate;
use ergate_events::scaling::threshold::{Idle, Rule, Threshold};
use ergate_events::scaling::{AnyPolicy, Memory, Policy};

use crate::support::{Pool, broken, external, real, secs, seen, signal};

fn policy() -> Composite {
    let rule = Rule { signal: "age".into(), limit: real(60.0), lasting: secs(0), by: 5 };
    let old = Threshold { up: vec![rule], idle: Some(Idle { replicas: 1, ..Idle::default() }), ..Threshold::default() };
    let down = Rules {
        stabilization: Some(secs(0)),
        policies: Some(vec![Pace { kind: PaceKind::Pods, value: 1, period: secs(60) }]),
        ..Rules::default()
    };
    let queue = Hpa {
        metrics: vec![external("queue", 10)],
        behavior: Some(Behavior { scale_down: down, ..Behavior::default() }),
        ..Hpa::default()
    };
    let member = |name: &str, rule| Member { name: name.to_owned(), rule };
    Composite { members: vec![member("queue", Single::Hpa(queue)), member("old tasks", Single::Threshold(old))], formula: None }
}

fn load(queue: f64, age: f64) -> Vec<ergate_events::scaling::signal::Signal> {
    vec![signal("queue", queue), signal("age", age), signal("work", 1.0)]
}

#[test]
fn the_member_that_wants_most_decides_and_is_named() {
    let policy = policy();
    let mut pool = Pool::new(&policy, (1, 20), 4);
    let decision = pool.look(0, load(60.0, 10.0));
    assert_eq!((decision.wanted, decision.winner), (6, Some(0)));
    let decision = pool.look(60, load(70.0, 61.0));
    assert_eq!((decision.wanted, decision.winner), (11, Some(1)));
    assert_eq!(decision.verdicts[0].answer, Answer::Replicas(7));
    assert_eq!(pool.sentence(&decision), "from 6 to 11 replicas: the signals ask for it; old tasks is 11 and asks for 11");
}

#[test]
fn a_member_that_knows_nothing_lets_nothing_shrink() {
    let policy = policy();
    let mut pool = Pool::new(&policy, (1, 20), 8);
    let decision = pool.look(0, vec![broken("queue"), signal("age", 1.0), signal("work", 0.0)]);
    assert_eq!(
        (decision.wanted, &decision.verdicts[0].answer),
        (8, &Answer::Failed(Failure::Source("the broker is away".into())))
    );
    assert_eq!(pool.look(400, vec![broken("queue"), signal("age", 1.0), signal("work", 0.0)]).wanted, 8);
}

#[test]
fn a_member_counts_the_changes_that_were_made_and_not_those_it_wanted() {
    let policy = policy();
    let mut pool = Pool::new(&policy, (1, 20), 8);
    // The queue alone would take one replica away each minute; the other member stays at what there is.
    for second in (0..300).step_by(15) {
        let decision = pool.look(second, load(10.0, 1.0));
        assert_eq!((decision.wanted, &decision.verdicts[0].answer), (8, &Answer::Replicas(7)), "at {second} s");
    }
    let mut alone = Memory::default();
    let Single::Hpa(queue) = policy.members[0].rule.clone() else { unreachable!() };
    let fresh = AnyPolicy::Hpa(queue).evaluate(&mut alone, &seen(300, 8, (1, 20), load(10.0, 1.0)));
    assert_eq!(fresh.wanted, 7);
    let decision = pool.look(300, load(10.0, 1.0));
    assert_eq!(decision.verdicts[0].answer, Answer::Replicas(7));
}

#[test]
fn a_member_with_a_period_is_asked_when_it_is_over() {
    let mut policy = policy();
    policy.members.push(Member { name: "rate".into(), rule: Single::Rate(Rate::default()) });
    let Cadence::OnEvents { up, timer, .. } = policy.cadence() else { panic!() };
    assert_eq!((up.0, timer), (10_000, secs(15)));
    let mut pool = Pool::new(&policy, (1, 20), 4);
    let more = |queue, arrivals| {
        let mut signals = load(queue, 1.0);
        signals.extend([signal("ready", 0.0), signal("arrivals_per_s", arrivals), signal("service_s_mean", 0.7)]);
        signals
    };
    assert_eq!(pool.look(0, more(40.0, 1.0)).wanted, 4);
    // The HPA looks again at 15 s; the rate grows the pool at once.
    assert_eq!(pool.look(1, more(90.0, 5.0)).wanted, 5);
    assert_eq!(pool.look(14, more(90.0, 5.0)).wanted, 5);
    assert_eq!(pool.look(15, more(90.0, 5.0)).wanted, 9);
}
