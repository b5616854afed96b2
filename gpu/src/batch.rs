//! Which attempts go to the device together, and whose turn it is: a pure state machine.
//!
//! A lane holds what may share a batch: one kind of work, one shape class. A lane is ready when it is full (members or bytes) or its oldest
//! member has waited long enough. Between kinds goes deficit round robin (Shreedhar and Varghese, SIGCOMM 1995) over bytes: a kind whose turn
//! it is may spend [`QUANTUM`] times its weight, so large batches of one kind do not shut out small ones of another.

use std::collections::{BTreeMap, VecDeque};

/// Bytes that a kind of weight 1 may spend on each turn.
pub const QUANTUM: u64 = 1 << 20;
/// What a batch costs besides its bytes: a launch costs as much time as this many bytes, about.
pub const BATCH_COST: u64 = 64 << 10;

/// How one kind of work is batched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Members of the largest batch.
    pub size_max: usize,
    /// Bytes of the largest batch; a single member may be larger.
    pub bytes_max: u64,
    /// The longest that a member waits for others, in µs.
    pub delay_us: u64,
    /// Its share of the device against other kinds; at least 1.
    pub weight: u32,
}

/// One attempt that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Who it is.
    pub id: u64,
    /// What it needs of the device, in bytes.
    pub bytes: u64,
    /// When it came, in µs of the caller's clock.
    pub came_us: u64,
}

/// What goes to the device together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The kind of work.
    pub kind: u32,
    /// Its members, oldest first.
    pub members: Vec<Member>,
}

#[derive(Debug, Default)]
struct Kind {
    settings: Option<Settings>,
    lanes: BTreeMap<u64, VecDeque<Member>>,
    deficit: u64,
}

/// All that waits.
#[derive(Debug, Default)]
pub struct Batcher {
    kinds: BTreeMap<u32, Kind>,
    turns: VecDeque<u32>,
    waiting: usize,
}

impl Batcher {
    /// Says how a kind is batched; before its first member.
    pub fn set(&mut self, kind: u32, settings: Settings) {
        if !self.turns.contains(&kind) {
            self.turns.push_back(kind);
        }
        self.kinds.entry(kind).or_default().settings = Some(settings);
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Adds a member; those of one kind and class may share a batch.
    pub fn push(&mut self, kind: u32, class: u64, member: Member) {
        if !self.turns.contains(&kind) {
            self.turns.push_back(kind);
        }
        self.kinds.entry(kind).or_default().lanes.entry(class).or_default().push_back(member);
        self.waiting += 1;
    }

    /// Takes a member out; whether it was there.
    pub fn cancel(&mut self, id: u64) -> bool {
        for kind in self.kinds.values_mut() {
            for lane in kind.lanes.values_mut() {
                if let Some(at) = lane.iter().position(|member| member.id == id) {
                    lane.remove(at);
                    self.waiting -= 1;
                    kind.lanes.retain(|_, lane| !lane.is_empty());
                    return true;
                }
            }
        }
        false
    }

    /// The next batch that is ready, if any.
    pub fn next(&mut self, now_us: u64) -> Option<Batch> {
        let ready = |kind: &Kind| kind.lanes.values().any(|lane| kind.settings().is_ready(lane, now_us));
        if !self.kinds.values().any(ready) {
            return None;
        }
        loop {
            // Ends: a kind is ready, and each round brings its deficit nearer to the cost of its batch.
            let id = *self.turns.front()?;
            let kind = self.kinds.entry(id).or_default();
            let Some((class, count, cost)) = kind.candidate(now_us) else {
                kind.deficit = 0;
                self.turns.rotate_left(1);
                continue;
            };
            if kind.deficit < cost {
                kind.deficit += QUANTUM * u64::from(kind.settings().weight.max(1));
                self.turns.rotate_left(1);
                continue;
            }
            kind.deficit -= cost;
            let lane = kind.lanes.get_mut(&class)?;
            let members: Vec<Member> = lane.drain(..count).collect();
            kind.lanes.retain(|_, lane| !lane.is_empty());
            self.waiting -= members.len();
            return Some(Batch { kind: id, members });
        }
    }

    /// When the next lane becomes ready by waiting, in µs of the caller's clock.
    pub fn next_at_us(&self) -> Option<u64> {
        let due = |kind: &Kind| {
            let delay = kind.settings().delay_us;
            kind.lanes.values().filter_map(|lane| lane.front()).map(|member| member.came_us.saturating_add(delay)).min()
        };
        self.kinds.values().filter_map(due).min()
    }

    /// Takes everybody out.
    pub fn drain(&mut self) -> Vec<Member> {
        self.waiting = 0;
        self.kinds.values_mut().flat_map(|kind| std::mem::take(&mut kind.lanes)).flat_map(|(_, lane)| lane).collect()
    }
}

impl Kind {
    fn settings(&self) -> Settings {
        self.settings.unwrap_or(Settings { size_max: 1, bytes_max: 0, delay_us: 0, weight: 1 })
    }

