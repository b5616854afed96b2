//! Answers and ends as blocks tell them, in every order in which blocks and reports may come.

use ergate_actors::submission::{AnswerRun, BatchAnswer, BatchEnd, EndFailure, SubmitError, TaskEnd};
use ergate_events::block::Hash;
use ergate_events::event::{Cause, Event, Timeout};
use ergate_events::id::{Ordinal, Position, ShardId, TaskId, TypeId};
use ergate_events::log::kafka::{Heading, Received};
use ergate_events::task::{Failure, Outcome};
use tokio::sync::oneshot;

use super::book::{Asked, Book, Ticket};
use super::source::tests::{REQUESTED, block};

const SHARD: u16 = 1;
const START: (u64, Hash) = (0, Hash::ZERO);

type Answer = oneshot::Receiver<Result<BatchAnswer, SubmitError>>;
type End = oneshot::Receiver<BatchEnd>;

fn open(book: &mut Book, requests: usize) -> (u64, Answer, End) {
    let (reply, answer) = oneshot::channel();
    let (done, end) = oneshot::channel();
    (book.open(requests, Asked { reply, done, room: None }), answer, end)
}

/// Sends every request of a batch and has it delivered at these offsets.
fn publish(book: &mut Book, batch: u64, offsets: &[u64]) {
    offsets.iter().for_each(|_| book.sent(SHARD));
    for (index, offset) in (0..).zip(offsets) {
        book.delivered(Ticket { batch, index }, SHARD, Some(*offset));
    }
}

const fn task(ordinal: u64) -> TaskId {
    TaskId { shard: ShardId(SHARD), ordinal: Ordinal(ordinal) }
}

const fn succeeded(task: u64) -> Event<'static> {
    Event::Succeeded { task: Ordinal(task), attempt: 1, outcome: Outcome::Succeeded, result: b"9" }
}

fn after(block: &Received) -> (u64, Hash) {
    (block.block.header.next_position().0, block.hash)
}

fn ends(mut end: End) -> Vec<(TaskId, TaskEnd)> {
    end.try_recv().expect("all have ended").into_ends().collect()
}

#[test]
fn a_batch_is_answered_when_the_last_of_its_records_is_and_ends_when_its_tasks_have() {
    let mut book = Book::new(2);
    let (batch, mut answer, mut end) = open(&mut book, 4);
    publish(&mut book, batch, &[10, 11, 12, 14]);
    let refused = Event::RequestRefused { reason: "type: no such type".into() };
    let duplicate =
        Event::Deduplicated { task_type: TypeId(0), key: "k", digest: ergate_events::event::Digest([0; 16]), of: Ordinal(2) };
    let first = block(START, 7, 13, &[(1, REQUESTED), (1, succeeded(7)), (1, refused), (1, duplicate)]);
    book.take(SHARD, &first).expect("it is the first");
    assert!(answer.try_recv().is_err(), "the last one is not there");
    // Somebody else's record lies in between, and a redrive takes an ordinal.
    let redriven = Event::Redriven { task: Ordinal(3), by: "", reason: "" };
    let second = block(after(&first), 8, 15, &[(2, REQUESTED), (2, redriven), (2, REQUESTED)]);
    book.take(SHARD, &second).expect("it follows");
    let answer = answer.try_recv().expect("it is answered").expect("it is taken");
    assert_eq!(answer.position, Position(4), "where the answer to the first one is");
    assert_eq!(
        answer.runs,
        [
            AnswerRun::Accepted { first: task(7), count: 1 },
            AnswerRun::Refused("type: no such type".into()),
            AnswerRun::Duplicate(task(2)),
            AnswerRun::Accepted { first: task(10), count: 1 },
        ]
    );
    assert!(end.try_recv().is_err());
    let failure = Failure { class: "io", message: "no disk", retryable: true, delay: None };
    let failed = Event::Failed { task: Ordinal(10), attempt: 1, failure };
    let dead = Event::DeadLettered { task: Ordinal(10), cause: Cause::AttemptsExhausted };
    book.take(SHARD, &block(after(&second), 11, 15, &[(3, succeeded(8)), (4, failed), (4, dead)])).expect("it follows");
    let ends = ends(end);
    let failure = EndFailure { cause: Cause::AttemptsExhausted, class: "io".to_owned(), message: "no disk".to_owned() };
    assert_eq!(
        ends.iter().map(|(task, end)| (*task, end.outcome)).collect::<Vec<_>>(),
        [(task(7), Outcome::Succeeded), (task(10), Outcome::Failed)]
    );
    assert_eq!((ends[0].1.result.as_ref(), ends[1].1.failure.as_deref()), (&b"9"[..], Some(&failure)));
    assert!(book.is_idle());
}

