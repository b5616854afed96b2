//! Looking at a data directory without changing it: where the log ends, and whether that is where it should.

use super::super::directory::anchor::{self, Anchor};
use super::super::directory::chain::{Chain, head_after, head_before};
use super::super::directory::engine::Survey;
use super::super::directory::layout::{Layout, foreign};
use super::super::directory::view::View;
use super::super::directory::{CutTail, StoreId, identity};
use super::super::{Head, LogError};
use super::scan::{Stop, furthest_block, last_block, scan};
use super::segment::{SKIP_BYTES, Segment, Window};
use crate::block::{Block, Hash};
use crate::id::Position;

/// What was found in a directory of segment files.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) survey: Survey,
    pub(super) tail: Tail,
}

/// What is known of the last segment.
#[derive(Clone, Debug)]
pub(in crate::log) struct Tail {
    /// The chain at the head.
    pub(super) chain: Chain,
    /// Bytes of valid blocks.
    pub(super) end: u64,
    /// Bytes of the file.
    pub(super) len: u64,
}

impl Found {
    pub(super) fn view(&self) -> View {
        self.survey.view(self.tail.end)
    }
}

/// What whoever looks is going to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Cut what a crash left at the end, and write on.
    Write,
    /// Read, maybe beside a writer: what follows the last valid block behind the anchor is not there yet.
    Read,
}

/// Reads who the store is, where the anchor says it ends, and which segments there are.
///
/// # Errors
/// [`LogError::NotFound`] without a store file, [`LogError::Foreign`], [`LogError::Anchor`], [`LogError::Io`].
pub(super) fn identify(layout: &Layout) -> Result<(StoreId, Anchor), LogError> {
    let id = identity(&layout.dir)?.id;
    Ok((id, anchor::read(&layout.anchor(), id)?))
}

/// Verifies that the segments follow each other, everything in the last one, and that the log reaches its anchor.
///
/// # Errors
/// [`LogError::Missing`], [`LogError::Damaged`], [`LogError::Chain`], [`LogError::Anchor`] and whatever reading meets.
pub(super) fn assess(layout: &Layout, purpose: Purpose) -> Result<Found, LogError> {
    let (store, anchor) = identify(layout)?;
    let (leftover, segments): (Vec<_>, Vec<_>) = layout.segments()?.into_iter().partition(|first| *first < anchor.base.next);
    if let Some(first) = segments.first().filter(|first| **first > anchor.base.next) {
        return Err(missing(anchor.base.next, *first));
    }
    let Some((last, sealed)) = segments.split_last() else { return without_segments(store, anchor, leftover) };
    let mut chain = Chain::at(anchor.base.next, anchor.base.hash);
    for index in 0..sealed.len() {
        let block = sealed_end(layout, &segments[index..], &chain, &anchor)?;
        chain = Chain::behind(block);
    }
    let segment = Segment::require(layout, *last)?;
    let (end, stop) = scan(&segment, &mut chain, 0)?;
    let head = match &chain.last {
        Some(block) => head_after(block).map_err(|error| segment.error(block.header.first_position, end, error))?,
        None => anchor.base,
    };
    reaches_anchor(layout, &segments, &anchor, head, &stop)?;
    let len = segment.len()?;
    let torn = may_cut(purpose, &segment, &anchor, head, stop, end)?.then(|| CutTail { at: head.next, bytes: len - end });
    Ok(Found { survey: Survey { store, anchor, leftover, head, torn, segments }, tail: Tail { chain, end, len } })
}

fn without_segments(store: StoreId, anchor: Anchor, leftover: Vec<Position>) -> Result<Found, LogError> {
    if anchor.head.next > anchor.base.next {
        return Err(missing(anchor.base.next, anchor.head.next));
    }
    let chain = Chain::at(anchor.base.next, anchor.base.hash);
    let survey = Survey { store, anchor, leftover, head: anchor.base, torn: None, segments: Vec::new() };
    Ok(Found { survey, tail: Tail { chain, end: 0, len: 0 } })
}

pub(super) fn missing(found: Position, anchored: Position) -> LogError {
    LogError::Missing { anchored, found, missing: anchored.0.saturating_sub(found.0) }
}

/// The last block of the first of `segments`, which others follow; `before` is the chain in front of it.
fn sealed_end(layout: &Layout, segments: &[Position], before: &Chain, anchor: &Anchor) -> Result<Block, LogError> {
    let segment = Segment::require(layout, segments[0])?;
    let next = segments[1];
    if begins_with(&segment, before)
        && let Some(block) = last_block(&segment, next)?
    {
        return Ok(block);
    }
    // Something is wrong, or zeros were left at the end; following the chain from the beginning tells which.
    let mut chain = Chain { last: None, ..before.clone() };
    let (offset, stop) = scan(&segment, &mut chain, 0)?;
    if chain.next > next {
        return Err(foreign(&layout.segment(next), "it overlaps the segment before it"));
    }
    match (stop, chain.last) {
        (Stop::Clean, Some(block)) if chain.next == next => Ok(block),
        (Stop::Clean | Stop::Truncated(_), _) => {
            let lost_to = evidence(layout, segments, offset, anchor.head.next, chain.next)?;
            Err(missing(chain.next, lost_to))
        }
        (Stop::Torn(error) | Stop::Unfit(error), _) => Err(error),
    }
}

