//! The one thread that uses a device, and how others give it work.
//!
//! Two batches are on their way at once: while one computes, the next is copied in and the one before is copied out. A context that dies is
//! not used again: the owner answers everybody, tells its caller, and its thread ends; ending the process is the caller's part.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::batch::{Batcher, Member, Settings};
use crate::desk::{Desk, OnAnswer, OnDeath, Open};
use crate::flight::{Flight, Means};
use crate::memory::Pool;
use crate::pinned::Stages;
use crate::work::{Admitted, Modules, Payload, Work};
use crate::{Backend, Class, DeviceInfo, GpuError, Sticky};

/// Batches on their way at once: with two, copies and kernels overlap.
const FLIGHTS_MAX: usize = 2;
/// How long the owner sleeps between looks at work on its way: a small part of what copying a batch takes.
const LOOK: Duration = Duration::from_micros(20);
/// How long it sleeps when there is nothing.
const IDLE: Duration = Duration::from_millis(100);

/// How a device is used.
#[derive(Debug, Clone, Copy)]
pub struct OwnerSettings {
    /// Device memory for batches, in bytes.
    pub memory_max: u64,
    /// Staging memory kept for reuse, in bytes.
    pub staging_max: u64,
    /// Attempts that may be without an answer; more are returned at once.
    pub open_max: usize,
    /// How long a batch may take once it is the oldest on its way; then the device counts as hung.
    pub timeout: Duration,
    /// How long compiling and loading one kind of work may take.
    pub load_timeout: Duration,
}

struct Job {
    kind: u32,
    work: Arc<dyn Work>,
    payload: Payload,
    admitted: Admitted,
}

enum Note {
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
                    Loop::new(backend, &desk, settings).run();
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
        Ok(Self { desk, device, settings, threads: vec![watchdog, owner] })
    }

    /// The device.
    pub fn device(&self) -> &DeviceInfo {
        &self.device
    }

    /// Checks an attempt and queues it; the number returned cancels it.
    ///
    /// # Errors
    ///
    /// What is wrong with it; [`GpuError::Returned`] when too many wait or the device is closing; what killed the device. Its answer is not
    /// called then.
    pub fn submit(&self, submission: Submission) -> Result<u64, GpuError> {
        let Submission { kind, batching, work, payload, alone, answer } = submission;
        let admitted = work.admit((*payload).as_ref(), &self.device.limits)?;
        if admitted.bytes > self.settings.memory_max {
            let (asked, limit) = (admitted.bytes, self.settings.memory_max);
            return Err(GpuError::OutOfMemory { what: format!("one attempt of {}", work.name()), asked, free: limit, limit });
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
        // The oldest batch is the one that the driver works at.
        let guilty = state.open.values().filter_map(|open| open.running).map(|(batch, _)| batch).min();
        drop(state);
        if late {
            desk.kill(hung(timeout, "a call of the driver that does not return"), guilty);
            return;
        }
        std::thread::sleep((timeout / 8).clamp(Duration::from_millis(1), IDLE));
    }
}

fn hung(timeout: Duration, during: &str) -> GpuError {
    let limit_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    GpuError::Sticky { sticky: Sticky::Hung { limit_ms }, during: during.to_owned() }
}

struct Loop<'a> {
    backend: Box<dyn Backend>,
    desk: &'a Desk<Note>,
    settings: OwnerSettings,
    means: Means,
    batcher: Batcher,
    jobs: BTreeMap<u64, Job>,
    /// Run in no batch with others, but beside other batches.
    singly: VecDeque<u64>,
    /// A batch that found no memory beside another, and waits for it to end.
    held: Option<Vec<u64>>,
    /// Run with nothing else on the device: their batch found no memory even so.
    alone: VecDeque<u64>,
    flights: VecDeque<Flight>,
    /// Since when the oldest flight is the oldest.
    oldest_since: Instant,
    batches: u64,
    began: Instant,
}

