//! What limits keep: which tasks stand at the gate, which wait for which limit, and what each bucket has given away.
//!
//! A task of a limited type comes to the *gate* when nothing else keeps it. There it is admitted, with a permit of every bucket of its limits until
//! its attempt ends, or it waits at the first bucket that has none. Buckets are derived from the tasks, but for what rates have been paid.

use std::collections::BTreeMap;
use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::dispatch::PRIORITY_STEP;
use crate::event::Digest;
use crate::id::{LimitId, Ordinal, Position, TypeId};
use crate::limit::{LimitSettings, forgotten};
use crate::shared::{SharedMap, SharedSet};
use crate::slab::{Phase, Slab, Task};
use crate::time::Timestamp;

/// Buckets that are of no use any more and are cleared away with each one that changes.
const SWEEP_MAX: usize = 4;

/// A time that has come.
const NOW: Timestamp = Timestamp(0);

/// The labels of a task: names and values.
pub type Labels = Arc<[Label]>;
/// One of them.
pub type Label = (Box<str>, Box<str>);

/// One bucket: a limit and the digest of a value of its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct BucketKey {
    /// The limit.
    pub limit: LimitId,
    /// Digest of the label's value; of nothing without a key.
    pub value: [u8; 16],
}

/// The order of those that wait at one bucket: as among ready tasks, by (time − priority × step), then by the event that brought them there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    bucket: BucketKey,
    order: i128,
    position: Position,
    task: Ordinal,
}

impl Place {
    fn of(bucket: BucketKey, ordinal: Ordinal, task: &Task) -> Place {
        let headstart = i128::from(PRIORITY_STEP.0) * i128::from(task.priority);
        Place { bucket, order: i128::from(task.ready_at.0) - headstart, position: task.ready_position, task: ordinal }
    }

    /// Before all who wait at a bucket.
    const fn first(bucket: BucketKey) -> Place {
        Place { bucket, order: i128::MIN, position: Position(0), task: Ordinal(0) }
    }
}

/// Where a task of a limited type is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Passage {
    /// It was not looked at yet.
    Gate,
    /// It waits there.
    Waits(BucketKey),
    /// It was admitted with permits of these.
    Holds(Arc<[BucketKey]>),
}

impl Passage {
    /// Whether a task in this phase can be there.
    fn fits(&self, task: &Task, is_known: impl Fn(BucketKey) -> bool) -> bool {
        match self {
            Passage::Gate => task.phase == Phase::Limited,
            Passage::Waits(key) => task.phase == Phase::Limited && is_known(*key),
            Passage::Holds(keys) => (task.has_slot() || task.phase == Phase::Ready) && keys.iter().all(|key| is_known(*key)),
        }
    }
}

/// What a bucket has given away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// The label's value.
    pub value: Arc<str>,
    /// Tasks with a permit.
    pub held: u32,
    /// Those of them that have not started.
    pub ready: u32,
    /// Tasks that wait for one.
    pub waiting: u32,
    /// Until when (ns) the starts so far have used the rate up.
    pub paid: u64,
    /// When it is looked at again.
    due: Option<Timestamp>,
}

/// A limit under its name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Limit {
    /// Its name.
    pub name: String,
    /// What it allows.
    pub allows: LimitSettings,
}

/// A flow as it is written: the rest follows from it and from the tasks.
#[derive(Debug, Default, Encode, Decode)]
pub(crate) struct FlowImage {
    limits: Vec<Limit>,
    types: Vec<(TypeId, Vec<LimitId>)>,
    labels: Vec<(Ordinal, Vec<Label>)>,
    passages: Vec<(Ordinal, Passage)>,
    /// Buckets that are in use or whose rate is used up for a while: the label's value, and until when that is (ns), 0 for what is over.
    buckets: Vec<(BucketKey, String, u64)>,
}

