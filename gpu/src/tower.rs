//! The loop of the owner's thread: which batch departs, which has landed, and what is done with those that fail.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::{Batcher, Member};
use crate::desk::Desk;
use crate::flight::{Flight, Progress, Took};
use crate::means::Means;
use crate::owner::{IDLE, Job, Note, OwnerSettings, hung};
use crate::work::{Admitted, Payload, Work};
use crate::{Backend, Class, Digest, GpuError, Slice, Sticky};

/// Batches on their way at once: with two, copies and kernels overlap.
const FLIGHTS_MAX: usize = 2;
/// How long the owner sleeps between looks at work on its way: a small part of what copying a batch takes.
const LOOK: Duration = Duration::from_micros(20);

/// The owner's thread: decides which batch departs, and brings home what is done.
pub(crate) struct Tower<'a> {
    backend: Box<dyn Backend>,
    desk: &'a Desk<Note>,
    settings: OwnerSettings,
    means: Means,
    batcher: Batcher,
    jobs: BTreeMap<u64, Job>,
    /// Run in no batch with others, but beside other batches.
    singly: VecDeque<u64>,
    /// Batches that found no memory beside another, and wait for it to end.
    held: VecDeque<Vec<u64>>,
    /// Run with nothing else on the device: their batch found no memory even so, or somebody is to know whether they kill the context.
    alone: VecDeque<u64>,
    flights: VecDeque<Flight>,
    /// When a flight last departed, went on or landed.
    moved: Instant,
    batches: u64,
    began: Instant,
}

impl<'a> Tower<'a> {
    pub(crate) fn new(backend: Box<dyn Backend>, desk: &'a Desk<Note>, settings: OwnerSettings) -> Self {
        Self {
            backend,
            desk,
            settings,
            means: Means::new(settings.memory_max, settings.staging_max),
            batcher: Batcher::default(),
            jobs: BTreeMap::new(),
            singly: VecDeque::new(),
            held: VecDeque::new(),
            alone: VecDeque::new(),
            flights: VecDeque::new(),
            moved: Instant::now(),
            batches: 0,
            began: Instant::now(),
        }
    }

