//! The checker's view of one shard: its blocks in the order of the topic, and the records that they answer.

use std::collections::{BTreeMap, BTreeSet};

use ergate::events::audit::{Audit, Depth};
use ergate::events::block::Block;
use ergate::events::event::{Envelope, Event};
use ergate::events::json;
use ergate::events::state::State;
use serde_json::Value;

use crate::checker::Totals;
use crate::topic::Message;

/// The shard number of the log of pools and their sizes.
pub(crate) const CAPACITY: u16 = u16::MAX;
/// What a good request of ours may say, and of which types.
const FIELDS: [&str; 5] = ["type", "payload", "key", "delay", "priority"];
const TYPES: [&str; 3] = ["effect", "flaky", "broken"];

/// A task as its events tell it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Task {
    /// Position of its end.
    end: Option<u64>,
    requested_at: u64,
}

/// One shard. See the module's documentation.
pub(crate) struct ShardCheck<'a> {
    shard: u16,
    /// Its records by offset, and how many are answered.
    records: Vec<&'a Message>,
    answered: usize,
    /// Offset of the next record as the events tell it.
    source: u64,
    /// Position that follows, and the hash, epoch and fold up to there.
    pub(crate) next: u64,
    hash: String,
    epoch: u32,
    state: State,
    audit: Audit,
    /// Hashes of blocks by first position.
    pub(crate) seen: BTreeMap<u64, String>,
    /// Where the digest of the state is wanted, and what it is there.
    wanted: BTreeSet<u64>,
    pub(crate) digests: BTreeMap<u64, String>,
    types: BTreeMap<u16, String>,
    pub(crate) tasks: Vec<Task>,
    keys: BTreeMap<(String, String), u64>,
    /// The epoch of every start, by task and attempt.
    pub(crate) started: BTreeMap<(u64, u32), u32>,
    /// Task, attempt and position of every outcome that a task function reported.
    pub(crate) outcomes: Vec<(u64, u32, u64)>,
    pub(crate) refused: Vec<(&'a Message, String)>,
    duplicates: u64,
    repeated: u64,
    lost: u64,
    epochs: u64,
}

/// What a record asks for, as its publisher means it.
enum Wish {
    Task { name: String, payload: Value, key: Option<String> },
    Nothing,
}

