//! Accepting a loss on purpose: the one way to open a log again that lacks acknowledged events.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::super::{Head, LogError};
use super::anchor::{self, Anchor};
use super::disk::{Disk, RealDisk};
use super::layout::{Layout, failed};
use super::recover::{base_of, evidence, hash_before};
use super::scan::{Chain, Stop, head_after, scan};
use super::segment::{READ_BYTES, Segment, read_full};
use super::store;
use crate::id::Position;

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// Where the log ends now.
    pub head: Head,
    /// How many acknowledged events were given up: from the beginning, and from where the log ends now.
    pub lost: u64,
    /// The files that were set aside, under the names that they have now.
    pub set_aside: Vec<PathBuf>,
    /// Whether the anchor was written anew.
    pub anchor_rewritten: bool,
}

/// What following the whole chain has found.
struct Survey {
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
/// writes a new anchor for a log whose chain is whole. Files with damage are set aside, not deleted. Whoever repairs should record
/// that they did.
///
/// # Errors
/// [`LogError::Missing`] with the real number when it is another one, [`LogError::Chain`] when the log is whole and is not the
/// one that the anchor knows, [`LogError::FormatTooNew`], [`LogError::Locked`], [`LogError::NotFound`], [`LogError::Foreign`],
/// [`LogError::Io`], [`LogError::Full`].
pub fn repair(dir: &Path, accept_loss: u64) -> Result<Repair, LogError> {
    let layout = Layout::new(dir);
    let not_found = || LogError::NotFound { path: dir.to_owned() };
    let store = store::read(&layout)?.ok_or_else(not_found)?;
    let _lock = store::lock(&layout)?;
    let anchor = match anchor::read(&layout.anchor(), store) {
        Ok(anchor) => Some(anchor),
        Err(LogError::Anchor { .. }) => None,
        Err(error) => return Err(error),
    };
    let survey = survey(&layout, anchor)?;
    if survey.lost != accept_loss {
        return Err(LogError::Missing { anchored: survey.reached, found: survey.head.next, missing: survey.lost });
    }
    let anchor_rewritten = !anchor_fits(&layout, &survey)?;
    let set_aside = set_aside(&layout, &survey)?;
    if anchor_rewritten || !set_aside.is_empty() {
        let counter = anchor.map_or(0, |anchor| anchor.counter.wrapping_add(1));
        let anchor = Anchor { store, counter, loose: false, base: survey.base, head: survey.head };
        store::write_whole(&layout, &RealDisk, &layout.anchor(), &anchor.to_file())?;
    }
    Ok(Repair { head: survey.head, lost: survey.lost, set_aside, anchor_rewritten })
}

/// Follows the chain through all segments, as far as it goes.
fn survey(layout: &Layout, anchor: Option<Anchor>) -> Result<Survey, LogError> {
    let mut segments = layout.segments()?;
    segments.retain(|first| anchor.is_none_or(|anchor| *first >= anchor.base.next));
    let known = anchor.map_or_else(Head::default, |anchor| anchor.base);
    let base = match segments.first() {
        // The beginning is gone, or nothing tells where it was: the log begins with what there is.
        Some(first) if *first > known.next => base_of(layout, *first).unwrap_or(known),
        Some(_) | None => known,
    };
    let mut chain = Chain::at(base.next, base.hash);
    let broken = follow_all(layout, &segments, &mut chain)?;
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
        Some((index, offset)) => evidence(layout, &segments[index..], offset, anchored, head.next)?,
        None => anchored.max(head.next),
    };
    let lost_before = anchor.map_or(0, |anchor| base.next.0 - anchor.base.next.0);
    Ok(Survey { anchor, base, head, segments, broken, reached, lost: lost_before + (reached.0 - head.next.0) })
}

/// Follows the chain; says in which segment and after how many bytes it ends, if that is not the end of the last one.
fn follow_all(layout: &Layout, segments: &[Position], chain: &mut Chain) -> Result<Option<(usize, u64)>, LogError> {
    for (index, first) in segments.iter().enumerate() {
        if *first != chain.next {
            return Ok(Some((index, 0)));
        }
        let segment = Segment::require(layout, *first)?;
        match scan(&segment, chain, 0)? {
            (_, Stop::Clean) => {}
            // What a newer build wrote is not damage.
            (_, Stop::Unfit(error @ LogError::FormatTooNew { .. })) => return Err(error),
            (offset, Stop::Truncated(_) | Stop::Torn(_) | Stop::Unfit(_)) => return Ok(Some((index, offset))),
        }
    }
    Ok(None)
}

/// Whether the anchor may stay as it is.
fn anchor_fits(layout: &Layout, survey: &Survey) -> Result<bool, LogError> {
    let Some(anchor) = survey.anchor else { return Ok(false) };
    if survey.lost > 0 {
        return Ok(false);
    }
    match hash_before(layout, &survey.segments, anchor.head.next, survey.head)? {
        Some(found) if found != anchor.head.hash => {
            Err(LogError::Chain { at: anchor.head.next, expected: anchor.head.hash, found })
        }
        found => Ok(found.is_some()),
    }
}

/// Gives everything behind the last valid block another name, the last segment first, so that an interruption leaves no gap.
fn set_aside(layout: &Layout, survey: &Survey) -> Result<Vec<PathBuf>, LogError> {
    let Some((broken, valid_bytes)) = survey.broken else { return Ok(Vec::new()) };
    let mut aside = Vec::new();
    for index in (broken..survey.segments.len()).rev() {
        let path = layout.segment(survey.segments[index]);
        let to = free_name(&path);
        if index == broken && valid_bytes > 0 {
            keep_beginning(layout, survey.segments[index], &to, valid_bytes)?;
        } else {
            std::fs::rename(&path, &to).map_err(failed("set aside", &path))?;
        }
        aside.push(to);
    }
    RealDisk.sync_dir(&layout.log()).map_err(failed("sync", &layout.log()))?;
    Ok(aside)
}

/// Replaces a segment by its first `len` bytes, once they are safe; the whole of it remains under `aside`.
fn keep_beginning(layout: &Layout, first: Position, aside: &Path, len: u64) -> Result<(), LogError> {
    let segment = Segment::require(layout, first)?;
    let draft = segment.path.with_extension("tmp");
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed("replace", &draft)(error)),
        Ok(()) | Err(_) => {}
    }
    let copy = RealDisk.create(&draft).map_err(failed("create", &draft))?;
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    while at < len {
        let want = usize::try_from(len - at).unwrap_or(READ_BYTES).min(READ_BYTES);
        let read = read_full(&segment.file, &mut buffer[..want], at).map_err(failed("read", &segment.path))?;
        if read == 0 {
            return Err(failed("read", &segment.path)(std::io::ErrorKind::UnexpectedEof.into()));
        }
        copy.write_all_at(&buffer[..read], at).map_err(failed("write", &draft))?;
        at += read as u64;
    }
    RealDisk.sync_all(&copy).map_err(failed("sync", &draft))?;
    std::fs::hard_link(&segment.path, aside).map_err(failed("set aside", &segment.path))?;
    RealDisk.rename(&draft, &segment.path).map_err(failed("replace", &segment.path))
}

/// A name beside `path` that says what the file is and that nothing has yet.
fn free_name(path: &Path) -> PathBuf {
    let plain = path.with_extension("seg.damaged");
    let numbered = (2_u32..).map(|number| path.with_extension(format!("seg.damaged.{number}")));
    let taken = |name: &PathBuf| name.symlink_metadata().is_ok();
    std::iter::once(plain.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(plain)
}
