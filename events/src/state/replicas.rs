//! Replicas as a shard sees them: slots, and the attempts that hold them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};

use crate::event::Departure;
use crate::id::{Ordinal, ReplicaId};
use crate::shared::SharedSet;
use crate::time::Timestamp;

/// Most slots of one replica: more async functions than a process keeps busy, and a bound for what one event can claim.
pub const SLOTS_MAX: u32 = 1 << 16;

/// Most replicas of a shard at one time.
const REPLICAS_MAX: usize = 1 << 16;
/// Most slots of all replicas of a shard: at 28 bytes a slot, what a few short commands can claim stays below 32 MiB.
const SLOTS_TOTAL_MAX: usize = 1 << 20;

/// Slots that are copied together while a clone of the state lives, and whose deadlines are looked at together: 1.5 KiB.
const GROUP_SLOTS: usize = 64;

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

/// Neighbouring slots.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    slots: Vec<Slot>,
    /// No busy slot has an earlier deadline. A cache: it may be too early, never too late.
    deadline_bound: Timestamp,
}

impl Group {
    fn new(slots: Vec<Slot>) -> Group {
        let mut group = Group { slots, deadline_bound: Timestamp::NEVER };
        group.tighten();
        group
    }

    fn tighten(&mut self) {
        let deadlines = self.slots.iter().filter_map(|slot| match *slot {
            Slot::Busy { deadline, .. } => Some(deadline),
            Slot::Free | Slot::Held { .. } => None,
        });
        self.deadline_bound = deadlines.min().unwrap_or(Timestamp::NEVER);
    }

    fn overdue(&self, at: Timestamp) -> Option<(Ordinal, u32)> {
        if self.deadline_bound > at {
            return None;
        }
        self.slots.iter().find_map(|slot| match *slot {
            Slot::Busy { task, attempt, deadline } if deadline <= at => Some((task, attempt)),
            Slot::Busy { .. } | Slot::Free | Slot::Held { .. } => None,
        })
    }
}

/// A holder of slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Index of its pool in the shard's list.
    pub pool: u32,
    /// Takes no new work.
    pub draining: bool,
    /// How it went, once it is gone.
    pub(crate) departure: Departure,
    /// All slots, in groups of [`GROUP_SLOTS`] of which only the last may have fewer.
    groups: Vec<Arc<Group>>,
    /// Free slots; the last one is used next.
    free: Vec<u32>,
    /// How many slots are held.
    held: u32,
    /// No busy slot has an earlier deadline. A cache: it may be too early, never too late.
    deadline_bound: Timestamp,
    /// How many groups at the beginning have no deadline before a moment, and that moment: where a search for overdue attempts begins.
    quiet: (usize, Timestamp),
}

impl Replica {
    fn new(pool: u32, slots: u32) -> Replica {
        let slots = slots.min(SLOTS_MAX);
        Replica {
            pool,
            draining: false,
            departure: Departure::Lost,
            groups: grouped(&vec![Slot::Free; slots as usize]),
            free: (0..slots).rev().collect(),
            held: 0,
            deadline_bound: Timestamp::NEVER,
            quiet: NONE_QUIET,
        }
    }

    /// What each slot is doing.
    pub fn slots(&self) -> impl DoubleEndedIterator<Item = &Slot> {
        self.groups.iter().flat_map(|group| &group.slots)
    }

    /// How many slots it has.
    pub fn size(&self) -> usize {
        self.groups.last().map_or(0, |last| (self.groups.len() - 1) * GROUP_SLOTS + last.slots.len())
    }

    /// Slots that could take an attempt now.
    pub fn free(&self) -> usize {
        if self.draining { 0 } else { self.free.len() }
    }

    /// Slots in use, held ones included; every slot that is left of a replica that is gone.
    pub fn used(&self) -> usize {
        self.size().saturating_sub(self.free.len())
    }