impl<'a> ShardCheck<'a> {
    pub(crate) fn new(shard: u16, records: Vec<&'a Message>, wanted: BTreeSet<u64>) -> ShardCheck<'a> {
        ShardCheck {
            shard,
            records,
            answered: 0,
            source: 0,
            next: 0,
            hash: "0".repeat(64),
            epoch: 0,
            state: State::default(),
            audit: Audit::new(Depth::Decisions, State::default(), None),
            seen: BTreeMap::new(),
            wanted,
            digests: BTreeMap::new(),
            types: BTreeMap::new(),
            tasks: Vec::new(),
            keys: BTreeMap::new(),
            started: BTreeMap::new(),
            outcomes: Vec::new(),
            refused: Vec::new(),
            duplicates: 0,
            repeated: 0,
            lost: 0,
            epochs: 0,
        }
    }

    /// Offset of the next record, as the state says.
    pub(crate) fn source_next(&self) -> u64 {
        self.state.work.source_next
    }

    /// Where the log ends.
    pub(crate) fn head(&self) -> (u64, String) {
        (self.next, self.hash.clone())
    }

    /// Follows a message of the topic.
    pub(crate) fn follow(&mut self, message: &Message) -> Result<(), String> {
        let (shard, offset) = (self.shard, message.offset);
        if message.says_nothing() {
            return Ok(());
        }
        let value = message.value.as_deref().unwrap_or_default();
        let (block, hash) = json::decode(value).map_err(|error| format!("shard {shard}, offset {offset}: no block: {error}"))?;
        let position = block.header.first_position.0;
        let at = format!("shard {shard}, position {position}, offset {offset}");
        self.place(message, &block, &hash.to_string()).map_err(|error| format!("{at}: {error}"))
    }

    /// Holds a block against those before it.
    fn place(&mut self, message: &Message, block: &Block, hash: &str) -> Result<(), String> {
        let (header, position) = (&block.header, block.header.first_position.0);
        let said = [message.header("ergate-position"), message.header("ergate-next"), message.header("ergate-hash")];
        let is = [position.to_string(), header.next_position().0.to_string(), hash.to_owned()];
        if said != is.each_ref().map(|text| Some(text.as_str())) || header.shard.0 != self.shard {
            return Err(format!("the headers say {said:?}, the block of shard {} {is:?}", header.shard));
        }
        if message.key.as_deref() != Some(self.shard.to_string().as_bytes()) {
            return Err(format!("the key is {:?}", message.key));
        }
        if position < self.next {
            self.repeated += 1;
            let known = self.seen.get(&position);
            return if known.is_some_and(|known| known == hash) {
                Ok(())
            } else {
                Err(format!("two histories: block {hash} of epoch {} where {known:?} was read", header.epoch))
            };
        }
        if position > self.next {
            return Err(format!("blocks are missing: position {} follows", self.next));
        }
        if header.previous.to_string() != self.hash {
            return Err(format!("the chain breaks: it names {} before it, which is {}", header.previous, self.hash));
        }
        if header.epoch.0 < self.epoch {
            return Err(format!("a block of epoch {} in epoch {}: its owner was fenced", header.epoch.0, self.epoch));
        }
        self.audit.follow(block).map_err(|finding| format!("the audit found: {finding}"))?;
        for envelope in block.records() {
            let envelope = envelope.map_err(|error| error.to_string())?;
            let noted = self.note(&envelope, block.header.epoch.0);
            noted.map_err(|error| format!("at position {}: {error}", envelope.position))?;
            self.state.apply(&envelope);
        }
        self.seen.insert(position, hash.to_owned());
        (self.next, self.hash, self.epoch) = (header.next_position().0, hash.to_owned(), header.epoch.0);
        if self.wanted.contains(&self.next) {
            self.digests.insert(self.next, self.state.digest().to_string());
        }
        Ok(())
    }

    fn note(&mut self, envelope: &Envelope<'_>, epoch: u32) -> Result<(), String> {
        let position = envelope.position.0;
        match &envelope.event {
            Event::Opened { epoch: opened, .. } => {
                self.epochs += 1;
                if opened.0 <= self.epoch || opened.0 != epoch {
                    return Err(format!("epoch {} is opened in a block of {epoch} after epoch {}", opened.0, self.epoch));
                }
            }
            Event::TypeDefined { task_type, name, .. } => drop(self.types.insert(task_type.0, (*name).to_owned())),
            Event::SourceMoved { next } => return self.move_source(*next),
            Event::Requested { task_type, payload, key, .. } => {
                let key = key.as_ref().map(|key| key.key);
                let name = self.types.get(&task_type.0).cloned().ok_or("the type is not defined")?;
                self.request(&name, payload, key, position)?;
            }
            Event::Deduplicated { task_type, key, of, .. } => {
                let name = self.types.get(&task_type.0).cloned().ok_or("the type is not defined")?;
                self.duplicate(&name, key, of.0)?;
            }
            Event::RequestRefused { reason } => self.refuse(reason)?,
            Event::Redriven { .. } => return Err("a redrive that nobody asked for".to_owned()),
            Event::Started { task, attempt, .. } => self.start(task.0, *attempt, epoch)?,
            Event::Succeeded { task, attempt, .. } | Event::Failed { task, attempt, .. } => {
                self.outcomes.push((task.0, *attempt, position));
            }
            Event::Lost { .. } => self.lost += 1,
            _ => {}
        }
        match envelope.event.ends() {
            Some((task, _)) => self.end(task.0, position),
            None => Ok(()),
        }
    }

    /// The record that is answered next.
    fn answer(&mut self) -> Result<&'a Message, String> {
        let record = self.records.get(self.answered).copied().ok_or("an answer to a record that does not exist")?;
        let offset = u64::try_from(record.offset).unwrap_or_default();
        if offset != self.source {
            return Err(format!("offset {} is answered, where the next record has offset {offset}", self.source));
        }
        self.answered += 1;
        self.source += 1;
        Ok(record)
    }

    fn move_source(&mut self, next: u64) -> Result<(), String> {
        let skipped = self.records.get(self.answered).map(|record| u64::try_from(record.offset).unwrap_or_default());
        if next <= self.source || skipped.is_some_and(|offset| offset < next) {
            return Err(format!("the source moves from offset {} to {next} over the record at {skipped:?}", self.source));
        }
        self.source = next;
        Ok(())
    }

