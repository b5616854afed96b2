//! The audit bites: whatever is forged in a log, by whoever can also compute checksums and hashes, is found and named.

mod common;

use common::{Story, audit, everything, plain, request};
use ergate_events::audit::{Audit, Depth, Finding};
use ergate_events::block::{Block, BlockError, Hash, OpenBlock};
use ergate_events::command::{Command, Rejection};
use ergate_events::decide::DEAD_LETTERS_MAX;
use ergate_events::event::{Cause, Departure, Event, Origin, RuleVersions, Timeout};
use ergate_events::id::{Epoch, LimitId, Ordinal, PoolId, Position, ReplicaId, ShardId};
use ergate_events::ran::Ran;
use ergate_events::state::State;
use ergate_events::task::{Failure, Outcome, RetryPolicy, TypeSettings};
use ergate_events::time::{Micros, Timestamp};

type Records<'a> = Vec<Vec<(Timestamp, Event<'a>)>>;

fn records(log: &[Block]) -> Records<'_> {
    log.iter()
        .map(|block| {
            block.records().map(|envelope| envelope.expect("it was just sealed")).map(|e| (e.recorded_at, e.event)).collect()
        })
        .collect()
}

/// Seals the records again: every checksum, hash, position and ordinal fits.
fn reseal(records: &Records<'_>) -> Vec<Block> {
    let (mut head, mut epoch, mut position, mut ordinal) = (Hash::ZERO, Epoch(0), Position(0), Ordinal(0));
    let mut blocks = Vec::new();
    for block in records.iter().filter(|block| !block.is_empty()) {
        let mut open = OpenBlock::new(ShardId(0), epoch, position, ordinal);
        for (at, event) in block {
            if let Event::Opened { epoch: opened, .. } = event {
                epoch = *opened;
                open.epoch = epoch;
            }
            open.push(*at, event);
        }
        let sealed = open.seal(head);
        (head, position, ordinal) = (sealed.hash, sealed.header.next_position(), sealed.next_ordinal);
        blocks.push(Block::parse(&sealed.bytes).expect("it was just sealed"));
    }
    blocks
}

/// The same event with one field after another changed.
fn variations<'a>(event: &Event<'a>) -> Vec<Event<'a>> {
    let other = |task: Ordinal| Ordinal(task.0 + 1);
    let replica_after = |replica: ReplicaId| ReplicaId(replica.0 + 1);
    #[expect(clippy::wildcard_enum_match_arm, reason = "inputs are given; a test counts the derived kinds")]
    match *event {
        Event::Started { task, attempt, replica } => vec![
            Event::Started { task: other(task), attempt, replica },
            Event::Started { task, attempt: attempt + 1, replica },
            Event::Started { task, attempt, replica: replica_after(replica) },
        ],
        Event::Ready { task } => vec![Event::Ready { task: other(task) }],
        Event::TimedOut { task, attempt, timeout } => {
            let swapped = if timeout == Timeout::Heartbeat { Timeout::StartToClose } else { Timeout::Heartbeat };
            vec![
                Event::TimedOut { task: other(task), attempt, timeout },
                Event::TimedOut { task, attempt: attempt + 1, timeout },
                Event::TimedOut { task, attempt, timeout: swapped },
            ]
        }
        Event::RetryScheduled { task, due } => {
            vec![Event::RetryScheduled { task: other(task), due }, Event::RetryScheduled { task, due: due.after(Micros(1)) }]
        }
        Event::Lost { task, attempt, departure } => {
            let swapped = if departure == Departure::Lost { Departure::Drained } else { Departure::Lost };
            vec![
                Event::Lost { task: other(task), attempt, departure },
                Event::Lost { task, attempt: attempt + 1, departure },
                Event::Lost { task, attempt, departure: swapped },
            ]
        }
        Event::Ended { task, outcome, cause } => vec![
            Event::Ended { task: other(task), outcome, cause },
            Event::Ended { task, outcome: Outcome::Skipped, cause },
            Event::Ended { task, outcome, cause: Cause::LossesExhausted },
        ],
        Event::DeadLettered { task, cause } => {
            vec![Event::DeadLettered { task: other(task), cause }, Event::DeadLettered { task, cause: Cause::Killed }]
        }
        Event::DeadLetterDropped { task } => vec![Event::DeadLetterDropped { task: other(task) }],
        Event::ReplicaRequested { replica, pool } => vec![
            Event::ReplicaRequested { replica: replica_after(replica), pool },
            Event::ReplicaRequested { replica, pool: PoolId(pool.0 + 1) },
        ],
        Event::DrainRequested { replica } => vec![Event::DrainRequested { replica: replica_after(replica) }],
        Event::Limited { task, limit } => {
            vec![Event::Limited { task: other(task), limit }, Event::Limited { task, limit: LimitId(limit.0 + 1) }]
        }
        Event::Admitted { task } => vec![Event::Admitted { task: other(task) }],
        Event::DependencyMet { task, dependency, left } => vec![
            Event::DependencyMet { task: other(task), dependency, left },
            Event::DependencyMet { task, dependency: other(dependency), left },
            Event::DependencyMet { task, dependency, left: left + 1 },
        ],
        _ => Vec::new(),
    }
}