/// All limits of a shard with what they keep.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// By [`LimitId`].
    pub limits: Vec<Limit>,
    /// The limits of task types that have any.
    pub types: BTreeMap<TypeId, Arc<[LimitId]>>,
    /// Labels of live tasks and of dead letters.
    pub labels: SharedMap<Ordinal, Labels>,
    /// Every task that waits for a limit or holds permits.
    pub passages: SharedMap<Ordinal, Passage>,
    gate: SharedSet<(Position, Ordinal)>,
    waiting: SharedSet<Place>,
    buckets: SharedMap<BucketKey, Bucket>,
    /// When which bucket with waiting tasks may have room; [`NOW`] for those that may have it already. Among those the key alone counts: what a rate
    /// has paid is forgotten in time, and must not leave an order behind that a snapshot does not know.
    due: SharedSet<(Timestamp, BucketKey)>,
    /// When the batch began.
    now: Timestamp,
    /// From when on which bucket that holds nothing is of no use.
    fading: SharedSet<(Timestamp, BucketKey)>,
}

impl Flow {
    /// Whether tasks of this type have limits.
    pub fn limits(&self, task_type: TypeId) -> bool {
        !self.types.is_empty() && self.types.contains_key(&task_type)
    }

    /// Whether nothing of it was ever used.
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty() && self.labels.is_empty()
    }

    /// The limit with this name.
    pub fn named(&self, name: &str) -> Option<(LimitId, &Limit)> {
        (0..).map(LimitId).zip(&self.limits).find(|(_, limit)| limit.name == name)
    }

    /// The label's value of a task, empty where it has none.
    pub fn label(&self, task: Ordinal, name: &str) -> &str {
        let labels = self.labels.get(&task);
        labels.and_then(|labels| labels.iter().find(|(known, _)| **known == *name)).map_or("", |(_, value)| value)
    }

    /// All buckets in use, by limit.
    pub fn buckets(&self) -> impl Iterator<Item = (&BucketKey, &Bucket)> {
        self.buckets.iter()
    }

    /// When something may have to be looked at.
    pub(crate) fn next_due(&self) -> Timestamp {
        if !self.gate.is_empty() {
            return Timestamp(0);
        }
        self.due.first().map_or(Timestamp::NEVER, |(due, _)| *due)
    }

    /// The first task at the gate.
    pub(crate) fn first_at_gate(&self) -> Option<Ordinal> {
        self.gate.first().map(|(_, task)| *task)
    }

    /// The first task of a bucket that may have room at this moment, and the bucket.
    pub(crate) fn first_due(&self, at: Timestamp) -> Option<(Ordinal, BucketKey)> {
        let (_, bucket) = self.due.first().filter(|(due, _)| *due <= at)?;
        let place = self.waiting.iter_from(Place::first(*bucket)).next().filter(|place| place.bucket == *bucket)?;
        Some((place.task, *bucket))
    }

    /// The first bucket that has no room yet, and from when on it may.
    fn first_later(&self) -> Option<(Timestamp, BucketKey)> {
        self.due.iter_from((Timestamp(NOW.0 + 1), BucketKey::default())).next().copied()
    }

    /// The buckets of a task, in the order of its type's limits.
    pub(crate) fn buckets_of(&self, ordinal: Ordinal, task_type: TypeId) -> impl Iterator<Item = BucketKey> {
        let limits = self.types.get(&task_type).into_iter().flat_map(|limits| limits.iter());
        limits.filter_map(move |limit| self.bucket_of(ordinal, *limit))
    }

    /// The bucket of a limit for a task.
    pub(crate) fn bucket_of(&self, ordinal: Ordinal, limit: LimitId) -> Option<BucketKey> {
        let known = self.limits.get(usize::from(limit.0))?;
        let value = known.allows.key.as_deref().map_or("", |key| self.label(ordinal, key));
        Some(BucketKey { limit, value: Digest::of(value.as_bytes()).0 })
    }

    /// When a bucket has room for one more; `None` for "not before something in it ends or starts".
    fn room(&self, key: BucketKey, bucket: &Bucket) -> Option<Timestamp> {
        let allows = &self.limits.get(usize::from(key.limit.0))?.allows;
        let is_full = allows.concurrency.is_some_and(|most| bucket.held >= most);
        if is_full || allows.ready.is_some_and(|most| bucket.ready >= most) {
            return None;
        }
        allows.rate.map_or(Some(Timestamp(0)), |rate| rate.due(bucket.paid, bucket.ready.saturating_add(1)))
    }

    /// Whether a bucket has room at this moment.
    pub(crate) fn has_room(&self, key: BucketKey, at: Timestamp) -> bool {
        self.buckets.get(&key).is_none_or(|bucket| self.room(key, bucket).is_some_and(|due| due <= at))
    }

    /// Whether tasks wait at a bucket.
    pub(crate) fn is_waited_for(&self, key: BucketKey) -> bool {
        self.buckets.get(&key).is_some_and(|bucket| bucket.waiting > 0)
    }
}

