//! The loop of the owner's thread: which batch departs, which has landed, and what is done with those that fail.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::{Batcher, Member};
use crate::desk::Desk;
use crate::flight::{Flight, Means, Took};
use crate::memory::Pool;
use crate::owner::{IDLE, Job, Note, OwnerSettings, hung};
use crate::pinned::Stages;
use crate::work::{Admitted, Modules, Payload, Work};
use crate::{Backend, Class, GpuError};

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

impl<'a> Tower<'a> {
    pub(crate) fn new(backend: Box<dyn Backend>, desk: &'a Desk<Note>, settings: OwnerSettings) -> Self {
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

    /// Until the device is closed or dead.
    pub(crate) fn run(mut self) {
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
        match self.begin(batch, &*work, &members, lone) {
            Ok(flight) => {
                if self.flights.is_empty() {
                    self.oldest_since = Instant::now();
                }
                self.flights.push_back(flight);
                self.tell(0, &Took::default());
                Ok(())
            }
            Err(error) if error.class() == Class::Sticky => Err((error, Some(batch))),
            Err(error) => {
                self.tell(1, &Took::default());
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
        state.run(ids, Some((batch, size)));
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
            self.desk.lock().run(&ids, None);
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