fn position_of(records: &Records<'_>, block: usize, index: usize) -> Position {
    Position((records[..block].iter().map(Vec::len).sum::<usize>() + index) as u64)
}

/// Expects the audit to find something exactly here, with both sides in words.
#[track_caller]
fn expect_found(forged: &Records<'_>, at: Position, recorded: Option<&Event<'_>>, expected: Option<&Event<'_>>, what: &str) {
    let show = |event: &Event<'_>| format!("{event:?}").chars().take(300).collect::<String>();
    match audit(&reseal(forged)).map(|_| ()) {
        Err(Finding::Decision { at: found, recorded: left, expected: right, rules }) => {
            assert_eq!((found, rules), (at, RuleVersions::CURRENT), "{what}: {left} / {right}");
            recorded.inspect(|event| assert_eq!(left, show(event), "{what}"));
            expected.inspect(|event| assert_eq!(right, show(event), "{what}"));
        }
        other => panic!("{what} at {at}: {other:?}"),
    }
}

#[test]
fn the_log_of_these_tests_has_every_kind_of_event() {
    let log = everything();
    let text: Vec<String> = records(&log).into_iter().flatten().map(|(_, event)| format!("{event:?}")).collect();
    for kind in [
        "Opened",
        "TypeDefined",
        "Requested",
        "Deduplicated",
        "Succeeded",
        "Failed",
        "SlotReleased",
        "Checkpointed",
        "HeartbeatMissed",
        "CancelRequested",
        "KillRequested",
        "Redriven",
        "ReplicaJoined",
        "ReplicaDraining",
        "ReplicaLeft",
        "PoolDefined",
        "ReplicaReady",
        "ReplicaStopped",
        "ClockStepped",
        "LossAccepted",
        "Started",
        "Ready",
        "TimedOut",
        "RetryScheduled",
        "Lost",
        "Ended",
        "DeadLettered",
        "ReplicaRequested",
        "DrainRequested",
        "LimitDefined",
        "TypeLimited",
        "Progressed",
        "Limited",
        "Admitted",
        "ScheduleDefined",
        "ScheduleRemoved",
        "SchedulePaused",
        "ScheduleResumed",
        "Fired",
        "Triggered",
        "SlotsPassed",
        "PoolModeSet",
        "DependencyMet",
        "TypesServed",
        "WorkerJoined",
        "WorkAsked",
        "WorkerMissed",
        "AttemptReturned",
        "ProcessExited",
        "ConcurrencyChanged",
        "PolicySet",
        "PoolObserved",
        "PoolScaled",
        "ShadowSet",
        "SizeHeld",
        "PoolResourcesSet",
        "AttemptRan",
    ] {
        assert!(text.iter().any(|line| line.starts_with(&format!("{kind} "))), "{kind}");
    }
    assert!(log.len() >= 3);
    audit(&reseal(&records(&log))).expect("sealing again changes nothing");
    assert_eq!(reseal(&records(&log)).last().map(Block::hash), log.last().map(Block::hash));
}

#[test]
fn every_changed_field_of_every_derived_event_is_found() {
    let log = everything();
    let original = records(&log);
    let mut kinds = std::collections::BTreeSet::new();
    for (block, list) in original.iter().enumerate() {
        for (index, (at, event)) in list.iter().enumerate() {
            for forged_event in variations(event) {
                let mut forged = original.clone();
                forged[block][index] = (*at, forged_event.clone());
                expect_found(&forged, position_of(&original, block, index), Some(&forged_event), Some(event), "changed");
                kinds.insert(format!("{:?}", std::mem::discriminant(event)));
            }
        }
    }
    assert_eq!(kinds.len(), 12, "every derived event but the dropped dead letter, which has a test of its own");
}

