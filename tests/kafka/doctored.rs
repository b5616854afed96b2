//! What the checker finds: evidence of a small history that is as it should be, and the same evidence doctored.

use std::path::Path;

use ergate::events::block::{Hash, OpenBlock, SealedBlock};
use ergate::events::command::Command;
use ergate::events::event::{Envelope, Event, RuleVersions};
use ergate::events::id::{Epoch, Ordinal, Position, ReplicaId, ShardId, TypeId};
use ergate::events::json;
use ergate::events::log::directory::{self, Options};
use ergate::events::shard::Shard;
use ergate::events::state::State;
use ergate::events::task::{IdempotencyKey, Outcome, TypeSettings};
use ergate::events::time::Timestamp;

use crate::checker::{Effect, Evidence, Totals, check};
use crate::topic::Message;

const TYPES: [&str; 3] = ["effect", "flaky", "broken"];
const WORK: &str = r#"{"type":"effect","payload":{"n":1}}"#;
const KEYED: &str = r#"{"type":"effect","payload":{"n":1},"key":"k"}"#;
const PAYLOAD: &[u8] = br#"{"n":1}"#;
const REASON: &str = "`value` is no JSON";
const FIRST: TypeId = TypeId(0);
const REPLICA: ReplicaId = ReplicaId(0);

/// An owner of shard 0 that does as it is told.
struct Owner {
    shard: Shard,
    at: u64,
    blocks: Vec<SealedBlock>,
}

impl Owner {
    /// The first owner.
    fn new() -> Owner {
        let mut owner = Owner { shard: Shard::new(ShardId(0), State::default()), at: 1_000, blocks: Vec::new() };
        owner.open();
        let settings = TypeSettings::default();
        let define = |name| Command::DefineType { name, settings: &settings, by: "test" };
        owner.decide(&TYPES.map(define));
        owner.decide(&[Command::JoinReplica { replica: REPLICA, pool: "default", slots: 8 }]);
        owner
    }

    fn open(&mut self) {
        self.decide(&[Command::Open { rules: RuleVersions::CURRENT, writer: "test" }]);
    }

    /// Decides a batch and seals it.
    fn decide(&mut self, commands: &[Command<'_>]) {
        self.at += 1_000;
        let mut answers = Vec::new();
        self.shard.batch(Timestamp(self.at), commands, &mut answers, &mut |_: &Envelope<'_>, _: &State| {});
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        self.blocks.extend(self.shard.seal(self.hash()));
    }

    fn hash(&self) -> Hash {
        self.blocks.last().map_or(Hash::ZERO, |block| block.hash)
    }

    /// Seals events that no rule led to, behind everything.
    fn forge(&mut self, epoch: Epoch, events: &[Event<'_>]) {
        let state = self.shard.state();
        let mut open = OpenBlock::new(ShardId(0), epoch, state.position, state.next_ordinal());
        events.iter().for_each(|event| open.push(Timestamp(self.at + 1), event));
        self.blocks.push(open.seal(self.hash()));
    }
}

fn take(offset: u64) -> Command<'static> {
    Command::TakeRecord { offset, task_type: FIRST, payload: PAYLOAD, key: None, asks: &[] }
}

fn take_keyed(offset: u64) -> Command<'static> {
    let key = Some(IdempotencyKey { key: "k", window: None });
    Command::TakeRecord { offset, task_type: FIRST, payload: PAYLOAD, key, asks: &[] }
}

fn succeed(task: u64) -> Command<'static> {
    Command::Succeed { task: Ordinal(task), attempt: 1, outcome: Outcome::Succeeded, result: b"1" }
}

/// Five records: work, something else, work with a key, the same again, and after a hole in the offsets work for the next owner.
fn history() -> Owner {
    let mut owner = Owner::new();
    owner.decide(&[take(0), Command::RefuseRecord { offset: Some(1), reason: REASON }, take_keyed(2)]);
    owner.decide(&[succeed(0), take_keyed(3)]);
    owner.decide(&[succeed(1)]);
    owner.open();
    owner.decide(&[Command::MoveSource { from: Some(4), next: 6 }, take(6)]);
    owner.decide(&[succeed(2)]);
    owner
}

fn record(offset: i64, value: &str) -> Message {
    Message { offset, value: Some(value.as_bytes().to_vec()), ..Message::default() }
}

fn headers(of: &[(&str, String)]) -> Vec<(String, Option<Vec<u8>>)> {
    of.iter().map(|(name, value)| ((*name).to_owned(), Some(value.clone().into_bytes()))).collect()
}

fn message(offset: usize, sealed: &SealedBlock) -> Message {
    let block = ergate::events::block::Block::parse(&sealed.bytes).unwrap();
    let mut value = Vec::new();
    json::encode(&block, sealed.hash, &mut value).unwrap();
    let headers = headers(&[
        ("ergate-position", sealed.header.first_position.to_string()),
        ("ergate-next", sealed.header.next_position().to_string()),
        ("ergate-hash", sealed.hash.to_string()),
    ]);
    // Every second offset is a marker's.
    Message { offset: 2 * offset as i64, key: Some(b"0".to_vec()), headers, value: Some(value), partition: 0 }
}