    /// The ready lane whose first has waited longest: its class, how many of it go, and what they cost.
    fn candidate(&self, now_us: u64) -> Option<(u64, usize, u64)> {
        let settings = self.settings();
        let ready = self.lanes.iter().filter(|(_, lane)| settings.is_ready(lane, now_us));
        let (&class, lane) = ready.min_by_key(|(_, lane)| lane.front().map(|member| member.came_us))?;
        let (count, bytes) = settings.fill(lane);
        Some((class, count, bytes.saturating_add(BATCH_COST)))
    }
}

impl Settings {
    /// How many of a lane fit one batch, and their bytes; at least one.
    fn fill(&self, lane: &VecDeque<Member>) -> (usize, u64) {
        let (mut count, mut bytes) = (0, 0u64);
        for member in lane.iter().take(self.size_max.max(1)) {
            let sum = bytes.saturating_add(member.bytes);
            if count > 0 && sum > self.bytes_max {
                break;
            }
            (count, bytes) = (count + 1, sum);
        }
        (count, bytes)
    }

    fn is_ready(&self, lane: &VecDeque<Member>, now_us: u64) -> bool {
        let Some(first) = lane.front() else { return false };
        let (count, bytes) = self.fill(lane);
        let full = count >= self.size_max || bytes >= self.bytes_max || count < lane.len();
        full || now_us >= first.came_us.saturating_add(self.delay_us)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FOUR: Settings = Settings { size_max: 4, bytes_max: 1000, delay_us: 50, weight: 1 };

    fn member(id: u64, bytes: u64, came_us: u64) -> Member {
        Member { id, bytes, came_us }
    }

    fn ids(batch: Option<Batch>) -> Vec<u64> {
        batch.map(|batch| batch.members.iter().map(|member| member.id).collect()).unwrap_or_default()
    }

    #[test]
    fn a_batch_goes_when_it_is_full_or_has_waited() {
        let mut batcher = Batcher::default();
        batcher.set(0, FOUR);
        for id in 0..3 {
            batcher.push(0, 0, member(id, 10, id));
        }
        assert_eq!((ids(batcher.next(49)), batcher.next_at_us()), (vec![], Some(50)));
        assert_eq!(ids(batcher.next(50)), [0, 1, 2]);
        assert_eq!((batcher.next(1000), batcher.next_at_us(), batcher.waiting()), (None, None, 0));
        for id in 0..5 {
            batcher.push(0, 0, member(id, 10, 60));
        }
        assert_eq!(ids(batcher.next(60)), [0, 1, 2, 3]);
        assert_eq!(ids(batcher.next(60)), []);
        assert_eq!(ids(batcher.next(110)), [4]);
    }

    #[test]
    fn bytes_limit_a_batch_and_one_that_is_larger_goes_alone() {
        let mut batcher = Batcher::default();
        batcher.set(0, FOUR);
        for (id, bytes) in [(0, 600), (1, 600), (2, 5000), (3, 1)] {
            batcher.push(0, 0, member(id, bytes, 0));
        }
        assert_eq!(
            [ids(batcher.next(0)), ids(batcher.next(0)), ids(batcher.next(0)), ids(batcher.next(0))],
            [vec![0], vec![1], vec![2], vec![]]
        );
        assert_eq!(ids(batcher.next(50)), [3]);
    }

    #[test]
    fn classes_are_not_mixed_and_the_oldest_goes_first() {
        let mut batcher = Batcher::default();
        batcher.set(0, FOUR);
        batcher.push(0, 7, member(0, 10, 5));
        batcher.push(0, 3, member(1, 10, 6));
        batcher.push(0, 7, member(2, 10, 7));
        assert_eq!(ids(batcher.next(100)), [0, 2]);
        assert_eq!(ids(batcher.next(100)), [1]);
    }

    #[test]
    fn who_cancels_is_in_no_batch() {
        let mut batcher = Batcher::default();
        batcher.set(0, FOUR);
        batcher.push(0, 0, member(1, 10, 0));
        batcher.push(0, 0, member(2, 10, 0));
        assert!(batcher.cancel(1) && !batcher.cancel(1) && !batcher.cancel(9));
        assert_eq!((ids(batcher.next(50)), batcher.waiting()), (vec![2], 0));
    }

    #[test]
    fn kinds_share_the_device_by_bytes_and_weight() {
        let one = Settings { size_max: 1, bytes_max: 1, delay_us: 0, weight: 1 };
        let mut batcher = Batcher::default();
        batcher.set(0, one);
        batcher.set(1, one);
        batcher.set(2, Settings { weight: 2, ..one });
        for id in 0..400u64 {
            // The first kind's batches are sixteen times as large.
            batcher.push(0, 0, member(id, 16 << 20, 0));
            batcher.push(1, 0, member(1000 + id, 1 << 20, 0));
            batcher.push(2, 0, member(2000 + id, 1 << 20, 0));
        }
        let mut bytes = [0u64; 3];
        for _ in 0..200 {
            let batch = batcher.next(0).unwrap();
            bytes[batch.kind as usize] += batch.members.iter().map(|member| member.bytes + BATCH_COST).sum::<u64>();
        }
        let share = |kind: usize| bytes[kind] as f64 / bytes.iter().sum::<u64>() as f64;
        assert!((share(0) - 0.25).abs() < 0.06 && (share(1) - 0.25).abs() < 0.06 && (share(2) - 0.5).abs() < 0.06, "{bytes:?}");
    }

    proptest! {
        #[test]
        fn everybody_goes_once_in_order_and_within_the_limits(
            members in prop::collection::vec((0u32..3, 0u64..2, 0u64..2000, 0u64..30), 0..80), delay_us in 0u64..100,
        ) {
            let mut batcher = Batcher::default();
            let settings = Settings { delay_us, ..FOUR };
            (0..3).for_each(|kind| batcher.set(kind, settings));
            let (mut now, mut gone) = (0, Vec::new());
            for (id, (kind, class, bytes, pause)) in members.iter().copied().enumerate() {
                now += pause;
                batcher.push(kind, class, member(id as u64, bytes, now));
                while let Some(batch) = batcher.next(now) { gone.push(batch); }
            }
            while let Some(at) = batcher.next_at_us() {
                prop_assert!(at > now, "who is due has gone");
                now = at;
                let batch = batcher.next(now);
                prop_assert!(batch.is_some());
                gone.extend(batch);
                while let Some(batch) = batcher.next(now) { gone.push(batch); }
            }
            prop_assert_eq!(gone.iter().map(|batch| batch.members.len()).sum::<usize>(), members.len());
            let mut last = BTreeMap::new();
            for batch in &gone {
                prop_assert!(batch.members.len() <= 4);
                prop_assert!(batch.members.len() == 1 || batch.members.iter().map(|member| member.bytes).sum::<u64>() <= 1000);
                for one in &batch.members {
                    let (kind, class, ..) = members[one.id as usize];
                    prop_assert_eq!(kind, batch.kind);
                    prop_assert_eq!(class, members[batch.members[0].id as usize].1);
                    prop_assert!(last.insert((kind, class), one.id).is_none_or(|before| before < one.id));
                }
            }
        }
    }
}