/// Whether the first block of a segment is the one that its name and the chain ask for.
fn begins_with(segment: &Segment, before: &Chain) -> bool {
    let header = Window::new(SKIP_BYTES).header(&segment.file, 0, u64::MAX);
    header.is_ok_and(|header| header.first_position == segment.first && header.previous == before.hash)
}

/// How far the log once reached, as far as anything still tells: the anchor, names, and blocks behind the place where the
/// chain ends, which is `offset` in the first of `segments`, at `found`.
///
/// # Errors
/// [`LogError::Io`], [`LogError::Foreign`].
pub(super) fn evidence(
    layout: &Layout,
    segments: &[Position],
    offset: u64,
    anchored: Position,
    found: Position,
) -> Result<Position, LogError> {
    let mut reached = found.max(anchored);
    for (index, first) in segments.iter().enumerate() {
        let segment = Segment::require(layout, *first)?;
        let from = if index == 0 { offset } else { 0 };
        let least = if index == 0 { found } else { *first };
        reached = reached.max(furthest_block(&segment, from, least)?.unwrap_or(found)).max(*first);
    }
    Ok(reached)
}

/// Holds the end that was found against the anchor.
fn reaches_anchor(layout: &Layout, segments: &[Position], anchor: &Anchor, head: Head, stop: &Stop) -> Result<(), LogError> {
    if anchor.head.next > head.next {
        return match stop {
            Stop::Clean | Stop::Truncated(_) => Err(missing(head.next, anchor.head.next)),
            // The caller says what stands there instead.
            Stop::Torn(_) | Stop::Unfit(_) => Ok(()),
        };
    }
    match hash_before(layout, segments, anchor.head.next, head)? {
        Some(hash) if hash == anchor.head.hash => Ok(()),
        Some(found) => Err(LogError::Chain { at: anchor.head.next, expected: anchor.head.hash, found }),
        None => Err(LogError::Anchor { path: layout.anchor(), reason: "it points into the middle of a block" }),
    }
}

/// Whether bytes follow the head that may be cut: only what a crash leaves of blocks that nobody was told of.
fn may_cut(purpose: Purpose, last: &Segment, anchor: &Anchor, head: Head, stop: Stop, end: u64) -> Result<bool, LogError> {
    let acknowledged = anchor.head.next > head.next;
    match stop {
        Stop::Clean => Ok(false),
        Stop::Truncated(error) | Stop::Torn(error) | Stop::Unfit(error) if acknowledged => Err(error),
        Stop::Truncated(_) | Stop::Torn(_) | Stop::Unfit(_) if purpose == Purpose::Read => Ok(true),
        Stop::Unfit(error) => Err(error),
        // A whole block behind the torn one was written after it was synced, unless this writer was in the habit of
        // writing several blocks between two syncs.
        Stop::Truncated(error) | Stop::Torn(error) => match anchor.loose {
            false if furthest_block(last, end, Position(head.next.0.saturating_add(1)))?.is_some() => Err(error),
            true | false => Ok(true),
        },
    }
}

/// Where a log begins whose first segment this is.
///
/// # Errors
/// [`LogError::Damaged`] when the segment does not begin with a block header, [`LogError::Io`].
pub(super) fn base_of(layout: &Layout, first: Position) -> Result<Head, LogError> {
    let segment = Segment::require(layout, first)?;
    let header = Window::new(SKIP_BYTES).header(&segment.file, 0, u64::MAX);
    let header = header.map_err(|error| segment.error(first, 0, error))?;
    Ok(Head { next: first, ..head_before(&header) })
}

/// The hash of the block that ends at `at`; `None` when no block does.
///
/// # Errors
/// [`LogError::Damaged`] for a header on the way, [`LogError::Io`].
pub(super) fn hash_before(layout: &Layout, segments: &[Position], at: Position, head: Head) -> Result<Option<Hash>, LogError> {
    if at == head.next {
        return Ok(Some(head.hash));
    }
    let index = segments.partition_point(|first| *first <= at).saturating_sub(1);
    let Some(first) = segments.get(index) else { return Ok(None) };
    let segment = Segment::require(layout, *first)?;
    let (mut window, mut offset) = (Window::new(SKIP_BYTES), 0);
    loop {
        let header = window.header(&segment.file, offset, u64::MAX);
        let header = header.map_err(|error| segment.error(at, offset, error))?;
        if header.first_position >= at {
            return Ok((header.first_position == at).then_some(header.previous));
        }
        offset += header.block_len() as u64;
    }
}
