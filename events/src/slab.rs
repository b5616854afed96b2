//! Live tasks by ordinal: pages of dense slots, each with the payloads of its tasks, freed when their last task ends.
//!
//! Pages are shared: a clone of the slab costs a pointer a page, and a page is copied only when it is changed while a clone lives.
//! Its payloads are not copied with it, and what few tasks have is not either, so such a copy is small whatever the tasks carry.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::id::{Ordinal, Position, ReplicaId, TypeId};
use crate::task::{RetryPolicy, Timeouts};
use crate::time::Timestamp;

/// Tasks in a page: enough that a page's bookkeeping is nothing beside its tasks and that a clone of a million of them costs less than a
/// millisecond; few enough that copying the page of one task, which a change beside a clone does, costs little and that a long-lived one
/// pins little.
const PAGE_TASKS: u64 = 64;
/// Pages kept in the dense row before a row that is mostly holes is thinned out.
const DENSE_PAGES_MAX: usize = 16_384;
/// Payloads of more bytes lie apart, each on its own, so that the buffer of a page stays below 256 KiB.
const APART_BYTES: usize = 4 << 10;
/// Dead payload bytes that a page may hold beyond its live ones before it is compacted.
const ARENA_SLACK_BYTES: usize = 16 << 10;

/// Where a live task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waits for the moment that its request named.
    Delayed,
    /// Waits for a slot.
    Ready,
    /// Has a slot.
    Running,
    /// Has a slot and was asked to give it up.
    Cancelling,
    /// Waits for its next attempt.
    Backoff,
    /// Waits for a limit on the flow.
    Limited,
    /// Waits for the end of other tasks.
    Held,
}

/// A live task.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Task {
    /// Where it is in its life.
    pub phase: Phase,
    /// From 0 to [`crate::task::PRIORITY_MAX`].
    pub priority: u8,
    /// The definition it was accepted under.
    pub task_type: TypeId,
    /// Starts so far; the number of the current or last attempt.
    pub attempt: u32,
    /// Attempts that count against the retry policy.
    pub failures: u32,
    /// Attempts that were lost with their executor.
    pub losses: u32,
    /// The replica of the current attempt.
    pub replica: ReplicaId,
    /// The slot of the current attempt.
    pub slot: u32,
    /// When it was requested.
    pub requested_at: Timestamp,
    /// When it last became ready.
    pub ready_at: Timestamp,
    /// The event that last made it ready; gives the order among ready tasks of one priority.
    pub ready_position: Position,
    /// When the wait of [`Phase::Delayed`], [`Phase::Backoff`] or [`Phase::Cancelling`] ends.
    pub due: Timestamp,
    /// What few tasks have.
    pub extra: Option<Arc<Extra>>,
    /// Where its payload begins in its page's buffer, or its index among those that lie apart.
    payload_offset: u32,
    payload_len: u32,
}

/// What few tasks have, kept apart so that the usual task stays small.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Extra {
    /// A retry policy of its own.
    pub retry: Option<RetryPolicy>,
    /// Timeouts of its own.
    pub timeouts: Option<Timeouts>,
    /// Details of the last heartbeat that carried any.
    pub checkpoint: Option<Box<[u8]>>,
    /// The media type of the payload.
    pub content_type: Option<Box<str>>,
    /// W3C trace context of the requester.
    pub trace_parent: Option<Box<str>>,
    /// The topic that gets its end.
    pub reply_to: Option<Box<str>>,
    /// The requester's own name for the request.
    pub correlation_id: Option<Box<str>>,
}

impl Task {
    /// A task that was just requested and waits for nothing; its payload is put beside it by [`Slab::insert`].
    pub fn new(task_type: TypeId, priority: u8, at: Timestamp, position: Position, extra: Option<Arc<Extra>>) -> Task {
        Task {
            phase: Phase::Ready,
            priority,
            task_type,
            attempt: 0,
            failures: 0,
            losses: 0,
            replica: ReplicaId(0),
            slot: 0,
            requested_at: at,
            ready_at: at,
            ready_position: position,
            due: Timestamp::NEVER,
            extra,
            payload_offset: 0,
            payload_len: 0,
        }
    }

    /// Whether an attempt of it has a slot.
    pub const fn has_slot(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Cancelling)
    }

    /// Details that the last attempt left for the next one.
    pub fn checkpoint(&self) -> Option<&[u8]> {
        self.extra.as_ref()?.checkpoint.as_deref()
    }

    /// The W3C trace context of the request.
    pub fn trace_parent(&self) -> Option<&str> {
        self.extra.as_ref()?.trace_parent.as_deref()
    }

    /// The task without the place of its payload, which differs between equal states.
    pub(crate) fn portable(&self) -> Task {
        Task { payload_offset: 0, payload_len: 0, ..self.clone() }
    }

    /// The rarely used part, made when it is first needed.
    pub fn extra_mut(&mut self) -> &mut Extra {
        Arc::make_mut(self.extra.get_or_insert_default())
    }
}