    fn request(&mut self, name: &str, payload: &[u8], key: Option<&str>, position: u64) -> Result<(), String> {
        let record = self.answer()?;
        let Wish::Task { name: wanted, payload: asked, key: with } = wish(record) else {
            return Err(format!("the record at offset {} is no request and became a task", record.offset));
        };
        let found: Value = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        if (name, &found, key) != (&wanted, &asked, with.as_deref()) {
            return Err(format!(
                "offset {} asks for {wanted} {asked} {with:?}, the task is {name} {found} {key:?}",
                record.offset
            ));
        }
        let task = self.tasks.len() as u64;
        self.tasks.push(Task { end: None, requested_at: position });
        if let Some(before) = with.and_then(|key| self.keys.insert((wanted, key), task)) {
            return Err(format!(
                "the record at offset {} repeats the key of task {before} and became task {task}",
                record.offset
            ));
        }
        Ok(())
    }

    fn duplicate(&mut self, name: &str, key: &str, of: u64) -> Result<(), String> {
        let record = self.answer()?;
        let asked = matches!(wish(record), Wish::Task { name: wanted, key: Some(with), .. } if wanted == name && with == key);
        let known = self.keys.get(&(name.to_owned(), key.to_owned()));
        if !asked || known != Some(&of) {
            return Err(format!(
                "offset {} is taken for a duplicate of task {of} with key {key:?}, which is {known:?}",
                record.offset
            ));
        }
        self.duplicates += 1;
        Ok(())
    }

    fn refuse(&mut self, reason: &str) -> Result<(), String> {
        let record = self.answer()?;
        if let Wish::Task { name, payload, .. } = wish(record) {
            return Err(format!("the request at offset {} for {name} {payload} is refused: {reason}", record.offset));
        }
        self.refused.push((record, reason.to_owned()));
        Ok(())
    }

    fn start(&mut self, task: u64, attempt: u32, epoch: u32) -> Result<(), String> {
        let end = self.task(task)?.end;
        if let Some(end) = end {
            return Err(format!("attempt {attempt} of task {task} starts after its end at position {end}"));
        }
        match self.started.insert((task, attempt), epoch) {
            Some(before) => Err(format!("attempt {attempt} of task {task} starts in epoch {epoch} and did in epoch {before}")),
            None => Ok(()),
        }
    }

    fn end(&mut self, task: u64, position: u64) -> Result<(), String> {
        match self.task(task)?.end.replace(position) {
            Some(before) => Err(format!("task {task} ends a second time; it ended at position {before}")),
            None => Ok(()),
        }
    }

    fn task(&mut self, task: u64) -> Result<&mut Task, String> {
        let index = usize::try_from(task).unwrap_or(usize::MAX);
        self.tasks.get_mut(index).ok_or_else(|| format!("there is no task {task}"))
    }

    /// What must hold at the end: everything is answered, everything has ended.
    pub(crate) fn finish(&self) -> Result<(), String> {
        let (shard, at) = (self.shard, self.next);
        if let Some(record) = self.records.get(self.answered) {
            return Err(format!("shard {shard}, position {at}, offset {}: the record is not answered", record.offset));
        }
        if let Some(live) = self.tasks.iter().position(|task| task.end.is_none()) {
            let requested = self.tasks[live].requested_at;
            return Err(format!("shard {shard}, position {requested}: task {live} has no end in a log of {at} events"));
        }
        if self.source != self.source_next() {
            return Err(format!(
                "shard {shard}, position {at}: the state is at offset {}, not {}",
                self.source_next(),
                self.source
            ));
        }
        Ok(())
    }

    pub(crate) fn add_to(&self, totals: &mut Totals) {
        totals.records += self.answered as u64;
        totals.tasks += self.tasks.len() as u64;
        totals.duplicates += self.duplicates;
        totals.refused += self.refused.len() as u64;
        totals.events += self.next;
        totals.blocks += self.seen.len() as u64;
        totals.repeated += self.repeated;
        totals.epochs += self.epochs;
        totals.lost += self.lost;
    }
}

/// Reads a record without the engine's reader: all that our producer publishes.
fn wish(record: &Message) -> Wish {
    let value = record.value.as_deref().and_then(|value| serde_json::from_slice::<Value>(value).ok());
    let Some(Value::Object(fields)) = value else { return Wish::Nothing };
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    let name = text("type").filter(|name| TYPES.contains(&name.as_str()));
    match name.filter(|_| fields.keys().all(|field| FIELDS.contains(&field.as_str()))) {
        Some(name) => Wish::Task { name, payload: fields.get("payload").cloned().unwrap_or_default(), key: text("key") },
        None => Wish::Nothing,
    }
}
