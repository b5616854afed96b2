//! The one thread that uses a device, and how others give it work.
//!
//! Two batches are on their way at once: while one computes, the next is copied in and the one before is copied out. A context that dies is
//! not used again: the owner answers everybody, tells its caller, and its thread ends; ending the process is the caller's part.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::batch::Settings;
use crate::desk::{Desk, OnAnswer, OnDeath, Open};
use crate::figures::Figures;
use crate::quarantine::Quarantine;
use crate::tower::Tower;
use crate::work::{Admitted, Payload, Work};
use crate::{Backend, DeviceInfo, GpuError, Sticky};

/// How long it sleeps when there is nothing.
pub(crate) const IDLE: Duration = Duration::from_millis(100);

/// How a device is used.
#[derive(Debug, Clone, Copy)]
pub struct OwnerSettings {
    /// Device memory for batches and for what stays resident between them, in bytes; what is resident and not in use makes room for a batch
    /// that finds none.
    pub memory_max: u64,
    /// Staging memory kept for reuse, in bytes.
    pub staging_max: u64,
    /// Attempts that may be without an answer; more are returned at once.
    pub open_max: usize,
    /// How long no batch on its way may go on: each step of one has this time, once those before it are done. Then the device counts as hung.
    pub timeout: Duration,
    /// How long compiling and loading one kind of work, and filling what it keeps on the device, may take.
    pub load_timeout: Duration,
}

/// An attempt that was admitted.
pub(crate) struct Job {
    pub(crate) kind: u32,
    pub(crate) work: Arc<dyn Work>,
    pub(crate) payload: Payload,
    pub(crate) admitted: Admitted,
}

/// What callers leave for the owner's thread.
pub(crate) enum Note {
    Submit { id: u64, settings: Settings, job: Job, alone: bool, came: Instant },
    Cancel { id: u64 },
}

/// An attempt to be run.
pub struct Submission {
    /// Its kind: attempts of one kind are batched together and share the device fairly with other kinds.
    pub kind: u32,
    /// How its kind is batched.
    pub batching: Settings,
    /// What is to be done.
    pub work: Arc<dyn Work>,
    /// With which bytes.
    pub payload: Payload,
    /// Whether it is run in no batch with others: after [`GpuError::Suspect`].
    pub alone: bool,
    /// Told how it ended.
    pub answer: OnAnswer,
}

/// A device in use; dropped, it finishes what it has and ends.
pub struct Owner {
    desk: Arc<Desk<Note>>,
    device: DeviceInfo,
    settings: OwnerSettings,
    quarantine: Option<Arc<Mutex<Quarantine>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Owner {
    /// Starts the threads of a device.
    ///
    /// # Errors
    ///
    /// What `open` met, or that a thread cannot be started.
    pub fn start<F>(settings: OwnerSettings, open: F, on_death: OnDeath) -> Result<Self, GpuError>
    where
        F: FnOnce() -> Result<Box<dyn Backend>, GpuError> + Send + 'static,
    {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        let thread = move || {
            let opened = open().map(|backend| {
                let device = backend.device().clone();
                let desk = Arc::new(Desk::new(device.uuid.clone(), device.driver, on_death));
                (backend, device, desk)
            });
            match opened {
                Ok((backend, device, desk)) => {
                    let _ = send.send(Ok((device, Arc::clone(&desk))));
                    Tower::new(backend, &desk, settings).run();
                }
                Err(error) => drop(send.send(Err(error))),
            }
        };
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
            thread.map_err(|error| GpuError::failed(format!("thread {name} cannot be started: {error}")))
        };
        let owner = spawn("gpu-owner", Box::new(thread))?;
        let (device, desk) =
            receive.recv().map_err(|_| GpuError::failed("the thread of the device ended while it opened it"))??;
        let watched = Arc::clone(&desk);
        let watchdog = spawn("gpu-watchdog", Box::new(move || watch(&watched, settings.timeout)))?;
        Ok(Self { desk, device, settings, quarantine: None, threads: vec![watchdog, owner] })
    }

    /// With kernels and devices that are not to be used any more; whoever handles the death of a context records it there.
    pub fn with_quarantine(mut self, quarantine: Arc<Mutex<Quarantine>>) -> Self {
        self.quarantine = Some(quarantine);
        self
    }