/// All live tasks of a shard.
#[derive(Clone, Debug, Default)]
pub struct Slab {
    /// Pages by number from `first_page`; a hole is a page without live tasks.
    dense: VecDeque<Option<Arc<Page>>>,
    first_page: u64,
    holes: usize,
    /// Pages older than the dense row that still have a live task.
    stragglers: BTreeMap<u64, Arc<Page>>,
    next: Ordinal,
    live: usize,
    /// Payload bytes of live tasks.
    bytes: u64,
    /// Payload bytes of the last page that was filled: what the next one is likely to need.
    usual_bytes: usize,
}

#[derive(Clone, Debug)]
struct Page {
    tasks: Box<[Option<Task>]>,
    live: u32,
    /// Payloads of the page's tasks, one after another.
    arena: Arena,
    arena_dead: usize,
    /// Payloads of more than [`APART_BYTES`].
    apart: Vec<Option<Arc<[u8]>>>,
}

/// A page's buffer.
#[derive(Clone, Debug)]
enum Arena {
    /// More tasks of the page will come.
    Open(Vec<u8>),
    /// The page is full; clones of it share the bytes.
    Frozen(Arc<Vec<u8>>),
}

impl Arena {
    fn bytes(&self) -> &[u8] {
        match self {
            Arena::Open(bytes) => bytes,
            Arena::Frozen(bytes) => bytes,
        }
    }

    /// Freezes the buffer of a full page.
    fn freeze(&mut self) {
        if let Arena::Open(bytes) = self {
            let mut bytes = std::mem::take(bytes);
            bytes.shrink_to_fit();
            *self = Arena::Frozen(Arc::new(bytes));
        }
    }
}

impl Slab {
    /// The ordinal that the next task gets.
    pub const fn next(&self) -> Ordinal {
        self.next
    }

    /// Number of live tasks.
    pub const fn len(&self) -> usize {
        self.live
    }

    /// Payload bytes of all live tasks.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there is no live task.
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Puts a task with its payload under the next ordinal.
    ///
    /// # Panics
    /// When the payloads of one page pass 4 GiB, which 64 payloads of [`crate::task::PAYLOAD_BYTES_MAX`] cannot.
    pub fn insert(&mut self, mut task: Task, payload: &[u8]) -> Ordinal {
        let ordinal = self.next;
        self.next = Ordinal(ordinal.0 + 1);
        self.live += 1;
        self.bytes += payload.len() as u64;
        let page = Arc::make_mut(self.page_for_insert(ordinal.0 / PAGE_TASKS));
        task.payload_offset = u32::try_from(page.keep(payload)).expect("a page's payloads are far below 4 GiB");
        task.payload_len = u32::try_from(payload.len()).expect("a payload is far below 4 GiB");
        let index = ordinal.0 % PAGE_TASKS;
        page.tasks[index as usize] = Some(task);
        page.live += 1;
        if index == PAGE_TASKS - 1 {
            page.arena.freeze();
            self.usual_bytes = page.arena.bytes().len();
        }
        ordinal
    }

    /// Puts a task back under its own ordinal, which is not below the next one; for loading a snapshot.
    pub fn restore(&mut self, ordinal: Ordinal, task: Task, payload: &[u8]) {
        debug_assert!(ordinal >= self.next, "a snapshot lists its tasks in order");
        self.skip_to(ordinal);
        self.insert(task, payload);
    }

    /// Moves on to this ordinal without creating tasks; for loading a snapshot.
    pub fn skip_to(&mut self, next: Ordinal) {
        let left = Ordinal(self.next.0.saturating_sub(1));
        if next.0 / PAGE_TASKS > left.0 / PAGE_TASKS
            && let Some(page) = self.page_mut(left)
        {
            Arc::make_mut(page).arena.freeze();
        }
        self.next = self.next.max(next);
    }

    fn page_for_insert(&mut self, number: u64) -> &mut Arc<Page> {
        let end = self.first_page + self.dense.len() as u64;
        if number.saturating_sub(end) > DENSE_PAGES_MAX as u64 {
            self.set_all_aside();
        }
        if self.dense.is_empty() {
            self.first_page = number;
        }
        while self.first_page + self.dense.len() as u64 <= number {
            self.dense.push_back(None);
            self.holes += 1;
            self.thin_out();
        }
        let slot = &mut self.dense[(number - self.first_page) as usize];
        if slot.is_none() {
            self.holes -= 1;
        }
        slot.get_or_insert_with(|| Arc::new(Page::new(self.usual_bytes)))
    }

