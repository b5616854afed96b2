//! The checker: holds what lies in the topics of a namespace against what was published, what ran and what the engines kept.
//!
//! It reads with plain consumers and knows the rules of the log from outside; of the engine it uses the reader of a block's JSON, the
//! fold and the audit, which other tests hold against frozen logs and against somebody else's verifier.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use ergate::events::id::Position;
use ergate::events::log::directory;
use ergate::events::state::State;

use crate::load::Acknowledged;
use crate::others::Heads;
use crate::shard::{CAPACITY, ShardCheck};
use crate::topic::Message;

/// A run of a task function, as it left it behind itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Effect {
    pub(crate) shard: u16,
    pub(crate) task: u64,
    pub(crate) attempt: u32,
    pub(crate) epoch: u32,
}

/// All that is known after a round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) requests: Vec<Message>,
    pub(crate) events: Vec<Message>,
    pub(crate) capacity: Vec<Message>,
    pub(crate) dead_letters: Vec<Message>,
    pub(crate) results: Vec<Message>,
    /// What the group has committed, by partition.
    pub(crate) committed: BTreeMap<i32, u64>,
    pub(crate) acknowledged: Acknowledged,
    pub(crate) effects: Vec<Effect>,
    /// Directories of engines' copies, by shard.
    pub(crate) copies: Vec<(u16, PathBuf)>,
}

/// What was found in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) records: u64,
    pub(crate) tasks: u64,
    pub(crate) duplicates: u64,
    pub(crate) refused: u64,
    pub(crate) events: u64,
    pub(crate) blocks: u64,
    /// Blocks that are there twice.
    pub(crate) repeated: u64,
    pub(crate) epochs: u64,
    pub(crate) lost: u64,
    pub(crate) effects: u64,
    /// Copies of shards on engines' disks.
    pub(crate) copies: u64,
    /// Where the logs of the shards end.
    pub(crate) heads: Heads,
}

/// Checks everything; the first thing that is wrong names shard, position and offset.
pub(crate) fn check(evidence: &Evidence) -> Result<Totals, String> {
    acknowledged(evidence)?;
    let copies = read_copies(&evidence.copies)?;
    let mut totals = Totals::default();
    let mut shards = BTreeMap::new();
    let partitions: BTreeSet<i32> = evidence.requests.iter().chain(&evidence.events).map(|message| message.partition).collect();
    for partition in partitions {
        let shard = u16::try_from(partition).expect("there are few partitions");
        let records: Vec<&Message> = evidence.requests.iter().filter(|record| record.partition == partition).collect();
        let messages = evidence.events.iter().filter(|message| message.partition == partition);
        shards.insert(shard, fold(shard, records, messages, &copies)?);
    }
    shards.insert(CAPACITY, fold(CAPACITY, Vec::new(), evidence.capacity.iter(), &copies)?);
    offsets(evidence, &shards)?;
    dead_letters(evidence, &shards)?;
    results(evidence, &shards)?;
    effects(evidence, &shards)?;
    compare(&copies, &shards)?;
    shards.values().for_each(|shard| shard.add_to(&mut totals));
    totals.heads = shards.iter().map(|(shard, check)| (*shard, check.head())).collect();
    totals.effects = evidence.effects.len() as u64;
    totals.copies = copies.len() as u64;
    Ok(totals)
}

fn fold<'a>(
    shard: u16,
    records: Vec<&'a Message>,
    messages: impl Iterator<Item = &'a Message>,
    copies: &[Copy],
) -> Result<ShardCheck<'a>, String> {
    let wanted = copies.iter().filter(|copy| copy.shard == shard).map(|copy| copy.next).collect();
    let mut check = ShardCheck::new(shard, records, wanted);
    for message in messages {
        check.follow(message)?;
    }
    check.finish()?;
    Ok(check)
}

