//! Where callers, the owner's thread and its watchdog meet: what came, who waits for an answer, whether the device is dead.
//!
//! The answers lie here and not with the owner's thread, so that everybody is answered even if that thread never comes back from the driver.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::figures::Figures;
use crate::quarantine::{Culprit, Death};
use crate::work::{Answer, Provenance};
use crate::{Class, Digest, GpuError, Sticky};

/// Called once with how an attempt ended; on the owner's thread, so it only hands over.
pub type OnAnswer = Box<dyn FnOnce(Answer) + Send>;
/// Called once if the context dies.
pub type OnDeath = Box<dyn FnOnce(Death) + Send>;

/// One attempt that has no answer yet.
pub(crate) struct Open {
    pub(crate) answer: OnAnswer,
    pub(crate) came: Instant,
    pub(crate) digest: Digest,
    /// The batch it runs in, and how many share it.
    pub(crate) running: Option<(u64, usize)>,
}

pub(crate) struct State<M> {
    pub(crate) inbox: VecDeque<M>,
    pub(crate) open: BTreeMap<u64, Open>,
    pub(crate) last: u64,
    pub(crate) closing: bool,
    pub(crate) dead: Option<GpuError>,
    /// Until when the owner's thread must show life.
    pub(crate) alive_until: Option<Instant>,
    /// The batch whose doing it is if it does not.
    pub(crate) guilty: Option<u64>,
    /// All of them but what is counted here: `waiting` and `open`.
    pub(crate) figures: Figures,
    /// How many of the open ones run.
    running: usize,
    on_death: Option<OnDeath>,
}

impl<M> State<M> {
    /// Notes in which batch these attempts run, and how many share it, or that they wait again.
    pub(crate) fn run(&mut self, ids: &[u64], batch: Option<(u64, usize)>) {
        for id in ids {
            if let Some(open) = self.open.get_mut(id) {
                self.running -= usize::from(open.running.is_some());
                open.running = batch;
                self.running += usize::from(batch.is_some());
            }
        }
    }

    /// Counts how one ended. What was returned has neither succeeded nor failed.
    fn ended(&mut self, was_running: bool, result: &Result<Vec<u8>, GpuError>) {
        self.running -= usize::from(was_running);
        match result.as_ref().map_err(GpuError::class) {
            Ok(_) => self.figures.attempts += 1,
            Err(Class::Returned) => (),
            Err(Class::Refused | Class::OutOfMemory | Class::Failed | Class::Sticky | Class::Suspect) => self.figures.failed += 1,
        }
    }
}

/// The meeting place; `M` is what callers leave for the owner.
pub(crate) struct Desk<M> {
    state: Mutex<State<M>>,
    bell: Condvar,
    device: String,
    driver: (u32, u32),
}

impl<M> Desk<M> {
    pub(crate) fn new(device: String, driver: (u32, u32), on_death: OnDeath) -> Self {
        let state = State {
            inbox: VecDeque::new(),
            open: BTreeMap::new(),
            last: 0,
            closing: false,
            dead: None,
            alive_until: None,
            guilty: None,
            figures: Figures::default(),
            running: 0,
            on_death: Some(on_death),
        };
        Self { state: Mutex::new(state), bell: Condvar::new(), device, driver }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ring(&self) {
        self.bell.notify_all();
    }

    /// What was done so far and is at hand now.
    pub(crate) fn figures(&self) -> Figures {
        let state = self.lock();
        let open = state.open.len();
        Figures { open: open as u64, waiting: (open - state.running) as u64, ..state.figures }
    }

    /// What came since the last look; waits at most so long for something.
    pub(crate) fn take(&self, wait: Duration) -> (VecDeque<M>, bool) {
        let mut state = self.lock();
        // One that is closing looks more often, so that it ends when its work does.
        let wait = if state.closing { wait.min(Duration::from_millis(1)) } else { wait };
        if state.inbox.is_empty() && !wait.is_zero() {
            state = self.bell.wait_timeout(state, wait).map_or_else(|error| error.into_inner().0, |(state, _)| state);
        }
        (std::mem::take(&mut state.inbox), state.closing)
    }

    /// Answers an attempt, unless it has been.
    pub(crate) fn answer(&self, id: u64, result: Result<Vec<u8>, GpuError>, fill: impl FnOnce(&mut Provenance)) {
        let open = {
            let mut state = self.lock();
            let open = state.open.remove(&id);
            if let Some(open) = &open {
                state.ended(open.running.is_some(), &result);
            }
            open
        };
        if let Some(open) = open {
            let mut provenance = self.provenance(&open);
            fill(&mut provenance);
            (open.answer)(Answer { result, provenance });
        }
    }

    /// The context is dead: members of the batches that may have done it are told so, all others are returned. Only the first call does anything.
    pub(crate) fn kill(&self, error: GpuError, suspects: &[u64]) {
        let (open, on_death) = {
            let mut state = self.lock();
            if state.dead.is_some() {
                return;
            }
            state.dead = Some(error.clone());
            (std::mem::take(&mut state.open), state.on_death.take())
        };
        let sticky = if let GpuError::Sticky { sticky, .. } = &error { sticky.clone() } else { Sticky::LaunchFailed };
        let is_suspect = |open: &Open| open.running.is_some_and(|(batch, _)| suspects.contains(&batch));
        let count = open.values().filter(|open| is_suspect(open)).count();
        let kernels: BTreeSet<Digest> = open.values().filter(|open| is_suspect(open)).map(|open| open.digest).collect();
        let culprit = match (kernels.first(), kernels.len()) {
            (None, _) => Culprit::Device,
            (Some(digest), 1) => Culprit::Kernel(*digest),
            (Some(_), _) => Culprit::Unknown,
        };
        // First whoever ends the process, so that it does not depend on callers.
        if let Some(on_death) = on_death {
            on_death(Death { culprit, device: self.device.clone(), sticky: sticky.clone() });
        }
        for open in open.into_values() {
            let result = match open.running {
                Some(_) if is_suspect(&open) && count == 1 => error.clone(),
                Some(_) if is_suspect(&open) => {
                    GpuError::Suspect { sticky: sticky.clone(), digest: open.digest, batch_size: count }
                }
                _ => GpuError::Returned(format!("device {}: {sticky} of another attempt ended its process", self.device)),
            };
            let (provenance, result) = (self.provenance(&open), Err(result));
            self.lock().ended(open.running.is_some(), &result);
            (open.answer)(Answer { result, provenance });
        }
        self.ring();
    }

    fn provenance(&self, open: &Open) -> Provenance {
        Provenance {
            device: self.device.clone(),
            driver: self.driver,
            digest: open.digest,
            batch_size: open.running.map_or(0, |(_, size)| size),
            queue_us: u64::try_from(open.came.elapsed().as_micros()).unwrap_or(u64::MAX),
            copy_us: 0,
            compute_us: 0,
            memory_high_bytes: 0,
        }
    }
}
