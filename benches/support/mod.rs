//! What the benches share: a shard that has run tasks, and the blocks it wrote.

use ergate_events::block::{Block, Hash, SealedBlock};
use ergate_events::command::Command;
use ergate_events::event::{Envelope, RuleVersions};
use ergate_events::id::{Ordinal, ReplicaId, ShardId, TypeId};
use ergate_events::shard::{Answer, Shard};
use ergate_events::state::State;
use ergate_events::task::{Outcome, TypeSettings};
use ergate_events::time::Timestamp;

/// Looks at no event.
pub(crate) fn nothing(_: &Envelope<'_>, _: &State) {}

/// A payload of 100 bytes that does not compress by more than its alphabet.
pub(crate) fn payload(seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut payload: Vec<u8> = (0..98)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            b'a' + (state % 26) as u8
        })
        .collect();
    payload.insert(0, b'"');
    payload.push(b'"');
    payload
}

/// A shard with one task type and one replica with this many slots.
pub(crate) fn shard(slots: u32) -> Shard {
    let mut shard = Shard::new(ShardId(0), State::default());
    let settings = TypeSettings::default();
    let mut answers = Vec::new();
    let setup = [
        Command::Open { rules: RuleVersions::CURRENT, writer: "bench" },
        Command::DefineType { name: "noop", settings: &settings, by: "bench" },
        Command::JoinReplica { replica: ReplicaId(0), pool: "default", slots },
    ];
    shard.batch(Timestamp(1), &setup, &mut answers, &mut nothing);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    shard
}

/// So many different payloads that lz4 finds none of them twice in a block.
pub(crate) fn payloads() -> Vec<Vec<u8>> {
    (0..1_024).map(payload).collect()
}

/// Runs `tasks` tasks from request to success in batches of `batch`; returns the blocks with their chain.
pub(crate) fn blocks(tasks: u64, batch: u64) -> Vec<SealedBlock> {
    let mut sealed = Vec::new();
    work(tasks, batch, &payloads(), &mut |block| sealed.push(block));
    sealed
}

/// Runs `tasks` tasks from request to success in batches of `batch` and hands each block on, chained to the one before.
pub(crate) fn work(tasks: u64, batch: u64, payloads: &[Vec<u8>], each: &mut dyn FnMut(SealedBlock)) {
    let mut shard = shard(65_536);
    let mut answers = Vec::new();
    let mut head = Hash::ZERO;
    for first in (0..tasks).step_by(batch as usize) {
        let requests: Vec<Command<'_>> = (first..(first + batch).min(tasks))
            .map(|index| Command::Request {
                task_type: TypeId(0),
                payload: &payloads[index as usize % payloads.len()],
                key: None,
                asks: &[],
            })
            .collect();
        let successes: Vec<Command<'_>> = (first..(first + batch).min(tasks))
            .map(|index| Command::Succeed { task: Ordinal(index), attempt: 1, outcome: Outcome::Succeeded, result: b"null" })
            .collect();
        for commands in [&requests, &successes] {
            head = run(&mut shard, commands, first, &mut answers, head, each);
        }
    }
}

/// Decides commands, seals what that filled behind `head`, and returns the new head.
fn run(
    shard: &mut Shard,
    commands: &[Command<'_>],
    at: u64,
    answers: &mut Vec<Answer>,
    mut head: Hash,
    each: &mut dyn FnMut(SealedBlock),
) -> Hash {
    let mut rest = commands;
    while !rest.is_empty() {
        let taken = shard.batch(Timestamp(at), rest, answers, &mut nothing);
        rest = &rest[taken..];
        if let Some(block) = shard.seal(head) {
            head = block.hash;
            each(block);
        }
    }
    assert!(answers.drain(..).all(|answer| answer.is_ok()), "every command is taken");
    head
}

/// Number of records in blocks.
pub(crate) fn records(blocks: &[SealedBlock]) -> u64 {
    blocks.iter().map(|block| u64::from(block.header.count)).sum()
}

/// Parses and folds blocks.
pub(crate) fn fold(blocks: &[SealedBlock]) -> State {
    let mut state = State::default();
    for sealed in blocks {
        let block = Block::parse(&sealed.bytes).expect("it was just sealed");
        block.records().for_each(|envelope| state.apply(&envelope.expect("it was just encoded")));
    }
    state
}