#[test]
fn an_answer_and_an_end_that_come_before_the_report_are_kept_for_it() {
    let mut book = Book::new(2);
    let (batch, mut answer, end) = open(&mut book, 2);
    book.sent(SHARD);
    book.sent(SHARD);
    let requests = [(1, REQUESTED), (1, REQUESTED), (1, REQUESTED), (1, REQUESTED)];
    let first = block(START, 0, 24, &requests);
    book.take(SHARD, &first).expect("it is the first");
    let second = block(after(&first), 4, 24, &[(2, succeeded(0)), (2, succeeded(1)), (2, succeeded(3))]);
    book.take(SHARD, &second).expect("it follows");
    book.delivered(Ticket { batch, index: 0 }, SHARD, Some(21));
    assert!(answer.try_recv().is_err());
    book.delivered(Ticket { batch, index: 1 }, SHARD, Some(22));
    let answer = answer.try_recv().expect("it is answered").expect("it is taken");
    assert_eq!(answer.runs, [AnswerRun::Accepted { first: task(1), count: 2 }]);
    // The second one ends after all of this.
    book.take(SHARD, &block(after(&second), 4, 24, &[(3, succeeded(2))])).expect("it follows");
    assert_eq!(ends(end).iter().map(|(task, _)| *task).collect::<Vec<_>>(), [task(1), task(2)]);
    assert!(book.is_idle());
    // Nothing is kept for a report that does not come.
    let (batch, mut answer, _end) = open(&mut book, 1);
    publish(&mut book, batch, &[23]);
    assert!(matches!(answer.try_recv(), Ok(Err(SubmitError::Unknown { .. }))), "it was answered when nobody was on the way");
}

#[test]
fn a_record_that_is_passed_over_has_no_answer() {
    let mut book = Book::new(2);
    let (batch, mut answer, _end) = open(&mut book, 1);
    publish(&mut book, batch, &[3]);
    let moved = block(START, 0, 6, &[(1, REQUESTED), (1, Event::SourceMoved { next: 5 }), (1, REQUESTED)]);
    book.take(SHARD, &moved).expect("it is the first");
    assert!(matches!(answer.try_recv(), Ok(Err(SubmitError::Unknown { .. }))));
    assert!(book.is_idle());
}

#[test]
fn a_block_that_comes_again_says_nothing_new_and_one_that_contradicts_is_an_error() {
    let mut book = Book::new(2);
    let (batch, mut answer, end) = open(&mut book, 1);
    publish(&mut book, batch, &[1]);
    let heading = Heading { position: Position(0), next: Position(1), source_next: 1 };
    book.skip(SHARD, &heading);
    let skipped = block(START, 0, 1, &[(1, REQUESTED)]);
    book.take(SHARD, &skipped).expect("it is there twice");
    assert!(answer.try_recv().is_err());
    let first = block((1, skipped.hash), 1, 2, &[(2, REQUESTED)]);
    book.take(SHARD, &first).expect("it follows");
    book.take(SHARD, &first).expect("it is there twice");
    let answer = answer.try_recv().expect("it is answered").expect("it is taken");
    assert_eq!(answer.runs, [AnswerRun::Accepted { first: task(1), count: 1 }]);
    book.take(SHARD, &block((5, first.hash), 3, 9, &[(3, succeeded(1))])).expect_err("blocks are missing");
    book.lose("there is a gap");
    assert!(book.is_idle());
    drop(end);
}

#[test]
fn whoever_watches_a_task_learns_its_end_with_the_limit_it_ran_into() {
    let mut book = Book::new(2);
    let (watch, mut end) = oneshot::channel();
    book.watch(task(4), watch);
    assert!(book.wants(SHARD) && !book.wants(0));
    let timed_out = Event::TimedOut { task: Ordinal(4), attempt: 1, timeout: Timeout::StartToClose };
    let ended = Event::Ended { task: Ordinal(4), outcome: Outcome::Failed, cause: Cause::AttemptsExhausted };
    book.take(SHARD, &block(START, 5, 0, &[(1, timed_out), (1, ended)])).expect("it is the first");
    let failure = end.try_recv().expect("it has ended").failure.expect("it failed");
    assert_eq!((failure.class.as_str(), failure.message.as_str()), ("timeout", Timeout::StartToClose.explanation()));
    assert!(book.is_idle());
}

#[test]
fn those_who_no_longer_listen_are_forgotten() {
    let mut book = Book::new(2);
    let (batch, mut answer, end) = open(&mut book, 1);
    publish(&mut book, batch, &[0]);
    book.take(SHARD, &block(START, 0, 1, &[(1, REQUESTED)])).expect("it is the first");
    assert!(answer.try_recv().is_ok());
    let (watch, watched) = oneshot::channel();
    book.watch(task(0), watch);
    drop((end, watched));
    assert!(!book.is_idle());
    book.prune();
    assert!(book.is_idle());
}

#[test]
fn a_batch_of_which_one_record_is_lost_is_unknown() {
    let mut book = Book::new(2);
    let (batch, mut answer, _end) = open(&mut book, 2);
    publish(&mut book, batch, &[0]);
    book.fail(batch, SubmitError::Unknown { reason: "no broker".to_owned() });
    assert_eq!(answer.try_recv(), Ok(Err(SubmitError::Unknown { reason: "no broker".to_owned() })));
    book.take(SHARD, &block(START, 0, 1, &[(1, REQUESTED)])).expect("its other record harms nobody");
    book.prune();
    assert!(book.is_idle());
    // A batch without requests needs no record.
    let (_, mut answer, end) = open(&mut book, 0);
    assert_eq!(answer.try_recv().expect("it is answered").expect("it is taken").runs, []);
    assert_eq!(ends(end), []);
}