#[test]
fn every_derived_event_that_is_dropped_or_doubled_is_found() {
    let log = everything();
    let original = records(&log);
    for (block, list) in original.iter().enumerate() {
        for (index, (at, event)) in list.iter().enumerate().filter(|(_, (_, event))| event.origin() == Origin::Derived) {
            let alone = list.iter().filter(|(other, _)| other == at).count() == 1;
            let mut doubled = original.clone();
            doubled[block].insert(index, (*at, event.clone()));
            expect_found(&doubled, Position(position_of(&original, block, index).0 + 1), Some(event), None, "doubled");
            // A batch that is gone altogether is missed by the next one, so not at the very end of a log.
            if alone && position_of(&original, block, index + 1) == position_of(&original, original.len(), 0) {
                continue;
            }
            let mut dropped = original.clone();
            dropped[block].remove(index);
            // Where its whole batch is gone, something else may fall due before it in the next one.
            let found = audit(&reseal(&dropped)).map(|_| ()).expect_err("something is missing");
            let Finding::Decision { at, expected, .. } = &found else { panic!("{found}") };
            assert!(alone || *at == position_of(&original, block, index), "{found}");
            // A finding tells the first three hundred characters of an event.
            assert_eq!(*expected, format!("{event:?}").chars().take(300).collect::<String>());
        }
    }
}

#[test]
fn two_events_of_a_batch_in_another_order_are_found() {
    let log = everything();
    let original = records(&log);
    let mut swapped = 0;
    for (block, list) in original.iter().enumerate() {
        for index in 1..list.len() {
            let ((before, first), (at, second)) = (&list[index - 1], &list[index]);
            // Two inputs may come in any order; that they came in this one is what the chain says.
            let derived = [first, second].iter().any(|event| event.origin() == Origin::Derived);
            if before != at || !derived {
                continue;
            }
            let mut forged = original.clone();
            forged[block].swap(index - 1, index);
            let finding = audit(&reseal(&forged)).map(|_| ()).expect_err("an order is a decision");
            let (Finding::Decision { at: found, .. } | Finding::Refused { at: found, .. }) = finding else {
                panic!("{finding:?}")
            };
            let near = position_of(&original, block, index - 1).0..=position_of(&original, block, index).0;
            assert!(near.contains(&found.0), "{finding}: {first:?} {second:?}");
            swapped += 1;
        }
    }
    assert!(swapped > 20, "{swapped} pairs");
}

#[test]
fn a_suppressed_timer_and_a_suppressed_start_are_found_though_their_whole_batch_is_gone() {
    let mut story = Story::running(&plain(), 1);
    story.request(&[]);
    story.fail(0, 1).expect("it runs");
    story.pass(100);
    story.succeed(0, 2).expect("it runs again");
    let log = story.log();
    let mut forged = records(&log);
    let ready = forged[0].iter().position(|(_, event)| *event == Event::Ready { task: Ordinal(0) }).expect("it was repeated");
    forged[0].drain(ready..ready + 2);
    expect_found(&forged, Position(ready as u64), None, Some(&Event::Ready { task: Ordinal(0) }), "suppressed timer");
    let mut forged = records(&log);
    forged[0].truncate(ready + 1);
    let start = Event::Started { task: Ordinal(0), attempt: 2, replica: ReplicaId(0) };
    expect_found(&forged, Position(ready as u64 + 1), None, Some(&start), "suppressed start");
}

#[test]
fn an_input_that_would_have_been_refused_is_found_with_the_reason() {
    let log = everything();
    let mut forged = records(&log);
    let at = forged.last().and_then(|block| block.last()).expect("a block has records").0.after(Micros::from_secs(1));
    let failure = Failure { class: "late", message: "", retryable: true, delay: None };
    forged.push(vec![(at, Event::Failed { task: Ordinal(0), attempt: 1, failure })]);
    let finding = audit(&reseal(&forged)).map(|_| ()).expect_err("task 0 has ended");
    let expected = Rejection::StaleAttempt { task: Ordinal(0), attempt: 1 };
    assert!(matches!(finding, Finding::Refused { rejection, .. } if rejection == expected), "{finding}");
}

