//! Who is asked for, and for how many attempts.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use ergate_events::id::{Epoch, Ordinal, TypeId};
use ergate_events::time::{Micros, Timestamp};
use ergate_events::worker::WorkerFacts;

use super::*;
use crate::effects::{Attempts, Given, Origin};

fn spec(number: u8, slots: u32) -> WorkerSpec {
    let facts = WorkerFacts { id: WorkerId([number; 16]), lease: Micros::from_secs(5), ..WorkerFacts::default() };
    WorkerSpec { facts: facts.into(), pool: "models".into(), slots }
}

/// A worker that has said what it runs.
fn join(hub: &Hub, number: u8, slots: u32) -> Arc<Session> {
    let session = hub.join(spec(number, slots)).unwrap();
    session.attach();
    session.attached();
    session
}

fn wait(hub: &Hub, session: &Arc<Session>, slots: u32) -> Waiting {
    match hub.wait(session, 1, slots).unwrap() {
        Asked::Waits(waiting) => waiting,
        Asked::Again(_) => panic!("it asked before"),
    }
}

/// Who is asked for where so many tasks are ready, with how many attempts, as one shard does it.
fn claim(hub: &Hub, ready: usize) -> Vec<(u8, u32)> {
    let claims = hub.claim(ShardId(0), "models", ready, |_| true);
    let told = claims.iter().map(|claim| (claim.session.id().0[0], claim.slots)).collect();
    claims.into_iter().for_each(|claim| {
        let (slots, session) = (claim.slots, Arc::clone(&claim.session));
        hub.settle(claim, slots);
        session.deliver(Delivery { attempts: attempts(slots), ..delivery() });
    });
    told
}

fn attempts(count: u32) -> Attempts {
    let mut attempts = Attempts::default();
    (0..count).for_each(|number| attempts.add(given(number)));
    attempts
}

fn given(number: u32) -> Given<'static> {
    let task = Ordinal(number.into());
    Given {
        task,
        number: 1,
        task_type: TypeId(0),
        deadline: Timestamp::NEVER,
        heartbeat: None,
        origin: Origin { shard: ShardId(0), task, epoch: Epoch(1) },
        payload: b"null",
        checkpoint: None,
        trace_parent: None,
    }
}

fn delivery() -> Delivery {
    Delivery { shard: ShardId(0), epoch: Epoch(1), types: Arc::from([]), attempts: Attempts::default() }
}

#[test]
fn the_longest_waiting_is_asked_first_and_a_burst_is_spread() {
    let hub = Hub::default();
    let sessions: Vec<_> = (0..3).map(|number| join(&hub, number, 8)).collect();
    let _waits: Vec<_> = sessions.iter().map(|session| wait(&hub, session, 8)).collect();
    assert_eq!(claim(&hub, 1), [(0, 1)]);
    // It waits for seven more, behind the others now.
    assert_eq!(claim(&hub, 2), [(1, 2), (2, 2)]);
    assert_eq!(claim(&hub, 100), [(0, 7), (1, 6), (2, 6)]);
    assert!(claim(&hub, 100).is_empty() && !hub.is_anybody_waiting());
}

#[test]
fn what_one_shard_was_promised_no_other_is_until_it_is_given_back() {
    let hub = Hub::default();
    let session = join(&hub, 0, 2);
    let _waiting = wait(&hub, &session, 2);
    let mut first = hub.claim(ShardId(0), "models", 5, |_| true);
    assert_eq!(first[0].slots, 2);
    assert!(hub.claim(ShardId(0), "models", 5, |_| true).is_empty(), "another shard asks meanwhile");
    hub.settle(first.remove(0), 1);
    assert_eq!(claim(&hub, 5), [(0, 1)]);
}

#[test]
fn a_claim_of_an_old_wait_gives_nothing_to_a_new_one() {
    let hub = Hub::default();
    let session = join(&hub, 0, 4);
    let old = wait(&hub, &session, 4);
    let mut claims = hub.claim(ShardId(0), "models", 4, |_| true);
    drop(old);
    let _new = wait(&hub, &session, 1);
    hub.settle(claims.remove(0), 0);
    assert_eq!(claim(&hub, 9), [(0, 1)]);
}

#[test]
fn who_waits_no_longer_is_passed_over_and_so_is_who_cannot_run_it() {
    let hub = Hub::default();
    let (gone, other) = (join(&hub, 0, 1), join(&hub, 1, 1));
    drop(wait(&hub, &gone, 1));
    let _waiting = wait(&hub, &other, 1);
    assert!(hub.claim(ShardId(0), "models", 1, |_| false).is_empty());
    assert_eq!(claim(&hub, 1), [(1, 1)]);
    let _again = wait(&hub, &gone, 1);
    hub.forget(gone.id());
    assert!(!hub.is_anybody_waiting() && hub.session(gone.id()).is_none());
}

