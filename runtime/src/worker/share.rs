//! Which engine is asked for how many attempts.
//!
//! A worker has one number of free slots and may be given attempts by several engines. Questions wait at all of them at one time, each for a share, so
//! that work is found wherever it comes up and what is given never exceeds what is free. An engine that gave something is asked for what is left; one
//! that gave as much as it was asked for also gets what waits in vain at others. There is no surplus but where there are fewer free slots than engines
//! and none of them has given anything lately, so that each is asked for one, and in the moment in which a question is taken back that is being
//! answered.

use std::time::{Duration, Instant};

/// How long a question waits before it is taken for one that waits in vain: longer than an engine on a busy machine needs to record what it gives.
pub(super) const IN_VAIN_AFTER: Duration = Duration::from_millis(200);
/// Share of the slots that questions may hold that wait in vain while others have work.
const HELD_SHARE: usize = 4;
/// Pauses after which an engine that had nothing is asked again while others have work.
const REST: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A question on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Out {
    /// For how many attempts; none asks for orders alone.
    pub(super) slots: usize,
    /// When it was asked.
    pub(super) since: Instant,
}

/// What an engine last said to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// As many attempts as it was asked for.
    More,
    /// Fewer: what one of its shards had, and others may have more.
    Some,
    /// None. While others have work it is left alone for a while, each time longer.
    Nothing { since: Instant, rest: Duration },
}

/// An engine that may be asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) out: Option<Out>,
    /// Whether a question may begin where none is on its way.
    pub(super) is_free: bool,
    pub(super) said: Said,
    /// Whether it had less than it was asked for last, as far as is known.
    pub(super) is_short: bool,
}

/// What there is room for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// How many more attempts there is a slot for.
    pub(super) free: usize,
    /// How many there are at most.
    pub(super) slots: usize,
    /// Whether there has been none free for a while.
    pub(super) is_long_full: bool,
}

impl Said {
    /// Before anything was asked.
    pub(super) const fn nothing_yet(now: Instant) -> Said {
        Said::Nothing { since: now, rest: Duration::ZERO }
    }

    /// What an answer says with so many attempts of those that were asked for.
    pub(super) fn after(self, asked: usize, given: usize, now: Instant) -> Said {
        match self {
            _ if asked == 0 => self,
            _ if given >= asked => Said::More,
            _ if given > 0 => Said::Some,
            Said::Nothing { rest, .. } => Said::Nothing { since: now, rest: (2 * rest).clamp(REST.0, REST.1) },
            Said::More | Said::Some => Said::Nothing { since: now, rest: REST.0 },
        }
    }
}

impl Asked {
    /// What is known of it once its question is replaced.
    pub(super) fn said_by(&self, now: Instant) -> Said {
        if self.waits_in_vain(now) { Said::Nothing { since: now, rest: REST.0 } } else { self.said }
    }

    fn slots(&self) -> usize {
        self.out.map_or(0, |out| out.slots)
    }

    /// Whether it can be asked for attempts. A question for orders alone makes room.
    fn is_idle(&self) -> bool {
        self.out.map_or(self.is_free, |out| out.slots == 0)
    }

    /// Whether a question for attempts waits at it in vain.
    fn waits_in_vain(&self, now: Instant) -> bool {
        self.out.is_some_and(|out| out.slots > 0 && now.saturating_duration_since(out.since) >= IN_VAIN_AFTER)
    }

    /// Whether it may have something at this moment.
    fn has_work(&self, now: Instant) -> bool {
        matches!(self.said, Said::More | Said::Some) && !self.waits_in_vain(now)
    }
}

