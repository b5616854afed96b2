//! Looking at a row of databases: where the log ends, and whether that is where it should.

use std::sync::Arc;

use super::super::directory::anchor::{self, Anchor};
use super::super::directory::chain::{Chain, Misfit, head_after, head_before};
use super::super::directory::engine::Survey;
use super::super::directory::layout::Layout;
use super::super::directory::{CutTail, StoreId, identity};
use super::super::{Head, LogError};
use super::database::Database;
use super::databases::Databases;
use super::first;
use super::reader::{Walk, header};
use crate::block::{Block, Hash};
use crate::id::Position;

/// Beyond every block.
const END: Position = Position(u64::MAX);
/// Chunks looked at together where nothing but their places counts.
const LOOK: usize = 256;

/// The last database, open.
pub(in crate::log) struct Newest {
    pub(super) database: Arc<Database>,
    /// Bytes of valid blocks.
    pub(super) bytes: u64,
}

/// Where following the chain through one database has ended.
pub(super) struct Scan {
    /// Why, if that is not the database's end.
    pub(super) stop: Option<LogError>,
    /// Bytes of valid blocks.
    pub(super) bytes: u64,
}

/// Follows the chain through a database.
///
/// # Errors
/// [`LogError::FormatTooNew`], [`LogError::Io`]; what is wrong with the blocks is in the [`Scan`].
pub(super) fn scan(database: &Arc<Database>, chain: &mut Chain) -> Result<Scan, LogError> {
    let mut walk = Walk::new(Arc::clone(database), database.first);
    let mut bytes = 0;
    loop {
        let block = match walk.next_block(chain.next, END) {
            Ok(Some(block)) => block,
            Ok(None) => return Ok(Scan { stop: None, bytes }),
            Err(stop @ LogError::Unusable { .. }) => return Ok(Scan { stop: Some(stop), bytes }),
            Err(error) => return Err(error),
        };
        let len = block.header.block_len() as u64;
        if let Err(misfit) = chain.follow(block) {
            return Ok(Scan { stop: Some(misfitting(database, chain.next, misfit)), bytes });
        }
        bytes += len;
    }
}

fn misfitting(database: &Database, at: Position, misfit: Misfit) -> LogError {
    match misfit {
        Misfit::Place(reason) => database.unusable(at, reason.to_owned()),
        Misfit::Predecessor(error) => error,
    }
}

/// Verifies everything in the last database, how it joins the one before, and that the log reaches its anchor. The middles of the
/// others are verified when they are read.
///
/// # Errors
/// [`LogError::Missing`], [`LogError::Unusable`], [`LogError::Chain`], [`LogError::Anchor`] and whatever reading meets.
pub(super) fn survey(databases: &Databases) -> Result<(Survey, Option<Newest>), LogError> {
    let layout = &databases.layout;
    let (store, anchor) = identify(layout)?;
    let (mut leftover, mut segments): (Vec<_>, Vec<_>) =
        layout.segments()?.into_iter().partition(|first| *first < anchor.base.next);
    if let Some(unborn) = unborn(databases, &anchor, &segments)? {
        segments.pop();
        leftover.push(unborn);
    }
    if let Some(first) = segments.first().filter(|first| **first > anchor.base.next) {
        return Err(missing(anchor.base.next, *first));
    }
    let Some(last) = segments.last().copied() else {
        if anchor.head.next > anchor.base.next {
            return Err(missing(anchor.base.next, anchor.head.next));
        }
        return Ok((Survey { store, anchor, leftover, head: anchor.base, torn: None, segments }, None));
    };
    let mut chain = chain_before(databases, &anchor, &segments)?;
    let database = databases.get(last)?;
    let scan = scan(&database, &mut chain)?;
    let head = head_of(&database, &chain, &anchor)?;
    reaches_anchor(databases, &segments, &anchor, head, scan.stop.is_some())?;
    let torn = scan.stop.map(|stop| may_cut(&database, &anchor, head, stop)).transpose()?;
    Ok((Survey { store, anchor, leftover, head, torn, segments }, Some(Newest { database, bytes: scan.bytes })))
}