/// Snapshots.
impl Flow {
    /// What is written of it; buckets that are as good as new at this moment are left out, whether they were cleared away yet or not. Values
    /// are written, for a limit may have another key by now than when its buckets were filled.
    pub(crate) fn image(&self, at: Timestamp) -> FlowImage {
        let paid = |bucket: &Bucket| if forgotten(bucket.paid) > at { bucket.paid } else { 0 };
        let is_new = |bucket: &Bucket| bucket.held == 0 && bucket.waiting == 0 && paid(bucket) == 0;
        FlowImage {
            limits: self.limits.clone(),
            types: self.types.iter().map(|(task_type, limits)| (*task_type, limits.to_vec())).collect(),
            labels: self.labels.iter().map(|(task, labels)| (*task, labels.to_vec())).collect(),
            passages: self.passages.iter().map(|(task, passage)| (*task, passage.clone())).collect(),
            buckets: self
                .buckets
                .iter()
                .filter(|(_, bucket)| !is_new(bucket))
                .map(|(key, bucket)| (*key, bucket.value.to_string(), paid(bucket)))
                .collect(),
        }
    }

    /// Takes what was written, beside these tasks; false for what contradicts them or itself.
    pub(crate) fn restore(&mut self, image: FlowImage, tasks: &Slab, types: usize) -> bool {
        let FlowImage { limits, types: limited, labels, passages, buckets } = image;
        let is_known = |key: BucketKey| usize::from(key.limit.0) < limits.len();
        let mut named = limited.iter().flat_map(|(_, limits)| limits);
        if named.any(|limit| usize::from(limit.0) >= limits.len())
            || limited.iter().any(|(task_type, _)| usize::from(task_type.0) >= types)
            || buckets.iter().any(|(key, _, _)| !is_known(*key))
            || !passages.iter().all(|(task, passage)| tasks.get(*task).is_some_and(|task| passage.fits(task, is_known)))
        {
            return false;
        }
        self.limits = limits;
        self.types = limited.into_iter().map(|(task_type, limits)| (task_type, limits.into())).collect();
        self.labels = labels.into_iter().map(|(task, labels)| (task, labels.into())).collect();
        for (key, value, paid) in buckets {
            self.buckets.insert(key, Bucket { value: value.into(), paid, ..Bucket::default() });
            self.change(key, |_| ());
        }
        passages.into_iter().for_each(|(ordinal, passage)| self.pass(ordinal, passage, tasks));
        tasks.iter().all(|(ordinal, task, _)| task.phase != Phase::Limited || self.passages.contains_key(&ordinal))
    }

