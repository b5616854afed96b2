//! A disk that loses what was not synced, tears what was being written, and fails when it is told to.

use ergate_events::block::{Block, Hash};
use ergate_events::event::Digest;
use ergate_events::id::Position;
use ergate_events::planted::{Bug, is};
use ergate_events::state::State;

use super::random::{Options, Random};

/// Why a write or a sync failed; after either the process writes no more.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DiskError {
    Io,
    Full,
}

/// A snapshot file: written in one step, with a digest that tells a torn one.
#[derive(Clone, Debug)]
struct Snapshot {
    block: usize,
    head: Hash,
    image: Vec<u8>,
    digest: Digest,
}

#[derive(Debug, Default)]
pub(crate) struct Disk {
    durable: Vec<Vec<u8>>,
    written: Vec<Vec<u8>>,
    /// The position up to which the log was acknowledged; kept apart from the log.
    anchor: Position,
    snapshots: Vec<Snapshot>,
}

/// What a start finds.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) head: Hash,
    pub(crate) from_snapshot: bool,
    pub(crate) cut: bool,
}

impl Disk {
    fn fault(random: &mut Random, options: &Options) -> Result<(), DiskError> {
        if random.below(100_000) < options.disk_error {
            return Err(DiskError::Io);
        }
        if random.below(100_000) < options.disk_full { Err(DiskError::Full) } else { Ok(()) }
    }

    pub(crate) fn append(&mut self, bytes: &[u8], random: &mut Random, options: &Options) -> Result<(), DiskError> {
        let fault = Disk::fault(random, options);
        if fault.is_ok() || random.chance(500) {
            self.written.push(bytes.to_vec());
        }
        fault
    }

    pub(crate) fn sync(&mut self, next: Position, random: &mut Random, options: &Options) -> Result<(), DiskError> {
        Disk::fault(random, options)?;
        self.durable.append(&mut self.written);
        self.anchor = next;
        Ok(())
    }

    pub(crate) fn write_snapshot(&mut self, state: &State, head: Hash, random: &mut Random, options: &Options) {
        let mut image = Vec::new();
        state.encode(&mut image).expect("a vector takes every byte");
        let digest = Digest::of(&image);
        if random.chance(options.torn / 4) {
            image.truncate(image.len() / 2);
        }
        self.snapshots.push(Snapshot { block: self.durable.len(), head, image, digest });
        if self.snapshots.len() > 2 {
            self.snapshots.remove(0);
        }
    }

    /// The power goes: of what was not synced a beginning is kept, and of the first block that is not, perhaps a part.
    pub(crate) fn lose_power(&mut self, random: &mut Random, options: &Options) {
        let keep = random.below(self.written.len() as u64 + 1) as usize;
        let lost = self.written.split_off(keep);
        self.durable.append(&mut self.written);
        if let Some(block) = lost.first().filter(|_| random.chance(options.torn)) {
            let mut torn = block.clone();
            if random.chance(500) {
                torn.truncate(random.below(block.len() as u64) as usize);
            } else {
                let at = random.below(block.len() as u64) as usize;
                torn[at..].fill(0);
                torn[at] ^= u8::from(torn == *block);
            }
            self.durable.push(torn);
        }
    }

    /// Blocks up to the first that is none, and whether there was such a one.
    pub(crate) fn blocks(&self) -> (Vec<Block>, bool) {
        let mut blocks = Vec::new();
        for bytes in &self.durable {
            match Block::parse(bytes) {
                Ok(block) => blocks.push(block),
                Err(_) => return (blocks, true),
            }
        }
        (blocks, false)
    }

    /// What a process does that takes over the log.
    pub(crate) fn recover(&mut self) -> Result<Recovered, String> {
        let (mut blocks, cut) = self.blocks();
        self.durable.truncate(blocks.len());
        let end = blocks.last().map_or(Position(0), |block| block.header.next_position());
        if end < self.anchor {
            return Err(format!("the log ends at {end} and was acknowledged up to {}", self.anchor));
        }
        if is(Bug::DroppedLastBlock) {
            blocks.pop();
            self.durable.truncate(blocks.len());
            self.anchor = Position(0);
        }
        let (mut state, mut head, from) = self.base(blocks.len());
        self.snapshots.retain(|snapshot| snapshot.block <= blocks.len());
        for block in &blocks[from..] {
            if block.header.previous != head {
                return Err(format!("the chain breaks at {}", block.header.first_position));
            }
            for envelope in block.records() {
                state.apply(&envelope.map_err(|error| error.to_string())?);
            }
            head = block.hash();
        }
        Ok(Recovered { state, head, from_snapshot: from > 0, cut })
    }

    /// The newest snapshot that is whole, or nothing, with the block at which the tail begins.
    fn base(&self, blocks: usize) -> (State, Hash, usize) {
        let whole = self.snapshots.iter().rev().filter(|snapshot| snapshot.block <= blocks).find_map(|snapshot| {
            let fits = Digest::of(&snapshot.image) == snapshot.digest;
            let state = State::decode(&snapshot.image).ok().filter(|_| fits)?;
            Some((state, snapshot.head, snapshot.block))
        });
        whole.unwrap_or_else(|| (State::default(), Hash::ZERO, 0))
    }
}
