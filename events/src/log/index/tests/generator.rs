//! Plausible logs: tasks of several types that start, fail, are retried, checkpointed, cancelled, dead-lettered and redriven.

use crate::block::{Hash, OpenBlock};
use crate::event::{Cause, Event};
use crate::id::{Epoch, Ordinal, Position, ReplicaId, ShardId, TypeId};
use crate::log::memory::MemoryLog;
use crate::log::{EventLog, Span};
use crate::task::{Failure, Outcome};
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

pub(super) struct Generator {
    pub(super) log: MemoryLog,
    open: OpenBlock,
    previous: Hash,
    random: Random,
    at: Timestamp,
    live: Vec<Ordinal>,
    dead: Vec<Ordinal>,
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
            blocks: Vec::new(),
        }
    }

    /// A log of about so many events.
    pub(super) fn log_of(seed: u64, events: u64) -> Generator {
        let mut generator = Generator::new(seed);
        generator.extend(events);
        generator
    }

    pub(super) fn extend(&mut self, events: u64) {
        let end = self.open.next_position().0 + events;
        while self.open.next_position().0 < end {
            let actions = 1 + self.random.below(60);
            (0..actions).for_each(|_| self.act());
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

    fn end(&mut self, task: Ordinal) {
        let index = self.live.iter().position(|other| *other == task);
        index.map(|index| self.live.swap_remove(index));
    }

    fn act(&mut self) {
        self.at.0 += self.random.below(300);
        let action = self.random.below(100);
        let Some(task) = self.random.pick(&self.live).filter(|_| action >= 25) else {
            return self.request(action);
        };
        let attempt = 1;
        match action {
            25..45 => self.push(&Event::Started { task, attempt, replica: ReplicaId(1) }),
            45..68 => {
                let outcome = Outcome::ALL[self.random.below(5) as usize];
                self.push(&Event::Succeeded { task, attempt, outcome, result: b"done" });
                self.end(task);
            }
            68..80 => self.fail(task, attempt),
            80..84 => self.push(&Event::Checkpointed { task, attempt, details: b"half" }),
            84..88 => {
                self.push(&Event::CancelRequested { task, by: "ann", reason: "" });
                self.push(&Event::Ended { task, outcome: Outcome::Cancelled, cause: Cause::Cancelled });
                self.end(task);
            }
            88..90 => self.push(&Event::SlotReleased { task, attempt, replica: ReplicaId(1) }),
            90..92 => self.push(&Event::ReplicaJoined { replica: ReplicaId(2), pool: "default", slots: 4 }),
            92..96 => self.redrive(),
            _ => self.drop_dead_letter(),
        }
    }

    fn request(&mut self, action: u64) {
        if let Some(of) = self.random.pick(&self.live).filter(|_| action == 0) {
            let digest = crate::event::Digest::of(b"");
            return self.push(&Event::Deduplicated { task_type: TypeId(1), key: "k", digest, of });
        }
        self.live.push(self.open.next_ordinal());
        let task_type = TypeId(self.random.below(TYPES) as u16);
        self.push(&Event::Requested { task_type, payload: b"{}", key: None, asks: Vec::new() });
    }

    fn fail(&mut self, task: Ordinal, attempt: u32) {
        let failure = Failure { class: "Io", message: "no", retryable: true, delay: None };
        self.push(&Event::Failed { task, attempt, failure });
        if self.random.below(2) == 0 {
            return self.push(&Event::RetryScheduled { task, due: Timestamp(self.at.0 + 5) });
        }
        self.push(&Event::DeadLettered { task, cause: Cause::AttemptsExhausted });
        self.end(task);
        self.dead.push(task);
    }

    fn redrive(&mut self) {
        let Some(task) = self.random.pick(&self.dead) else { return };
        self.dead.retain(|other| *other != task);
        self.live.push(self.open.next_ordinal());
        self.push(&Event::Redriven { task, by: "ann", reason: "again" });
    }

    fn drop_dead_letter(&mut self) {
        let Some(task) = self.random.pick(&self.dead) else { return };
        self.dead.retain(|other| *other != task);
        self.push(&Event::DeadLetterDropped { task });
    }
}