    /// Puts a task back where it was.
    fn pass(&mut self, ordinal: Ordinal, passage: Passage, tasks: &Slab) {
        let Some(task) = tasks.get(ordinal) else { return };
        match &passage {
            Passage::Gate => drop(self.gate.insert((task.ready_position, ordinal))),
            Passage::Waits(key) => {
                self.waiting.insert(Place::of(*key, ordinal, task));
                self.name(*key, ordinal);
                self.change(*key, |bucket| bucket.waiting += 1);
            }
            Passage::Holds(keys) => {
                let ready = u32::from(task.phase == Phase::Ready);
                for key in keys.iter() {
                    self.name(*key, ordinal);
                    self.change(*key, |bucket| (bucket.held, bucket.ready) = (bucket.held + 1, bucket.ready + ready));
                }
            }
        }
        self.passages.insert(ordinal, passage);
    }
}

/// What events change.
impl Flow {
    /// Notes at the beginning of a batch which buckets may have room by now.
    pub(crate) fn refresh(&mut self, at: Timestamp) {
        self.now = at;
        while let Some((due, key)) = self.first_later().filter(|(due, _)| *due <= at) {
            self.due.remove(&(due, key));
            self.due.insert((NOW, key));
            if let Some(bucket) = self.buckets.get(&key).cloned() {
                self.buckets.insert(key, Bucket { due: Some(NOW), ..bucket });
            }
        }
    }

    pub(crate) fn define(&mut self, id: LimitId, name: &str, allows: &LimitSettings) {
        let limit = Limit { name: name.to_owned(), allows: allows.clone() };
        let (index, count) = (usize::from(id.0), self.limits.len());
        match self.limits.get_mut(index) {
            Some(known) => *known = limit,
            None if index == count => self.limits.push(limit),
            None => return,
        }
        let first = BucketKey { limit: id, value: [0; 16] };
        let keys: Vec<BucketKey> =
            self.buckets.iter_from(&first).map(|(key, _)| *key).take_while(|key| key.limit == id).collect();
        keys.into_iter().for_each(|key| self.change(key, |_| ()));
    }

    pub(crate) fn limit_type(&mut self, task_type: TypeId, limits: &[LimitId]) {
        if limits.is_empty() {
            self.types.remove(&task_type);
        } else {
            self.types.insert(task_type, limits.into());
        }
    }

    /// Puts a task before the gate that nothing else keeps.
    pub(crate) fn arrive(&mut self, ordinal: Ordinal, position: Position) {
        self.gate.insert((position, ordinal));
        self.passages.insert(ordinal, Passage::Gate);
    }

    /// Lets a task wait at a limit.
    pub(crate) fn wait(&mut self, ordinal: Ordinal, task: &Task, limit: LimitId) {
        let Some(key) = self.bucket_of(ordinal, limit) else { return };
        self.leave(ordinal, task);
        self.waiting.insert(Place::of(key, ordinal, task));
        self.passages.insert(ordinal, Passage::Waits(key));
        self.name(key, ordinal);
        self.change(key, |bucket| bucket.waiting += 1);
    }

    /// Gives a task a permit of each bucket.
    pub(crate) fn admit(&mut self, ordinal: Ordinal, task: &Task) {
        self.leave(ordinal, task);
        let keys: Arc<[BucketKey]> = self.buckets_of(ordinal, task.task_type).collect();
        for key in keys.iter() {
            self.name(*key, ordinal);
            self.change(*key, |bucket| (bucket.held, bucket.ready) = (bucket.held + 1, bucket.ready + 1));
        }
        self.passages.insert(ordinal, Passage::Holds(keys));
    }

    /// Notes that an admitted task has started.
    pub(crate) fn start(&mut self, ordinal: Ordinal, at: Timestamp) {
        for key in self.held(ordinal).iter() {
            let rate = self.limits.get(usize::from(key.limit.0)).and_then(|limit| limit.allows.rate);
            self.change(*key, |bucket| {
                bucket.ready = bucket.ready.saturating_sub(1);
                bucket.paid = rate.map_or(bucket.paid, |rate| rate.pay(bucket.paid, at));
            });
        }
    }