    /// Moves every page aside before a gap that no row should span; a snapshot of one old task and one new one has such a gap.
    fn set_all_aside(&mut self) {
        let pages = (self.first_page..).zip(std::mem::take(&mut self.dense));
        self.stragglers.extend(pages.filter_map(|(number, page)| Some((number, page?))));
        self.holes = 0;
    }

    /// Moves old pages of a row that is mostly holes aside, so that one task that waits for weeks costs a page, not a row.
    fn thin_out(&mut self) {
        while self.dense.len() > DENSE_PAGES_MAX && self.holes > self.dense.len() / 8 * 7 {
            match self.dense.pop_front() {
                Some(Some(page)) => {
                    self.stragglers.insert(self.first_page, page);
                }
                Some(None) => self.holes -= 1,
                None => return,
            }
            self.first_page += 1;
        }
    }

    /// The live task with this ordinal.
    pub fn get(&self, ordinal: Ordinal) -> Option<&Task> {
        self.page(ordinal)?.tasks[(ordinal.0 % PAGE_TASKS) as usize].as_ref()
    }

    /// The live task with this ordinal, to be changed.
    pub fn get_mut(&mut self, ordinal: Ordinal) -> Option<&mut Task> {
        Arc::make_mut(self.page_mut(ordinal)?).tasks[(ordinal.0 % PAGE_TASKS) as usize].as_mut()
    }

    /// The payload of a live task.
    pub fn payload(&self, ordinal: Ordinal) -> Option<&[u8]> {
        let page = self.page(ordinal)?;
        let task = page.tasks[(ordinal.0 % PAGE_TASKS) as usize].as_ref()?;
        Some(page.payload(task))
    }

    /// Takes a task out; its page goes with its last one.
    pub fn remove(&mut self, ordinal: Ordinal) -> Option<Task> {
        // The page that new tasks go to stays, or it would be freed and made again for every task of a quiet shard.
        let filling = ordinal.0 / PAGE_TASKS == self.next.0 / PAGE_TASKS;
        let page = Arc::make_mut(self.page_mut(ordinal)?);
        let task = page.tasks[(ordinal.0 % PAGE_TASKS) as usize].take()?;
        page.live -= 1;
        page.forget(&task);
        let (empty, wasteful) = (page.live == 0, page.arena_dead > page.arena.bytes().len() / 2 + ARENA_SLACK_BYTES);
        if empty && filling {
            page.clear();
        } else if empty {
            self.drop_page(ordinal.0 / PAGE_TASKS);
        } else if wasteful {
            page.compact();
        }
        self.live -= 1;
        self.bytes -= u64::from(task.payload_len);
        Some(task)
    }

    fn drop_page(&mut self, number: u64) {
        if number < self.first_page {
            self.stragglers.remove(&number);
            return;
        }
        self.dense[(number - self.first_page) as usize] = None;
        self.holes += 1;
        while let Some(None) = self.dense.front() {
            self.dense.pop_front();
            self.first_page += 1;
            self.holes -= 1;
        }
    }

    /// All live tasks with their payloads, by ordinal.
    pub fn iter(&self) -> impl Iterator<Item = (Ordinal, &Task, &[u8])> {
        let dense =
            self.dense.iter().enumerate().filter_map(|(index, page)| Some((self.first_page + index as u64, page.as_ref()?)));
        self.stragglers.iter().map(|(number, page)| (*number, page)).chain(dense).flat_map(|(number, page)| {
            page.tasks.iter().enumerate().filter_map(move |(index, task)| {
                let task = task.as_ref()?;
                Some((Ordinal(number * PAGE_TASKS + index as u64), task, page.payload(task)))
            })
        })
    }

    fn page(&self, ordinal: Ordinal) -> Option<&Arc<Page>> {
        let number = ordinal.0 / PAGE_TASKS;
        match number.checked_sub(self.first_page) {
            Some(index) => self.dense.get(usize::try_from(index).ok()?)?.as_ref(),
            None => self.stragglers.get(&number),
        }
    }

    fn page_mut(&mut self, ordinal: Ordinal) -> Option<&mut Arc<Page>> {
        let number = ordinal.0 / PAGE_TASKS;
        match number.checked_sub(self.first_page) {
            Some(index) => self.dense.get_mut(usize::try_from(index).ok()?)?.as_mut(),
            None => self.stragglers.get_mut(&number),
        }
    }
}