    /// Gives a free slot to an attempt; `None` when there is none.
    pub(crate) fn take(&mut self, task: Ordinal, attempt: u32, deadline: Timestamp) -> Option<u32> {
        let index = self.free.pop()?;
        let group = self.group_mut(index)?;
        group.slots[index as usize % GROUP_SLOTS] = Slot::Busy { task, attempt, deadline };
        group.deadline_bound = group.deadline_bound.min(deadline);
        self.deadline_bound = self.deadline_bound.min(deadline);
        self.quiet.1 = self.quiet.1.min(deadline);
        Some(index)
    }

    fn group_mut(&mut self, index: u32) -> Option<&mut Group> {
        self.groups.get_mut(index as usize / GROUP_SLOTS).map(Arc::make_mut)
    }

    /// Frees a slot that is in use and says what it was.
    fn give_back(&mut self, index: u32) -> Slot {
        let Some(slot) = self.group_mut(index).and_then(|group| group.slots.get_mut(index as usize % GROUP_SLOTS)) else {
            return Slot::Free;
        };
        let before = std::mem::replace(slot, Slot::Free);
        if before != Slot::Free {
            self.free.push(index);
        }
        self.held -= u32::from(matches!(before, Slot::Held { .. }));
        before
    }

    /// Keeps the slot of an attempt that no longer counts until it is released, and says which attempt that is.
    fn hold(&mut self, index: u32) -> Option<(Ordinal, u32)> {
        let group = self.group_mut(index)?;
        let slot = group.slots.get_mut(index as usize % GROUP_SLOTS)?;
        let Slot::Busy { task, attempt, .. } = *slot else { return None };
        *slot = Slot::Held { task, attempt };
        self.held += 1;
        Some((task, attempt))
    }

    /// Notes that the attempt in this slot was found to be overdue, so that the next one is found without looking at all before it.
    fn pass_over(&mut self, index: u32, at: Timestamp) {
        let Some(group) = self.group_mut(index) else { return };
        group.tighten();
        let bound = group.deadline_bound;
        if index as usize / GROUP_SLOTS == self.quiet.0 && bound > at {
            self.quiet = (self.quiet.0 + 1, self.quiet.1.min(bound));
        }
    }

    /// The first attempt whose time is over.
    pub(crate) fn overdue(&self, at: Timestamp) -> Option<(Ordinal, u32)> {
        if self.deadline_bound > at {
            return None;
        }
        let quiet = if self.quiet.1 > at { self.quiet.0 } else { 0 };
        self.groups.get(quiet..)?.iter().find_map(|group| group.overdue(at))
    }

    /// The last busy slot's attempt.
    fn last_busy(&self) -> Option<(Ordinal, u32)> {
        self.slots().rev().find_map(|slot| match *slot {
            Slot::Busy { task, attempt, .. } => Some((task, attempt)),
            Slot::Free | Slot::Held { .. } => None,
        })
    }

    /// Takes the last slot away if nothing has to be returned from it; says which slot it was.
    fn drop_last_idle(&mut self) -> Option<(u32, Slot)> {
        let index = self.size().checked_sub(1)?;
        let last = self.groups.last_mut()?;
        if matches!(last.slots.last(), None | Some(Slot::Busy { .. })) {
            return None;
        }
        let slot = Arc::make_mut(last).slots.pop()?;
        if last.slots.is_empty() {
            self.groups.pop();
        }
        self.held -= u32::from(matches!(slot, Slot::Held { .. }));
        Some((u32::try_from(index).ok()?, slot))
    }

    /// Whether the list of free slots is what the slots say; a read image may claim anything.
    fn counts_its_slots(&self) -> bool {
        let free: BTreeSet<u32> = self.free.iter().copied().collect();
        let said = (0_u32..).zip(self.slots()).filter(|(_, slot)| **slot == Slot::Free).map(|(index, _)| index);
        free.len() == self.free.len() && said.eq(free.iter().copied())
    }

    fn counts_what_it_holds(&self) -> bool {
        self.slots().filter(|slot| matches!(slot, Slot::Held { .. })).count() == self.held as usize
    }

