//! Idempotency keys: the same key again within its window is the same task.

mod common;

use common::{Story, keyed, plain};
use ergate_events::command::{Command, Rejection};
use ergate_events::id::{Ordinal, TypeId};
use ergate_events::task::{IdempotencyKey, TypeSettings};
use ergate_events::time::Micros;

fn windowed<'a>(key: &'a str, window: Micros) -> Command<'a> {
    let key = Some(IdempotencyKey { key, window: Some(window) });
    Command::Request { task_type: TypeId(0), payload: b"x", key, asks: &[] }
}

#[test]
fn the_same_key_with_the_same_payload_is_the_same_task_even_after_its_end() {
    let mut story = Story::running(&plain(), 1);
    story.tell(&keyed(0, "order-1", b"x")).expect("the key is new");
    let again = story.tell(&keyed(0, "order-1", b"x")).expect("a repetition is fine");
    assert_eq!((again.task, again.duplicate), (Some(Ordinal(0)), true));
    story.succeed(0, 1).expect("it runs");
    let again = story.tell(&keyed(0, "order-1", b"x")).expect("a repetition is fine");
    assert_eq!((again.task, again.duplicate), (Some(Ordinal(0)), true));
    story.expect(&["requested type-0", "started 0.1 r0", "duplicate of 0", "succeeded 0.1", "duplicate of 0"]);
}

#[test]
fn the_same_key_twice_in_one_batch_is_one_task() {
    let mut story = Story::with(&plain());
    let answers = story.tell_all(&[keyed(0, "k", b"x"), keyed(0, "k", b"x"), keyed(0, "k", b"y")]);
    assert_eq!(answers[1].map(|accepted| (accepted.task, accepted.duplicate)), Ok((Some(Ordinal(0)), true)));
    assert_eq!(answers[2], Err(Rejection::KeyConflict { of: Ordinal(0) }));
    story.expect(&["requested type-0", "duplicate of 0"]);
}

#[test]
fn the_same_key_with_another_payload_is_a_conflict() {
    let mut story = Story::with(&plain());
    story.tell(&keyed(0, "k", b"x")).expect("the key is new");
    story.refuses(&keyed(0, "k", b"y"), Rejection::KeyConflict { of: Ordinal(0) });
    story.refuses(&keyed(0, "k", b""), Rejection::KeyConflict { of: Ordinal(0) });
}

#[test]
fn after_the_window_the_key_is_new_again() {
    let settings = TypeSettings { key_window: Micros::from_secs(10), ..plain() };
    let mut story = Story::with(&settings);
    story.tell(&keyed(0, "k", b"x")).expect("the key is new");
    story.pass(9_999);
    story.tell(&keyed(0, "k", b"x")).expect("a repetition is fine");
    story.pass(1);
    story.tell(&keyed(0, "k", b"y")).expect("the window is over");
    story.tell(&keyed(0, "k", b"y")).expect("a repetition of the second");
    story.expect(&["requested type-0", "duplicate of 0", "requested type-0", "duplicate of 1"]);
}

#[test]
fn a_request_may_name_its_own_window_and_one_of_zero_remembers_nothing() {
    let mut story = Story::with(&plain());
    story.tell(&windowed("a", Micros::from_secs(1))).expect("the key is new");
    story.tell(&windowed("b", Micros(0))).expect("the key is new");
    story.tell(&windowed("b", Micros(0))).expect("it was not remembered");
    story.tell(&windowed("c", Micros(u64::MAX))).expect("the key is new");
    story.pass(1_000);
    story.tell(&windowed("a", Micros::from_secs(1))).expect("the window is over");
    story.pass(10_000_000_000);
    story.tell(&windowed("c", Micros(1))).expect("a repetition is fine");
    let expected = ["requested type-0"; 5].into_iter().chain(["duplicate of 3"]).collect::<Vec<_>>();
    story.expect(&expected);
}

#[test]
fn the_same_key_of_another_type_is_other_work_and_a_redefined_type_keeps_its_keys() {
    let mut story = Story::with(&plain());
    story.define("other", &plain());
    story.tell(&keyed(0, "k", b"x")).expect("the key is new");
    story.tell(&keyed(1, "k", b"x")).expect("the key is new for this type");
    story.define("job", &TypeSettings { priority: 9, ..plain() });
    story.news();
    let again = story.tell(&keyed(2, "k", b"x")).expect("a repetition is fine");
    assert_eq!(again.task, Some(Ordinal(0)));
    story.expect(&["duplicate of 0"]);
}

#[test]
fn a_type_and_a_key_that_together_read_like_another_pair_are_not_that_pair() {
    let mut story = Story::with(&plain());
    story.define("job2", &plain());
    for (key, other) in [("2k", "k"), ("2\0j", "j")] {
        story.tell(&keyed(0, key, b"x")).expect("the key is new");
        let other = story.tell(&keyed(1, other, b"y")).expect("the key is new for this type");
        assert!(!other.duplicate);
    }
}

#[test]
fn expired_keys_are_cleared_away_as_new_ones_come() {
    let mut story = Story::with(&plain());
    let names: Vec<String> = (0..400).map(|index| format!("key {index}")).collect();
    for name in &names[..200] {
        story.tell(&windowed(name, Micros::from_secs(1))).expect("the key is new");
    }
    story.pass(2_000);
    for name in &names[200..] {
        story.tell(&windowed(name, Micros::from_secs(1))).expect("the key is new");
    }
    assert_eq!(story.shard.state().work.keys.len(), 200);
}
