//! `keda`: activation, cooldowns, idle count, fallback and pause.

use ergate_events::scaling::Cadence;
use ergate_events::scaling::decision::{LimitKind, Reason};
use ergate_events::scaling::hpa::Target;
use ergate_events::scaling::keda::{Fallback, FallbackBehavior, Keda, Pause, Trigger};

use crate::support::{Pool, at, broken, real, secs, signal};

fn policy() -> Keda {
    let text = r#"{"triggers": [{"signal": "lag", "target": {"average_value_milli": 10000}}]}"#;
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_trigger_is_active_above_its_activation_not_at_it() {
    let mut policy = policy();
    policy.triggers[0].activation = real(5.0);
    let mut pool = Pool::new(&policy, (0, 20), 0);
    assert_eq!(pool.look(0, vec![signal("lag", 5.0)]).wanted, 0);
    let decision = pool.look(30, vec![signal("lag", 5.1)]);
    assert_eq!((decision.wanted, decision.reason, decision.winner), (1, Reason::Woken, Some(0)));
    // Between polls it looks at nothing of its own: had it been quiet for a second, nobody would know.
    assert_eq!(pool.look(45, vec![signal("lag", 60.0)]).wanted, 4);
}

#[test]
fn it_polls_every_thirty_seconds_unless_it_follows_events() {
    let mut policy = policy();
    assert_eq!(Pool::new(&policy, (0, 20), 0).policy.triggers.len(), 1);
    let mut pool = Pool::new(&policy, (0, 20), 0);
    pool.look(0, vec![signal("lag", 0.0)]);
    assert_eq!(pool.look(29, vec![signal("lag", 99.0)]).wanted, 0);
    assert_eq!(pool.look(30, vec![signal("lag", 99.0)]).wanted, 1);
    policy.follows_events = true;
    let mut pool = Pool::new(&policy, (0, 20), 0);
    pool.look(0, vec![signal("lag", 0.0)]);
    assert_eq!(pool.look(1, vec![signal("lag", 99.0)]).wanted, 1);
    assert_eq!(pool.look(2, vec![signal("lag", 99.0)]).wanted, 4);
    // Each further step is the HPA's, every 15 s, however much happens.
    assert_eq!(pool.look(3, vec![signal("lag", 99.0)]).wanted, 4);
    assert_eq!(pool.look(17, vec![signal("lag", 99.0)]).wanted, 8);
    assert!(matches!(ergate_events::scaling::Policy::cadence(&policy), Cadence::OnEvents { timer, .. } if timer == secs(15)));
}

#[test]
fn it_sleeps_in_one_step_when_the_cooldown_is_over() {
    let mut policy = policy();
    policy.follows_events = true;
    let mut pool = Pool::new(&policy, (0, 20), 9);
    pool.look(0, vec![signal("lag", 90.0)]);
    let decision = pool.look(100, vec![signal("lag", 0.0)]);
    assert_eq!((decision.wanted, decision.reason), (9, Reason::CoolingDown));
    // The moment after the one at which it is exactly 300 s.
    assert_eq!(decision.look_again.map(|at| at.0), Some(at(300).0 + 1));
    assert_eq!(pool.look(300, vec![signal("lag", 0.0)]).wanted, 9);
    let decision = pool.look(301, vec![signal("lag", 0.0)]);
    assert_eq!((decision.wanted, decision.reason), (0, Reason::Idle));
}

#[test]
fn before_any_activity_the_initial_cooldown_counts_from_the_beginning() {
    let mut policy = policy();
    (policy.follows_events, policy.initial_cooldown) = (true, secs(60));
    let mut pool = Pool::new(&policy, (0, 20), 3);
    // Its HPA has work to do in between: nothing to do is one replica.
    assert_ne!(pool.look(0, vec![signal("lag", 0.0)]).wanted, 0);
    assert_ne!(pool.look(60, vec![signal("lag", 0.0)]).wanted, 0);
    assert_eq!(pool.look(61, vec![signal("lag", 0.0)]).wanted, 0);
}

#[test]
fn an_idle_count_is_kept_below_the_least() {
    let mut policy = policy();
    (policy.follows_events, policy.idle_replicas) = (true, Some(1));
    let mut pool = Pool::new(&policy, (3, 20), 3);
    pool.look(0, vec![signal("lag", 9.0)]);
    assert_eq!(pool.look(301, vec![signal("lag", 0.0)]).wanted, 1);
    // Its HPA leaves it there, below the least that the HPA knows.
    assert_eq!(pool.look(330, vec![signal("lag", 0.0)]).wanted, 1);
    let decision = pool.look(331, vec![signal("lag", 1.0)]);
    assert_eq!((decision.wanted, decision.reason), (3, Reason::Woken));
}

#[test]
fn a_fallback_counts_after_enough_failures_in_a_row() {
    let mut policy = policy();
    policy.follows_events = true;
    for (behavior, from, expected) in [
        (FallbackBehavior::Static, 4, 7),
        (FallbackBehavior::CurrentReplicas, 4, 4),
        (FallbackBehavior::CurrentReplicasIfHigher, 4, 7),
        (FallbackBehavior::CurrentReplicasIfHigher, 9, 9),
        (FallbackBehavior::CurrentReplicasIfLower, 4, 4),
    ] {
        policy.fallback = Some(Fallback { failures: 2, replicas: 7, behavior });
        let mut pool = Pool::new(&policy, (0, 20), from);
        for second in [0, 15] {
            let decision = pool.look(second, vec![broken("lag")]);
            assert_eq!((decision.wanted, decision.reason), (from, Reason::Unknown), "{behavior:?} at {second}");
        }
        let decision = pool.look(30, vec![broken("lag")]);
        assert_eq!((decision.wanted, decision.reason), (expected, Reason::Fallback), "{behavior:?}");
        // What is read again counts at once, and the failures are counted anew.
        assert_ne!(pool.look(45, vec![signal("lag", 75.0)]).reason, Reason::Fallback);
        assert_eq!(pool.look(60, vec![broken("lag")]).reason, Reason::Unknown);
    }
}

#[test]
fn a_fallback_for_a_target_in_all_is_for_the_ready_replicas() {
    let mut policy = policy();
    policy.follows_events = true;
    policy.triggers =
        vec![Trigger { name: None, signal: "lag".into(), target: Target::ValueMilli(10_000), activation: real(0.0) }];
    policy.fallback = Some(Fallback { failures: 0, replicas: 8, behavior: FallbackBehavior::Static });
    let mut pool = Pool::new(&policy, (0, 20), 4);
    assert_eq!(pool.look(0, vec![broken("lag")]).wanted, 8);
}

#[test]
fn nothing_sleeps_because_nothing_can_be_read() {
    let mut policy = policy();
    policy.follows_events = true;
    let mut pool = Pool::new(&policy, (0, 20), 4);
    pool.look(0, vec![signal("lag", 40.0)]);
    assert_eq!(pool.look(5_000, vec![broken("lag")]).wanted, 4);
    policy.force_activation = true;
    let mut pool = Pool::new(&policy, (0, 20), 0);
    assert_eq!(pool.look(0, vec![broken("lag")]).wanted, 1);
}

#[test]
fn a_pause_holds_what_it_says() {
    let mut policy = policy();
    policy.follows_events = true;
    let load = |lag| vec![signal("lag", lag)];
    for (pause, lag, expected) in [
        (Pause::Paused, 900.0, 4),
        (Pause::At(0), 900.0, 0),
        (Pause::At(50), 0.0, 20),
        (Pause::ScaleOut, 80.0, 4),
        (Pause::ScaleIn, 80.0, 8),
    ] {
        policy.pause = pause;
        let mut pool = Pool::new(&policy, (0, 20), 4);
        assert_eq!(pool.look(0, load(lag)).wanted, expected, "{pause:?}");
    }
    policy.pause = Pause::ScaleIn;
    let mut pool = Pool::new(&policy, (0, 20), 4);
    pool.look(0, load(40.0));
    let decision = pool.look(1_000, load(0.0));
    assert_eq!((decision.wanted, decision.limits.last().unwrap().kind), (4, LimitKind::Pause));
}

#[test]
fn activity_that_is_not_known_in_full_does_not_count_for_the_cooldown() {
    let mut policy = policy();
    policy.follows_events = true;
    policy.triggers.push(Trigger {
        name: None,
        signal: "age".into(),
        target: Target::AverageValueMilli(60_000),
        activation: real(0.0),
    });
    let mut pool = Pool::new(&policy, (0, 20), 2);
    pool.look(0, vec![signal("lag", 20.0), signal("age", 1.0)]);
    pool.look(200, vec![signal("lag", 20.0), broken("age")]);
    assert_eq!(pool.look(301, vec![signal("lag", 0.0), signal("age", 0.0)]).wanted, 0);
}