    /// Until the device is closed or dead.
    pub(crate) fn run(mut self) {
        loop {
            self.promise(self.settings.timeout * 2, None);
            if let Err((error, batch)) = self.turn() {
                let suspects = self.suspects(&error, batch);
                self.desk.kill(error, &suspects);
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

    /// Whose doing it is if the context dies. Kernels run in the order in which they were queued: it is the first of those that are not known
    /// to be done, else those of the batch that is being begun.
    fn guilty(&self, begun: Option<u64>) -> Option<u64> {
        let first = self.flights.iter().filter_map(|flight| Some((flight.kernels?, flight.batch))).min();
        first.map(|(_, batch)| batch).or(begun)
    }

    /// Whose doing it may be. What hangs is the first in the queue of the device; any other error may be of each whose kernels are not known to be
    /// done, for one that is done already may not have been looked at since.
    fn suspects(&self, error: &GpuError, begun: Option<u64>) -> Vec<u64> {
        if matches!(error, GpuError::Sticky { sticky: Sticky::Hung { .. }, .. }) {
            return self.guilty(begun).into_iter().collect();
        }
        let flying = self.flights.iter().filter(|flight| flight.kernels.is_some()).map(|flight| flight.batch);
        let all: BTreeSet<u64> = flying.chain(begun).collect();
        all.into_iter().collect()
    }

    /// Promises the watchdog to show life within this time, and tells it whose doing it is if not.
    fn promise(&self, time: Duration, begun: Option<u64>) {
        let guilty = self.guilty(begun.or_else(|| self.flights.front().map(|flight| flight.batch)));
        let mut state = self.desk.lock();
        (state.alive_until, state.guilty) = (Some(Instant::now() + time), guilty);
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
        if !self.singly.is_empty() || !self.alone.is_empty() || !self.held.is_empty() {
            return Duration::ZERO;
        }
        let due = self.batcher.next_at_us().map(|at| Duration::from_micros(at.saturating_sub(self.now_us())));
        due.unwrap_or(IDLE).min(IDLE).min(self.settings.timeout)
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Submit { id, settings, job, alone, came } => {
                if alone {
                    // Beside another batch nobody would know again whose doing it is.
                    self.alone.push_back(id);
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

    /// Goes on with what is done so far and begins what is ready.
    fn turn(&mut self) -> Result<(), (GpuError, Option<u64>)> {
        let mut at = 0;
        while let Some(flight) = self.flights.get_mut(at) {
            let batch = flight.batch;
            match flight.advance(&mut *self.backend, &mut self.means) {
                Ok(Progress::Waits) => at += 1,
                // Looked at again at once: it may be done already.
                Ok(Progress::Goes) => self.moved = Instant::now(),
                Ok(Progress::Landed) => self.land(at).map_err(|error| (error, None))?,
                Err(error) if error.class() == Class::Sticky => return Err((error, Some(batch))),
                Err(error) => self.crash(at, error).map_err(|error| (error, Some(batch)))?,
            }
        }
        if !self.flights.is_empty() && self.moved.elapsed() > self.settings.timeout {
            return Err((hung(self.settings.timeout, "a batch"), None));
        }
        while self.flights.len() < FLIGHTS_MAX {
            if self.flights.iter().any(|flight| flight.lone) {
                break;
            }
            let (ids, lone) = if !self.held.is_empty() && !self.flights.is_empty() {
                break;
            } else if let Some(batch) = self.held.pop_front() {
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

    /// A step of a flight could not be queued. The device is sound. Where memory was short, it waits for its turn to be alone: beside others it
    /// might be short for ever.
    fn crash(&mut self, at: usize, error: GpuError) -> Result<(), GpuError> {
        let Some(flight) = self.flights.remove(at) else { return Ok(()) };
        self.moved = Instant::now();
        let (ids, lone) = (flight.ids.clone(), flight.lone);
        let error = flight.give_up(&mut *self.backend, &mut self.means, error);
        if error.class() == Class::Sticky {
            return Err(error);
        }
        self.tell(1, &Took::default());
        self.failed(ids, (lone, false, false), &error);
        Ok(())
    }

    fn land(&mut self, at: usize) -> Result<(), GpuError> {
        let Some(flight) = self.flights.remove(at) else { return Ok(()) };
        self.moved = Instant::now();
        let (ids, begun) = (flight.ids.clone(), flight.begun);
        let (results, took) = flight.finish(&mut *self.backend, &mut self.means)?;
        let on_device = begun.elapsed();
        self.tell(1, &took);
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

    /// Says how things stand, for whoever asks, and what has ended.
    fn tell(&self, batches: u64, took: &Took) {
        let pool = &self.means.pool;
        let figures = &mut self.desk.lock().figures;
        figures.batches += batches;
        figures.busy_us += took.compute_us;
        figures.copy_us += took.copy_us;
        (figures.memory_bytes, figures.memory_high_bytes, figures.memory_kept_bytes) = (pool.used(), pool.high(), pool.kept());
        figures.resident = self.means.residents.counters();
        figures.modules = self.means.modules.count() as u64;
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
        let begun = self.prepare(batch, &*work, lone).and_then(|resident| {
            let evict = self.flights.is_empty();
            let begun =
                Flight::begin(&mut *self.backend, &mut self.means, (batch, lone, evict), Arc::clone(&work), resident, &members);
            begun.map_err(|error| {
                self.means.unpin(resident);
                (error, false)
            })
        });
        match begun {
            Ok(flight) => {
                self.moved = Instant::now();
                self.flights.push_back(flight);
                self.tell(0, &Took::default());
                Ok(())
            }
            Err((error, _)) if error.class() == Class::Sticky => Err((error, Some(batch))),
            Err((error, of_all)) => {
                self.tell(1, &Took::default());
                let beside = !self.flights.is_empty();
                self.failed(ids, (lone, beside, of_all), &error);
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
        state.run(ids, Some((batch, size)));
    }

    /// Sees to programs and what is resident, which stays pinned. An error that is one of the kind and not of a member says so.
    fn prepare(&mut self, batch: u64, work: &dyn Work, lone: bool) -> Result<Option<(Digest, Slice)>, (GpuError, bool)> {
        self.promise(self.settings.load_timeout, Some(batch));
        if !self.means.modules.has(work) {
            self.means.modules.load(&mut *self.backend, work).map_err(|error| (error, true))?;
        }
        let evict = self.flights.is_empty();
        let resident = self.means.pin(&mut *self.backend, work, evict).map_err(|error| (error, true))?;
        self.promise(self.settings.timeout * 2, Some(batch));
        if lone && let Err(error) = self.means.pool.trim(&mut *self.backend) {
            self.means.unpin(resident);
            return Err((error, true));
        }
        Ok(resident)
    }

    /// A batch did not run: its members are tried again singly, or alone if memory was short, and one that was is answered. What is wrong with
    /// all of its kind is not tried again.
    fn failed(&mut self, ids: Vec<u64>, (lone, beside, of_all): (bool, bool, bool), error: &GpuError) {
        let short = error.class() == Class::OutOfMemory;
        let split = ids.len() > 1 && !of_all && matches!(error.class(), Class::Refused | Class::Failed);
        if short && (beside || !lone) || split {
            self.desk.lock().run(&ids, None);
            match (short, beside) {
                (true, true) => self.held.push_back(ids),
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
