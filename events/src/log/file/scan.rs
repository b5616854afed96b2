//! Following the chain: from block to block with everything verified, and the shortcut to the last block of a segment.

use super::super::LogError;
use super::super::directory::chain::{Chain, Misfit};
use super::super::directory::layout::read_full;
use super::segment::{READ_BYTES, ReadError, Segment, Window};
use crate::block::{Block, BlockError, HEADER_BYTES, Header};
use crate::id::Position;

/// Why a scan ended.
pub(super) enum Stop {
    /// Nothing but zeros follows.
    Clean,
    /// The file ends within a block.
    Truncated(LogError),
    /// Bytes follow that are no block.
    Torn(LogError),
    /// A whole block follows, checksum and all, that does not fit or that this build cannot read.
    Unfit(LogError),
}

/// Follows the chain from `offset` to where it ends in this segment; returns that offset and what is there.
///
/// # Errors
/// [`LogError::Io`]; what is wrong with the bytes is in the [`Stop`].
pub(super) fn scan(segment: &Segment, chain: &mut Chain, mut offset: u64) -> Result<(u64, Stop), LogError> {
    let len = segment.len()?;
    let mut window = Window::new(READ_BYTES);
    loop {
        let block = match window.block(&segment.file, offset, len) {
            Ok(block) => block,
            Err(error) => return Ok((offset, stop(segment, chain.next, offset, len, error)?)),
        };
        let block_len = block.header.block_len() as u64;
        if let Err(misfit) = chain.follow(block) {
            return Ok((offset, Stop::Unfit(misfitting(segment, chain.next, offset, misfit))));
        }
        offset += block_len;
    }
}

fn misfitting(segment: &Segment, at: Position, offset: u64, misfit: Misfit) -> LogError {
    match misfit {
        Misfit::Place(reason) => segment.error(at, offset, BlockError::Header(reason)),
        Misfit::Predecessor(error) => error,
    }
}

fn stop(segment: &Segment, at: Position, offset: u64, len: u64, error: ReadError) -> Result<Stop, LogError> {
    match error {
        ReadError::Io(source) => Err(segment.error(at, offset, source)),
        ReadError::Block(BlockError::Absent) if segment.is_zero(offset, len)? => Ok(Stop::Clean),
        ReadError::Block(error @ BlockError::Truncated { .. }) => Ok(Stop::Truncated(segment.error(at, offset, error))),
        ReadError::Block(error @ (BlockError::Absent | BlockError::Header(_) | BlockError::Checksum { .. })) => {
            Ok(Stop::Torn(segment.error(at, offset, error)))
        }
        ReadError::Block(error @ (BlockError::FormatTooNew { .. } | BlockError::Body(_) | BlockError::Record(_))) => {
            Ok(Stop::Unfit(segment.error(at, offset, error)))
        }
    }
}

/// Finds the last block of a segment that was closed at its real length, from its end and without reading the rest.
/// `next` is where the log goes on behind it. `None` says only that the shortcut does not work.
///
/// # Errors
/// [`LogError::Io`].
pub(super) fn last_block(segment: &Segment, next: Position) -> Result<Option<Block>, LogError> {
    let len = segment.len()?;
    let mut reach = 64 << 10;
    loop {
        let start = len.saturating_sub(reach);
        let mut bytes = vec![0; usize::try_from(len - start).unwrap_or(0)];
        let read = read_full(&segment.file, &mut bytes, start).map_err(|source| segment.error(next, start, source))?;
        if let Some(block) = block_ending(&bytes[..read], next) {
            return Ok(Some(block));
        }
        // Blocks are at most 16 MiB and a header; beyond that there is nothing to find.
        if start == 0 || reach > 16 << 20 {
            return Ok(None);
        }
        reach *= 16;
    }
}

/// The valid block that ends exactly where `bytes` end and `next` follows.
fn block_ending(bytes: &[u8], next: Position) -> Option<Block> {
    magics(bytes, 0).find_map(|at| {
        let header = Header::parse(&bytes[at..]).ok()?;
        let fits = at + header.block_len() == bytes.len() && header.next_position() == next;
        fits.then(|| Block::parse(&bytes[at..]).ok()).flatten()
    })
}

/// Offsets at which a block might begin.
fn magics(bytes: &[u8], from: usize) -> impl Iterator<Item = usize> + '_ {
    let candidates = bytes.windows(4).enumerate().skip(from);
    candidates.filter(|(_, window)| *window == b"ERGB").map(|(at, _)| at)
}

/// The position after the furthest valid block of `segment` at or behind `offset`, wherever it begins; `None` when there is none.
/// Blocks before `least` do not count: they may be part of a payload.
///
/// # Errors
/// [`LogError::Io`].
pub(super) fn furthest_block(segment: &Segment, offset: u64, least: Position) -> Result<Option<Position>, LogError> {
    let len = segment.len()?;
    let mut window = Window::new(READ_BYTES);
    let mut furthest = None;
    // Hostile bytes may hold a header at every step, each claiming megabytes; what cannot be decided soon is not searched further.
    let mut budget: u64 = 1 << 30;
    let mut at = segment.next_data(offset).max(offset);
    while at < len && budget > 0 {
        let io = |source| segment.error(least, at, source);
        let bytes = window.bytes(&segment.file, at, HEADER_BYTES, len).map_err(io)?;
        let Some(found) = magics(bytes, 0).next() else {
            // A magic may begin in the last three bytes.
            let step = (bytes.len() as u64).saturating_sub(3).max(1);
            let next = at + step;
            at = if bytes.len() < 4 { len } else { segment.next_data(next).max(next) };
            continue;
        };
        at += found as u64;
        let limit = len.min(at + READ_BYTES as u64 * 17);
        let step = match window.header(&segment.file, at, limit) {
            Ok(header) if header.first_position >= least => {
                budget = budget.saturating_sub(header.block_len() as u64);
                match window.block(&segment.file, at, limit) {
                    Ok(block) => {
                        furthest = furthest.max(Some(block.header.next_position()));
                        block.header.block_len()
                    }
                    Err(_) => 4,
                }
            }
            Ok(_) | Err(_) => 4,
        };
        at += step as u64;
    }
    Ok(furthest)
}