fn messages(owner: &Owner) -> Vec<Message> {
    owner.blocks.iter().enumerate().map(|(index, sealed)| message(index, sealed)).collect()
}

/// Everything about the history.
fn evidence(owner: &Owner) -> Evidence {
    let requests = vec![record(0, WORK), record(1, "no"), record(2, KEYED), record(3, KEYED), record(6, WORK)];
    let place = [("ergate-reason", REASON.to_owned()), ("ergate-partition", "0".to_owned()), ("ergate-offset", "1".to_owned())];
    let result = |task: u64| Message {
        offset: task as i64,
        headers: headers(&[("ergate-task", format!("0-{task}"))]),
        ..Message::default()
    };
    let effect = |(task, epoch)| Effect { shard: 0, task, attempt: 1, epoch };
    Evidence {
        events: messages(owner),
        dead_letters: vec![Message { headers: headers(&place), value: Some(b"no".to_vec()), ..Message::default() }],
        results: (0..3).map(result).collect(),
        committed: [(0, 7)].into(),
        acknowledged: requests.iter().map(|record| ((0, record.offset), record.value.clone())).collect(),
        effects: [(0, 1), (1, 1), (2, 2)].map(effect).to_vec(),
        requests,
        ..Evidence::default()
    }
}

/// The checker refuses the evidence once it is doctored, with these words.
#[track_caller]
fn finds(words: &str, doctor: impl FnOnce(&mut Evidence)) {
    let mut evidence = evidence(&history());
    doctor(&mut evidence);
    refused(&evidence, words);
}

#[track_caller]
fn refused(evidence: &Evidence, words: &str) {
    match check(evidence) {
        Err(error) => assert!(error.contains(words), "{words:?} in {error:?}"),
        Ok(totals) => panic!("nothing is found: {totals:?}"),
    }
}

#[test]
fn a_history_as_it_should_be_is_in_order() {
    let Totals { records, tasks, duplicates, refused, epochs, blocks, .. } = check(&evidence(&history())).unwrap();
    assert_eq!((records, tasks, duplicates, refused, epochs), (5, 3, 1, 1, 2));
    assert_eq!(blocks, history().blocks.len() as u64);
    let mut twice = evidence(&history());
    twice.events.push(Message { offset: 99, ..twice.events[4].clone() });
    assert_eq!(check(&twice).unwrap().repeated, 1, "a block that is there twice is no contradiction");
}

#[test]
fn offsets_without_events_are_found() {
    finds("the log is at offset 7 and the group has committed 8", |evidence| evidence.committed = [(0, 8)].into());
    finds("offset 9: the record is not answered", |evidence| {
        evidence.requests.push(record(9, WORK));
        evidence.committed.insert(0, 10);
    });
    // The hole in the offsets was none.
    finds("the source moves from offset 4 to 6 over the record at Some(5)", |evidence| {
        evidence.requests.insert(4, record(5, WORK))
    });
    finds("offset 1: an acknowledged record is not in the topic", |evidence| drop(evidence.requests.remove(1)));
}

#[test]
fn a_dropped_an_altered_and_a_reordered_block_are_found() {
    for index in 0..history().blocks.len() - 1 {
        finds("blocks are missing", |evidence| drop(evidence.events.remove(index)));
        finds("blocks are missing", |evidence| evidence.events.swap(index, index + 1));
    }
    finds("the record is not answered", |evidence| evidence.events.truncate(evidence.events.len() - 2));
    finds("has no end", |evidence| drop(evidence.events.pop()));
    finds("no block", |evidence| {
        let value = evidence.events[3].value.as_mut().unwrap();
        *value = String::from_utf8(value.clone()).unwrap().replacen("0-0", "0-1", 1).into_bytes();
    });
    finds("the headers say", |evidence| evidence.events[3].headers[0].1 = Some(b"1".to_vec()));
}

#[test]
fn a_second_history_of_a_fenced_owner_is_found() {
    // The first owner decides once more where the second one has opened.
    let mut fenced = Owner::new();
    fenced.decide(&[take(0), Command::RefuseRecord { offset: Some(1), reason: REASON }, take_keyed(2)]);
    fenced.decide(&[succeed(0), take_keyed(3)]);
    fenced.decide(&[succeed(1)]);
    fenced.decide(&[Command::MoveSource { from: Some(4), next: 6 }, take(6)]);
    let late = message(50, fenced.blocks.last().unwrap());
    finds("two histories", |evidence| evidence.events.push(late));
    let mut owner = history();
    owner.forge(Epoch(1), &[Event::SourceMoved { next: 9 }]);
    refused(&evidence(&owner), "a block of epoch 1 in epoch 2: its owner was fenced");
}

#[test]
fn a_second_end_and_a_second_start_are_found() {
    let end = Event::Succeeded { task: Ordinal(1), attempt: 1, outcome: Outcome::Succeeded, result: b"1" };
    let start = Event::Started { task: Ordinal(1), attempt: 1, replica: REPLICA };
    for event in [end, start] {
        let mut owner = history();
        owner.forge(Epoch(2), &[event]);
        refused(&evidence(&owner), "the audit found");
    }
}