    /// Tightens the bounds that were reached.
    fn refresh(&mut self, at: Timestamp) {
        if self.deadline_bound <= at {
            self.groups.iter_mut().filter(|group| group.deadline_bound <= at).for_each(|group| Arc::make_mut(group).tighten());
            self.deadline_bound = self.groups.iter().map(|group| group.deadline_bound).min().unwrap_or(Timestamp::NEVER);
            let bounds = self.groups.iter().map(|group| group.deadline_bound).take_while(|bound| *bound > at);
            self.quiet = bounds.fold(NONE_QUIET, |(groups, until), bound| (groups + 1, until.min(bound)));
        }
    }

    /// The earliest deadline of a busy slot.
    fn deadline(&self) -> Timestamp {
        let deadlines = self.slots().filter_map(|slot| match *slot {
            Slot::Busy { deadline, .. } => Some(deadline),
            Slot::Free | Slot::Held { .. } => None,
        });
        deadlines.min().unwrap_or(Timestamp::NEVER)
    }
}

const NONE_QUIET: (usize, Timestamp) = (0, Timestamp::NEVER);

fn grouped(slots: &[Slot]) -> Vec<Arc<Group>> {
    slots.chunks(GROUP_SLOTS).map(|slots| Arc::new(Group::new(slots.to_vec()))).collect()
}

/// The bound is written as it is when it is tight, so that equal states have equal bytes.
impl Encode for Replica {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.pool, self.draining, self.departure, self.size() as u64).encode(encoder)?;
        self.slots().try_for_each(|slot| slot.encode(encoder))?;
        (&self.free, self.held, self.deadline()).encode(encoder)
    }
}

impl<Context> Decode<Context> for Replica {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let (pool, draining, departure, slots) = <(u32, bool, Departure, Vec<Slot>)>::decode(decoder)?;
        let (free, held, deadline_bound) = Decode::decode(decoder)?;
        Ok(Replica { pool, draining, departure, groups: grouped(&slots), free, held, deadline_bound, quiet: NONE_QUIET })
    }
}