#[test]
fn who_drains_is_asked_for_nothing_and_told_so() {
    let hub = Hub::default();
    let session = join(&hub, 0, 1);
    let waiting = wait(&hub, &session, 1);
    session.drain();
    assert!(claim(&hub, 1).is_empty());
    assert!(waiting.end(1).unwrap().is_draining);
}

#[test]
fn who_drains_is_told_so_once_nothing_is_on_its_way_any_more() {
    let hub = Hub::default();
    let session = join(&hub, 0, 2);
    let ask = |seq| match hub.wait(&session, seq, 0) {
        Ok(Asked::Waits(waiting)) => waiting,
        _ => panic!("it may ask"),
    };
    let waiting = wait(&hub, &session, 2);
    let mut claims = hub.claim(ShardId(0), "models", 2, |_| true);
    assert_eq!(claims[0].slots, 2);
    session.drain();
    // Two are promised: one is given, and comes.
    assert!(session.answer(waiting.wait, 1, false).unwrap().is_none(), "it waits for them");
    assert!(!waiting.end(1).unwrap().is_draining);
    hub.settle(claims.remove(0), 1);
    assert!(!ask(2).end(2).unwrap().is_draining);
    session.deliver(Delivery { attempts: attempts(1), ..delivery() });
    let last = ask(3).end(3).unwrap();
    assert_eq!((last.deliveries.len(), last.is_draining), (1, true));
    assert!(!hub.is_anybody_waiting());
}

#[test]
fn an_answer_is_kept_until_the_next_question() {
    let hub = Hub::default();
    let session = join(&hub, 0, 1);
    let waiting = wait(&hub, &session, 1);
    session.deliver(delivery());
    let answer = waiting.end(1).unwrap();
    assert_eq!(answer.deliveries.len(), 1);
    assert!(matches!(hub.wait(&session, 1, 1), Ok(Asked::Again(again)) if Arc::ptr_eq(&again, &answer)));
    assert!(matches!(hub.wait(&session, 2, 1), Ok(Asked::Waits(_))));
    assert!(matches!(hub.wait(&session, 1, 1), Err(AskError::OutOfOrder { .. })), "the worker has said that it has it");
    // What comes while it says what it runs goes back to the queue.
    session.attach();
    session.deliver(delivery());
    assert!(matches!(hub.wait(&session, 1, 1), Err(AskError::Unattached)));
    session.attached();
    assert!(wait(&hub, &session, 1).end(1).unwrap().deliveries.is_empty());
}

#[test]
fn a_question_out_of_order_makes_whoever_has_the_id_say_what_it_runs() {
    let hub = Hub::default();
    let session = join(&hub, 0, 1);
    let waiting = wait(&hub, &session, 1);
    assert!(matches!(hub.wait(&session, 3, 1), Err(AskError::OutOfOrder { seq: 3, expected: 1 })));
    assert!(matches!(waiting.end(1), Err(AskError::Unattached)));
    assert!(matches!(hub.wait(&session, 1, 1), Err(AskError::Unattached)));
    session.attach();
    session.attached();
    assert!(matches!(hub.wait(&session, 1, 1), Ok(Asked::Waits(_))));
}

#[test]
fn a_question_that_was_repeated_and_comes_late_is_no_second_process() {
    let hub = Hub::default();
    let session = join(&hub, 0, 1);
    session.repeats(1);
    wait(&hub, &session, 1).end(1).unwrap();
    let next = hub.wait(&session, 2, 1).unwrap();
    assert!(matches!(hub.wait(&session, 1, 1), Err(AskError::OutOfOrder { seq: 1, expected: 2 })));
    assert!(session.is_attached() && hub.is_anybody_waiting());
    drop(next);
    // Of other processes nobody has said anything.
    assert!(matches!(hub.wait(&session, 4, 1), Err(AskError::OutOfOrder { .. })));
    assert!(!session.is_attached());
    // And whoever registers counts from the beginning.
    session.attach();
    session.attached();
    wait(&hub, &session, 1).end(1).unwrap();
    assert!(matches!(hub.wait(&session, 2, 1), Ok(Asked::Waits(_))));
    assert!(matches!(hub.wait(&session, 1, 1), Err(AskError::OutOfOrder { .. })));
    assert!(!session.is_attached());
}

#[test]
fn an_order_is_told_until_its_attempt_is_over() {
    let hub = Hub::default();
    let session = join(&hub, 0, 1);
    let order = Order { shard: ShardId(0), task: Ordinal(7), attempt: 1, is_hard: true };
    session.order(order);
    assert_eq!((session.orders(), session.orders()), (vec![order], vec![order]));
    session.end_attempt(ShardId(0), Ordinal(7), 1);
    assert!(session.orders().is_empty());
}

#[test]
fn the_same_worker_is_found_again_and_another_one_under_its_name_is_refused() {
    let hub = Hub::default();
    let session = join(&hub, 0, 1);
    assert!(Arc::ptr_eq(&hub.join(spec(0, 1)).unwrap(), &session));
    assert!(matches!(hub.join(spec(0, 2)), Err(JoinError::Different)));
}

