//! The index of a range of the log that is still in memory.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{Birth, Creation, End, Fact, Posting, TypeOf, facts};
use super::page::{Page, Pages};
use super::{Ending, EndingQuery, TypeNames, damaged, search};
use crate::block::{Block, BlockError, Hash};
use crate::id::{Ordinal, Position, TypeId};
use crate::log::{LogError, Span};
use crate::task::Outcome;

/// Postings are kept in sorted runs of at least so many; the newest, fewer than that, are searched one by one in some 30 µs.
const RUN: usize = 1 << 15;

/// Finds the type of a task that was created before the range; [`super::TaskIndex::type_of`] does.
pub type FindType<'a> = &'a mut dyn FnMut(Ordinal) -> Result<Option<TypeId>, LogError>;

/// The index of the blocks that it was fed, one after another: what a sidecar holds before it is written, and what a live process
/// keeps of the range that is not sealed yet.
#[derive(Clone, Debug)]
pub struct TailIndex {
    span: Span,
    first_ordinal: Ordinal,
    /// Hash of the block in front of the range, once there is a block.
    hash_before: Hash,
    last_block: Option<(Position, Hash)>,
    names: TypeNames,
    counts: BTreeMap<(TypeOf, Outcome), u64>,
    types: Vec<TypeOf>,
    creations: Vec<Creation>,
    postings: Vec<Posting>,
    /// Where each sorted run of postings ends.
    runs: Vec<usize>,
    /// Dead letters that are dead no more.
    revivals: Vec<Posting>,
    endings: Pages<End>,
}

impl TailIndex {
    /// An index of no blocks; the first must begin at `first`.
    pub fn new(first: Position) -> TailIndex {
        TailIndex {
            span: Span { first, next: first },
            first_ordinal: Ordinal(0),
            hash_before: Hash::ZERO,
            last_block: None,
            names: TypeNames::new(first == Position(0)),
            counts: BTreeMap::new(),
            types: Vec::new(),
            creations: Vec::new(),
            postings: Vec::new(),
            runs: Vec::new(),
            revivals: Vec::new(),
            endings: Pages::default(),
        }
    }

    /// As [`TailIndex::new`], with the types that were defined before `first`.
    pub fn knowing(first: Position, names: TypeNames) -> TailIndex {
        TailIndex { names, ..TailIndex::new(first) }
    }

    /// What the types are called that were defined up to the end of the range.
    pub const fn names(&self) -> &TypeNames {
        &self.names
    }

    /// The records that it covers.
    pub const fn span(&self) -> Span {
        self.span
    }

    /// What it holds in memory, in bytes; what is allocated may be twice as much.
    pub fn bytes(&self) -> usize {
        let lists = size_of_val(&*self.types) + size_of_val(&*self.creations) + size_of_val(&*self.postings);
        lists + size_of_val(&*self.revivals) + self.endings.bytes()
    }

    /// Adds the next block. A block that is refused leaves the index as it was.
    ///
    /// # Errors
    /// [`LogError::Gap`] for another block than the next, [`LogError::Damaged`] for one that cannot be read, and whatever
    /// `find_type` meets.
    pub fn add_block(&mut self, block: &Block, find_type: FindType<'_>) -> Result<(), LogError> {
        if block.header.first_position != self.span.next {
            return Err(LogError::Gap { expected: self.span.next, found: block.header.first_position });
        }
        if self.last_block.is_none() {
            self.first_ordinal = block.header.first_ordinal;
            self.hash_before = block.header.previous;
        }
        if block.header.first_ordinal != self.next_ordinal() {
            return Err(damaged(block, BlockError::Body("its first task does not follow the tasks before it")));
        }
        let (types, postings, revivals) = (self.types.len(), self.postings.len(), self.revivals.len());
        let endings = self.read(block, find_type).inspect_err(|_| {
            self.types.truncate(types);
            self.postings.truncate(postings);
            self.revivals.truncate(revivals);
        })?;
        self.accept(block, self.types.len() > types, &endings);
        Ok(())
    }

    /// Takes types and postings from the block; its endings are returned, because pages cannot be taken back.
    fn read(&mut self, block: &Block, find_type: FindType<'_>) -> Result<Vec<Ending>, LogError> {
        let mut endings = Vec::new();
        for fact in facts(block) {
            let fact = fact.map_err(|source| damaged(block, source))?;
            let Fact { position, at, about, creates, ends, dead_letter, revives, defines } = fact;
            if let Some(task) = about {
                self.post(task, block);
            }
            // A block that is refused later defines the same types when it comes again.
            defines.into_iter().for_each(|(id, name)| self.names.define(id, name));
            self.revivals.extend(revives.map(|task| Posting { task: task.0, block: block.header.first_position.0 }));
            if let Some((_, birth)) = creates {
                let task_type = match birth {
                    Birth::Typed(id) => Some(id),
                    Birth::Like(task) => self.type_of(task).map_or_else(|| find_type(task), Ok)?,
                };
                self.types.push(TypeOf::new(task_type));
            }
            if let Some((task, outcome)) = ends {
                let task_type = self.type_of(task).map_or_else(|| find_type(task), Ok)?;
                endings.push(Ending { task, task_type, outcome, at, position, dead_letter });
            }
        }
        Ok(endings)
    }