impl<'a> Loop<'a> {
    fn new(backend: Box<dyn Backend>, desk: &'a Desk<Note>, settings: OwnerSettings) -> Self {
        Self {
            backend,
            desk,
            settings,
            means: Means {
                pool: Pool::new(settings.memory_max),
                stages: Stages::new(settings.staging_max),
                modules: Modules::default(),
            },
            batcher: Batcher::default(),
            jobs: BTreeMap::new(),
            singly: VecDeque::new(),
            held: None,
            alone: VecDeque::new(),
            flights: VecDeque::new(),
            oldest_since: Instant::now(),
            batches: 0,
            began: Instant::now(),
        }
    }

    fn run(mut self) {
        loop {
            self.promise(self.settings.timeout * 2);
            if let Err((error, batch)) = self.turn() {
                // Kernels run in order: it was the oldest whose kernels are not known to be done, else what was being begun.
                let guilty = self.flights.iter().find(|flight| !flight.computed).map_or(batch, |flight| Some(flight.batch));
                self.desk.kill(error, guilty);
            }
            if self.desk.lock().dead.is_some() {
                // Freeing anything of a dead context may block for ever; it ends with the process.
                std::mem::forget(self.backend);
                return;
            }
            let (notes, closing) = self.desk.take(self.pause());
            let nothing = notes.is_empty() && self.jobs.is_empty();
            notes.into_iter().for_each(|note| self.note(note));
            if closing && nothing {
                self.desk.lock().alive_until = None;
                return;
            }
        }
    }

    /// Promises the watchdog to show life within this time.
    fn promise(&self, time: Duration) {
        self.desk.lock().alive_until = Some(Instant::now() + time);
    }

    fn now_us(&self) -> u64 {
        self.us(Instant::now())
    }

    fn us(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }

