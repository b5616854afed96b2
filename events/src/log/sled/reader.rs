//! Reading: any number of readers in the process that has the log.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::super::directory::layout::Layout;
use super::super::directory::view::View;
use super::super::directory::{Engine, identity, require_engine};
use super::super::{Cursor, LogError, LogReader, Span};
use super::chunks::Pieces;
use super::database::{Chunk, Database};
use super::databases::Databases;
use super::first;
use crate::block::{Block, BlockError, Hash, Header};
use crate::id::{Ordinal, Position};
use crate::time::Timestamp;

/// Chunks fetched at once: some hundred kilobytes, so that finding one's way through the tree costs nothing beside decoding.
const FETCH: usize = 32;

/// Reads a log of sled databases.
pub struct SledReader {
    shared: Arc<Databases>,
}

impl SledReader {
    /// Opens the log in `dir` for reading. sled needs the files for itself, so no other process may have the log meanwhile.
    ///
    /// # Errors
    /// [`LogError::Locked`], [`LogError::NotFound`], [`LogError::Missing`], [`LogError::Unusable`], [`LogError::Chain`],
    /// [`LogError::Anchor`], [`LogError::Foreign`], [`LogError::OtherEngine`], [`LogError::FormatTooNew`], [`LogError::Io`].
    pub fn open(dir: &Path) -> Result<SledReader, LogError> {
        require_engine(dir, identity(dir)?.engine, Engine::Sled)?;
        Databases::share(&Layout::new(dir, Engine::Sled)).map(|(shared, _)| SledReader { shared })
    }

    pub(super) const fn new(shared: Arc<Databases>) -> SledReader {
        SledReader { shared }
    }

    /// The last block whose header `before` accepts; it accepts up to some block and none from there on.
    fn last_where(&self, view: &View, before: &dyn Fn(&Header) -> bool) -> Result<Option<Header>, LogError> {
        let segments = &view.segments[..view.segments.partition_point(|first| *first < view.end.next)];
        let (mut low, mut high) = (0, segments.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match before(&self.first_header(segments[middle])?) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let Some(index) = low.checked_sub(1) else { return Ok(None) };
        let end = segments.get(index + 1).copied().unwrap_or(view.end.next);
        last_in(&*self.shared.get(segments[index])?, end, before).map(Some)
    }

    fn first_header(&self, segment: Position) -> Result<Header, LogError> {
        match first::read(&self.shared.layout.segment(segment))? {
            Some(header) => Ok(header),
            None => header(&*self.shared.get(segment)?, segment),
        }
    }
}

/// The last block of a database before `end` that `before` accepts, which it does with the first one.
fn last_in(database: &Database, end: Position, before: &dyn Fn(&Header) -> bool) -> Result<Header, LogError> {
    let mut best = header(database, database.first)?;
    let (mut low, mut high) = (best.next_position(), end);
    while low < high {
        let middle = Position(u64::midpoint(low.0, high.0));
        let holder = database.holder(middle)?.filter(|at| *at >= low);
        let found = header(database, holder.ok_or_else(|| missing(database, low))?)?;
        match before(&found) {
            true => (best, low) = (found, found.next_position()),
            false => high = found.first_position,
        }
    }
    Ok(best)
}

/// The header of the block that begins at a position.
pub(super) fn header(database: &Database, at: Position) -> Result<Header, LogError> {
    let chunk = database.chunks((at, 0), at.next(), 1)?.pop().ok_or_else(|| missing(database, at))?;
    let parsed = Header::parse(&chunk.bytes).map_err(|error| database.unusable(at, error.to_string()))?;
    if parsed.first_position == at { Ok(parsed) } else { Err(misplaced(database, at)) }
}

fn misplaced(database: &Database, at: Position) -> LogError {
    database.unusable(at, "a block lies under another key".to_owned())
}

fn missing(database: &Database, at: Position) -> LogError {
    database.unusable(at, "the block is missing".to_owned())
}

impl LogReader for SledReader {
    fn span(&self) -> Span {
        self.shared.view.get().span()
    }

    fn cursor(&self, from: Position) -> Result<Box<dyn Cursor>, LogError> {
        let view = self.shared.view.get();
        let Span { first, next } = view.span();
        if from < first {
            return Err(LogError::Gone { at: from, first });
        }
        if from > next {
            return Err(LogError::Beyond { at: from, next });
        }
        let at = if from < next { self.last_where(&view, &|header| header.first_position <= from)? } else { None };
        let at = at.map_or(from, |header| header.first_position);
        Ok(Box::new(SledCursor { shared: Arc::clone(&self.shared), at, walk: None, previous: None }))
    }

    fn seek_time(&self, time: Timestamp) -> Result<Position, LogError> {
        let view = self.shared.view.get();
        // The block after this one begins at or after `time`, so it or this one is the answer.
        let Some(found) = self.last_where(&view, &|header| header.first_time < time)? else { return Ok(view.first()) };
        let block = self.cursor(found.first_position)?.next_block()?;
        let Some(block) = block else { return Ok(found.first_position) };
        let mut last_time = found.first_time;
        for record in block.records() {
            let unusable =
                |reason: String| LogError::Unusable { at: found.first_position, path: self.shared.layout.log(), reason };
            last_time = record.map_err(|error| unusable(error.to_string()))?.recorded_at;
        }
        Ok(if last_time >= time { found.first_position } else { found.next_position() })
    }