#[test]
fn where_an_attempt_ran_is_found_where_none_ran_or_none_can_have() {
    let log = everything();
    let original = records(&log);
    let places = original.iter().enumerate().flat_map(|(block, list)| (0..list.len()).map(move |index| (block, index)));
    let told: Vec<_> = places.filter(|(block, index)| matches!(original[*block][*index].1, Event::AttemptRan { .. })).collect();
    assert_eq!(told.len(), 2, "of a failure and of a success");
    for (block, index) in told {
        let Event::AttemptRan { task, attempt, ran } = &original[block][index].1 else { panic!("it is one") };
        let refused = |event: Event<'static>| {
            let mut forged = original.clone();
            forged[block][index].1 = event;
            match audit(&reseal(&forged)).map(|_| ()) {
                Err(Finding::Refused { at, rejection, .. }) => (at, rejection),
                other => panic!("{other:?}"),
            }
        };
        let here = position_of(&original, block, index);
        let of = |task: Ordinal, attempt: u32| Event::AttemptRan { task, attempt, ran: ran.clone() };
        let stale = |task, attempt| Rejection::StaleAttempt { task, attempt };
        assert_eq!(refused(of(*task, attempt + 1)), (here, stale(*task, attempt + 1)));
        assert_eq!(refused(of(Ordinal(77_000), 1)), (here, Rejection::UnknownTask(Ordinal(77_000))));
        let empty = Event::AttemptRan { task: *task, attempt: *attempt, ran: Box::new(Ran { batch_size: 0, ..(**ran).clone() }) };
        assert!(matches!(refused(empty), (at, Rejection::OutOfRange { .. }) if at == here));
    }
    // Behind the outcome it is of an attempt that is over.
    let (block, index) = original
        .iter()
        .enumerate()
        .find_map(|(block, list)| Some((block, list.iter().rposition(|(_, event)| matches!(event, Event::AttemptRan { .. }))?)))
        .expect("there are two");
    let mut forged = original.clone();
    forged[block].swap(index, index + 1);
    let finding = audit(&reseal(&forged)).map(|_| ()).expect_err("it succeeded before");
    let after = Position(position_of(&original, block, index).0 + 1);
    assert!(
        matches!(finding, Finding::Refused { at, rejection: Rejection::StaleAttempt { .. }, .. } if at == after),
        "{finding}"
    );
}

#[test]
fn a_duplicate_that_was_none_is_found() {
    let log = everything();
    let original = records(&log);
    let (block, index) = original
        .iter()
        .enumerate()
        .find_map(|(block, list)| Some((block, list.iter().position(|(_, event)| matches!(event, Event::Deduplicated { .. }))?)))
        .expect("one request was repeated");
    let Event::Deduplicated { task_type, key, digest, of } = original[block][index].1 else { panic!("it is one") };
    let mut changed = digest;
    changed.0[3] ^= 1;
    for event in [
        Event::Deduplicated { task_type, key, digest: changed, of },
        Event::Deduplicated { task_type, key: "other", digest, of },
        Event::Deduplicated { task_type, key, digest, of: Ordinal(0) },
    ] {
        let mut forged = original.clone();
        forged[block][index].1 = event.clone();
        expect_found(&forged, position_of(&original, block, index), Some(&event), None, "duplicate");
    }
}

/// The opening was refused like any other input, and the finding spoke of an input that the rules refuse instead of a newer build.
#[test]
fn unknown_rule_versions_are_named() {
    let log = everything();
    let mut forged = records(&log);
    let at = forged.last().and_then(|block| block.last()).expect("a block has records").0.after(Micros::from_secs(1));
    let rules = RuleVersions { dispatch: 9, ..RuleVersions::CURRENT };
    forged.push(vec![(at, Event::Opened { epoch: Epoch(3), rules, writer: "from the future" })]);
    let finding = audit(&reseal(&forged)).map(|_| ()).expect_err("nobody knows version 9");
    let position = position_of(&forged, log.len(), 0);
    assert!(matches!(finding, Finding::UnknownRules { at, rules: found } if at == position && found == rules), "{finding}");
    let mut chain = Audit::new(Depth::Chain, State::default(), Some(Hash::ZERO));
    reseal(&forged).iter().try_for_each(|block| chain.follow(block)).expect("the chain needs no rules");
}

#[test]
fn every_flipped_bit_is_found_by_the_checksum_or_the_header() {
    let mut story = Story::running(&plain(), 1);
    story.submit(&request(&[b'z'; 400], &[]));
    story.seal();
    let bytes = story.blocks[0].clone();
    assert!(Block::parse(&bytes).is_ok_and(|block| block.header.codec == 1), "the block is compressed");
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = Block::parse(&damaged).expect_err("one bit is enough");
        assert!(!matches!(error, BlockError::Absent), "bit {bit}");
    }
    for len in 0..bytes.len() {
        let error = Block::parse(&bytes[..len]).expect_err("a block ends where it ends");
        assert!(matches!(error, BlockError::Truncated { .. } | BlockError::Absent), "{len} bytes: {error}");
    }
}