    /// Notes that the block is about the task, unless it also creates it or was noted just now.
    fn post(&mut self, task: Ordinal, block: &Block) {
        let posting = Posting { task: task.0, block: block.header.first_position.0 };
        let created_here = (block.header.first_ordinal..self.next_ordinal()).contains(&task);
        if !created_here && self.postings.last() != Some(&posting) {
            self.postings.push(posting);
        }
    }

    fn accept(&mut self, block: &Block, creates: bool, endings: &[Ending]) {
        if creates {
            let Ordinal(first_ordinal) = block.header.first_ordinal;
            self.creations.push(Creation { first_ordinal, block: block.header.first_position.0 });
        }
        for ending in endings {
            self.endings.push(End::of(ending));
            *self.counts.entry((TypeOf::new(ending.task_type), ending.outcome)).or_default() += 1;
        }
        let sorted = self.runs.last().copied().unwrap_or(0);
        if self.postings.len() - sorted >= RUN {
            self.postings[sorted..].sort_unstable();
            self.runs.push(self.postings.len());
        }
        self.last_block = Some((block.header.first_position, block.hash()));
        self.span.next = block.header.next_position();
    }

    /// The type of a task that the range creates, itself possibly unknown; `None` for other tasks.
    pub fn type_of(&self, task: Ordinal) -> Option<Option<TypeId>> {
        let index = task.0.checked_sub(self.first_ordinal.0)?;
        self.types.get(usize::try_from(index).ok()?).map(|found| found.known())
    }

    /// First positions of the blocks that hold events of the task, in order.
    pub fn history(&self, task: Ordinal) -> Vec<Position> {
        let mut blocks = Vec::new();
        if self.type_of(task).is_some() {
            let after = self.creations.partition_point(|creation| creation.first_ordinal <= task.0);
            blocks.extend(after.checked_sub(1).map(|index| self.creations[index].block));
        }
        let mut begin = 0;
        for end in &self.runs {
            let run = &self.postings[begin..*end];
            let from = run.partition_point(|posting| posting.task < task.0);
            blocks.extend(run[from..].iter().take_while(|posting| posting.task == task.0).map(|posting| posting.block));
            begin = *end;
        }
        blocks.extend(self.postings[begin..].iter().filter(|posting| posting.task == task.0).map(|posting| posting.block));
        blocks.dedup();
        blocks.into_iter().map(Position).collect()
    }

    /// The newest endings of the range that the query asks for, newest first.
    ///
    /// # Panics
    /// Never: the pages in memory are those that were written there.
    pub fn endings(&self, query: &EndingQuery<'_>) -> Vec<Ending> {
        search::endings(&self.endings, self.span.first, query).expect("pages in memory are those that were written there")
    }

    /// Adds those of the tasks that the range tells to be dead letters no more.
    pub(super) fn revived(&self, tasks: &BTreeSet<Ordinal>, found: &mut BTreeSet<Ordinal>) {
        found.extend(self.revivals.iter().map(|revival| Ordinal(revival.task)).filter(|task| tasks.contains(task)));
    }

    pub(super) fn next_ordinal(&self) -> Ordinal {
        Ordinal(self.first_ordinal.0.saturating_add(self.types.len() as u64))
    }

    /// Everything that a sidecar holds; postings end up in a single run. `None` before the first block.
    pub(super) fn parts(&mut self) -> Option<Parts> {
        let (last_block, last_hash) = self.last_block?;
        self.postings.sort_unstable();
        self.postings.dedup();
        self.runs = vec![self.postings.len()];
        self.revivals.sort_unstable();
        Some(Parts {
            span: self.span,
            ordinals: (self.first_ordinal, self.next_ordinal()),
            last_block,
            hashes: (self.hash_before, last_hash),
            posted: tasks(&self.postings),
            revived: tasks(&self.revivals),
            names: self.names.clone(),
            counts: self.counts.iter().map(|((task_type, outcome), count)| (*task_type, *outcome, *count)).collect(),
            pages: [
                Pages::of(self.creations.iter().copied()),
                Pages::of(self.types.iter().copied()),
                Pages::of(self.postings.iter().copied()),
                self.endings.to_pages(),
                Pages::of(self.revivals.iter().copied()),
            ],
        })
    }
}

/// Lowest and highest task of sorted postings.
fn tasks(sorted: &[Posting]) -> Option<(Ordinal, Ordinal)> {
    Some((Ordinal(sorted.first()?.task), Ordinal(sorted.last()?.task)))
}

/// What a sidecar is made of.
pub(super) struct Parts {
    pub(super) span: Span,
    pub(super) ordinals: (Ordinal, Ordinal),
    pub(super) last_block: Position,
    pub(super) hashes: (Hash, Hash),
    pub(super) posted: Option<(Ordinal, Ordinal)>,
    pub(super) revived: Option<(Ordinal, Ordinal)>,
    pub(super) names: TypeNames,
    pub(super) counts: Vec<(TypeOf, Outcome, u64)>,
    /// Creations, types, postings, endings, revivals.
    pub(super) pages: [Vec<Page>; 5],
}
