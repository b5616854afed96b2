//! What the writer tells its readers, and how a reader without a writer finds out by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::directory::chain::{Chain, head_after};
use super::super::directory::layout::Layout;
use super::super::directory::view::{End, Published, View};
use super::super::{LogError, Span};
use super::index::Index;
use super::recover::{self, Found, Purpose};
use super::scan::{Stop, scan};
use super::segment::Segment;
use crate::id::Position;

/// Indexes kept at once; each covers a segment with an entry for every 64 KiB.
const INDEXES_MAX: usize = 64;
/// How often a reader looks again when the log changes under its eyes.
const ATTEMPTS_MAX: usize = 16;

/// One log as all its readers see it.
#[derive(Debug)]
pub(in crate::log) struct Shared {
    pub(super) layout: Layout,
    view: Published,
    indexes: Mutex<BTreeMap<Position, Arc<Mutex<Index>>>>,
    /// The chain at the end, where no writer of this process moves it.
    follower: Option<Mutex<Chain>>,
}

impl Shared {
    /// What a writer shares; `publish` moves the end.
    pub(super) fn written(layout: &Layout, view: View) -> Shared {
        Shared { layout: layout.clone(), view: Published::new(view), indexes: Mutex::default(), follower: None }
    }

    /// A log that another process may be writing.
    ///
    /// # Errors
    /// As [`recover::assess`].
    pub(super) fn followed(layout: &Layout) -> Result<Shared, LogError> {
        let found = assess_settled(layout)?;
        let follower = Some(Mutex::new(found.tail.chain.clone()));
        let view = Published::new(found.view());
        Ok(Shared { layout: layout.clone(), view, indexes: Mutex::default(), follower })
    }

    pub(super) fn view(&self) -> View {
        self.view.get()
    }

    pub(super) fn advance_to(&self, segments: &[Position], end: End) {
        self.view.advance(segments, end);
    }

    pub(super) fn span(&self) -> Span {
        self.view().span()
    }

    /// The index of a segment, empty at first.
    pub(super) fn index(&self, segment: Position) -> Arc<Mutex<Index>> {
        let mut indexes = lock(&self.indexes);
        if indexes.len() >= INDEXES_MAX && !indexes.contains_key(&segment) {
            indexes.pop_first();
        }
        Arc::clone(indexes.entry(segment).or_default())
    }

    /// Looks for blocks that another process has written since.
    ///
    /// # Errors
    /// [`LogError::Missing`], [`LogError::Damaged`] or [`LogError::Chain`] when an acknowledged block cannot be read, [`LogError::Io`].
    pub(super) fn refresh(&self) -> Result<(), LogError> {
        let Some(follower) = &self.follower else { return Ok(()) };
        let mut chain = lock(follower);
        match self.catch_up(&mut chain) {
            Ok(view) => self.view.set(view),
            // Retention may have taken away what was being read; what is wrong with a log that stands still, this says too.
            Err(_) => {
                let found = assess_settled(&self.layout)?;
                *chain = found.tail.chain.clone();
                self.view.set(found.view());
            }
        }
        Ok(())
    }

    fn catch_up(&self, chain: &mut Chain) -> Result<View, LogError> {
        // The anchor is read first: what it names was written before, so it must be there.
        let (_, anchor) = recover::identify(&self.layout)?;
        let mut view = self.view();
        if anchor.base.next > view.first() {
            view.segments = Arc::new(view.segments.iter().copied().filter(|first| *first >= anchor.base.next).collect());
        }
        loop {
            let stop = self.advance(&mut view, chain)?;
            // The file that holds the next block, if the one before is full, is named after it.
            if view.segments.last() != Some(&chain.next) && Segment::open(&self.layout, chain.next)?.is_some() {
                Arc::make_mut(&mut view.segments).push(chain.next);
                view.end.offset = 0;
            } else if anchor.head.next > chain.next {
                return Err(end_lost(stop, chain, anchor.head.next));
            } else {
                return Ok(view);
            }
        }
    }

    /// Follows the chain to the end of the last segment.
    fn advance(&self, view: &mut View, chain: &mut Chain) -> Result<Stop, LogError> {
        let Some(segment) = view.segments.last().map(|first| Segment::open(&self.layout, *first)).transpose()?.flatten() else {
            view.end.next = chain.next;
            return Ok(Stop::Clean);
        };
        let before = chain.next;
        let (offset, stop) = scan(&segment, chain, view.end.offset)?;
        view.end.offset = offset;
        if let Some(block) = chain.last.as_ref().filter(|_| chain.next > before) {
            let head = head_after(block).map_err(|error| segment.error(block.header.first_position, offset, error))?;
            view.end = End { next: head.next, next_ordinal: head.next_ordinal, offset };
        }
        Ok(stop)
    }
}

fn end_lost(stop: Stop, chain: &Chain, anchored: Position) -> LogError {
    match stop {
        Stop::Clean | Stop::Truncated(_) => recover::missing(chain.next, anchored),
        Stop::Torn(error) | Stop::Unfit(error) => error,
    }
}

/// Assesses a log that may change meanwhile: an error counts only if the log stood still.
pub(super) fn assess_settled(layout: &Layout) -> Result<Found, LogError> {
    for _ in 0..ATTEMPTS_MAX {
        let before = recover::identify(layout)?;
        match recover::assess(layout, Purpose::Read) {
            Err(_) if recover::identify(layout)? != before => {}
            settled => return settled,
        }
    }
    recover::assess(layout, Purpose::Read)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
