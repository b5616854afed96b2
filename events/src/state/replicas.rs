//! Replicas as a shard sees them: slots, and the attempts that hold them.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};

use crate::event::Departure;
use crate::id::{Ordinal, ReplicaId};
use crate::time::Timestamp;

/// Most slots of one replica: more async functions than a process keeps busy, and a bound for what one event can claim.
pub const SLOTS_MAX: u32 = 1 << 16;

/// Most replicas of a shard at one time.
const REPLICAS_MAX: usize = 1 << 16;
/// Most slots of all replicas of a shard: at 28 bytes a slot, what a few short commands can claim stays below 32 MiB.
const SLOTS_TOTAL_MAX: usize = 1 << 20;

/// What a slot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[expect(missing_docs, reason = "each variant's sentence names its fields")]
pub enum Slot {
    /// Nothing.
    Free,
    /// Runs the current attempt of a task.
    Busy { task: Ordinal, attempt: u32, deadline: Timestamp },
    /// Still runs an attempt that no longer counts, until its executor says that it stopped.
    Held { task: Ordinal, attempt: u32 },
}

/// A holder of slots.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Replica {
    /// Index of its pool in the shard's list.
    pub pool: u32,
    /// Takes no new work.
    pub draining: bool,
    /// How it went, once it is gone.
    pub(crate) departure: Departure,
    slots: Vec<Slot>,
    /// Free slots; the last one is used next.
    free: Vec<u32>,
    /// How many slots are held.
    held: u32,
    /// No busy slot has an earlier deadline. A cache: it may be too early, never too late.
    deadline_bound: Timestamp,
}

impl Replica {
    pub(crate) fn new(pool: u32, slots: u32) -> Replica {
        let slots = slots.min(SLOTS_MAX);
        Replica {
            pool,
            draining: false,
            departure: Departure::Lost,
            slots: vec![Slot::Free; slots as usize],
            free: (0..slots).rev().collect(),
            held: 0,
            deadline_bound: Timestamp::NEVER,
        }
    }

    /// What each slot is doing.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Slots that could take an attempt now.
    pub fn free(&self) -> usize {
        if self.draining { 0 } else { self.free.len() }
    }

    /// Slots in use, held ones included; every slot that is left of a replica that is gone.
    pub fn used(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    /// Gives a free slot to an attempt; `None` when there is none.
    pub(crate) fn take(&mut self, task: Ordinal, attempt: u32, deadline: Timestamp) -> Option<u32> {
        let index = self.free.pop()?;
        self.slots[index as usize] = Slot::Busy { task, attempt, deadline };
        self.deadline_bound = self.deadline_bound.min(deadline);
        Some(index)
    }

    /// Frees a slot that is in use.
    pub(crate) fn give_back(&mut self, index: u32) {
        if let Some(slot @ (Slot::Busy { .. } | Slot::Held { .. })) = self.slots.get_mut(index as usize) {
            self.held -= u32::from(matches!(slot, Slot::Held { .. }));
            *slot = Slot::Free;
            self.free.push(index);
        }
    }

    /// Keeps the slot of an attempt that no longer counts until it is released.
    pub(crate) fn hold(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize)
            && let Slot::Busy { task, attempt, .. } = *slot
        {
            *slot = Slot::Held { task, attempt };
            self.held += 1;
        }
    }

    /// The slot held by an attempt that no longer counts.
    pub fn held_by(&self, task: Ordinal, attempt: u32) -> Option<u32> {
        // The usual replica holds none, and late reports come in bursts.
        if self.held == 0 {
            return None;
        }
        let index = self.slots.iter().position(|slot| *slot == Slot::Held { task, attempt })?;
        u32::try_from(index).ok()
    }

    /// The first attempt whose time is over.
    pub(crate) fn overdue(&self, at: Timestamp) -> Option<(Ordinal, u32)> {
        if self.deadline_bound > at {
            return None;
        }
        self.slots.iter().find_map(|slot| match *slot {
            Slot::Busy { task, attempt, deadline } if deadline <= at => Some((task, attempt)),
            Slot::Busy { .. } | Slot::Free | Slot::Held { .. } => None,
        })
    }

    /// The last busy slot's attempt.
    pub(crate) fn last_busy(&self) -> Option<(Ordinal, u32)> {
        self.slots.iter().rev().find_map(|slot| match *slot {
            Slot::Busy { task, attempt, .. } => Some((task, attempt)),
            Slot::Free | Slot::Held { .. } => None,
        })
    }

    /// Forgets free and held slots at the end; for a replica that is gone, which takes nothing any more.
    pub(crate) fn shrink(&mut self) {
        self.free.clear();
        while let Some(Slot::Free | Slot::Held { .. }) = self.slots.last() {
            self.held -= u32::from(matches!(self.slots.pop(), Some(Slot::Held { .. })));
        }
    }