impl Page {
    fn new(arena_bytes: usize) -> Page {
        let tasks = vec![None; PAGE_TASKS as usize].into_boxed_slice();
        Page { tasks, live: 0, arena: Arena::Open(Vec::with_capacity(arena_bytes)), arena_dead: 0, apart: Vec::new() }
    }

    fn payload(&self, task: &Task) -> &[u8] {
        let (offset, len) = (task.payload_offset as usize, task.payload_len as usize);
        if len > APART_BYTES {
            return self.apart[offset].as_deref().expect("it stays as long as its task");
        }
        &self.arena.bytes()[offset..][..len]
    }

    /// Takes a payload in; returns what [`Task::payload_offset`] is to be.
    fn keep(&mut self, payload: &[u8]) -> usize {
        if payload.len() > APART_BYTES {
            self.apart.push(Some(payload.into()));
            return self.apart.len() - 1;
        }
        if let Arena::Frozen(bytes) = &mut self.arena {
            // A full page takes no task, so this does not happen; were it to, it would be as if the page had never been full.
            self.arena = Arena::Open(bytes.to_vec());
        }
        let Arena::Open(bytes) = &mut self.arena else { unreachable!("it was just opened") };
        bytes.extend_from_slice(payload);
        bytes.len() - payload.len()
    }

    /// Gives up the payload of a task that is gone.
    fn forget(&mut self, task: &Task) {
        if task.payload_len as usize > APART_BYTES {
            self.apart[task.payload_offset as usize] = None;
        } else {
            self.arena_dead += task.payload_len as usize;
        }
    }

    /// Gives up all payloads of a page without tasks that goes on being filled.
    fn clear(&mut self) {
        if let Arena::Open(bytes) = &mut self.arena {
            bytes.clear();
            self.arena_dead = 0;
        }
        self.apart.clear();
    }

    /// Rewrites the arena with the payloads of live tasks only.
    fn compact(&mut self) {
        let mut arena = Vec::with_capacity(self.arena.bytes().len() - self.arena_dead);
        for task in self.tasks.iter_mut().flatten().filter(|task| task.payload_len as usize <= APART_BYTES) {
            let payload = &self.arena.bytes()[task.payload_offset as usize..][..task.payload_len as usize];
            task.payload_offset = u32::try_from(arena.len()).expect("it is shorter than the arena before");
            arena.extend_from_slice(payload);
        }
        self.arena = match self.arena {
            Arena::Open(_) => Arena::Open(arena),
            Arena::Frozen(_) => Arena::Frozen(Arc::new(arena)),
        };
        self.arena_dead = 0;
    }
}

#[cfg(test)]
impl Slab {
    /// How many pointers a clone copies.
    pub(crate) fn clone_work(&self) -> usize {
        self.dense.len() + self.stragglers.len()
    }

