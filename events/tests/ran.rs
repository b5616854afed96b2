//! Where attempts ran: recorded of those that count, right before their outcome, and changing nothing.

mod common;

use common::{Story, failure, plain, ran, ran_on, request, stale, success};
use ergate_events::command::{Command, Rejection};
use ergate_events::event::Envelope;
use ergate_events::id::{Ordinal, ReplicaId};
use ergate_events::ran::Ran;
use ergate_events::resources::RESOURCE_MAX;
use ergate_events::shard::BLOCK_BYTES_TARGET;
use ergate_events::state::State;

#[test]
fn where_an_attempt_ran_stands_right_before_how_it_ended_and_changes_nothing() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.news();
    let seen = |story: &Story| {
        let state = story.shard.state();
        (format!("{:?}", state.work.tasks.get(Ordinal(0))), story.used(0), state.next_due())
    };
    let before = seen(&story);
    story.tell(&ran_on(0, 1, &ran())).expect("it runs");
    assert_eq!(seen(&story), before);
    story.expect(&["ran 0.1 GPU-5c1ce4f1 32"]);
    let answers = story.tell_all(&[ran_on(0, 1, &Ran { batch_size: 1, ..ran() }), failure(0, 1)]);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    story.expect(&["ran 0.1 GPU-5c1ce4f1 1", "failed 0.1 boom", "retry 0 in 100ms"]);
    story.pass(100);
    story.news();
    story.tell_all(&[ran_on(0, 2, &ran()), success(0, 2)]);
    story.expect(&["ran 0.2 GPU-5c1ce4f1 32", "succeeded 0.2"]);
}

#[test]
fn an_attempt_that_does_not_count_ran_nowhere_and_still_gives_its_slot_back() {
    let mut story = Story::running(&plain(), 2);
    story.refuses(&ran_on(0, 1, &ran()), Rejection::UnknownTask(Ordinal(0)));
    story.request(&[]);
    for attempt in [0, 2] {
        story.refuses(&ran_on(0, attempt, &ran()), stale(0, attempt));
    }
    story.fail(0, 1).expect("it runs");
    story.refuses(&ran_on(0, 1, &ran()), stale(0, 1));
    story.pass(100);
    story.refuses(&ran_on(0, 1, &ran()), stale(0, 1));
    // A killed task is over, and its attempt holds the slot until it reports.
    story.kill(0).expect("it runs");
    assert_eq!(story.used(0), 1);
    story.news();
    let answers = story.tell_all(&[ran_on(0, 2, &ran()), success(0, 2)]);
    assert_eq!(answers[0], Err(stale(0, 2)));
    assert!(answers[1].is_ok_and(|accepted| accepted.released), "{answers:?}");
    story.expect(&["released 0.2 r0"]);
    assert_eq!(story.used(0), 0);
}

#[test]
fn a_cancelled_attempt_that_cleans_up_still_counts() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.cancel(0).expect("it runs");
    story.tell(&ran_on(0, 1, &ran())).expect("it has its grace");
}

#[test]
fn what_is_over_a_limit_is_refused_by_name() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    let device = |device: &str| Ran { device: device.to_owned(), ..ran() };
    let (what, rule) = ("the device that the attempt ran on", "1 to 64 bytes without control characters");
    for wrong in [device(""), device(&"x".repeat(65)), device("GPU\u{7f}")] {
        story.refuses(&ran_on(0, 1, &wrong), Rejection::OutOfRange { what, rule });
    }
    let rule = "at least 1";
    let what = "the size of the batch that the attempt ran in";
    story.refuses(&ran_on(0, 1, &Ran { batch_size: 0, ..ran() }), Rejection::OutOfRange { what, rule });
    let (what, rule) = ("the memory that the attempt's batch had", "at most 2^50 bytes");
    story.refuses(&ran_on(0, 1, &Ran { memory_bytes: RESOURCE_MAX + 1, ..ran() }), Rejection::OutOfRange { what, rule });
    story.tell(&ran_on(0, 1, &Ran { memory_bytes: RESOURCE_MAX, ..device(&"x".repeat(64)) })).expect("it may be as much");
}

/// A block that was full ended the batch between the two, so the outcome had another time than what belongs to it.
#[test]
fn a_full_block_does_not_part_where_an_attempt_ran_from_how_it_ended() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    let room = BLOCK_BYTES_TARGET - story.shard.open_block().body_len();
    let (payload, ran) = (vec![b'x'; room - 20], ran());
    let commands = [request(&payload, &[]), ran_on(0, 1, &ran), success(0, 1), request(b"{}", &[])];
    let mut answers = Vec::new();
    let taken = story.shard.batch(story.now, &commands, &mut answers, &mut |_: &Envelope<'_>, _: &State| {});
    assert_eq!(taken, 3, "the block is full after where the attempt ran");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let last = story.log().last().map(|block| {
        let at = |name: &str| {
            let mut records = block.records().map(|record| record.expect("it was just sealed"));
            records.find(|envelope| envelope.event.name() == name).map(|envelope| (envelope.position.0, envelope.recorded_at))
        };
        (at("attempt_ran"), at("succeeded"))
    });
    let Some((Some((ran, ran_at)), Some((ended, ended_at)))) = last else { panic!("{last:?}") };
    assert_eq!((ran + 1, ran_at), (ended, ended_at));
}

#[test]
fn a_worker_says_where_what_it_gives_back_ran() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.news();
    let answers = story.tell_all(&[ran_on(0, 1, &ran()), Command::ReturnAttempt { task: Ordinal(0), attempt: 1 }]);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let news = story.news();
    assert!(news[0].starts_with("ran 0.1 ") && news[1].starts_with("returned 0.1"), "{news:?}");
    assert!(story.shard.state().work.replicas.get(ReplicaId(0)).is_some(), "it is there");
}