fn identify(layout: &Layout) -> Result<(StoreId, Anchor), LogError> {
    let id = identity(&layout.dir)?.id;
    Ok((id, anchor::read(&layout.anchor(), id)?))
}

fn missing(found: Position, anchored: Position) -> LogError {
    LogError::Missing { anchored, found, missing: anchored.0.saturating_sub(found.0) }
}

/// The last database if it was created and got no block: what a crash between the two leaves.
fn unborn(databases: &Databases, anchor: &Anchor, segments: &[Position]) -> Result<Option<Position>, LogError> {
    let Some(last) = segments.last().copied().filter(|last| anchor.head.next <= *last) else { return Ok(None) };
    let empty = match databases.layout.segment(last).join("db").exists() {
        true => databases.get(last)?.chunks((Position(0), 0), END, 1)?.is_empty(),
        false => true,
    };
    Ok(empty.then_some(last))
}

/// The chain in front of the last database, after a look at all the others.
fn chain_before(databases: &Databases, anchor: &Anchor, segments: &[Position]) -> Result<Chain, LogError> {
    let Some((last, sealed)) = segments.split_last() else { return Ok(Chain::at(anchor.base.next, anchor.base.hash)) };
    for first in sealed {
        let path = databases.layout.segment(*first);
        if !path.join("db").exists() {
            let reason = "its file `db` is missing".to_owned();
            return Err(LogError::Unusable { at: *first, path, reason });
        }
    }
    let Some(before) = sealed.last() else { return Ok(Chain::at(anchor.base.next, anchor.base.hash)) };
    let database = databases.get(*before)?;
    let block = last_block(&database)?;
    match block.header.next_position() {
        next if next == *last => Ok(Chain::behind(block)),
        next => Err(missing(next, anchor.head.next.max(*last))),
    }
}

/// The last block of a database, which has one.
fn last_block(database: &Arc<Database>) -> Result<Block, LogError> {
    let lost = || database.unusable(database.first, "the block is missing".to_owned());
    let at = database.holder(END)?.ok_or_else(lost)?;
    Walk::new(Arc::clone(database), at).next_block(at, END)?.ok_or_else(lost)
}

fn head_of(database: &Database, chain: &Chain, anchor: &Anchor) -> Result<Head, LogError> {
    let Some(block) = &chain.last else { return Ok(anchor.base) };
    head_after(block).map_err(|error| database.unusable(block.header.first_position, error.to_string()))
}

/// Holds the end that was found against the anchor.
fn reaches_anchor(
    databases: &Databases,
    segments: &[Position],
    anchor: &Anchor,
    head: Head,
    stopped: bool,
) -> Result<(), LogError> {
    if anchor.head.next > head.next {
        // Where something else stands instead, the caller says what.
        return if stopped { Ok(()) } else { Err(missing(head.next, anchor.head.next)) };
    }
    match hash_before(databases, segments, anchor.head.next, head)? {
        Some(hash) if hash == anchor.head.hash => Ok(()),
        Some(found) => Err(LogError::Chain { at: anchor.head.next, expected: anchor.head.hash, found }),
        None => Err(LogError::Anchor { path: databases.layout.anchor(), reason: "it points into the middle of a block" }),
    }
}

/// The hash of the block that ends at `at`; `None` when no block does.
///
/// # Errors
/// As [`survey`].
pub(super) fn hash_before(
    databases: &Databases,
    segments: &[Position],
    at: Position,
    head: Head,
) -> Result<Option<Hash>, LogError> {
    if at == head.next {
        return Ok(Some(head.hash));
    }
    let index = segments.partition_point(|first| *first <= at).saturating_sub(1);
    let Some(first) = segments.get(index) else { return Ok(None) };
    let database = databases.get(*first)?;
    match database.holder(at)? {
        Some(holder) if holder == at => Ok(Some(header(&database, at)?.previous)),
        Some(_) | None => Ok(None),
    }
}