/// The next question, if any is to be asked now: of which engine, and for how many attempts. It replaces the one that is on its way there.
pub(super) fn next(room: Room, engines: &[Asked], turn: usize, now: Instant) -> Option<(usize, usize)> {
    let Room { free, slots, is_long_full } = room;
    let count = engines.len();
    if count == 0 {
        return None;
    }
    let order = || (0..count).map(|step| (turn + step) % count);
    if free == 0 {
        let has_none = |engine: &Asked| engine.out.is_none() && engine.is_free;
        let wants_orders = |at: &usize| has_none(&engines[*at]) || engines[*at].slots() > 0;
        return order().find(wants_orders).filter(|_| is_long_full).map(|at| (at, 0));
    }
    if let [only] = engines {
        return only.is_idle().then_some((0, free));
    }
    let left = free.saturating_sub(engines.iter().map(Asked::slots).sum());
    // Where most waits in vain beyond what may wait there.
    let held = |at: usize, kept: usize| if engines[at].waits_in_vain(now) { engines[at].slots().saturating_sub(kept) } else { 0 };
    let take_back =
        |kept: usize| order().max_by_key(|at| held(*at, kept)).map(|at| (at, held(at, kept))).filter(|(_, held)| *held > 0);
    let wanting = || order().filter(|at| engines[*at].is_idle() && engines[*at].has_work(now));
    if let Some(at) = wanting().next() {
        // One each waits where nothing is, so that whatever comes up there is found; unless those are much of all there is.
        let kept = usize::from(slots >= HELD_SHARE * count);
        let is_more = engines[at].said == Said::More;
        if left == 0 {
            return take_back(kept).map(|(holder, _)| (holder, kept)).or_else(|| take_back(0).map(|(holder, _)| (holder, 0)));
        }
        return match take_back(kept) {
            Some((holder, held)) if is_more && held >= left => Some((holder, kept)),
            Some(_) | None => Some((at, left.div_ceil(wanting().count()))),
        };
    }
    let is_busy = engines.iter().any(|engine| engine.has_work(now));
    let share = (free / count).max(1);
    order().filter(|at| engines[*at].is_idle()).find_map(|at| {
        if let Said::Nothing { since, rest } = engines[at].said
            && is_busy
        {
            return (left > 0 && now >= since + rest).then_some((at, 1));
        }
        match left {
            0 if free < count => Some((at, 1)),
            0 => take_back(share).map(|(holder, _)| (holder, share)),
            _ => Some((at, share.min(left))),
        }
    })
}

/// What is taken back where there is less room than was asked for: at which engine, and what it is still asked for. With fewer free slots than engines
/// each may be asked for one.
pub(super) fn excess(free: usize, engines: &[Asked]) -> Option<(usize, usize)> {
    let (at, slots) = engines.iter().map(Asked::slots).enumerate().max_by_key(|(_, slots)| *slots)?;
    if (1..engines.len()).contains(&free) {
        return (slots > 1).then_some((at, 1));
    }
    let beyond = engines.iter().map(Asked::slots).sum::<usize>().saturating_sub(free);
    (beyond > 0).then(|| (at, slots.saturating_sub(beyond).max(free / engines.len())))
}

/// Whether free slots stay free for want of work: no engine gave all that it was asked for last, and may have more.
pub(super) fn is_dry(engines: &[Asked], now: Instant) -> bool {
    match engines {
        // Its answer may be long on its way.
        [only] => only.is_short,
        all => all.iter().all(|engine| engine.is_short || engine.waits_in_vain(now)),
    }
}