/// What the brokers acknowledged is there: whatever is missing after this was lost by us.
fn acknowledged(evidence: &Evidence) -> Result<(), String> {
    let there: BTreeMap<(i32, i64), &Message> =
        evidence.requests.iter().map(|message| ((message.partition, message.offset), message)).collect();
    let values: BTreeSet<(i32, Option<&[u8]>)> =
        evidence.requests.iter().map(|message| (message.partition, message.value.as_deref())).collect();
    for ((partition, offset), value) in &evidence.acknowledged {
        if *offset < 0 {
            if values.contains(&(*partition, value.as_deref())) {
                continue;
            }
            return Err(format!("shard {partition}: a record that the brokers acknowledged twice over is not in the topic"));
        }
        let found = there.get(&(*partition, *offset)).map(|message| &message.value);
        if found != Some(value) {
            return Err(format!(
                "shard {partition}, offset {offset}: an acknowledged record is not in the topic, which has {found:?}"
            ));
        }
    }
    Ok(())
}

/// The offset that is committed is the one that the log names.
fn offsets(evidence: &Evidence, shards: &BTreeMap<u16, ShardCheck<'_>>) -> Result<(), String> {
    for (shard, check) in shards.iter().filter(|(shard, _)| **shard != CAPACITY) {
        let committed = evidence.committed.get(&i32::from(*shard)).copied().unwrap_or_default();
        if committed != check.source_next() {
            let (next, at) = (check.source_next(), check.next);
            return Err(format!(
                "shard {shard}, position {at}: the log is at offset {next} and the group has committed {committed}"
            ));
        }
    }
    Ok(())
}

/// The dead letters are the refused records, each once, as it came and with the reason of the log.
fn dead_letters(evidence: &Evidence, shards: &BTreeMap<u16, ShardCheck<'_>>) -> Result<(), String> {
    let mut refused: BTreeMap<(i32, i64), (&Message, &str)> = BTreeMap::new();
    for check in shards.values() {
        refused
            .extend(check.refused.iter().map(|(record, reason)| ((record.partition, record.offset), (*record, reason.as_str()))));
    }
    for letter in evidence.dead_letters.iter().filter(|letter| !letter.says_nothing()) {
        let number = |name: &str| letter.header(name).and_then(|text| text.parse::<i64>().ok()).unwrap_or(-1);
        let place = (i32::try_from(number("ergate-partition")).unwrap_or(-1), number("ergate-offset"));
        let at = format!("shard {}, offset {} (dead letter {})", place.0, place.1, letter.offset);
        let Some((record, reason)) = refused.remove(&place) else {
            return Err(format!("{at}: a dead letter of a record that was not refused, or a second one"));
        };
        if letter.header("ergate-reason") != Some(reason) {
            return Err(format!("{at}: the dead letter says {:?} and the log {reason:?}", letter.header("ergate-reason")));
        }
        if (&letter.key, &letter.value) != (&record.key, &record.value) || !letter.headers.starts_with(&record.headers) {
            return Err(format!("{at}: the dead letter is not the record as it came"));
        }
    }
    match refused.keys().next() {
        Some((shard, offset)) => Err(format!("shard {shard}, offset {offset}: the refused record is not among the dead letters")),
        None => Ok(()),
    }
}

/// Every end is told once.
fn results(evidence: &Evidence, shards: &BTreeMap<u16, ShardCheck<'_>>) -> Result<(), String> {
    let mut told: BTreeMap<&str, i64> = BTreeMap::new();
    for result in evidence.results.iter().filter(|result| !result.says_nothing()) {
        let task = result.header("ergate-task").unwrap_or("?");
        if let Some(before) = told.insert(task, result.offset) {
            return Err(format!("task {task}: its end is told at offsets {before} and {} of the results", result.offset));
        }
    }
    for (shard, check) in shards {
        if let Some(task) = (0..check.tasks.len()).find(|task| told.remove(format!("{shard}-{task}").as_str()).is_none()) {
            return Err(format!("task {shard}-{task}: its end is not told on the results topic"));
        }
    }
    match told.first_key_value() {
        Some((task, offset)) => {
            Err(format!("task {task}: an end is told at offset {offset} of the results that is not in the log"))
        }
        None => Ok(()),
    }
}