    fn pause(&self) -> Duration {
        if !self.flights.is_empty() {
            return LOOK;
        }
        if !self.singly.is_empty() || !self.alone.is_empty() || self.held.is_some() {
            return Duration::ZERO;
        }
        let due = self.batcher.next_at_us().map(|at| Duration::from_micros(at.saturating_sub(self.now_us())));
        due.unwrap_or(IDLE).min(IDLE).min(self.settings.timeout)
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Submit { id, settings, job, alone, came } => {
                if alone {
                    self.singly.push_back(id);
                } else {
                    self.batcher.set(job.kind, settings);
                    let member = Member { id, bytes: job.admitted.bytes, came_us: self.us(came) };
                    self.batcher.push(job.kind, job.admitted.class, member);
                }
                self.jobs.insert(id, job);
            }
            Note::Cancel { id } => {
                if self.batcher.cancel(id) {
                    self.jobs.remove(&id);
                }
            }
        }
    }

    /// Finishes what is done and begins what is ready.
    fn turn(&mut self) -> Result<(), (GpuError, Option<u64>)> {
        while let Some(flight) = self.flights.front_mut() {
            if !flight.done(&mut *self.backend).map_err(|error| (error, None))? {
                if self.oldest_since.elapsed() > self.settings.timeout {
                    return Err((hung(self.settings.timeout, "a batch"), None));
                }
                break;
            }
            self.land().map_err(|error| (error, None))?;
        }
        while self.flights.len() < FLIGHTS_MAX {
            let (ids, lone) = if self.held.is_some() && !self.flights.is_empty() {
                break;
            } else if let Some(batch) = self.held.take() {
                (batch, false)
            } else if let Some(id) = self.singly.pop_front() {
                (vec![id], false)
            } else if let Some(batch) = self.ready() {
                (batch, false)
            } else if !self.flights.is_empty() {
                // Who is to be alone stays in the queue until the device is empty.
                break;
            } else if let Some(id) = self.alone.pop_front() {
                (vec![id], true)
            } else {
                break;
            };
            self.depart(ids, lone)?;
        }
        Ok(())
    }

    /// The next batch, unless one waits to be alone: else it would wait for ever.
    fn ready(&mut self) -> Option<Vec<u64>> {
        if !self.alone.is_empty() {
            return None;
        }
        let batch = self.batcher.next(self.now_us())?;
        Some(batch.members.iter().map(|member| member.id).collect())
    }

    fn land(&mut self) -> Result<(), GpuError> {
        let Some(flight) = self.flights.pop_front() else { return Ok(()) };
        self.oldest_since = Instant::now();
        let (ids, begun) = (flight.ids.clone(), flight.begun);
        let (results, took) = flight.finish(&mut *self.backend, &mut self.means)?;
        let on_device = begun.elapsed();
        for (id, result) in ids.into_iter().zip(results) {
            self.jobs.remove(&id);
            self.desk.answer(id, Ok(result), |provenance| {
                let on_device = u64::try_from(on_device.as_micros()).unwrap_or(u64::MAX);
                provenance.queue_us = provenance.queue_us.saturating_sub(on_device);
                provenance.copy_us = took.copy_us;
                provenance.compute_us = took.compute_us;
                provenance.memory_high_bytes = took.memory_bytes;
            });
        }
        Ok(())
    }

    fn depart(&mut self, mut ids: Vec<u64>, lone: bool) -> Result<(), (GpuError, Option<u64>)> {
        self.batches += 1;
        let batch = self.batches;
        self.embark(&mut ids, batch);
        let members: Vec<(u64, Payload, Admitted)> = ids
            .iter()
            .filter_map(|id| self.jobs.get(id).map(|job| (*id, Arc::clone(&job.payload), job.admitted.clone())))
            .collect();
        let Some(work) = ids.first().and_then(|id| self.jobs.get(id)).map(|job| Arc::clone(&job.work)) else { return Ok(()) };
        match self.begin(batch, &*work, &members, lone) {
            Ok(flight) => {
                if self.flights.is_empty() {
                    self.oldest_since = Instant::now();
                }
                self.flights.push_back(flight);
                Ok(())
            }
            Err(error) if error.class() == Class::Sticky => Err((error, Some(batch))),
            Err(error) => {
                self.failed(ids, lone, &error);
                Ok(())
            }
        }
    }

    /// Marks who is in the batch; who was cancelled is not.
    fn embark(&mut self, ids: &mut Vec<u64>, batch: u64) {
        let mut state = self.desk.lock();
        ids.retain(|id| {
            let open = state.open.contains_key(id);
            if !open {
                self.jobs.remove(id);
            }
            open
        });
        let size = ids.len();
        for id in &*ids {
            if let Some(open) = state.open.get_mut(id) {
                open.running = Some((batch, size));
            }
        }
    }

    fn begin(
        &mut self,
        batch: u64,
        work: &dyn Work,
        members: &[(u64, Payload, Admitted)],
        lone: bool,
    ) -> Result<Flight, GpuError> {
        let programs = work.programs();
        if !self.means.modules.has(&programs) {
            self.promise(self.settings.load_timeout);
            self.means.modules.load(&mut *self.backend, &programs)?;
            self.promise(self.settings.timeout * 2);
        }
        if lone {
            self.means.pool.trim(&mut *self.backend)?;
        }
        Flight::begin(&mut *self.backend, &mut self.means, batch, work, members)
    }

    /// A batch could not be begun: its members are tried again singly, or alone if memory was short, and one that was is answered.
    fn failed(&mut self, ids: Vec<u64>, lone: bool, error: &GpuError) {
        let short = error.class() == Class::OutOfMemory;
        let beside = !self.flights.is_empty();
        let split = ids.len() > 1 && matches!(error.class(), Class::Refused | Class::Failed);
        if short && (beside || !lone) || split {
            let mut state = self.desk.lock();
            for id in &ids {
                if let Some(open) = state.open.get_mut(id) {
                    open.running = None;
                }
            }
            match (short, beside) {
                (true, true) => self.held = Some(ids),
                (true, false) => self.alone.extend(ids),
                (false, _) => self.singly.extend(ids),
            }
            return;
        }
        for id in ids {
            self.jobs.remove(&id);
            self.desk.answer(id, Err(error.clone()), |_| ());
        }
    }
}

#[cfg(test)]
#[path = "owner_tests.rs"]
mod tests;
