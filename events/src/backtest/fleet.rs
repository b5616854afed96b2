//! Replicas and their slots: who starts, who takes work, who finishes what it has and goes.

use std::collections::VecDeque;

use super::bits::Bits;
use crate::scaling::signal::Replicas;

/// The replicas that there are.
#[derive(Debug)]
pub(super) struct Fleet {
    slots: u32,
    places: Vec<Place>,
    /// Places whose replica takes work and has room.
    free: Bits,
    /// Places without a replica.
    vacant: Bits,
    /// Places whose replica starts, in the order of the request and thus of being ready.
    starting: VecDeque<usize>,
    /// How many were ever asked for.
    asked: u64,
    counts: Counts,
}

/// How many replicas there are of each kind, and what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) starting: u32,
    pub(super) ready: u32,
    pub(super) draining: u32,
    /// Tasks that run.
    pub(super) running: u32,
    /// Of those the ones on replicas that are draining.
    pub(super) leaving: u32,
}

#[derive(Debug)]
struct Place {
    life: Life,
    /// The number of its replica: of two, the newer one has the larger.
    replica: u64,
    ready_at: u64,
    running: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Vacant,
    Starting,
    Ready,
    Draining,
}

impl Fleet {
    pub(super) fn new(slots: u32) -> Fleet {
        let (places, starting) = (Vec::new(), VecDeque::new());
        let (free, vacant) = (Bits::default(), Bits::default());
        Fleet { slots, places, free, vacant, starting, asked: 0, counts: Counts::default() }
    }

    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// How many replicas were asked for in all.
    pub(super) const fn asked(&self) -> u64 {
        self.asked
    }

    /// The moment at which the next replica is ready.
    pub(super) fn next_ready(&self) -> Option<u64> {
        self.starting.front().map(|place| self.places[*place].ready_at)
    }

    /// Asks for replicas; starts last equally long, so those that were asked for first are ready first.
    pub(super) fn grow(&mut self, count: u32, ready_at: u64) {
        for _ in 0..count {
            let replica = Place { life: Life::Starting, replica: self.asked, ready_at, running: 0 };
            self.asked += 1;
            let place = match self.vacant.first() {
                Some(place) => {
                    self.vacant.remove(place);
                    self.places[place] = replica;
                    place
                }
                None => {
                    self.places.push(replica);
                    self.places.len() - 1
                }
            };
            self.starting.push_back(place);
        }
        self.counts.starting += count;
    }

    /// The replica that has started for longest takes work from now on.
    pub(super) fn make_ready(&mut self) {
        if let Some(place) = self.starting.pop_front() {
            self.places[place].life = Life::Ready;
            self.free.insert(place);
            self.counts.starting -= 1;
            self.counts.ready += 1;
        }
    }

    /// Lets so many go: first those that have not started, of which nobody has had anything, then idle ones, then those with work, which finish
    /// it; of equals the newest.
    pub(super) fn shrink(&mut self, count: u32) {
        let mut left = count;
        while left > 0 {
            let Some(place) = self.starting.pop_back() else { break };
            self.counts.starting -= 1;
            self.vacate(place);
            left -= 1;
        }
        if left == 0 {
            return;
        }
        let is_ready = |(_, place): &(usize, &Place)| place.life == Life::Ready;
        let ready = self.places.iter().enumerate().filter(is_ready);
        let mut victims: Vec<_> = ready.map(|(index, place)| (place.running > 0, u64::MAX - place.replica, index)).collect();
        victims.sort_unstable();
        for (has_work, _, place) in victims.into_iter().take(left as usize) {
            self.counts.ready -= 1;
            self.free.remove(place);
            if has_work {
                self.places[place].life = Life::Draining;
                self.counts.draining += 1;
                self.counts.leaving += self.places[place].running;
            } else {
                self.vacate(place);
            }
        }
    }

    /// Gives a task to a replica that has room; tells where.
    pub(super) fn start(&mut self) -> Option<u32> {
        let index = self.free.first()?;
        let place = &mut self.places[index];
        place.running += 1;
        self.counts.running += 1;
        if place.running == self.slots {
            self.free.remove(index);
        }
        u32::try_from(index).ok()
    }

    /// A task of the replica at this place ends.
    pub(super) fn finish(&mut self, place: u32) {
        let index = place as usize;
        let place = &mut self.places[index];
        place.running -= 1;
        self.counts.running -= 1;
        match place.life {
            Life::Draining => {
                self.counts.leaving -= 1;
                if place.running == 0 {
                    self.counts.draining -= 1;
                    self.vacate(index);
                }
            }
            Life::Ready => self.free.insert(index),
            Life::Vacant | Life::Starting => {}
        }
    }

    /// The fleet as a policy sees it.
    pub(super) const fn seen(&self, wanted: u32) -> Replicas {
        let Counts { starting, ready, draining, running, .. } = self.counts;
        Replicas { wanted, live: starting + ready + draining, starting, ready, draining, slots: self.slots, running }
    }

    /// Calls `one` for every replica that is not draining: when it was or will be ready, and how many tasks it runs.
    pub(super) fn each(&self, mut one: impl FnMut(u64, u32)) {
        for place in &self.places {
            match place.life {
                Life::Starting | Life::Ready => one(place.ready_at, place.running),
                Life::Vacant | Life::Draining => {}
            }
        }
    }

    fn vacate(&mut self, place: usize) {
        self.places[place].life = Life::Vacant;
        self.vacant.insert(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_start_go_first_then_idle_ones_then_the_newest() {
        let mut fleet = Fleet::new(1);
        fleet.grow(4, 10);
        (0..4).for_each(|_| fleet.make_ready());
        fleet.grow(1, 20);
        // Places 0, 1 and 2 work, 3 is idle, 4 starts.
        assert_eq!([fleet.start(), fleet.start(), fleet.start()], [Some(0), Some(1), Some(2)]);
        fleet.shrink(1);
        assert_eq!(fleet.counts(), Counts { starting: 0, ready: 4, draining: 0, running: 3, leaving: 0 });
        fleet.shrink(1);
        assert_eq!(fleet.counts(), Counts { starting: 0, ready: 3, draining: 0, running: 3, leaving: 0 });
        fleet.shrink(1);
        assert_eq!(fleet.counts(), Counts { starting: 0, ready: 2, draining: 1, running: 3, leaving: 1 });
        // The newest with work was at place 2; it goes when that is done, and takes nothing new.
        fleet.finish(2);
        assert_eq!(fleet.counts(), Counts { starting: 0, ready: 2, draining: 0, running: 2, leaving: 0 });
        assert_eq!(fleet.start(), None);
        fleet.grow(1, 30);
        assert_eq!((fleet.next_ready(), fleet.asked()), (Some(30), 6));
        fleet.make_ready();
        assert_eq!(fleet.start(), Some(2), "the place is used again");
    }

    #[test]
    fn a_replica_takes_work_until_its_slots_are_full() {
        let mut fleet = Fleet::new(2);
        fleet.grow(2, 0);
        fleet.make_ready();
        fleet.make_ready();
        assert_eq!([fleet.start(), fleet.start(), fleet.start()], [Some(0), Some(0), Some(1)]);
        fleet.finish(0);
        assert_eq!([fleet.start(), fleet.start(), fleet.start()], [Some(0), Some(1), None]);
    }
}