/// Runs happen after their start is committed, with its fence, and once for each start; every outcome comes from a run.
fn effects(evidence: &Evidence, shards: &BTreeMap<u16, ShardCheck<'_>>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for effect in &evidence.effects {
        let Effect { shard, task, attempt, epoch } = *effect;
        let started = shards.get(&shard).and_then(|check| check.started.get(&(task, attempt)));
        if started != Some(&epoch) {
            return Err(format!(
                "task {shard}-{task}: attempt {attempt} ran with epoch {epoch}; its start in the log has epoch {started:?}"
            ));
        }
        if !seen.insert((shard, task, attempt)) {
            return Err(format!("task {shard}-{task}: attempt {attempt} ran twice with the fence of epoch {epoch}"));
        }
    }
    for (shard, check) in shards {
        if let Some((task, attempt, at)) =
            check.outcomes.iter().find(|(task, attempt, _)| !seen.contains(&(*shard, *task, *attempt)))
        {
            return Err(format!("shard {shard}, position {at}: attempt {attempt} of task {task} has an outcome and never ran"));
        }
    }
    Ok(())
}

/// What an engine's own copy of a shard folds to.
struct Copy {
    shard: u16,
    dir: PathBuf,
    next: u64,
    /// Hashes of its blocks by first position.
    hashes: BTreeMap<u64, String>,
    /// Digest of the state that it folds to; `None` for one that begins with a snapshot, behind the first block.
    digest: Option<String>,
}

fn read_copies(dirs: &[(u16, PathBuf)]) -> Result<Vec<Copy>, String> {
    dirs.iter()
        .map(|(shard, dir)| read_copy(*shard, dir).map_err(|error| format!("the copy {}: {error}", dir.display())))
        .collect()
}

fn read_copy(shard: u16, dir: &std::path::Path) -> Result<Copy, String> {
    let reader = directory::read(dir).map_err(|error| error.to_string())?;
    let first = reader.span().first;
    let (mut state, mut hashes, mut next) = (State::default(), BTreeMap::new(), first);
    let mut cursor = reader.cursor(first).map_err(|error| error.to_string())?;
    while let Some(block) = cursor.next_block().map_err(|error| error.to_string())? {
        hashes.insert(block.header.first_position.0, block.hash().to_string());
        next = block.header.next_position();
        for envelope in block.records().filter(|_| first == Position(0)) {
            state.apply(&envelope.map_err(|error| error.to_string())?);
        }
    }
    let digest = (first == Position(0)).then(|| state.digest().to_string());
    Ok(Copy { shard, dir: dir.to_owned(), next: next.0, hashes, digest })
}

/// Each copy is a beginning of its topic and folds to the same state; of every shard one is all of it.
fn compare(copies: &[Copy], shards: &BTreeMap<u16, ShardCheck<'_>>) -> Result<(), String> {
    for copy in copies {
        let (at, check) = (copy.dir.display(), &shards[&copy.shard]);
        for (position, hash) in &copy.hashes {
            let found = check.seen.get(position);
            if found != Some(hash) {
                return Err(format!("shard {}, position {position}: {at} has block {hash}, the topic {found:?}", copy.shard));
            }
        }
        let found = check.digests.get(&copy.next);
        if let Some(digest) = copy.digest.as_ref().filter(|digest| copy.next > 0 && found != Some(*digest)) {
            return Err(format!("shard {}, position {}: {at} folds to {digest}, the topic to {found:?}", copy.shard, copy.next));
        }
    }
    let wanted = shards.iter().filter(|(_, check)| !copies.is_empty() && check.next > 0);
    for (shard, check) in wanted {
        if !copies.iter().any(|copy| (copy.shard, copy.next) == (*shard, check.next)) {
            return Err(format!("shard {shard}, position {}: no engine that led it has all of it", check.next));
        }
    }
    Ok(())
}