/// What follows the head, if it may be cut: only what a crash leaves of blocks that nobody was told of.
fn may_cut(database: &Database, anchor: &Anchor, head: Head, stop: LogError) -> Result<CutTail, LogError> {
    let behind = behind(database, head.next)?;
    // A whole block behind the torn one was written after it was synced, unless this writer was in the habit of writing several
    // blocks between two syncs.
    let chained = matches!(stop, LogError::Chain { .. });
    if anchor.head.next > head.next || chained || (!anchor.loose && behind.whole.is_some()) {
        return Err(stop);
    }
    Ok(CutTail { at: head.next, bytes: behind.bytes })
}

/// What lies behind the end of the chain.
pub(super) struct Behind {
    pub(super) bytes: u64,
    /// Position after the last block there that could be the log's.
    pub(super) whole: Option<Position>,
}

/// Looks at everything behind a position.
///
/// # Errors
/// [`LogError::Unusable`], [`LogError::Io`].
pub(super) fn behind(database: &Database, at: Position) -> Result<Behind, LogError> {
    let mut found = Behind { bytes: 0, whole: None };
    let mut from = (at, 0);
    loop {
        let chunks = database.chunks(from, END, LOOK)?;
        let Some(last) = chunks.last() else { return Ok(found) };
        from = (last.position, last.number.saturating_add(1));
        for chunk in &chunks {
            found.bytes += chunk.bytes.len() as u64;
            if chunk.position > at && chunk.number == 0 {
                let next = header(database, chunk.position).ok().map(|header| header.next_position());
                found.whole = found.whole.max(next);
            }
        }
    }
}

/// What a reader in the process that has the log open sees of it.
///
/// # Errors
/// As [`survey`].
pub(super) fn published(databases: &Databases) -> Result<Survey, LogError> {
    let (store, anchor) = identify(&databases.layout)?;
    let view = databases.view.get();
    let segments = view.segments.to_vec();
    let written = segments.iter().rfind(|first| **first < view.end.next).copied();
    let head = match written.zip(view.end.next.0.checked_sub(1)) {
        Some((first, last)) => {
            let database = databases.get(first)?;
            let at = database.holder(Position(last))?.unwrap_or(first);
            let block = Walk::new(Arc::clone(&database), at).next_block(at, view.end.next)?;
            let lost = || database.unusable(at, "the block is missing".to_owned());
            head_after(&block.ok_or_else(lost)?).map_err(|error| database.unusable(at, error.to_string()))?
        }
        None => anchor.base,
    };
    Ok(Survey { store, anchor, leftover: Vec::new(), head, torn: None, segments })
}

/// Where a log begins whose first database this is.
///
/// # Errors
/// As [`survey`].
pub(super) fn base_of(databases: &Databases, at: Position) -> Result<Head, LogError> {
    match first::read(&databases.layout.segment(at))?.filter(|header| header.first_position == at) {
        Some(header) => Ok(head_before(&header)),
        None => header(&*databases.get(at)?, at).map(|header| head_before(&header)),
    }
}

/// How far the log once reached, as far as anything still tells.
///
/// # Errors
/// [`LogError::Io`].
pub(super) fn evidence(
    databases: &Databases,
    segments: &[Position],
    anchored: Position,
    found: Position,
) -> Result<Position, LogError> {
    let mut reached = found.max(anchored);
    for first in segments {
        let behind = databases.get(*first).and_then(|database| behind(&database, found.max(*first)));
        let whole = match behind {
            Ok(behind) => behind.whole,
            // What cannot be opened tells nothing but its name.
            Err(LogError::Unusable { .. }) => None,
            Err(error) => return Err(error),
        };
        reached = reached.max(whole.unwrap_or(found)).max(*first);
    }
    Ok(reached)
}
