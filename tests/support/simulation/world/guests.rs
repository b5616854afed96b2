//! Guests: workers that come by themselves, ask for attempts, fall silent, come back, and give things back.

use ergate_events::id::{Ordinal, ReplicaId};
use ergate_events::state::replicas::Slot;
use ergate_events::time::{Micros, Timestamp};
use ergate_events::worker::{WORKER_FIRST, WorkerFacts, WorkerId};

use super::{MINUTE, What, World};
use crate::simulation::ask::{Ask, Done};

/// How long a guest may be silent.
pub(crate) const LEASE: Micros = Micros::from_secs(20);
/// Slots of a guest.
const SLOTS: u32 = 3;

/// A worker that comes by itself.
#[derive(Debug, Default)]
pub(super) struct Guest {
    /// Which replica it is, if it has been taken in.
    replica: Option<ReplicaId>,
    /// It asks for nothing and gives no sign of life before this moment.
    silent_until: u64,
}

/// What a guest says of itself.
pub(crate) fn facts(guest: u64) -> WorkerFacts {
    let mut id = WorkerId::default();
    id.0[..8].copy_from_slice(&guest.to_le_bytes());
    WorkerFacts { id, name: format!("guest {guest}"), lease: LEASE, ..WorkerFacts::default() }
}

impl World {
    pub(super) fn invite(&mut self) {
        for guest in 0..self.options.guests {
            self.guests.push(Guest::default());
            self.plan(MINUTE / 60, What::Poll(guest));
        }
    }

    /// A guest asks for work, after it may have been silent.
    pub(super) fn poll_guest(&mut self, number: u64) {
        let next = self.random.spread(400_000);
        self.plan(next, What::Poll(number));
        let Some(guest) = self.guests.get(number as usize).filter(|guest| guest.silent_until <= self.now) else { return };
        let (replica, Some(engine)) = (guest.replica, &self.engine) else { return };
        let work = &engine.shard.state().work;
        let known = replica.filter(|replica| work.workers.contains_key(replica));
        match (known, work.next_worker()) {
            (None, Some(next)) => {
                let slots = SLOTS;
                self.send(Ask::JoinWorker { guest: number, replica: next, slots });
            }
            (None, None) => {}
            (Some(replica), _) => {
                self.seen.insert(replica, self.now);
                let slots = self.random.between(1, u64::from(SLOTS)) as u32;
                self.send(Ask::Work(replica, slots));
                self.tire(number, replica);
            }
        }
    }

    /// It may give something back, or fall silent for a while.
    fn tire(&mut self, number: u64, replica: ReplicaId) {
        let own = self.running.iter().find(|(_, runs_on)| **runs_on == replica).map(|(attempt, _)| *attempt);
        if let Some((task, attempt)) = own.filter(|_| self.random.chance(100)) {
            self.running.remove(&(task, attempt));
            self.report(task, attempt, replica, Done::Returned);
        }
        if !self.calm && self.random.chance(self.options.lose_replica) {
            self.note(&format!("guest {number} is silent"));
            self.guests[number as usize].silent_until = self.now + self.random.below(2 * LEASE.0);
        }
    }

    /// All guests give signs of life again.
    pub(super) fn wake_guests(&mut self) {
        self.guests.iter_mut().for_each(|guest| guest.silent_until = 0);
    }

    /// Its answer: it is this replica from now on.
    pub(super) fn welcome(&mut self, number: u64, replica: ReplicaId) {
        self.seen.insert(replica, self.now);
        self.alive.insert(replica);
        self.guests[number as usize].replica = Some(replica);
    }

    /// Says of guests that were silent for too long that they are missed. One that this process has never seen has its lease to come back.
    pub(super) fn miss_guests(&mut self) {
        let Some(engine) = &self.engine else { return };
        let (workers, now) = (engine.shard.state().work.workers.keys().copied().collect::<Vec<_>>(), self.now);
        for replica in workers {
            let seen = *self.seen.entry(replica).or_insert(now);
            if now - seen > LEASE.0 {
                let Some(engine) = &self.engine else { return };
                let last_seen = Timestamp(engine.log_time(now).0.saturating_sub(now - seen));
                self.propose(5, replica, Ask::Miss(replica, last_seen));
            }
        }
    }

    /// The engine is there again: guests say what they run, and what they have beside that goes back.
    pub(super) fn attach_guests(&mut self) {
        let Some(engine) = &self.engine else { return };
        let work = &engine.shard.state().work;
        let slots = work.slots().filter(|(replica, _)| *replica >= WORKER_FIRST);
        let busy = slots.filter_map(|(replica, slot)| match *slot {
            Slot::Busy { task, attempt, .. } => Some((task, attempt, replica)),
            Slot::Free | Slot::Held { .. } => None,
        });
        let missing = busy.filter(|(task, attempt, replica)| self.is_unknown(*task, *attempt, *replica)).collect::<Vec<_>>();
        let here: Vec<ReplicaId> = self.guests.iter().filter_map(|guest| guest.replica).collect();
        self.alive.extend(here.iter().copied());
        self.seen.clear();
        for (task, attempt, replica) in missing {
            if here.contains(&replica) {
                self.cover("never delivered");
                self.report(task, attempt, replica, Done::Returned);
            }
        }
    }

    /// Whether a guest knows nothing of an attempt that the log gives it: it neither runs it nor has a report of it.
    fn is_unknown(&self, task: Ordinal, attempt: u32, replica: ReplicaId) -> bool {
        self.running.get(&(task, attempt)) != Some(&replica) && !self.unreported.contains_key(&(task, attempt))
    }
}
