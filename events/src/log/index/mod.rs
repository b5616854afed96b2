//! Indexes beside the log, so that the history of one task and listings of millions of finished ones need neither memory nor a
//! walk over the log.
//!
//! Each sealed range of the log has a sidecar file (`sidecar.rs`) that says which block creates a task, which later blocks are about
//! it, of which type it is, and which tasks ended. A range without one, be it that the log is still written there or that the
//! file is lost or damaged, is read from the log itself (`scan.rs`) or from a [`TailIndex`] in memory, and gives the same answers.
//! Sidecars can always be built again, so nothing here is ever an error of the log.

mod births;
mod build;
mod entry;
mod known;
mod names;
mod page;
mod query;
mod scan;
mod search;
mod sidecar;
mod tail;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::births::Births;
use self::entry::Birth;
use self::known::Known;
use self::sidecar::Sidecar;
use super::{LogError, LogReader, Span, plain};
use crate::block::{Block, BlockError};
use crate::id::{Ordinal, Position, TypeId};
use crate::task::Outcome;

pub use self::build::Pace;
pub use self::known::SetAside;
pub use self::names::TypeNames;
pub use self::page::Unusable;
pub use self::query::{Ending, EndingQuery};
pub use self::tail::{FindType, TailIndex};

/// The indexes of one log. Any number of threads may ask; each question reads from disk what it needs.
pub struct TaskIndex {
    folder: PathBuf,
    store_id: [u8; 16],
    reader: Arc<dyn LogReader>,
    known: Mutex<Known>,
    births: Mutex<Births>,
}

/// Where to look for a part of the log.
enum Source<'a> {
    Sidecar(Arc<Sidecar>),
    Tail(&'a TailIndex),
    Log,
}

impl TaskIndex {
    /// The indexes in the data directory `dir` of the log that `reader` reads. Files that cannot be used are set aside.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Foreign`] when the folder cannot be listed.
    pub fn open(dir: &Path, store_id: [u8; 16], reader: Arc<dyn LogReader>) -> Result<TaskIndex, LogError> {
        let folder = dir.join("index");
        let mut known = Known::default();
        for (first, path) in plain::list(&folder, sidecar::EXTENSION)? {
            let opened = Sidecar::open(&path, first, store_id);
            known.add(path, opened);
        }
        Ok(TaskIndex { folder, store_id, reader, known: Mutex::new(known), births: Mutex::default() })
    }

    /// First positions of all blocks that hold events of the task, in order. `tail` answers for the range it covers. The log itself
    /// is not searched behind the place where nothing more can come of the task.
    ///
    /// # Errors
    /// What the log meets where it must be read: [`LogError::Damaged`], [`LogError::Io`], or [`LogError::Gone`] when retention
    /// was faster.
    pub fn history(&self, task: Ordinal, tail: Option<&TailIndex>) -> Result<Vec<Position>, LogError> {
        let mut found = Vec::new();
        for (span, source) in self.sources(self.reader.span(), tail)? {
            match source {
                Source::Log if !found.is_empty() && scan::is_over(&*self.reader, task, &found)? => break,
                Source::Sidecar(sidecar) => match sidecar.history(task, span.first) {
                    Ok(blocks) => found.extend(blocks),
                    Err(reason) => {
                        self.set_aside(&sidecar, reason);
                        scan::history(&*self.reader, span, task, &mut found)?;
                    }
                },
                Source::Tail(tail) => found.extend(tail.history(task).into_iter().filter(|block| *block >= span.first)),
                Source::Log => scan::history(&*self.reader, span, task, &mut found)?,
            }
        }
        Ok(found)
    }

    /// The newest endings that the query asks for, newest first. `tail` answers for the range it covers.
    ///
    /// # Errors
    /// As [`TaskIndex::history`].
    pub fn endings(&self, query: &EndingQuery<'_>, tail: Option<&TailIndex>) -> Result<Vec<Ending>, LogError> {
        let mut found = Vec::new();
        for (span, source) in self.sources(self.reader.span(), tail)?.into_iter().rev() {
            if found.len() >= query.limit {
                break;
            }
            if !query.reaches(span.first) {
                continue;
            }
            let rest = EndingQuery { limit: query.limit - found.len(), ..*query };
            match source {
                Source::Sidecar(sidecar) => found.extend(self.endings_in(&sidecar, span, &rest)?),
                Source::Tail(tail) => {
                    found.extend(tail.endings(&rest).into_iter().take_while(|ending| ending.position >= span.first));
                }
                Source::Log => found.extend(self.scan_endings(span, &rest)?),
            }
        }
        Ok(found)
    }

