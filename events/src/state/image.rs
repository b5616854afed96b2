//! A state as bytes and back: for snapshots, and for comparing two states by their digest. Equal states have equal bytes.
//!
//! Written are the facts; queues and timers follow from them and are rebuilt.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use bincode::config::{Config, standard};
use bincode::{Decode, Encode};

use super::control::{Control, PoolSize, ReplicaLife};
use super::flow::FlowImage;
use super::holds::HoldsImage;
use super::keys::KeyTable;
use super::replicas::{Replica, Replicas};
use super::schedules::Schedules;
use super::work::{DeadLetter, Pool, Progress, TaskType, Work};
use super::{State, queue::ReadyQueue};
use crate::block::Hash;
use crate::event::{Cause, RuleVersions};
use crate::id::{Epoch, Ordinal, Position, ReplicaId, TypeId};
use crate::slab::{Phase, Task};
use crate::task::TypeSettings;
use crate::time::Timestamp;
use crate::worker::{WORKER_FIRST, WorkerFacts};

/// Version of the layout below. Those before had no policies and resources of pools at their end, no [`WorkersImage`] before that, no modes of pools and no [`HoldsImage`] before that, no
/// [`Schedules`] before that, and no [`FlowImage`] before that; a state without them is still written like that: older builds can read it, and its digest is what it was.
const IMAGE_VERSION: u16 = 7;
const IMAGE_VERSION_WITHOUT_SCALING: u16 = 6;
const IMAGE_VERSION_WITHOUT_WORKERS: u16 = 5;
const IMAGE_VERSION_WITHOUT_HOLDS: u16 = 4;
const IMAGE_VERSION_WITHOUT_SCHEDULES: u16 = 3;
const IMAGE_VERSION_WITHOUT_FLOW: u16 = 2;
/// Most bytes that one part of an image may claim while it is decoded.
const PART_BYTES_MAX: usize = 1 << 30;

/// What the digest gathers before it hashes: enough for every lane of the hash, small enough for the first cache.
const DIGEST_BUFFER_BYTES: usize = 16 << 10;
/// No log gets this far: at ten million events a second it would take thirty thousand years.
const COUNT_MAX: u64 = u64::MAX / 2;

const fn config() -> impl Config {
    standard().with_limit::<PART_BYTES_MAX>()
}