    /// What it has done so far and has at hand now; waits for nothing that the device does.
    pub fn figures(&self) -> Figures {
        self.desk.figures()
    }

    /// The device.
    pub fn device(&self) -> &DeviceInfo {
        &self.device
    }

    /// Checks an attempt and queues it; the number returned cancels it.
    ///
    /// # Errors
    ///
    /// What is wrong with it; that its kernel or the device is in quarantine; [`GpuError::Returned`] when too many wait or the device is closing; what killed the device. Its answer is not
    /// called then.
    pub fn submit(&self, submission: Submission) -> Result<u64, GpuError> {
        let Submission { kind, batching, work, payload, alone, answer } = submission;
        if let Some(quarantine) = &self.quarantine {
            quarantine.lock().unwrap_or_else(PoisonError::into_inner).check(&work.digest(), &self.device.uuid)?;
        }
        let admitted = work.admit((*payload).as_ref(), &self.device.limits)?;
        let resident = work.resident().map_or(0, |resident| resident.bytes);
        let (asked, limit) = (admitted.bytes.saturating_add(resident), self.settings.memory_max);
        if asked > limit {
            let with = if resident > 0 { format!(" with the {resident} bytes it keeps on the device") } else { String::new() };
            let what = format!("one attempt of {}{with}", work.name());
            return Err(GpuError::OutOfMemory { what, asked, free: limit, limit });
        }
        let came = Instant::now();
        let mut state = self.desk.lock();
        if let Some(dead) = &state.dead {
            return Err(GpuError::Returned(format!("device {}: {dead}", self.device.uuid)));
        }
        if state.closing {
            return Err(GpuError::Returned(format!("device {} takes nothing more: it is closing", self.device.uuid)));
        }
        if state.open.len() >= self.settings.open_max {
            let (uuid, most) = (&self.device.uuid, self.settings.open_max);
            return Err(GpuError::Returned(format!(
                "device {uuid} has {most} attempts without an answer, its limit: try again later"
            )));
        }
        state.last += 1;
        let id = state.last;
        state.open.insert(id, Open { answer, came, digest: work.digest(), running: None });
        let job = Job { kind, work, payload, admitted };
        state.inbox.push_back(Note::Submit { id, settings: batching, job, alone, came });
        drop(state);
        self.desk.ring();
        Ok(id)
    }

    /// Cancels what has not begun: it is answered as returned. What runs, runs on, and is answered with its result.
    pub fn cancel(&self, id: u64) {
        let mut state = self.desk.lock();
        if state.open.get(&id).is_none_or(|open| open.running.is_some()) {
            return;
        }
        state.inbox.push_back(Note::Cancel { id });
        drop(state);
        self.desk.answer(id, Err(GpuError::Returned("it was cancelled".to_owned())), |_| ());
        self.desk.ring();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.desk.lock().closing = true;
        self.desk.ring();
        let watchdog = self.threads.remove(0);
        let _ = watchdog.join();
        // A thread that hangs in the driver ends with the process.
        if self.desk.lock().dead.is_none() {
            self.threads.drain(..).for_each(|thread| drop(thread.join()));
        }
    }
}

/// Kills the device if its thread shows no life.
fn watch(desk: &Desk<Note>, timeout: Duration) {
    loop {
        let state = desk.lock();
        if state.dead.is_some() || state.closing && state.open.is_empty() {
            return;
        }
        let late = state.alive_until.is_some_and(|until| Instant::now() > until);
        let guilty = state.guilty;
        drop(state);
        if late {
            desk.kill(hung(timeout, "a call of the driver that does not return"), guilty.as_slice());
            return;
        }
        std::thread::sleep((timeout / 8).clamp(Duration::from_millis(1), IDLE));
    }
}

/// The error of what never ends.
pub(crate) fn hung(timeout: Duration, during: &str) -> GpuError {
    let limit_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    GpuError::Sticky { sticky: Sticky::Hung { limit_ms }, during: during.to_owned() }
}

#[cfg(test)]
#[path = "owner_tests.rs"]
mod tests;
