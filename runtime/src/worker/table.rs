//! What a worker has: attempts in numbered places, each until the engine knows how it ended.

use std::collections::HashMap;

use ergate_events::id::AttemptId;

/// An attempt that the worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) id: AttemptId,
    pub(super) stage: Stage,
    /// The engine that gave it, by its place.
    pub(super) from: usize,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its payload is on its way.
    Fetching,
    /// Its function runs.
    Running,
    /// Its function runs, and was told to end at once: what that is reported as.
    Ending(Left),
    /// How it ended waits to be reported.
    Over,
}

/// What becomes of an attempt that does not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The engine said so.
    Stopped,
    /// The worker leaves.
    Returned,
}

/// The attempts of a worker.
pub(super) struct Table {
    places: Vec<Option<Held>>,
    slots: usize,
    free: Vec<usize>,
    /// Places of no slot, for what is given beyond them.
    beyond: Vec<usize>,
    by_id: HashMap<AttemptId, usize>,
    /// How many are not over.
    live: usize,
}

impl Table {
    pub(super) fn new(slots: u32) -> Table {
        let slots = slots as usize;
        let free = (0..slots).rev().collect();
        Table { places: vec![None; slots], slots, free, beyond: Vec::new(), by_id: HashMap::new(), live: 0 }
    }

    /// How many more attempts there is room for.
    pub(super) const fn free(&self) -> usize {
        self.free.len()
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many attempts are not over.
    pub(super) const fn live(&self) -> usize {
        self.live
    }

    /// Takes an attempt in that an engine gave; gives its place. `None` where there is no room, or it is there already.
    pub(super) fn take(&mut self, id: AttemptId, stage: Stage, from: usize) -> Option<usize> {
        if self.by_id.contains_key(&id) {
            return None;
        }
        let place = self.free.pop()?;
        self.put(place, Held { id, stage, from });
        self.live += 1;
        Some(place)
    }

    /// Takes an attempt in for which there is no slot, as one that is over; gives its place. `None` where it is there already.
    pub(super) fn take_beyond(&mut self, id: AttemptId, from: usize) -> Option<usize> {
        if self.by_id.contains_key(&id) {
            return None;
        }
        let place = self.beyond.pop().unwrap_or(self.places.len());
        if place == self.places.len() {
            self.places.push(None);
        }
        self.put(place, Held { id, stage: Stage::Over, from });
        Some(place)
    }

    fn put(&mut self, place: usize, held: Held) {
        self.by_id.insert(held.id, place);
        self.places[place] = Some(held);
    }

    pub(super) fn get(&self, place: usize) -> Option<Held> {
        self.places.get(place).copied().flatten()
    }

    pub(super) fn find(&self, id: AttemptId) -> Option<(usize, Held)> {
        let place = *self.by_id.get(&id)?;
        Some((place, self.get(place)?))
    }

    /// Notes how far an attempt is.
    pub(super) fn set(&mut self, place: usize, stage: Stage) {
        let Some(held) = self.places.get_mut(place).and_then(Option::as_mut) else { return };
        if stage == Stage::Over && held.stage != Stage::Over {
            self.live -= 1;
        }
        held.stage = stage;
    }

    /// The engine knows how it ended.
    pub(super) fn forget(&mut self, place: usize) {
        if let Some(held) = self.places.get_mut(place).and_then(Option::take) {
            if held.stage != Stage::Over {
                self.live -= 1;
            }
            self.by_id.remove(&held.id);
            if place < self.slots { self.free.push(place) } else { self.beyond.push(place) }
        }
    }

    /// Everything that is in it.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, Held)> {
        self.places.iter().enumerate().filter_map(|(place, held)| Some((place, (*held)?)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn id(text: &str) -> AttemptId {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_is_free_once_the_engine_knows_the_end() {
        let mut table = Table::new(2);
        let (a, b) = (table.take(id("0-1.1"), Stage::Running, 0).unwrap(), table.take(id("3-1.1"), Stage::Fetching, 1).unwrap());
        assert_eq!(table.take(id("0-2.1"), Stage::Running, 0), None);
        table.set(a, Stage::Over);
        table.set(a, Stage::Over);
        assert_eq!((table.free(), table.live(), table.find(id("3-1.1")).unwrap().0), (0, 1, b));
        table.forget(a);
        table.forget(a);
        table.forget(b);
        assert_eq!((table.free(), table.live(), table.is_empty()), (2, 0, true));
    }

    #[test]
    fn an_attempt_that_is_there_is_not_taken_twice() {
        let mut table = Table::new(2);
        table.take(id("0-1.1"), Stage::Running, 0).unwrap();
        assert_eq!((table.take(id("0-1.1"), Stage::Running, 1), table.free()), (None, 1));
        assert_eq!(table.take_beyond(id("0-1.1"), 1), None);
    }

    #[test]
    fn what_is_given_beyond_the_slots_takes_none_of_them() {
        let mut table = Table::new(1);
        table.take(id("0-1.1"), Stage::Running, 0).unwrap();
        let beyond = [table.take_beyond(id("1-1.1"), 1).unwrap(), table.take_beyond(id("2-1.1"), 2).unwrap()];
        assert_eq!((beyond, table.free(), table.live(), table.all().count()), ([1, 2], 0, 1, 3));
        table.forget(1);
        assert_eq!((table.free(), table.take_beyond(id("3-1.1"), 0)), (0, Some(1)));
        table.forget(0);
        assert_eq!((table.free(), table.take(id("4-1.1"), Stage::Running, 0)), (1, Some(0)));
    }
}