#[test]
fn those_who_went_without_a_word_make_room() {
    let hub = Hub::default();
    let sessions: Vec<_> = (0..100).map(|number| join(&hub, number, 1)).collect();
    let _waits: Vec<_> = sessions.iter().map(|session| wait(&hub, session, 1)).collect();
    std::thread::sleep(Duration::from_secs(2));
    sessions[7].touch();
    hub.forget_silent(&mut lock(&hub.sessions), Duration::from_secs(2));
    assert_eq!(hub.sessions().iter().map(|session| session.id().0[0]).collect::<Vec<_>>(), [7]);
    assert_eq!(claim(&hub, 100), [(7, 1)]);
}

#[test]
fn the_engines_are_told_once_and_whenever_they_change() {
    let hub = Hub::default();
    let known = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>();
    let session = join(&hub, 0, 1);
    assert!(wait(&hub, &session, 1).end(1).unwrap().engines.is_none(), "there is only this one");
    hub.set_engines(known(&["a", "b"]));
    let Ok(Asked::Waits(waiting)) = hub.wait(&session, 2, 1) else { panic!("it is a new question") };
    // Nothing else is there for it, and yet it need not wait.
    let told = waiting.session.answer(waiting.wait, 2, false).unwrap().unwrap();
    assert_eq!(told.engines.as_deref(), Some(&known(&["a", "b"])[..]));
    hub.set_engines(known(&["a", "b"]));
    let Ok(Asked::Waits(waiting)) = hub.wait(&session, 3, 1) else { panic!("it is a new question") };
    assert!(waiting.session.answer(waiting.wait, 3, false).unwrap().is_none(), "it knows them");
    hub.set_engines(known(&["a"]));
    // The answer to a registration has them.
    session.attach();
    session.attached();
    assert!(wait(&hub, &session, 1).end(1).unwrap().engines.is_none());
}

#[test]
fn what_was_on_its_way_goes_nowhere_once_its_shard_is_led_elsewhere() {
    let hub = Hub::default();
    let session = join(&hub, 0, 4);
    let waiting = wait(&hub, &session, 4);
    let of = |shard: u16| Delivery { shard: ShardId(shard), ..delivery() };
    session.deliver(of(0));
    session.deliver(of(1));
    assert_eq!(waiting.end(1).unwrap().deliveries.len(), 2);
    session.deliver(of(0));
    session.deliver(of(1));
    session.order(Order { shard: ShardId(0), task: Ordinal(7), attempt: 1, is_hard: true });
    hub.remove_shard(ShardId(0));
    assert!(session.orders().is_empty());
    let shards = |answer: &Leased| answer.deliveries.iter().map(|one| one.shard.0).collect::<Vec<_>>();
    // Neither an answer that is asked for again has it, nor the next one.
    let Ok(Asked::Again(again)) = hub.wait(&session, 1, 4) else { panic!("it asked before") };
    assert_eq!(shards(&again), [1]);
    let Ok(Asked::Waits(next)) = hub.wait(&session, 2, 4) else { panic!("it is a new question") };
    assert_eq!(shards(&next.end(2).unwrap()), [1]);
}

#[test]
fn who_has_to_say_what_it_runs_is_asked_for_nothing() {
    let hub = Hub::default();
    let session = join(&hub, 0, 4);
    let _waiting = wait(&hub, &session, 4);
    session.detach();
    assert!(claim(&hub, 4).is_empty() && !hub.is_anybody_waiting());
}

#[test]
fn what_was_promised_and_is_not_durable_yet_counts_when_it_asks_again() {
    let hub = Hub::default();
    let session = join(&hub, 0, 8);
    let waiting = wait(&hub, &session, 8);
    let mut claims = hub.claim(ShardId(0), "models", 2, |_| true);
    hub.settle(claims.remove(0), 2);
    let mut claims = hub.claim(ShardId(1), "models", 3, |_| true);
    hub.settle(claims.remove(0), 3);
    session.deliver(Delivery { attempts: attempts(2), ..delivery() });
    assert_eq!(waiting.end(1).unwrap().deliveries.len(), 1);
    // Six are free as far as the worker knows, and three of them are promised.
    let Ok(Asked::Waits(_waiting)) = hub.wait(&session, 2, 6) else { panic!("it is a new question") };
    let mut claims = hub.claim(ShardId(0), "models", 100, |_| true);
    assert_eq!(claims[0].slots, 3);
    hub.settle(claims.remove(0), 0);
    // A shard that went away keeps no promise.
    let Ok(Asked::Waits(_waiting)) = hub.wait(&session, 2, 3) else { panic!("it has no answer yet") };
    assert!(hub.claim(ShardId(0), "models", 100, |_| true).is_empty());
    hub.remove_shard(ShardId(1));
    assert_eq!(hub.claim(ShardId(2), "models", 100, |_| true)[0].slots, 3);
}
