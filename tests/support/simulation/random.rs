//! Chance with a seed, and what a seed draws.

use std::fmt;

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Random {
        Random(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) const fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.next() % limit }
    }

    pub(crate) const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub(crate) const fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// Around `mean`, with one in twenty up to ten times as long.
    pub(crate) const fn spread(&mut self, mean: u64) -> u64 {
        let span = self.below(2 * mean + 1);
        if self.chance(50) { span * 10 } else { span }
    }
}

/// Most guests of one run.
pub(crate) const GUESTS_MAX: u64 = 3;

/// What a seed draws before its run begins: each fault exists in about half of the runs, few at high rates or many at low ones.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) minutes: u64,
    pub(crate) replicas: u64,
    pub(crate) slots: u64,
    /// Workers that come by themselves.
    pub(crate) guests: u64,
    pub(crate) arrival_millis: u64,
    pub(crate) run_millis: u64,
    /// Workers outlive the engine and go on reporting.
    pub(crate) remote: bool,
    pub(crate) sync_micros: u64,
    pub(crate) snapshot_blocks: u64,
    /// Of attempts, in thousandths.
    pub(crate) fail: u64,
    pub(crate) hang: u64,
    pub(crate) zombie: u64,
    pub(crate) deaf: u64,
    /// Of requests, in thousandths.
    pub(crate) keyed: u64,
    pub(crate) delayed: u64,
    pub(crate) repeat: u64,
    pub(crate) dependent: u64,
    /// Of moments at which somebody might meddle, in thousandths.
    pub(crate) cancel: u64,
    pub(crate) kill: u64,
    pub(crate) redrive: u64,
    pub(crate) lose_replica: u64,
    pub(crate) resize: u64,
    /// Of steps, in hundred-thousandths.
    pub(crate) crash: u64,
    /// Of writes and syncs, in hundred-thousandths.
    pub(crate) disk_error: u64,
    pub(crate) disk_full: u64,
    /// Of crashes, in thousandths.
    pub(crate) torn: u64,
    pub(crate) clock_jump: u64,
}

impl Options {
    pub(crate) fn draw(seed: u64, random: &mut Random) -> Options {
        let few = random.chance(500);
        let mut fault = |high: u64| match (random.chance(500), few) {
            (false, _) => 0,
            (true, true) => random.between(high / 2, high),
            (true, false) => random.between(1, high / 8 + 1),
        };
        let (fail, hang, zombie, deaf) = (fault(600), fault(100), fault(900), fault(500));
        let (repeat, cancel, kill, redrive) = (fault(400), fault(400), fault(300), fault(400));
        let (lose_replica, resize, crash) = (fault(150), fault(150), fault(800));
        let (disk_error, disk_full, torn, clock_jump) = (fault(800), fault(800), fault(900), fault(900));
        Options {
            seed,
            minutes: random.between(1, 12),
            replicas: random.between(1, 5),
            slots: random.between(1, 6),
            arrival_millis: random.between(80, 2_500),
            run_millis: random.between(1, 3_000),
            remote: random.chance(500),
            sync_micros: random.between(50, 40_000),
            snapshot_blocks: if random.chance(700) { random.between(5, 200) } else { 0 },
            fail,
            hang,
            zombie,
            deaf,
            keyed: random.below(1_001),
            delayed: random.below(300),
            repeat,
            dependent: if random.chance(600) { random.between(50, 500) } else { 0 },
            cancel,
            kill,
            redrive,
            lose_replica,
            resize,
            crash,
            disk_error,
            disk_full,
            torn,
            clock_jump,
            // Last, so that the seeds before it draw what they drew.
            guests: if random.chance(600) { random.between(1, GUESTS_MAX) } else { 0 },
        }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