    fn endings_in(&self, sidecar: &Arc<Sidecar>, span: Span, query: &EndingQuery<'_>) -> Result<Vec<Ending>, LogError> {
        sidecar.endings(span.first, query).or_else(|reason| {
            self.set_aside(sidecar, reason);
            self.scan_endings(span, query)
        })
    }

    fn scan_endings(&self, span: Span, query: &EndingQuery<'_>) -> Result<Vec<Ending>, LogError> {
        scan::endings(&*self.reader, span, query, &mut |task| self.type_of(task))
    }

    /// Those of the tasks that are dead letters no more because they were redriven or dropped, as the log from `from` on tells.
    ///
    /// # Errors
    /// As [`TaskIndex::history`].
    pub fn revived(&self, tasks: &BTreeSet<Ordinal>, from: Position) -> Result<BTreeSet<Ordinal>, LogError> {
        let (mut found, log) = (BTreeSet::new(), self.reader.span());
        if tasks.is_empty() {
            return Ok(found);
        }
        for (span, source) in self.sources(Span { first: from.max(log.first), ..log }, None)? {
            match source {
                Source::Sidecar(sidecar) => {
                    if let Err(reason) = sidecar.revived(tasks, &mut found) {
                        self.set_aside(&sidecar, reason);
                        scan::revived(&*self.reader, span, tasks, &mut found)?;
                    }
                }
                Source::Tail(tail) => tail.revived(tasks, &mut found),
                Source::Log => scan::revived(&*self.reader, span, tasks, &mut found)?,
            }
        }
        Ok(found)
    }

    /// What the task types are called. It is whole unless the log had lost its beginning before that was indexed.
    ///
    /// # Errors
    /// As [`TaskIndex::history`].
    pub fn type_names(&self) -> Result<TypeNames, LogError> {
        let span = self.reader.span();
        let mut names = TypeNames::new(span.first == Position(0));
        let sources = self.sources(span, None)?;
        let whole = |source: &Source<'_>| matches!(source, Source::Sidecar(sidecar) if sidecar.names().is_whole());
        let newest = sources.iter().rposition(|(_, source)| whole(source));
        for (span, source) in &sources[newest.unwrap_or(0)..] {
            match source {
                Source::Sidecar(sidecar) => names.join(sidecar.names()),
                Source::Tail(_) => {}
                Source::Log => scan::names(&*self.reader, *span, &mut names)?,
            }
        }
        Ok(names)
    }

    /// The type of a task, from the sidecars or else from the log; `None` for one that neither holds.
    ///
    /// # Errors
    /// As [`TaskIndex::history`].
    pub fn type_of(&self, mut task: Ordinal) -> Result<Option<TypeId>, LogError> {
        loop {
            let creating = self.known().creating(task);
            if let Some(sidecar) = creating.filter(|sidecar| self.fits(sidecar).unwrap_or(false)) {
                match self.type_in(&sidecar, task) {
                    Ok(found) => return Ok(found),
                    Err(reason) => self.set_aside(&sidecar, reason),
                }
            }
            let birth = self.births.lock().unwrap_or_else(PoisonError::into_inner).find(&*self.reader, task)?;
            match birth {
                Some(Birth::Typed(id)) => return Ok(Some(id)),
                // A task is redriven after it was created; anything else would lead us in circles.
                Some(Birth::Like(old)) if old < task => task = old,
                Some(Birth::Like(_)) | None => return Ok(None),
            }
        }
    }

    fn type_in(&self, sidecar: &Arc<Sidecar>, task: Ordinal) -> Result<Option<TypeId>, Unusable> {
        let index = sidecar.index_of(task).ok_or(Unusable::Damaged("it does not hold the task"))?;
        let key = (sidecar.span().first, search::type_page(index));
        if let Some(page) = self.known().types.get(&key) {
            return search::type_in_page(page, index);
        }
        let page = sidecar.type_page(index)?;
        let found = search::type_in_page(&page, index)?;
        self.known().keep_types(sidecar, key, page);
        Ok(found)
    }