    /// How many pages of both have been copied since one was cloned from the other.
    pub(crate) fn pages_apart(&self, other: &Slab) -> usize {
        let numbers = (self.first_page..).take(self.dense.len()).chain(self.stragglers.keys().copied());
        let pages = numbers.filter_map(|number| {
            let ordinal = Ordinal(number * PAGE_TASKS);
            Some((self.page(ordinal)?, other.page(ordinal)?))
        });
        pages.filter(|(own, others)| !Arc::ptr_eq(own, others)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Task {
        Task::new(TypeId(0), 4, Timestamp(1), Position(0), None)
    }

    #[test]
    fn tasks_are_found_until_they_are_removed_and_pages_go_with_them() {
        let mut slab = Slab::default();
        for index in 0..1_000_u64 {
            assert_eq!(slab.insert(task(), &index.to_le_bytes()), Ordinal(index));
        }
        for index in (0..1_000_u64).filter(|index| index % 300 != 0) {
            assert_eq!(slab.payload(Ordinal(index)), Some(&index.to_le_bytes()[..]));
            assert!(slab.remove(Ordinal(index)).is_some() && slab.remove(Ordinal(index)).is_none());
        }
        let left: Vec<u64> = slab.iter().map(|(ordinal, _, _)| ordinal.0).collect();
        assert_eq!((left, slab.len()), (vec![0, 300, 600, 900], 4));
    }

    #[test]
    fn one_old_task_costs_a_page_and_not_a_row() {
        let mut slab = Slab::default();
        slab.insert(task(), b"old");
        for _ in 0..3_000_000 {
            let ordinal = slab.insert(task(), b"new");
            slab.remove(ordinal);
        }
        assert!(slab.dense.len() <= DENSE_PAGES_MAX + 1, "{} pages in the row", slab.dense.len());
        assert_eq!(slab.payload(Ordinal(0)), Some(&b"old"[..]));
        assert!(slab.remove(Ordinal(0)).is_some() && slab.is_empty() && slab.stragglers.is_empty());
    }

    /// A page was copied with all its payloads, up to 256 MiB of them, when one of its tasks changed while a snapshot was written.
    #[test]
    fn a_page_is_copied_without_its_payloads() {
        let mut slab = Slab::default();
        let (small, large) = (vec![1; APART_BYTES], vec![2; APART_BYTES + 1]);
        for index in 0..PAGE_TASKS {
            slab.insert(task(), if index % 2 == 0 { &small } else { &large });
        }
        let clone = slab.clone();
        let place = |slab: &Slab, ordinal| slab.payload(Ordinal(ordinal)).map(<[u8]>::as_ptr);
        slab.get_mut(Ordinal(0)).expect("it lives").attempt = 9;
        assert_eq!((slab.pages_apart(&clone), place(&slab, 0), place(&slab, 1)), (1, place(&clone, 0), place(&clone, 1)));
        for ordinal in 0..PAGE_TASKS - 2 {
            slab.remove(Ordinal(ordinal));
        }
        let payloads =
            |slab: &Slab| [PAGE_TASKS - 2, PAGE_TASKS - 1].map(|ordinal| slab.payload(Ordinal(ordinal)).map(<[u8]>::to_vec));
        assert_eq!(payloads(&slab), [Some(small), Some(large)]);
        assert_eq!((clone.len() as u64, clone.payload(Ordinal(0)).map(<[u8]>::len)), (PAGE_TASKS, Some(APART_BYTES)));
    }

    /// A state image with two live tasks far apart was read by walking over every page between them.
    #[test]
    fn a_gap_is_crossed_in_one_step() {
        let mut slab = Slab::default();
        slab.insert(task(), b"old");
        slab.restore(Ordinal(u64::MAX / 2), task(), b"new");
        let found: Vec<_> = slab.iter().map(|(ordinal, _, payload)| (ordinal.0, payload.to_vec())).collect();
        assert_eq!(found, [(0, b"old".to_vec()), (u64::MAX / 2, b"new".to_vec())]);
        assert!(slab.remove(Ordinal(u64::MAX / 2)).is_some() && slab.remove(Ordinal(0)).is_some() && slab.is_empty());
    }

    #[test]
    fn the_largest_number_of_live_tasks_is_refused_by_name() {
        let mut state = crate::state::State::default();
        let settings = crate::task::TypeSettings::default();
        let type_defined =
            crate::event::Event::TypeDefined { task_type: TypeId(0), name: "job", settings: Box::new(settings), by: "" };
        state.apply(&crate::event::Envelope { position: Position(0), recorded_at: Timestamp(1), event: type_defined });
        state.work.tasks.live = crate::decide::TASKS_MAX;
        let request = crate::command::Command::Request { task_type: TypeId(0), payload: b"", key: None, asks: &[] };
        let mut events = Vec::new();
        let refused = crate::decide::decide(&state, &request, Timestamp(2), &mut events);
        assert!(matches!(refused, Err(crate::command::Rejection::TasksFull { max: crate::decide::TASKS_MAX, .. })));
        state.work.tasks.live -= 1;
        assert!(crate::decide::decide(&state, &request, Timestamp(2), &mut events).is_ok());
    }

    #[test]
    fn payloads_of_ended_tasks_are_given_back_while_their_page_lives() {
        let mut slab = Slab::default();
        let large = vec![7; APART_BYTES];
        for _ in 0..200 {
            slab.insert(task(), &large);
        }
        for ordinal in 1..200 {
            slab.remove(Ordinal(ordinal));
        }
        let page = slab.page(Ordinal(0)).expect("task 0 lives");
        let kept = page.arena.bytes().len();
        assert!(kept < 3 * large.len() + 2 * ARENA_SLACK_BYTES, "{kept} bytes kept");
        assert_eq!(slab.payload(Ordinal(0)), Some(&large[..]));
    }

    #[test]
    fn a_clone_keeps_what_it_saw() {
        let mut slab = Slab::default();
        let kept = slab.insert(task(), b"before");
        let clone = slab.clone();
        slab.get_mut(kept).expect("it lives").attempt = 9;
        slab.insert(task(), b"after");
        assert_eq!((clone.len(), clone.get(kept).map(|task| task.attempt)), (1, Some(0)));
        assert_eq!(clone.payload(kept), Some(&b"before"[..]));
    }
}