/// Bytes that are not an image of a state.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Written by another version of the layout.
    #[error("the state image has layout {0} and this build reads {IMAGE_VERSION}")]
    Version(u16),
    /// Not decodable.
    #[error("failed to decode the state image")]
    Decode(#[from] bincode::error::DecodeError),
    /// Decodable and still impossible.
    #[error("the state image contradicts itself: {0}")]
    Inconsistent(&'static str),
}

/// The control half without its schedules.
#[derive(Encode, Decode)]
struct Pools {
    sizes: Vec<PoolSize>,
    replicas: BTreeMap<ReplicaId, ReplicaLife>,
    next_replica: u32,
}

/// Workers, and what the process can run itself.
#[derive(Encode, Decode)]
struct WorkersImage {
    serves: Option<Vec<String>>,
    seen: u32,
    workers: Vec<(ReplicaId, WorkerFacts)>,
}

impl WorkersImage {
    fn of(work: &Work) -> WorkersImage {
        WorkersImage {
            serves: work.serves.as_deref().cloned(),
            seen: work.workers_seen,
            workers: work.workers.iter().map(|(id, facts)| (*id, (**facts).clone())).collect(),
        }
    }

    /// Puts them back; says whether they are possible.
    fn restore(self, work: &mut Work) -> bool {
        work.serves = self.serves.map(Arc::new);
        work.workers_seen = self.seen;
        work.workers = self.workers.into_iter().map(|(id, facts)| (id, Arc::new(facts))).collect();
        let is_possible = |id: ReplicaId| id >= WORKER_FIRST && work.replicas.get(id).is_some();
        work.workers.iter().all(|(id, _)| is_possible(*id) && work.next_worker().is_none_or(|next| *id < next))
    }
}

#[derive(Encode, Decode)]
struct Top {
    version: u16,
    epoch: Epoch,
    rules: RuleVersions,
    position: Position,
    last_at: Timestamp,
    next_ordinal: Ordinal,
    ended: [u64; 5],
    source_next: u64,
    types: Vec<(String, TypeSettings)>,
    pools: Vec<String>,
    control: Pools,
    replicas: Replicas,
    tasks: u64,
    dead: u64,
}

impl State {
    /// Writes the state.
    ///
    /// # Errors
    /// What `out` answers.
    pub fn encode(&self, out: &mut dyn Write) -> io::Result<()> {
        let Control { pools, replicas, next_replica, held, resources, scaling, schedules } = &self.control;
        let has_scaling = !scaling.is_empty() || !resources.is_empty();
        let has_workers = has_scaling || self.work.serves.is_some() || self.work.workers_seen > 0;
        let has_holds = has_workers || !held.is_empty() || !self.work.holds.is_empty();
        let has_schedules = has_holds || !schedules.list.is_empty();
        let has_flow = has_schedules || !self.work.flow.is_empty() || !self.work.progress.is_empty();
        let top = Top {
            version: match (has_workers, has_holds, has_schedules, has_flow) {
                (true, ..) if has_scaling => IMAGE_VERSION,
                (true, _, _, _) => IMAGE_VERSION_WITHOUT_SCALING,
                (false, true, _, _) => IMAGE_VERSION_WITHOUT_WORKERS,
                (false, false, true, _) => IMAGE_VERSION_WITHOUT_HOLDS,
                (false, false, false, true) => IMAGE_VERSION_WITHOUT_SCHEDULES,
                (false, false, false, false) => IMAGE_VERSION_WITHOUT_FLOW,
            },
            epoch: self.epoch,
            rules: self.rules,
            position: self.position,
            last_at: self.last_at,
            next_ordinal: self.next_ordinal(),
            ended: self.work.ended,
            source_next: self.work.source_next,
            types: self.work.types.iter().map(|known| (known.name.clone(), (*known.settings).clone())).collect(),
            pools: self.work.pools.iter().map(|pool| pool.name.clone()).collect(),
            control: Pools { sizes: pools.clone(), replicas: replicas.clone(), next_replica: *next_replica },
            replicas: self.work.replicas.clone(),
            tasks: self.work.tasks.len() as u64,
            dead: self.work.dead.len() as u64,
        };
        put(out, &top)?;
        put(out, &self.work.keys)?;
        for (ordinal, task, payload) in self.work.tasks.iter() {
            put(out, &ordinal)?;
            put(out, &task.portable())?;
            put(out, &payload)?;
        }
        for (ordinal, letter) in &self.work.dead {
            put(out, ordinal)?;
            put(out, &letter.task.portable())?;
            put(out, &(&letter.payload, letter.cause, letter.ended_at))?;
        }
        if has_flow {
            put(out, &self.work.flow.image(self.last_at))?;
            put(out, &self.work.progress.iter().map(|(task, progress)| (*task, (**progress).clone())).collect::<Vec<_>>())?;
        }
        if has_schedules {
            put(out, schedules)?;
        }
        if has_holds {
            put(out, held)?;
            put(out, &self.work.holds.image())?;
        }
        if has_workers {
            put(out, &WorkersImage::of(&self.work))?;
        }
        if has_scaling {
            put(out, scaling)?;
            put(out, resources)?;
        }
        Ok(())
    }

    /// Reads a state.
    ///
    /// # Errors
    /// When the bytes are not an image, are of another layout version, or contradict themselves.
    pub fn decode(bytes: &[u8]) -> Result<State, ImageError> {
        let mut rest = bytes;
        let version: u16 = bincode::decode_from_slice(rest, config())?.0;
        if !(IMAGE_VERSION_WITHOUT_FLOW..=IMAGE_VERSION).contains(&version) {
            return Err(ImageError::Version(version));
        }
        let top: Top = take(&mut rest)?;
        let keys: KeyTable = take(&mut rest)?;
        let mut state = State {
            work: Work { replicas: top.replicas, keys, ended: top.ended, source_next: top.source_next, ..Work::default() },
            control: Control {
                pools: top.control.sizes,
                replicas: top.control.replicas,
                next_replica: top.control.next_replica,
                held: BTreeMap::new(),
                resources: BTreeMap::new(),
                scaling: BTreeMap::new(),
                schedules: Schedules::default(),
            },
            epoch: top.epoch,
            rules: top.rules,
            position: top.position,
            last_at: top.last_at,
            unsettled: true,
        };
        define(&mut state.work, top.types, top.pools)?;
        let lost = |(_, replica): (_, &Replica)| replica.pool as usize >= state.work.pools.len();
        if state.work.replicas.iter().chain(state.work.replicas.gone()).any(lost) {
            return Err(ImageError::Inconsistent("a replica's pool is not listed"));
        }
        if !state.work.replicas.are_possible() {
            return Err(ImageError::Inconsistent("a replica's slots do not add up"));
        }
        if top.position.0 > COUNT_MAX || top.next_ordinal.0 > COUNT_MAX {
            return Err(ImageError::Inconsistent("it counts further than any log"));
        }
        for _ in 0..top.tasks {
            let (ordinal, task, payload) = take_task(&mut rest, &state.work, top.next_ordinal)?;
            if ordinal < state.work.tasks.next() {
                return Err(ImageError::Inconsistent("tasks are out of order"));
            }
            state.work.tasks.restore(ordinal, task, &payload);
        }
        state.work.tasks.skip_to(top.next_ordinal);
        for _ in 0..top.dead {
            let ordinal: Ordinal = take(&mut rest)?;
            let task: Task = take(&mut rest)?;
            let (payload, cause, ended_at): (Box<[u8]>, Cause, Timestamp) = take(&mut rest)?;
            check_type(&task, &state.work)?;
            if ordinal >= top.next_ordinal || state.work.dead.last_key_value().is_some_and(|(last, _)| *last >= ordinal) {
                return Err(ImageError::Inconsistent("dead letters are out of order"));
            }
            state.work.dead_bytes += payload.len();
            state.work.dead.insert(ordinal, Arc::new(DeadLetter { task, payload, cause, ended_at }));
        }
        let has_flow = version > IMAGE_VERSION_WITHOUT_FLOW;
        let flow: Option<FlowImage> = if has_flow { Some(take(&mut rest)?) } else { None };
        let progress: Vec<(Ordinal, Progress)> = if has_flow { take(&mut rest)? } else { Vec::new() };
        if version > IMAGE_VERSION_WITHOUT_SCHEDULES {
            state.control.schedules = take(&mut rest)?;
        }
        let mut holds = HoldsImage::default();
        if version > IMAGE_VERSION_WITHOUT_HOLDS {
            state.control.held = take(&mut rest)?;
            holds = take(&mut rest)?;
        }
        let workers: Option<WorkersImage> = if version > IMAGE_VERSION_WITHOUT_WORKERS { Some(take(&mut rest)?) } else { None };
        if workers.is_some_and(|workers| !workers.restore(&mut state.work)) {
            return Err(ImageError::Inconsistent("a worker is not listed"));
        }
        if version > IMAGE_VERSION_WITHOUT_SCALING {
            state.control.scaling = take(&mut rest)?;
            state.control.resources = take(&mut rest)?;
        }
        if state
            .control
            .scaling
            .keys()
            .chain(state.control.resources.keys())
            .any(|pool| usize::from(pool.0) >= state.control.pools.len())
        {
            return Err(ImageError::Inconsistent("the pool of a policy or of resources is not listed"));
        }
        if !rest.is_empty() {
            return Err(ImageError::Inconsistent("bytes are left at the end"));
        }
        state.work.progress = progress.into_iter().map(|(task, progress)| (task, Arc::new(progress))).collect();
        check_slots(&state.work)?;
        state.work.rebuild();
        let holds_fit = state.work.holds.restore(holds, &state.work.tasks);
        if !holds_fit
            || state.work.tasks.iter().any(|(task, known, _)| known.phase == Phase::Held && state.work.holds.get(task).is_none())
        {
            return Err(ImageError::Inconsistent("a held task, or what it waits for, is not listed"));
        }
        let is_possible = flow.is_none_or(|flow| state.work.flow.restore(flow, &state.work.tasks, state.work.types.len()));
        if is_possible { Ok(state) } else { Err(ImageError::Inconsistent("a limit, or what waits for it, is not listed")) }
    }

    /// The BLAKE3 hash of [`State::encode`]; equal for equal states, however they came about.
    pub fn digest(&self) -> Hash {
        // An image is written a few bytes at a time, and a hasher likes them by the kilobyte.
        let mut hasher = io::BufWriter::with_capacity(DIGEST_BUFFER_BYTES, blake3::Hasher::new());
        self.encode(&mut hasher).expect("a hasher takes every byte");
        let hasher = hasher.into_inner().expect("a hasher takes every byte");
        Hash(*hasher.finalize().as_bytes())
    }
}

fn define(work: &mut Work, types: Vec<(String, TypeSettings)>, pools: Vec<String>) -> Result<(), ImageError> {
    work.pools = pools.into_iter().map(|name| Pool { name, ..Pool::default() }).collect();
    for (name, settings) in types {
        let id = TypeId(u16::try_from(work.types.len()).map_err(|_| ImageError::Inconsistent("too many types"))?);
        let pool = work.pools.iter().position(|pool| pool.name == settings.pool);
        let pool =
            pool.and_then(|index| u32::try_from(index).ok()).ok_or(ImageError::Inconsistent("a type's pool is not listed"))?;
        work.types.push(TaskType { name: name.clone(), settings: Arc::new(settings), pool });
        work.type_names.insert(name, id);
        work.pools[pool as usize].types.push(id);
        work.queues.push(ReadyQueue::default());
    }
    Ok(())
}

fn take_task(rest: &mut &[u8], work: &Work, next: Ordinal) -> Result<(Ordinal, Task, Box<[u8]>), ImageError> {
    let ordinal: Ordinal = take(rest)?;
    let task: Task = take(rest)?;
    let payload: Box<[u8]> = take(rest)?;
    check_type(&task, work)?;
    if ordinal >= next {
        return Err(ImageError::Inconsistent("a task is beyond the next ordinal"));
    }
    Ok((ordinal, task, payload))
}

/// Checks that running tasks and busy slots are the same attempts.
fn check_slots(work: &Work) -> Result<(), ImageError> {
    let mut busy = 0;
    for (id, slot, ordinal, attempt) in work.replicas.busy() {
        busy += 1;
        let fits = |task: &Task| task.has_slot() && (task.replica, task.slot, task.attempt) == (id, slot, attempt);
        if !work.tasks.get(ordinal).is_some_and(fits) {
            return Err(ImageError::Inconsistent("a slot is busy with another attempt"));
        }
    }
    let running = work.tasks.iter().filter(|(_, task, _)| task.has_slot()).count();
    if running == busy { Ok(()) } else { Err(ImageError::Inconsistent("a running task has no slot")) }
}

fn check_type(task: &Task, work: &Work) -> Result<(), ImageError> {
    let known = usize::from(task.task_type.0) < work.types.len();
    if known { Ok(()) } else { Err(ImageError::Inconsistent("a task's type is not listed")) }
}

fn put(out: &mut dyn Write, part: &impl Encode) -> io::Result<()> {
    let mut out = out;
    match bincode::encode_into_std_write(part, &mut out, config()) {
        Ok(_) => Ok(()),
        Err(bincode::error::EncodeError::Io { inner, .. }) => Err(inner),
        Err(other) => Err(io::Error::other(other)),
    }
}

fn take<T: Decode<()>>(rest: &mut &[u8]) -> Result<T, ImageError> {
    let (part, used) = bincode::decode_from_slice(rest, config())?;
    *rest = &rest[used..];
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_state_comes_back_and_anything_shorter_is_refused() {
        let state = State::default();
        let mut bytes = Vec::new();
        state.encode(&mut bytes).expect("a vector takes every byte");
        assert_eq!(State::decode(&bytes).expect("it was just written").digest(), state.digest());
        for len in 0..bytes.len() {
            assert!(State::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
    }
}