    fn seek_task(&self, task: Ordinal) -> Result<Option<Position>, LogError> {
        let view = self.shared.view.get();
        if task >= view.end.next_ordinal {
            return Ok(None);
        }
        Ok(self.last_where(&view, &|header| header.first_ordinal <= task)?.map(|header| header.first_position))
    }
}

/// Goes through the blocks of one database in order.
pub(super) struct Walk {
    pub(super) database: Arc<Database>,
    fetched: VecDeque<Chunk>,
    /// Where to fetch on.
    next: (Position, u16),
    pieces: Pieces,
}

impl Walk {
    pub(super) fn new(database: Arc<Database>, from: Position) -> Walk {
        Walk { database, fetched: VecDeque::new(), next: (from, 0), pieces: Pieces::default() }
    }

    /// The block that begins at `at`, which is where the one before it ended; `None` when nothing follows before `end`.
    ///
    /// # Errors
    /// [`LogError::Unusable`] for a block that is not what was written, [`LogError::FormatTooNew`], [`LogError::Io`].
    pub(super) fn next_block(&mut self, at: Position, end: Position) -> Result<Option<Block>, LogError> {
        if !self.collect(at, end)? {
            return Ok(None);
        }
        let block = Block::parse(self.pieces.bytes()).map_err(|error| self.error(at, &error))?;
        if block.header.first_position == at { Ok(Some(block)) } else { Err(misplaced(&self.database, at)) }
    }

    /// As [`Walk::next_block`], with the bytes as they were written.
    ///
    /// # Errors
    /// As [`Walk::next_block`].
    pub(super) fn next_bytes(&mut self, at: Position, end: Position) -> Result<Option<(Header, Vec<u8>)>, LogError> {
        Ok(self.next_block(at, end)?.map(|block| (block.header, self.pieces.bytes().to_vec())))
    }

    /// Collects the chunks of the block at `at`; false when nothing follows.
    fn collect(&mut self, at: Position, end: Position) -> Result<bool, LogError> {
        self.pieces.clear();
        loop {
            let Some(chunk) = self.next_chunk(end)? else {
                return if self.pieces.is_open() { Err(missing(&self.database, at)) } else { Ok(false) };
            };
            if chunk.position != at {
                return Err(missing(&self.database, at));
            }
            if self.pieces.take(chunk.number, &chunk.bytes).map_err(|error| self.error(at, &error))? {
                return Ok(true);
            }
        }
    }

    fn error(&self, at: Position, error: &BlockError) -> LogError {
        if let BlockError::FormatTooNew { found, known } = *error {
            return LogError::FormatTooNew { path: self.database.path.clone(), found, known };
        }
        self.database.unusable(at, error.to_string())
    }

    fn next_chunk(&mut self, end: Position) -> Result<Option<Chunk>, LogError> {
        if self.fetched.is_empty() {
            self.fetched.extend(self.database.chunks(self.next, end, FETCH)?);
        }
        let chunk = self.fetched.pop_front();
        if let Some(chunk) = &chunk {
            // A block has fewer chunks than there are numbers.
            self.next = (chunk.position, chunk.number.saturating_add(1));
        }
        Ok(chunk)
    }
}

/// Walks over the blocks of a log, verifying each against the one before it.
struct SledCursor {
    shared: Arc<Databases>,
    /// Position of the next block; for a cursor that was created at the end, wherever that block will begin.
    at: Position,
    walk: Option<Walk>,
    /// Hash of the block before, once there was one.
    previous: Option<Hash>,
}

impl SledCursor {
    /// The walk through the database that holds the next block, and where that database ends.
    fn enter(&mut self, view: &View) -> Result<(&mut Walk, Position), LogError> {
        let index = view.segments.partition_point(|first| *first <= self.at);
        let gone = || LogError::Gone { at: self.at, first: view.first() };
        let first = *index.checked_sub(1).and_then(|index| view.segments.get(index)).ok_or_else(gone)?;
        let end = view.segments.get(index).copied().unwrap_or(view.end.next);
        let walk = match self.walk.take().filter(|walk| walk.database.first == first) {
            Some(walk) => walk,
            None => Walk::new(self.shared.get(first)?, self.at),
        };
        Ok((self.walk.insert(walk), end))
    }
}

impl Cursor for SledCursor {
    fn next_block(&mut self) -> Result<Option<Block>, LogError> {
        let view = self.shared.view.get();
        if self.at >= view.end.next {
            return Ok(None);
        }
        let at = self.at;
        let (walk, end) = self.enter(&view)?;
        let found = walk.next_block(at, end)?;
        let block = found.ok_or_else(|| missing(&walk.database, at))?;
        match self.previous {
            Some(expected) if expected != block.header.previous => {
                return Err(LogError::Chain { at, expected, found: block.header.previous });
            }
            Some(_) | None => {}
        }
        self.previous = Some(block.hash());
        self.at = block.header.next_position();
        Ok(Some(block))
    }
}