/// When there may be something to ask next that nothing else wakes for.
pub(super) fn wake_at(engines: &[Asked], now: Instant) -> Option<Instant> {
    let each = engines.iter().filter_map(|engine| match (engine.out, engine.said) {
        (Some(out), _) => Some(out.since + IN_VAIN_AFTER).filter(|_| out.slots > 0),
        (None, Said::Nothing { since, rest }) => Some(since + rest),
        (None, Said::More | Said::Some) => None,
    });
    each.filter(|at| *at > now).min().filter(|_| engines.len() > 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn room(free: usize, slots: usize) -> Room {
        Room { free, slots, is_long_full: false }
    }

    /// Asks until there is nothing to ask; gives who was asked for how much.
    fn ask(room: Room, engines: &mut [Asked], now: Instant) -> Vec<(usize, usize)> {
        let mut asked = Vec::new();
        let mut turn = 0;
        while let Some((at, slots)) = next(room, engines, turn, now) {
            engines[at].said = engines[at].said_by(now);
            engines[at].out = Some(Out { slots, since: now });
            turn = at + 1;
            asked.push((at, slots));
            assert!(asked.len() < 100, "it asks for ever: {asked:?}");
        }
        asked
    }

    fn idle(count: usize, now: Instant) -> Vec<Asked> {
        vec![Asked { out: None, is_free: true, said: Said::nothing_yet(now), is_short: false }; count]
    }

    fn answer(engine: &mut Asked, given: usize, now: Instant) {
        engine.said = engine.said.after(engine.slots(), given, now);
        engine.out = None;
    }

    #[test]
    fn the_only_engine_is_asked_for_everything() {
        let now = Instant::now();
        let mut engines = idle(1, now);
        assert_eq!(ask(room(500, 500), &mut engines, now), [(0, 500)]);
        answer(&mut engines[0], 3, now);
        assert_eq!(ask(room(497, 500), &mut engines, now), [(0, 497)]);
        engines[0].out = None;
        assert_eq!(ask(room(0, 500), &mut engines, now), []);
        assert_eq!(ask(Room { is_long_full: true, ..room(0, 500) }, &mut engines, now), [(0, 0)]);
        // As soon as there is room again.
        assert_eq!(ask(room(1, 500), &mut engines, now), [(0, 1)]);
        assert_eq!(wake_at(&engines, now), None);
        assert_eq!(ask(room(1, 500), &mut [], now), []);
    }

    #[test]
    fn a_worker_without_work_waits_at_all_with_a_share_each() {
        let now = Instant::now();
        let mut engines = idle(3, now);
        assert_eq!(ask(room(8, 8), &mut engines, now), [(0, 2), (1, 2), (2, 2)]);
        // What one gives leaves the others as they are.
        answer(&mut engines[1], 1, now);
        assert_eq!(ask(room(7, 8), &mut engines, now), [(1, 3)]);
        answer(&mut engines[1], 0, now);
        assert_eq!(ask(room(7, 8), &mut engines, now), [(1, 2)]);
    }

    #[test]
    fn with_fewer_slots_than_engines_each_is_asked_for_one() {
        let now = Instant::now();
        let mut engines = idle(3, now);
        assert_eq!(ask(room(1, 1), &mut engines, now), [(0, 1), (1, 1), (2, 1)]);
        answer(&mut engines[2], 1, now);
        // What is full for a while takes the others back.
        assert_eq!(ask(room(0, 1), &mut engines, now), []);
        assert_eq!(ask(Room { is_long_full: true, ..room(0, 1) }, &mut engines, now), [(0, 0), (1, 0), (2, 0)]);
        // The one that had work is asked first, and what waits there in vain is for the others again.
        assert_eq!(ask(room(1, 1), &mut engines, now), [(2, 1)]);
        assert_eq!(ask(room(1, 1), &mut engines, now + IN_VAIN_AFTER), [(0, 1), (1, 1)]);
    }

    #[test]
    fn one_that_has_more_gets_what_waits_in_vain_at_others() {
        let now = Instant::now();
        let mut engines = idle(3, now);
        assert_eq!(ask(room(99, 100), &mut engines, now), [(0, 33), (1, 33), (2, 33)]);
        answer(&mut engines[0], 33, now);
        // Those may be about to answer.
        assert_eq!(ask(room(66, 100), &mut engines, now), []);
        let later = now + IN_VAIN_AFTER;
        assert_eq!(ask(room(66, 100), &mut engines, later), [(2, 1), (1, 1), (0, 64)]);
        answer(&mut engines[0], 64, later);
        answer(&mut engines[1], 1, later);
        // Now two have more, and share.
        assert_eq!(ask(room(10, 100), &mut engines, later), [(0, 5), (1, 4)]);
    }

    #[test]
    fn a_small_worker_leaves_nothing_where_nothing_is_and_looks_there_now_and_then() {
        let now = Instant::now();
        let mut engines = idle(2, now);
        assert_eq!(ask(room(2, 2), &mut engines, now), [(0, 1), (1, 1)]);
        answer(&mut engines[0], 1, now);
        let later = now + IN_VAIN_AFTER;
        assert_eq!(ask(room(1, 2), &mut engines, later), [(1, 0), (0, 1)]);
        answer(&mut engines[0], 1, later);
        assert_eq!(ask(room(1, 2), &mut engines, later), [(0, 1)]);
        // A second slot is free, and the other one has to rest first.
        assert_eq!(ask(room(2, 2), &mut engines, later), []);
        let later = later + REST.0;
        assert_eq!(ask(room(2, 2), &mut engines, later), [(1, 1)]);
        answer(&mut engines[1], 0, later);
        let rest = if let Said::Nothing { rest, .. } = engines[1].said { rest } else { Duration::ZERO };
        assert_eq!((rest, wake_at(&engines, later)), (2 * REST.0, Some(later + 2 * REST.0)));
    }

    #[test]
    fn what_waits_in_vain_is_shared_out_again() {
        let now = Instant::now();
        let mut engines = idle(3, now);
        engines[0].said = Said::Some;
        // The two others rest, and were not left anything.
        engines[1].said = Said::Nothing { since: now, rest: REST.1 };
        engines[2].said = engines[1].said;
        assert_eq!(ask(room(3, 60), &mut engines, now), [(0, 3)]);
        assert_eq!(ask(room(3, 60), &mut engines, now + IN_VAIN_AFTER), [(0, 1), (1, 1), (2, 1)]);
    }

    #[test]
    fn while_one_has_work_no_more_are_asked_for_than_are_free() {
        let now = Instant::now();
        let mut engines = idle(3, now);
        engines[1].said = Said::Some;
        engines[2].said = Said::More;
        assert_eq!(ask(room(1, 60), &mut engines, now), [(1, 1)]);
        answer(&mut engines[1], 0, now);
        assert_eq!(ask(room(1, 60), &mut engines, now), [(2, 1)]);
    }

    #[test]
    fn where_there_is_less_room_than_was_asked_for_the_most_is_taken_back() {
        let now = Instant::now();
        let mut engines = idle(3, now);
        let mut take_back = |asked: [usize; 3], free: usize| {
            let each = engines.iter_mut().zip(asked);
            each.for_each(|(engine, slots)| engine.out = Some(Out { slots, since: now }));
            while let Some((at, slots)) = excess(free, &engines) {
                engines[at].out = Some(Out { slots, since: now });
            }
            [0, 1, 2].map(|at: usize| engines[at].slots())
        };
        assert_eq!(take_back([9, 2, 1], 12), [9, 2, 1]);
        assert_eq!(take_back([9, 2, 1], 7), [4, 2, 1]);
        assert_eq!(take_back([4, 4, 4], 4), [2, 1, 1]);
        assert_eq!((take_back([1, 1, 1], 1), take_back([2, 0, 3], 2)), ([1, 1, 1], [1, 0, 1]));
        assert_eq!(take_back([4, 4, 4], 0), [0, 0, 0]);
        // A single one is asked for no more than is free.
        let mut only = idle(1, now);
        only[0].out = Some(Out { slots: 5, since: now });
        assert_eq!((excess(2, &only), excess(5, &only), excess(0, &[])), (Some((0, 2)), None, None));
    }

    #[test]
    fn slots_are_free_for_want_of_work_once_no_engine_may_have_more() {
        let now = Instant::now();
        let mut engines = idle(2, now);
        assert!(!is_dry(&engines, now), "nothing is known yet");
        engines[0].is_short = true;
        assert!(is_dry(&engines[..1], now) && !is_dry(&engines, now));
        engines[1].out = Some(Out { slots: 1, since: now });
        assert!(!is_dry(&engines, now) && is_dry(&engines, now + IN_VAIN_AFTER));
        // Of one alone the answer may be long on its way.
        assert!(!is_dry(&engines[1..], now + IN_VAIN_AFTER) && is_dry(&[], now));
    }

    proptest! {
        /// Whatever engines answer, it comes to an end, and never are more asked for than are free where there are enough for all.
        #[test]
        fn no_more_are_asked_for_than_are_free(
            slots in 1_usize..40,
            count in 1_usize..6,
            steps in prop::collection::vec((0_usize..6, 0_usize..40, 0_u64..300, 0_usize..8), 1..60),
        ) {
            let mut now = Instant::now();
            let mut engines = idle(count, now);
            let mut running = 0;
            for (at, given, pass, ended) in steps {
                let room = Room { free: slots - running, slots, is_long_full: running == slots };
                ask(room, &mut engines, now);
                let out: usize = engines.iter().map(Asked::slots).sum();
                let beyond = if room.free < count { count - 1 } else { 0 };
                prop_assert!(out <= room.free + beyond, "{out} of {room:?}");
                // Whoever has a slot is asked for something somewhere.
                prop_assert!(room.free == 0 || out > 0);
                now += Duration::from_millis(pass);
                let engine = &mut engines[at % count];
                let given = given.min(engine.slots());
                if engine.out.is_some() {
                    answer(engine, given, now);
                }
                running = (running + given).min(slots).saturating_sub(ended);
            }
            // Where nothing happens for a while, something is asked for everywhere; one after the other where several had more last.
            let room = Room { free: slots - running, slots, is_long_full: running == slots };
            for _ in 0..=count {
                now += Duration::from_secs(2);
                ask(room, &mut engines, now);
            }
            prop_assert!(room.free == 0 || engines.iter().all(|engine| engine.slots() > 0), "{engines:?} of {room:?}");
        }
    }
}