/// All replicas of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Those that are there.
    pub(crate) present: BTreeMap<ReplicaId, Replica>,
    /// Those that are gone while attempts of theirs still have to be returned.
    gone: BTreeMap<ReplicaId, Replica>,
    /// Every held slot: its task and attempt, its replica and index. It follows from the replicas and is not written.
    held: SharedSet<(Ordinal, u32, ReplicaId, u32)>,
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

    /// The replica that is there and keeps a slot for this attempt although it no longer counts.
    pub(crate) fn holder(&self, task: Ordinal, attempt: u32) -> Option<ReplicaId> {
        let from = self.held.iter_from((task, attempt, ReplicaId(0), 0));
        let mut holders = from.take_while(|(held, number, ..)| (*held, *number) == (task, attempt)).map(|(_, _, id, _)| *id);
        holders.find(|id| self.present.contains_key(id))
    }

    /// The newest attempt of this task that keeps a slot although it no longer counts, and its replica.
    pub(crate) fn holder_of(&self, task: Ordinal) -> Option<(ReplicaId, u32)> {
        let held = self.held.iter_from((task, 0, ReplicaId(0), 0)).take_while(|(held, ..)| *held == task);
        held.last().map(|(_, attempt, id, _)| (*id, *attempt))
    }

    /// The slot that a replica keeps for an attempt that no longer counts.
    pub(crate) fn held_slot(&self, id: ReplicaId, task: Ordinal, attempt: u32) -> Option<u32> {
        let first = self.held.iter_from((task, attempt, id, 0)).next();
        first.filter(|held| (held.0, held.1, held.2) == (task, attempt, id)).map(|held| held.3)
    }

    /// Every busy slot with its replica and its index.
    pub(crate) fn busy(&self) -> impl Iterator<Item = (ReplicaId, u32, Ordinal, u32)> {
        self.indexed().filter_map(|(id, index, slot)| match *slot {
            Slot::Busy { task, attempt, .. } => Some((id, index, task, attempt)),
            Slot::Free | Slot::Held { .. } => None,
        })
    }

    /// Every slot with its replica and its index.
    fn indexed(&self) -> impl Iterator<Item = (ReplicaId, u32, &Slot)> {
        let all = self.iter().chain(self.gone());
        all.flat_map(|(id, replica)| (0_u32..).zip(replica.slots()).map(move |(index, slot)| (id, index, slot)))
    }

    /// Whether a read image is one that could have been written, as far as replicas alone can tell.
    pub(crate) fn are_possible(&self) -> bool {
        self.present.values().all(Replica::counts_its_slots)
            && self.gone.values().all(|replica| matches!(replica.slots().next_back(), Some(Slot::Busy { .. })))
            && self.gone.keys().all(|id| !self.present.contains_key(id))
            && self.present.values().chain(self.gone.values()).all(Replica::counts_what_it_holds)
    }

    /// Whether another replica with this many slots may join.
    pub(crate) fn have_room(&self, slots: u32) -> bool {
        let all = || self.present.values().chain(self.gone.values());
        let total: usize = all().map(Replica::size).sum();
        all().count() < REPLICAS_MAX && total + slots as usize <= SLOTS_TOTAL_MAX
    }

    /// Adds a replica unless its id is known.
    pub(crate) fn join(&mut self, id: ReplicaId, pool: u32, slots: u32) {
        if !self.knows(id) {
            self.present.insert(id, Replica::new(pool, slots));
        }
    }

    /// Frees a slot that is in use.
    pub(crate) fn give_back(&mut self, id: ReplicaId, index: u32) {
        if let Some(Slot::Held { task, attempt }) = self.find_mut(id).map(|replica| replica.give_back(index)) {
            self.held.remove(&(task, attempt, id, index));
        }
    }

    /// Keeps the slot of an attempt that no longer counts until it is released.
    pub(crate) fn hold(&mut self, id: ReplicaId, index: u32) {
        if let Some((task, attempt)) = self.find_mut(id).and_then(|replica| replica.hold(index)) {
            self.held.insert((task, attempt, id, index));
        }
    }

    /// Keeps the slot of an attempt whose time is over at this moment.
    pub(crate) fn time_out(&mut self, id: ReplicaId, index: u32, at: Timestamp) {
        self.hold(id, index);
        if let Some(replica) = self.find_mut(id) {
            replica.pass_over(index, at);
        }
    }

    /// Puts a replica aside until all its attempts have been returned.
    pub(crate) fn leave(&mut self, id: ReplicaId, departure: Departure) {
        if let Some(replica) = self.present.remove(&id) {
            self.gone.insert(id, Replica { departure, free: Vec::new(), ..replica });
            self.forget_gone(id);
        }
    }

    /// Forgets free and held slots at the end of a replica that is gone, which takes nothing any more, and the replica with its last slot.
    pub(crate) fn forget_gone(&mut self, id: ReplicaId) {
        let Some(replica) = self.gone.get_mut(&id) else { return };
        replica.free.clear();
        while let Some((index, slot)) = replica.drop_last_idle() {
            if let Slot::Held { task, attempt } = slot {
                self.held.remove(&(task, attempt, id, index));
            }
        }
        if replica.groups.is_empty() {
            self.gone.remove(&id);
        }
    }

    fn find_mut(&mut self, id: ReplicaId) -> Option<&mut Replica> {
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
}

#[cfg(test)]
impl Replicas {
    /// How many pointers and numbers a clone copies.
    pub(crate) fn clone_work(&self) -> usize {
        self.present.values().chain(self.gone.values()).map(|replica| replica.groups.len() + replica.free.len()).sum()
    }
}

impl Encode for Replicas {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (&self.present, &self.gone).encode(encoder)
    }
}

impl<Context> Decode<Context> for Replicas {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let (present, gone) = Decode::decode(decoder)?;
        let mut replicas = Replicas { present, gone, held: SharedSet::default() };
        let held = replicas.indexed().filter_map(|(id, index, slot)| match *slot {
            Slot::Held { task, attempt } => Some((task, attempt, id, index)),
            Slot::Free | Slot::Busy { .. } => None,
        });
        replicas.held = held.collect();
        Ok(replicas)
    }
}

bincode::impl_borrow_decode!(Replica);
bincode::impl_borrow_decode!(Replicas);
