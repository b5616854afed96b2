//! Plausible logs: tasks of several types that start, fail, time out, are retried, checkpointed, cancelled, dead-lettered, dropped and
//! redriven; some give back a slot, or are named by a repeated request, long after they ended.

use crate::block::{Hash, OpenBlock};
use crate::event::{Cause, Event, Timeout};
use crate::id::{Epoch, Ordinal, Position, ReplicaId, ShardId, TypeId};
use crate::log::memory::MemoryLog;
use crate::log::{EventLog, Span};
use crate::task::{Failure, IdempotencyKey, Outcome};
use crate::time::Timestamp;

/// How many task types there are.
pub(super) const TYPES: u64 = 40;

/// Random numbers that are the same in every run (splitmix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)) >> 11) % limit
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> Option<T> {
        (!among.is_empty()).then(|| among[self.below(among.len() as u64) as usize])
    }
}

/// A task that has not ended.
#[derive(Clone, Copy)]
struct Live {
    task: Ordinal,
    /// How often it was started.
    attempt: u32,
    running: bool,
}

pub(super) struct Generator {
    pub(super) log: MemoryLog,
    open: OpenBlock,
    previous: Hash,
    random: Random,
    at: Timestamp,
    live: Vec<Live>,
    dead: Vec<Ordinal>,
    /// Attempts that hold a slot and no longer count.
    holding: Vec<(Ordinal, u32)>,
    /// Tasks that were requested with a key, and may have ended.
    keyed: Vec<Ordinal>,
    /// The first record of each block.
    pub(super) blocks: Vec<Position>,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Generator {
        Generator {
            log: MemoryLog::new(),
            open: OpenBlock::new(ShardId(0), Epoch(1), Position(0), Ordinal(0)),
            previous: Hash::ZERO,
            random: Random(seed),
            at: Timestamp(1_700_000_000_000_000),
            live: Vec::new(),
            dead: Vec::new(),
            holding: Vec::new(),
            keyed: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// A log of about so many events.
    pub(super) fn log_of(seed: u64, events: u64) -> Generator {
        let mut generator = Generator::new(seed);
        generator.define(0..30);
        generator.extend(events);
        generator
    }

    /// Defines types, each of which is called after its number.
    pub(super) fn define(&mut self, ids: std::ops::Range<u16>) {
        for id in ids {
            let name = format!("type-{id}");
            self.push(&Event::TypeDefined { task_type: TypeId(id), name: &name, settings: Box::default(), by: "ann" });
        }
    }

    pub(super) fn extend(&mut self, events: u64) {
        let end = self.open.next_position().0 + events;
        while self.open.next_position().0 < end {
            let actions = 1 + self.random.below(60);
            let first = self.open.next_position();
            (0..actions).for_each(|_| self.act());
            // There may have been nothing to do.
            while self.open.next_position() == first {
                self.act();
            }
            self.seal();
        }
    }

    /// Ranges of whole blocks, each of about so many events; the last one ends with the log.
    pub(super) fn spans(&self, events: u64) -> Vec<Span> {
        let end = self.log.head().next;
        let mut spans = Vec::new();
        let mut first = Position(0);
        for next in self.blocks.iter().copied().chain([end]) {
            if next.0 >= first.0 + events || (next == end && next > first) {
                spans.push(Span { first, next });
                first = next;
            }
        }
        spans
    }

    fn seal(&mut self) {
        let block = self.open.seal(self.previous);
        self.blocks.push(block.header.first_position);
        self.previous = block.hash;
        self.log.append(&block).unwrap();
        self.log.publish().unwrap();
        self.open.restart();
    }

    fn push(&mut self, event: &Event<'_>) {
        self.open.push(self.at, event);
    }

    /// Takes a task out; whatever runs for it still holds its slot.
    fn end(&mut self, live: Live) {
        self.live.retain(|other| other.task != live.task);
        self.holding.extend(live.running.then_some((live.task, live.attempt)));
    }

    fn set(&mut self, live: Live) {
        self.live.iter_mut().filter(|other| other.task == live.task).for_each(|other| *other = live);
    }

    fn act(&mut self) {
        self.at.0 += self.random.below(300);
        let action = self.random.below(100);
        let Some(live) = self.random.pick(&self.live).filter(|_| action >= 25) else {
            return self.request(action);
        };
        let Live { task, attempt, running } = live;
        match action {
            25..45 if running => self.push(&Event::Checkpointed { task, attempt, details: b"half" }),
            25..45 => self.start(live),
            45..68 if running => {
                let outcome = Outcome::ALL[self.random.below(5) as usize];
                self.push(&Event::Succeeded { task, attempt, outcome, result: b"done" });
                self.end(Live { running: false, ..live });
            }
            68..80 if running => self.fail(live),
            45..80 => self.start(live),
            80..84 => {
                self.push(&Event::KillRequested { task, by: "ann", reason: "" });
                self.push(&Event::Ended { task, outcome: Outcome::Cancelled, cause: Cause::Killed });
                self.end(live);
            }
            84..86 => {
                self.push(&Event::CancelRequested { task, by: "ann", reason: "" });
                self.push(&Event::Ended { task, outcome: Outcome::Cancelled, cause: Cause::Cancelled });
                self.end(live);
            }
            86..90 => self.release(),
            90..92 => self.push(&Event::ReplicaJoined { replica: ReplicaId(2), pool: "default", slots: 4 }),
            92..96 => self.redrive(),
            _ => self.drop_dead_letter(),
        }
    }

    fn request(&mut self, action: u64) {
        if let Some(of) = self.random.pick(&self.keyed).filter(|_| action == 0) {
            let digest = crate::event::Digest::of(b"");
            return self.push(&Event::Deduplicated { task_type: TypeId(1), key: "k", digest, of });
        }
        let task = self.open.next_ordinal();
        self.live.push(Live { task, attempt: 0, running: false });
        let task_type = TypeId(self.random.below(TYPES) as u16);
        let keyed = self.random.below(8) == 0;
        self.keyed.extend(keyed.then_some(task));
        let key = keyed.then_some(IdempotencyKey { key: "k", window: None });
        self.push(&Event::Requested { task_type, payload: b"{}", key, asks: Vec::new() });
    }

    fn start(&mut self, live: Live) {
        let attempt = live.attempt + 1;
        self.push(&Event::Started { task: live.task, attempt, replica: ReplicaId(1) });
        self.set(Live { attempt, running: true, ..live });
    }

    fn fail(&mut self, live: Live) {
        let Live { task, attempt, .. } = live;
        if self.random.below(2) == 0 {
            self.push(&Event::TimedOut { task, attempt, timeout: Timeout::StartToClose });
            self.holding.push((task, attempt));
        } else {
            let failure = Failure { class: "Io", message: "no", retryable: true, delay: None };
            self.push(&Event::Failed { task, attempt, failure });
        }
        let rested = Live { running: false, ..live };
        match self.random.below(4) {
            0 | 1 => {
                self.push(&Event::RetryScheduled { task, due: Timestamp(self.at.0 + 5) });
                self.set(rested);
            }
            2 => {
                self.push(&Event::DeadLettered { task, cause: Cause::AttemptsExhausted });
                self.end(rested);
                self.dead.push(task);
            }
            _ => {
                self.push(&Event::Ended { task, outcome: Outcome::Failed, cause: Cause::AttemptsExhausted });
                self.end(rested);
            }
        }
    }

    fn release(&mut self) {
        let Some((task, attempt)) = self.random.pick(&self.holding) else { return };
        self.holding.retain(|held| *held != (task, attempt));
        self.push(&Event::SlotReleased { task, attempt, replica: ReplicaId(1) });
    }

    fn redrive(&mut self) {
        let Some(task) = self.random.pick(&self.dead) else { return };
        self.dead.retain(|other| *other != task);
        self.live.push(Live { task: self.open.next_ordinal(), attempt: 0, running: false });
        self.push(&Event::Redriven { task, by: "ann", reason: "again" });
    }

    fn drop_dead_letter(&mut self) {
        let Some(task) = self.random.pick(&self.dead) else { return };
        self.dead.retain(|other| *other != task);
        self.push(&Event::DeadLetterDropped { task });
    }
}
