//! What a worker has: attempts in numbered places, each until the engine knows how it ended.

use std::collections::HashMap;

use ergate_events::id::AttemptId;

/// An attempt that the worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) id: AttemptId,
    pub(super) stage: Stage,
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
    free: Vec<usize>,
    by_id: HashMap<AttemptId, usize>,
    /// How many are not over.
    live: usize,
}

impl Table {
    pub(super) fn new(slots: u32) -> Table {
        let slots = slots as usize;
        Table { places: vec![None; slots], free: (0..slots).rev().collect(), by_id: HashMap::new(), live: 0 }
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

    /// Takes an attempt in; gives its place. `None` where there is no room, or it is there already.
    pub(super) fn take(&mut self, id: AttemptId, stage: Stage) -> Option<usize> {
        if self.by_id.contains_key(&id) {
            return None;
        }
        let place = self.free.pop()?;
        self.places[place] = Some(Held { id, stage });
        self.by_id.insert(id, place);
        self.live += 1;
        Some(place)
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
            self.free.push(place);
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
        let (a, b) = (table.take(id("0-1.1"), Stage::Running).unwrap(), table.take(id("3-1.1"), Stage::Fetching).unwrap());
        assert_eq!(table.take(id("0-2.1"), Stage::Running), None);
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
        table.take(id("0-1.1"), Stage::Running).unwrap();
        assert_eq!((table.take(id("0-1.1"), Stage::Running), table.free()), (None, 1));
    }
}