    /// Notes that a task is ready again whose attempt was lost: it keeps its permits.
    pub(crate) fn restart(&mut self, ordinal: Ordinal) {
        for key in self.held(ordinal).iter() {
            self.change(*key, |bucket| bucket.ready += 1);
        }
    }

    /// Takes a task's permits back, or takes it out of wherever it waits; `was_ready` for one that had not started.
    pub(crate) fn release(&mut self, ordinal: Ordinal, task: &Task, was_ready: bool, at: Timestamp) {
        if self.passages.is_empty() {
            return;
        }
        for key in self.held(ordinal).iter() {
            self.change(*key, |bucket| {
                bucket.held = bucket.held.saturating_sub(1);
                bucket.ready = bucket.ready.saturating_sub(u32::from(was_ready));
            });
        }
        self.leave(ordinal, task);
        self.passages.remove(&ordinal);
        self.sweep(at);
    }

    /// Forgets the labels of a task that is over for good.
    pub(crate) fn forget(&mut self, ordinal: Ordinal) {
        if !self.labels.is_empty() {
            self.labels.remove(&ordinal);
        }
    }

    /// The buckets whose permits a task has.
    fn held(&self, ordinal: Ordinal) -> Arc<[BucketKey]> {
        match self.passages.get(&ordinal) {
            Some(Passage::Holds(keys)) => Arc::clone(keys),
            Some(Passage::Gate | Passage::Waits(_)) | None => Arc::default(),
        }
    }

    /// Takes a task away from the gate, or from the bucket that it waits at.
    fn leave(&mut self, ordinal: Ordinal, task: &Task) {
        match self.passages.get(&ordinal) {
            Some(Passage::Gate) => drop(self.gate.remove(&(task.ready_position, ordinal))),
            Some(Passage::Waits(key)) => {
                let key = *key;
                self.waiting.remove(&Place::of(key, ordinal, task));
                self.change(key, |bucket| bucket.waiting = bucket.waiting.saturating_sub(1));
            }
            Some(Passage::Holds(_)) | None => {}
        }
    }

    /// Makes sure that a bucket is there, with the value that it stands for.
    fn name(&mut self, key: BucketKey, ordinal: Ordinal) {
        if self.buckets.contains_key(&key) {
            return;
        }
        let label = self.limits.get(usize::from(key.limit.0)).and_then(|limit| limit.allows.key.as_deref());
        let value = label.map_or("", |label| self.label(ordinal, label)).into();
        self.buckets.insert(key, Bucket { value, ..Bucket::default() });
    }

    /// Changes a bucket, and notes when it has to be looked at again.
    fn change(&mut self, key: BucketKey, change: impl FnOnce(&mut Bucket)) {
        let Some(mut bucket) = self.buckets.get(&key).cloned() else { return };
        change(&mut bucket);
        let due = if bucket.waiting == 0 { None } else { self.room(key, &bucket) };
        let due = due.map(|due| if due <= self.now { NOW } else { due });
        if let Some(before) = bucket.due.filter(|before| Some(*before) != due) {
            self.due.remove(&(before, key));
        }
        if let Some(due) = due {
            self.due.insert((due, key));
        }
        bucket.due = due;
        if bucket.held == 0 && bucket.waiting == 0 {
            self.fading.insert((forgotten(bucket.paid), key));
        }
        self.buckets.insert(key, bucket);
    }

    /// Clears away some buckets that are as good as new ones.
    fn sweep(&mut self, at: Timestamp) {
        for _ in 0..SWEEP_MAX {
            let Some((from, key)) = self.fading.first().copied().filter(|(from, _)| *from <= at) else { return };
            self.fading.remove(&(from, key));
            let is_idle = |bucket: &Bucket| bucket.held == 0 && bucket.waiting == 0 && forgotten(bucket.paid) <= at;
            if self.buckets.get(&key).is_some_and(is_idle) {
                self.buckets.remove(&key);
            }
        }
    }
}