#[test]
fn swapped_missing_and_repeated_blocks_are_found_at_their_position() {
    let log = everything();
    for order in [&[1, 0, 2][..], &[0, 2, 1], &[0, 2], &[0, 1, 1, 2], &[1, 2]] {
        let forged: Vec<Block> = order.iter().map(|index| log[*index].clone()).collect();
        let finding = audit(&forged).map(|_| ()).expect_err("the chain is broken");
        let wrong = (0..).zip(order).find(|(index, block)| index != *block).map_or(0, |(_, block)| *block);
        let at = log[wrong].header.first_position;
        assert!(matches!(finding, Finding::Chain { at: found, .. } if found == at), "{order:?}: {finding}");
    }
}

#[test]
fn a_header_that_says_another_position_ordinal_or_epoch_is_found() {
    let log = everything();
    let list = &records(&log)[1];
    let previous = log[0].hash();
    let header = log[1].header;
    for (what, epoch, position, ordinal) in [
        ("position", 1, header.first_position.0 + 1, header.first_ordinal.0),
        ("first ordinal", 1, header.first_position.0, header.first_ordinal.0 + 1),
        ("epoch", 7, header.first_position.0, header.first_ordinal.0),
    ] {
        let mut open = OpenBlock::new(ShardId(0), Epoch(epoch), Position(position), Ordinal(ordinal));
        list.iter().for_each(|(at, event)| open.push(*at, event));
        let forged = Block::parse(&open.seal(previous).bytes).expect("it was just sealed");
        let finding = audit(&[log[0].clone(), forged]).map(|_| ()).expect_err("it does not continue");
        assert!(matches!(finding, Finding::Sequence { what: found, .. } if found == what), "{what}: {finding}");
    }
}

#[test]
fn time_that_goes_back_is_found() {
    let log = everything();
    let mut forged = records(&log);
    let before = forged[0].last().expect("a block has records").0;
    forged[1].iter_mut().for_each(|(at, _)| *at = Timestamp(at.0.min(before.0 - 1)));
    let finding = audit(&reseal(&forged)).map(|_| ()).expect_err("time never goes back");
    assert!(matches!(finding, Finding::Time { at, .. } if at == log[1].header.first_position), "{finding}");
}

/// One dead letter too many, with the ten thousand before it in the snapshot at which the audit begins.
#[test]
fn a_forged_drop_of_a_dead_letter_is_found() {
    let mut story = Story::running(&TypeSettings { retry: RetryPolicy::NEVER, ..plain() }, 1_000);
    let failure = Failure { class: "boom", message: "", retryable: true, delay: None };
    for first in (0..DEAD_LETTERS_MAX as u64).step_by(1_000) {
        story.tell_all(&(0..1_000).map(|_| request(b"", &[])).collect::<Vec<_>>());
        story.tell_all(
            &(first..first + 1_000).map(|task| Command::Fail { task: Ordinal(task), attempt: 1, failure }).collect::<Vec<_>>(),
        );
        story.seal();
    }
    let (state, before) = (story.shard.state().clone(), story.blocks.len());
    story.request(&[]);
    story.fail(DEAD_LETTERS_MAX as u64, 1).expect("it runs");
    let log = story.log();
    let (head, original) = (log[before - 1].hash(), records(&log[before..]));
    let dropped = original[0].len() - 1;
    assert_eq!(original[0][dropped].1, Event::DeadLetterDropped { task: Ordinal(0) });
    let from_snapshot = |list: &[(Timestamp, Event<'_>)]| {
        let mut open = OpenBlock::new(ShardId(0), state.epoch, state.position, state.next_ordinal());
        list.iter().for_each(|(at, event)| open.push(*at, event));
        let mut audit = Audit::new(Depth::Decisions, state.clone(), Some(head));
        audit.follow(&Block::parse(&open.seal(head).bytes).expect("it was just sealed"))
    };
    from_snapshot(&original[0]).expect("nothing is forged yet");
    let mut changed = original[0].clone();
    changed[dropped].1 = Event::DeadLetterDropped { task: Ordinal(1) };
    assert!(matches!(from_snapshot(&changed), Err(Finding::Decision { .. })));
    assert!(matches!(from_snapshot(&original[0][..dropped]), Err(Finding::Decision { recorded, .. }) if recorded == "nothing"));
    std::mem::forget(story);
}
