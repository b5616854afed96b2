//! Accepting a loss on purpose: the one way to open a log again that lacks acknowledged events.

use std::path::{Path, PathBuf};

use super::super::file::Active as Files;
#[cfg(feature = "sled")]
use super::super::sled::Active as Databases;
use super::super::{Head, LogError};
use super::Engine;
use super::anchor::{self, Anchor};
use super::chain::{Chain, head_after};
use super::disk::{Disk, RealDisk};
use super::engine::{ActiveSegment, Follow};
use super::layout::{Layout, failed};
use super::store::{self, StoreId};
use crate::id::Position;

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// Where the log ends now.
    pub head: Head,
    /// How many acknowledged events were given up: from the beginning, and from where the log ends now.
    pub lost: u64,
    /// The segments that were set aside, under the names that they have now.
    pub set_aside: Vec<PathBuf>,
    /// Whether the anchor was written anew.
    pub anchor_rewritten: bool,
}

/// What following the whole chain has found.
struct Whole {
    /// `None` when it is unusable.
    anchor: Option<Anchor>,
    base: Head,
    head: Head,
    segments: Vec<Position>,
    /// The first segment that is not whole, and how many of its bytes are.
    broken: Option<(usize, u64)>,
    /// How far the log once reached.
    reached: Position,
    lost: u64,
}

/// Makes the log in `dir` end with its last valid block, if exactly `accept_loss` acknowledged events are lost by that. With 0 it
/// writes a new anchor for a log whose chain is whole. Segments with damage are set aside, not deleted. Whoever repairs should record
/// that they did.
///
/// # Errors
/// [`LogError::Missing`] with the real number when it is another one, [`LogError::Chain`] when the log is whole and is not the
/// one that the anchor knows, [`LogError::FormatTooNew`], [`LogError::Locked`], [`LogError::NotFound`], [`LogError::Foreign`],
/// [`LogError::Io`], [`LogError::Full`].
pub fn repair(dir: &Path, accept_loss: u64) -> Result<Repair, LogError> {
    let (layout, id) = Layout::found(dir)?;
    match layout.engine {
        Engine::File => repair_segments::<Files>(&layout, id, accept_loss),
        #[cfg(feature = "sled")]
        Engine::Sled => repair_segments::<Databases>(&layout, id, accept_loss),
        #[cfg(not(feature = "sled"))]
        Engine::Sled => Err(super::foreign(dir, super::WITHOUT_SLED)),
    }
}

fn repair_segments<S: ActiveSegment>(layout: &Layout, id: StoreId, accept_loss: u64) -> Result<Repair, LogError> {
    let _lock = store::lock(layout)?;
    let anchor = match anchor::read(&layout.anchor(), id) {
        Ok(anchor) => Some(anchor),
        Err(LogError::Anchor { .. }) => None,
        Err(error) => return Err(error),
    };
    let whole = follow_whole::<S>(layout, anchor)?;
    if whole.lost != accept_loss {
        return Err(LogError::Missing { anchored: whole.reached, found: whole.head.next, missing: whole.lost });
    }
    let anchor_rewritten = !anchor_fits::<S>(layout, &whole)?;
    let set_aside = set_aside::<S>(layout, &whole)?;
    if anchor_rewritten || !set_aside.is_empty() {
        let counter = anchor.map_or(0, |anchor| anchor.counter.wrapping_add(1));
        let anchor = Anchor { store: id, counter, loose: false, base: whole.base, head: whole.head };
        store::write_whole(layout, &RealDisk, &layout.anchor(), &anchor.to_file())?;
    }
    Ok(Repair { head: whole.head, lost: whole.lost, set_aside, anchor_rewritten })
}

/// Follows the chain through all segments, as far as it goes.
fn follow_whole<S: ActiveSegment>(layout: &Layout, anchor: Option<Anchor>) -> Result<Whole, LogError> {
    let mut segments = layout.segments()?;
    segments.retain(|first| anchor.is_none_or(|anchor| *first >= anchor.base.next));
    let known = anchor.map_or_else(Head::default, |anchor| anchor.base);
    let base = match segments.first() {
        // The beginning is gone, or nothing tells where it was: the log begins with what there is.
        Some(first) if *first > known.next => S::base_of(layout, *first).unwrap_or(known),
        Some(_) | None => known,
    };
    let mut chain = Chain::at(base.next, base.hash);
    let broken = follow_all::<S>(layout, &segments, &mut chain)?;
    let head = match &chain.last {
        Some(block) => head_after(block).map_err(|source| LogError::Damaged {
            at: block.header.first_position,
            path: layout.log(),
            offset: 0,
            source,
        })?,
        None => base,
    };
    let anchored = anchor.map_or(base.next, |anchor| anchor.head.next);
    let reached = match broken {
        Some((index, offset)) => S::evidence(layout, &segments[index..], offset, anchored, head.next)?,
        None => anchored.max(head.next),
    };
    let lost_before = anchor.map_or(0, |anchor| base.next.0 - anchor.base.next.0);
    Ok(Whole { anchor, base, head, segments, broken, reached, lost: lost_before + (reached.0 - head.next.0) })
}

/// Follows the chain; says in which segment and after how many bytes it ends, if that is not the end of the last one.
fn follow_all<S: ActiveSegment>(
    layout: &Layout,
    segments: &[Position],
    chain: &mut Chain,
) -> Result<Option<(usize, u64)>, LogError> {
    for (index, first) in segments.iter().enumerate() {
        if *first != chain.next {
            return Ok(Some((index, 0)));
        }
        if let Follow::Broken(offset) = S::follow(layout, *first, chain)? {
            return Ok(Some((index, offset)));
        }
    }
    Ok(None)
}

/// Whether the anchor may stay as it is.
fn anchor_fits<S: ActiveSegment>(layout: &Layout, whole: &Whole) -> Result<bool, LogError> {
    let Some(anchor) = whole.anchor else { return Ok(false) };
    if whole.lost > 0 {
        return Ok(false);
    }
    match S::hash_before(layout, &whole.segments, anchor.head.next, whole.head)? {
        Some(found) if found != anchor.head.hash => {
            Err(LogError::Chain { at: anchor.head.next, expected: anchor.head.hash, found })
        }
        found => Ok(found.is_some()),
    }
}

/// Gives everything behind the last valid block another name, the last segment first, so that an interruption leaves no gap.
fn set_aside<S: ActiveSegment>(layout: &Layout, whole: &Whole) -> Result<Vec<PathBuf>, LogError> {
    let Some((broken, valid_bytes)) = whole.broken else { return Ok(Vec::new()) };
    let mut aside = Vec::new();
    for index in (broken..whole.segments.len()).rev() {
        let path = layout.segment(whole.segments[index]);
        let to = free_name(&path);
        if index == broken && valid_bytes > 0 {
            S::keep_beginning(layout, whole.segments[index], &to, valid_bytes, whole.head.next)?;
        } else {
            std::fs::rename(&path, &to).map_err(failed("set aside", &path))?;
        }
        aside.push(to);
    }
    RealDisk.sync_dir(&layout.log()).map_err(failed("sync", &layout.log()))?;
    Ok(aside)
}

/// A name beside `path` that says what the segment is and that nothing has yet.
fn free_name(path: &Path) -> PathBuf {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let plain = path.with_extension(format!("{extension}.damaged"));
    let numbered = (2_u32..).map(|number| path.with_extension(format!("{extension}.damaged.{number}")));
    let taken = |name: &PathBuf| name.symlink_metadata().is_ok();
    std::iter::once(plain.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(plain)
}