    /// Whether the list of free slots is what the slots say; a read image may claim anything.
    fn counts_its_slots(&self) -> bool {
        let free: BTreeSet<u32> = self.free.iter().copied().collect();
        let said = (0_u32..).zip(&self.slots).filter(|(_, slot)| **slot == Slot::Free).map(|(index, _)| index);
        free.len() == self.free.len() && said.eq(free.iter().copied())
    }

    fn refresh(&mut self, at: Timestamp) {
        if self.deadline_bound <= at {
            self.deadline_bound = self.deadlines().min().unwrap_or(Timestamp::NEVER);
        }
    }

    fn counts_what_it_holds(&self) -> bool {
        self.slots.iter().filter(|slot| matches!(slot, Slot::Held { .. })).count() == self.held as usize
    }

    fn deadlines(&self) -> impl Iterator<Item = Timestamp> {
        self.slots.iter().filter_map(|slot| match *slot {
            Slot::Busy { deadline, .. } => Some(deadline),
            Slot::Free | Slot::Held { .. } => None,
        })
    }
}

/// All replicas of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Replicas {
    /// Those that are there.
    pub(crate) present: BTreeMap<ReplicaId, Replica>,
    /// Those that are gone while attempts of theirs still have to be returned.
    pub(crate) gone: BTreeMap<ReplicaId, Replica>,
}

impl Replicas {
    /// A replica that is there.
    pub fn get(&self, id: ReplicaId) -> Option<&Replica> {
        self.present.get(&id)
    }

    /// All replicas that are there.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaId, &Replica)> {
        self.present.iter().map(|(id, replica)| (*id, replica))
    }

    /// Replicas that are gone and still have attempts to return.
    pub fn gone(&self) -> impl Iterator<Item = (ReplicaId, &Replica)> {
        self.gone.iter().map(|(id, replica)| (*id, replica))
    }

    /// The next attempt that a replica which is gone has to return, and how that replica went.
    pub(crate) fn to_return(&self) -> Option<(Ordinal, u32, Departure)> {
        self.gone.values().find_map(|replica| replica.last_busy().map(|(task, attempt)| (task, attempt, replica.departure)))
    }

    /// Whether a replica with this id is there, or is gone and still has attempts to return.
    pub(crate) fn knows(&self, id: ReplicaId) -> bool {
        self.present.contains_key(&id) || self.gone.contains_key(&id)
    }

    /// Every busy slot with its replica and its index.
    pub(crate) fn busy(&self) -> impl Iterator<Item = (ReplicaId, u32, Ordinal, u32)> {
        self.iter().chain(self.gone()).flat_map(|(id, replica)| {
            (0_u32..).zip(&replica.slots).filter_map(move |(index, slot)| match *slot {
                Slot::Busy { task, attempt, .. } => Some((id, index, task, attempt)),
                Slot::Free | Slot::Held { .. } => None,
            })
        })
    }

    /// Whether a read image is one that could have been written, as far as replicas alone can tell.
    pub(crate) fn are_possible(&self) -> bool {
        self.present.values().all(Replica::counts_its_slots)
            && self.gone.values().all(|replica| matches!(replica.slots.last(), Some(Slot::Busy { .. })))
            && self.gone.keys().all(|id| !self.present.contains_key(id))
            && self.present.values().chain(self.gone.values()).all(Replica::counts_what_it_holds)
    }

    /// Whether another replica with this many slots may join.
    pub(crate) fn have_room(&self, slots: u32) -> bool {
        let all = || self.present.values().chain(self.gone.values());
        let total: usize = all().map(|replica| replica.slots.len()).sum();
        all().count() < REPLICAS_MAX && total + slots as usize <= SLOTS_TOTAL_MAX
    }

    pub(crate) fn find_mut(&mut self, id: ReplicaId) -> Option<&mut Replica> {
        match self.present.get_mut(&id) {
            Some(replica) => Some(replica),
            None => self.gone.get_mut(&id),
        }
    }

    /// The earliest moment at which an attempt may be overdue.
    pub(crate) fn next_deadline(&self) -> Timestamp {
        self.present.values().map(|replica| replica.deadline_bound).min().unwrap_or(Timestamp::NEVER)
    }

    /// Tightens the caches of deadlines; changes no decision.
    pub(crate) fn refresh(&mut self, at: Timestamp) {
        self.present.values_mut().for_each(|replica| replica.refresh(at));
    }

    /// Makes the caches of deadlines a function of the slots alone, so that equal states have equal bytes.
    pub(crate) fn normalize(&mut self) {
        self.present.values_mut().chain(self.gone.values_mut()).for_each(|replica| replica.refresh(Timestamp::NEVER));
    }
}