    /// Removes the sidecars of ranges before `first`, the position at which retention lets the log begin.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn prune(&self, first: Position) -> Result<(), LogError> {
        let mut known = self.known();
        let old: Vec<_> = known.sidecars.iter().filter(|sidecar| sidecar.span().next <= first).cloned().collect();
        for sidecar in old {
            std::fs::remove_file(&sidecar.path).map_err(plain::io_error("remove", &sidecar.path))?;
            known.forget(&sidecar.path);
        }
        Ok(())
    }

    /// Reads every page of every sidecar and sets aside those that are damaged or do not fit the log.
    ///
    /// # Errors
    /// As [`TaskIndex::history`].
    pub fn check(&self) -> Result<(), LogError> {
        for (_, source) in self.sources(self.reader.span(), None)? {
            if let Source::Sidecar(sidecar) = source {
                let checked = sidecar.check();
                checked.unwrap_or_else(|reason| self.set_aside(&sidecar, reason));
            }
        }
        Ok(())
    }

    /// The sidecars that are not used, and why.
    pub fn unusable(&self) -> Vec<SetAside> {
        self.known().set_aside.clone()
    }

    /// How many tasks of each type ended with each outcome, as far as sidecars that fit the log know.
    pub fn counts(&self) -> BTreeMap<(Option<TypeId>, Outcome), u64> {
        let mut counts = BTreeMap::new();
        for (task_type, outcome, count) in self.known().sidecars.iter().flat_map(|sidecar| sidecar.counts()) {
            *counts.entry((task_type, outcome)).or_default() += count;
        }
        counts
    }

    /// Where to look for each part of `span`, in order. Sidecars that do not fit the log are set aside here.
    fn sources<'a>(&self, span: Span, tail: Option<&'a TailIndex>) -> Result<Vec<(Span, Source<'a>)>, LogError> {
        let mut indexed = Vec::new();
        let sidecars = self.known().sidecars.clone();
        let overlaps = |other: Span| other.first < span.next && other.next > span.first;
        // The newest first: what it follows fits where it fits.
        for sidecar in sidecars.into_iter().rev().filter(|sidecar| overlaps(sidecar.span())) {
            if self.fits(&sidecar)? {
                indexed.push((sidecar.span(), Source::Sidecar(sidecar)));
            }
        }
        indexed.extend(tail.filter(|tail| overlaps(tail.span())).map(|tail| (tail.span(), Source::Tail(tail))));
        Ok(fill(span, indexed))
    }

    /// Whether the last block of the sidecar is in the log, which is asked once, and only where no sidecar that is there follows it.
    fn fits(&self, sidecar: &Arc<Sidecar>) -> Result<bool, LogError> {
        if sidecar.fits() {
            return Ok(true);
        }
        let next = sidecar.span().next;
        let follower = self.known().beginning(next).filter(|other| other.hash_before() == sidecar.last_hash());
        let fits = match follower {
            Some(follower) if self.fits(&follower)? => true,
            Some(_) | None => self.reader.hash_before(next)? == Some(sidecar.last_hash()),
        };
        match fits {
            true => sidecar.set_fits(),
            false => self.set_aside(sidecar, Unusable::Stale("its last block is not in the log")),
        }
        Ok(fits)
    }

    /// Uses a sidecar no more, unless another one has taken its place by now.
    fn set_aside(&self, sidecar: &Arc<Sidecar>, reason: Unusable) {
        let mut known = self.known();
        if known.has(sidecar) {
            known.forget(&sidecar.path);
            known.add(sidecar.path.clone(), Err(reason));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts `span` where the sources begin and end; what none of them covers is left to the log.
fn fill<'a>(span: Span, mut indexed: Vec<(Span, Source<'a>)>) -> Vec<(Span, Source<'a>)> {
    indexed.sort_by_key(|(span, _)| span.first);
    let mut parts = Vec::new();
    let mut at = span.first;
    for (covers, source) in indexed {
        if covers.first > at {
            parts.push((Span { first: at, next: covers.first }, Source::Log));
        }
        if covers.next > at {
            parts.push((Span { first: at.max(covers.first), next: covers.next }, source));
            at = covers.next;
        }
    }
    if at < span.next {
        parts.push((Span { first: at, next: span.next }, Source::Log));
    }
    parts
}

/// A block whose checksum is right and whose records cannot be read.
fn damaged(block: &Block, source: BlockError) -> LogError {
    LogError::Damaged { at: block.header.first_position, path: PathBuf::from("log"), offset: 0, source }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
