//! The pool and the policy of a back-test.

use crate::scaling::measure::ARRIVALS_OVER;
use crate::scaling::setting::SettingError;
use crate::scaling::signal::Bounds;
use crate::scaling::{AnyPolicy, Policy};
use crate::time::Micros;

/// What a day is run under.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// The policy.
    pub policy: AnyPolicy,
    /// How few and how many replicas it may want.
    pub bounds: Bounds,
    /// How many tasks a replica does at once.
    pub slots: u32,
    /// Time from asking for a replica to its first slot; it is billed.
    pub start: Micros,
    /// How many replicas there are at the beginning, ready and with their starts billed; `None` is as few as there may be.
    pub initial: Option<u32>,
    /// How long a task should wait at most.
    pub wait_target: Micros,
    /// Tasks that arrive before this do not count in waits, for a policy that has seen nothing yet knows nothing; everything is billed.
    pub warm_up: Micros,
    /// Over which time the arrival rate and the growth of the backlog are measured.
    pub window: Micros,
    /// What a replica costs an hour, in any currency.
    pub price_per_hour: f64,
    /// Nothing before this counts in anything.
    pub count_from: Micros,
    /// The run lasts until then, though nothing may be left to do.
    pub until: Micros,
    /// What is changed on the way, in the order of time.
    pub changes: Vec<(Micros, Change)>,
    /// When policies are asked, where that is known; otherwise they are asked when their cadence says so.
    pub looks: Option<Vec<Micros>>,
}

/// What may be changed while a pool is at work.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It gets this policy, which has seen nothing yet, and these bounds.
    Policy(Box<AnyPolicy>, Bounds),
    /// It gets these bounds; its policy, if it has one, goes on with what it has seen.
    Bounds(Bounds),
    /// No policy sizes it any more.
    NoPolicy,
    /// Somebody sets its size.
    Size(u32),
    /// Whether it starts tasks, and whether it is sized.
    Runs(bool),
    /// Somebody holds it at a size until a moment, or lets it go.
    Hold(Option<(u32, Micros)>),
}

/// Why a day cannot be run so.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SetupError {
    /// A setting of the policy makes no sense in this pool.
    #[error("setting of the policy")]
    Policy(#[source] SettingError),
    /// A setting of the pool makes no sense.
    #[error("{key} is {value}; allowed is {allowed}")]
    Pool {
        /// Which one.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
}

/// Most replicas and most slots of all of them together.
const SLOTS_MAX: u64 = 1_000_000;
/// The longest start, wait and window: a week.
const SPAN_MAX: Micros = Micros::from_secs(7 * 86_400);

impl Setup {
    /// One slot a replica, 60 s to start it, 60 s to wait at most, rates over a minute.
    pub fn new(policy: AnyPolicy, bounds: Bounds) -> Setup {
        let minute = Micros::from_secs(60);
        Setup {
            policy,
            bounds,
            slots: 1,
            start: minute,
            initial: None,
            wait_target: minute,
            warm_up: Micros(0),
            window: ARRIVALS_OVER,
            price_per_hour: 1.0,
            count_from: Micros(0),
            until: Micros(0),
            changes: Vec::new(),
            looks: None,
        }
    }

    /// How many replicas there are at the beginning.
    pub(super) fn initially(&self) -> u32 {
        self.bounds.nearest(self.initial.unwrap_or(self.bounds.min))
    }

    /// Whether it makes sense.
    ///
    /// # Errors
    /// Names the setting, its value and what is allowed.
    pub fn check(&self) -> Result<(), SetupError> {
        let require = |is_fine: bool, key, value: &dyn ToString, allowed| {
            if is_fine { Ok(()) } else { Err(SetupError::Pool { key, value: value.to_string(), allowed }) }
        };
        let Bounds { min, max } = self.bounds;
        require(min <= max, "min", &min, "at most the maximum")?;
        require(max >= 1, "max", &max, "at least 1")?;
        require(self.slots >= 1, "slots", &self.slots, "at least 1")?;
        let slots = u64::from(max) * u64::from(self.slots);
        require(slots <= SLOTS_MAX, "max × slots", &slots, "at most a million")?;
        for (key, span) in [("start cost", self.start), ("wait target", self.wait_target)] {
            require(span <= SPAN_MAX, key, &span, "at most a week")?;
        }
        let window = self.window;
        require(Micros::from_millis(1) <= window && window <= SPAN_MAX, "window", &window, "a millisecond to a week")?;
        let price = self.price_per_hour;
        require(price.is_finite() && price >= 0.0, "price", &price, "0 or more")?;
        self.policy.check(self.bounds).map_err(SetupError::Policy)
    }

    /// Every number of it, for a digest.
    pub(super) fn hash(&self, hasher: &mut blake3::Hasher) {
        // Encoding into memory fails for nothing that a policy holds.
        let policy = bincode::encode_to_vec(&self.policy, bincode::config::standard()).unwrap_or_default();
        hasher.update(&(policy.len() as u64).to_le_bytes());
        hasher.update(&policy);
        let Bounds { min, max } = self.bounds;
        for number in [min, max, self.slots, self.initially()] {
            hasher.update(&number.to_le_bytes());
        }
        for span in [self.start, self.wait_target, self.warm_up, self.window, self.count_from, self.until] {
            hasher.update(&span.0.to_le_bytes());
        }
        hasher.update(&self.price_per_hour.to_bits().to_le_bytes());
        for at in self.looks.iter().flatten() {
            hasher.update(&at.0.to_le_bytes());
        }
        for (at, change) in &self.changes {
            hasher.update(&at.0.to_le_bytes());
            match change {
                Change::Policy(policy, Bounds { min, max }) => {
                    let policy = bincode::encode_to_vec(policy.as_ref(), bincode::config::standard()).unwrap_or_default();
                    hasher.update(&[0]).update(&(policy.len() as u64).to_le_bytes()).update(&policy);
                    hasher.update(&min.to_le_bytes()).update(&max.to_le_bytes());
                }
                Change::NoPolicy => drop(hasher.update(&[1])),
                Change::Size(size) => drop(hasher.update(&[2]).update(&size.to_le_bytes())),
                Change::Runs(runs) => drop(hasher.update(&[3, u8::from(*runs)])),
                Change::Hold(None) => drop(hasher.update(&[4])),
                Change::Hold(Some((size, until))) => {
                    hasher.update(&[5]).update(&size.to_le_bytes()).update(&until.0.to_le_bytes());
                }
                Change::Bounds(Bounds { min, max }) => {
                    hasher.update(&[6]).update(&min.to_le_bytes()).update(&max.to_le_bytes());
                }
            }
        }
    }
}