#[test]
fn a_request_that_is_altered_refused_or_taken_twice_is_found() {
    let other = r#"{"type":"effect","payload":{"n":2}}"#;
    let with = |value: &'static str| {
        move |evidence: &mut Evidence| {
            evidence.requests[0] = record(0, value);
            evidence.acknowledged.clear();
        }
    };
    finds("offset 0 asks for effect {\"n\":2}", with(other));
    finds("the record at offset 0 is no request and became a task", with("no"));
    finds("is refused", |evidence| {
        evidence.requests[1] = record(1, WORK);
        evidence.acknowledged.clear();
    });
    finds("is taken for a duplicate of task 1", |evidence| {
        evidence.requests[3] = record(3, WORK);
        evidence.acknowledged.clear();
    });
    finds("repeats the key of task", |evidence| {
        evidence.requests[4] = record(6, KEYED);
        evidence.acknowledged.clear();
        // As the task then would be, too.
        let mut owner = history();
        owner.blocks.truncate(owner.blocks.len() - 2);
        let mut again = Owner { blocks: owner.blocks, ..replayed(&evidence.events[..evidence.events.len() - 2]) };
        again.at = 100_000;
        again.forge_requested();
        evidence.events = messages(&again);
    });
}

/// An owner with the state after these blocks.
fn replayed(events: &[Message]) -> Owner {
    let mut state = State::default();
    for event in events {
        let (block, _) = json::decode(event.value.as_deref().unwrap()).unwrap();
        block.records().for_each(|record| state.apply(&record.unwrap()));
    }
    Owner { shard: Shard::new(ShardId(0), state), at: 0, blocks: Vec::new() }
}

impl Owner {
    /// Takes a record that repeats a key after its window, which no rule forbids.
    fn forge_requested(&mut self) {
        self.at += 2 * 86_400_000_000;
        self.decide(&[Command::MoveSource { from: Some(4), next: 6 }, take_keyed(6)]);
        self.decide(&[succeed(2)]);
    }
}

#[test]
fn a_dead_letter_that_is_missing_altered_or_there_twice_is_found() {
    finds("shard 0, offset 1: the refused record is not among the dead letters", |evidence| evidence.dead_letters.clear());
    finds("a second one", |evidence| evidence.dead_letters.push(evidence.dead_letters[0].clone()));
    finds("is not the record as it came", |evidence| evidence.dead_letters[0].value = None);
    finds("the dead letter says", |evidence| evidence.dead_letters[0].headers[0].1 = Some(b"why not".to_vec()));
}

#[test]
fn an_end_that_is_told_twice_never_or_of_nothing_is_found() {
    finds("task 0-1: its end is told at offsets 1 and 1", |evidence| evidence.results.push(evidence.results[1].clone()));
    finds("task 0-1: its end is not told", |evidence| drop(evidence.results.remove(1)));
    finds("that is not in the log", |evidence| {
        evidence.results.push(Message { headers: headers(&[("ergate-task", "0-9".to_owned())]), ..Message::default() });
    });
}

#[test]
fn a_run_without_a_start_and_an_outcome_without_a_run_are_found() {
    finds("attempt 1 ran with epoch 2; its start in the log has epoch Some(1)", |evidence| evidence.effects[0].epoch = 2);
    finds("attempt 2 ran", |evidence| evidence.effects[0].attempt = 2);
    finds("attempt 1 ran twice", |evidence| evidence.effects.push(evidence.effects[0]));
    finds("attempt 1 of task 2 has an outcome and never ran", |evidence| evidence.effects.truncate(2));
}

#[test]
fn a_copy_of_another_history_and_one_without_its_end_are_found() {
    let home = tempfile::tempdir().unwrap();
    let (whole, short, other) = (home.path().join("whole"), home.path().join("short"), home.path().join("other"));
    let owner = history();
    write(&whole, &owner.blocks);
    write(&short, &owner.blocks[..owner.blocks.len() - 1]);
    let mut fenced = Owner::new();
    fenced.decide(&[take(0)]);
    write(&other, &fenced.blocks);
    let with =
        |copies: &[&Path]| Evidence { copies: copies.iter().map(|dir| (0, dir.to_path_buf())).collect(), ..evidence(&owner) };
    assert_eq!(check(&with(&[&whole, &short])).unwrap().copies, 2);
    refused(&with(&[&short]), "no engine that led it has all of it");
    refused(&with(&[&whole, &other]), "has block");
}

fn write(dir: &Path, blocks: &[SealedBlock]) {
    let options = Options { create: true, low_water_bytes: 0, ..Options::default() };
    let (mut log, _) = directory::open(dir, &options).unwrap();
    blocks.iter().for_each(|block| log.append(block).unwrap());
    log.sync().unwrap();
    log.close().unwrap();
    assert_eq!(log_end(dir), blocks.last().unwrap().header.next_position());
}

fn log_end(dir: &Path) -> Position {
    directory::read(dir).unwrap().span().next
}
