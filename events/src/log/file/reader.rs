//! Reading: any number of readers, each with its own file handles and its own megabyte.

use std::path::Path;
use std::sync::Arc;

use super::super::directory::layout::Layout;
use super::super::directory::view::View;
use super::super::directory::{Engine, identity, require_engine};
use super::super::{Cursor, LogError, LogReader, Span};
use super::index::{Mark, first_mark};
use super::segment::{READ_BYTES, SKIP_BYTES, Segment, Window};
use super::shared::{Shared, lock};
use crate::block::{Block, BlockError, Hash};
use crate::id::{Ordinal, Position};
use crate::time::Timestamp;

/// Reads a log of segment files, beside a writer in this process, in another one, or without any.
#[derive(Debug)]
pub struct FileReader {
    shared: Arc<Shared>,
}

impl FileReader {
    /// Opens the log in `dir` without its lock and without changing anything.
    ///
    /// Whatever follows the last valid block behind the anchor is not there yet: another process may be writing it. Blocks that are
    /// there may be read before their writer has synced them.
    ///
    /// # Errors
    /// [`LogError::NotFound`], [`LogError::Missing`], [`LogError::Damaged`], [`LogError::Chain`], [`LogError::Anchor`],
    /// [`LogError::Foreign`], [`LogError::FormatTooNew`], [`LogError::Io`].
    pub fn open(dir: &Path) -> Result<FileReader, LogError> {
        require_engine(dir, identity(dir)?.engine, Engine::File)?;
        Ok(FileReader { shared: Arc::new(Shared::followed(&Layout::new(dir, Engine::File))?) })
    }

    pub(super) const fn new(shared: Arc<Shared>) -> FileReader {
        FileReader { shared }
    }

    /// The last block of which `before` is true, and the segment that holds it.
    fn last_where(&self, view: &View, before: &dyn Fn(&Mark) -> bool) -> Result<Option<(Segment, Mark)>, LogError> {
        let holding = &view.segments[..view.segments.partition_point(|first| *first < view.end.next)];
        let (mut low, mut high) = (0, holding.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let segment = require(&self.shared, holding[middle])?;
            match first_mark(&segment, u64::MAX)?.is_some_and(|mark| before(&mark)) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let Some(first) = low.checked_sub(1).map(|index| holding[index]) else { return Ok(None) };
        let segment = require(&self.shared, first)?;
        let limit = limit(view, &segment)?;
        let found = lock(&self.shared.index(first)).last_where(&segment, limit, before)?;
        Ok(found.map(|mark| (segment, mark)))
    }

    fn block(&self, segment: &Segment, mark: &Mark) -> Result<Block, LogError> {
        let read = Window::new(SKIP_BYTES).block(&segment.file, mark.offset, u64::MAX);
        read.map_err(|error| segment.error(mark.position, mark.offset, error))
    }
}

/// Opens a segment that belongs to the log; where it is gone, retention was faster.
fn require(shared: &Shared, first: Position) -> Result<Segment, LogError> {
    let gone = || LogError::Gone { at: first, first: shared.span().first };
    Segment::open(&shared.layout, first)?.ok_or_else(gone)
}

/// Where the blocks of a segment end: the published end in the last one, the end of the file in all others.
fn limit(view: &View, segment: &Segment) -> Result<u64, LogError> {
    if view.segments.last() == Some(&segment.first) { Ok(view.end.offset) } else { segment.len() }
}

impl LogReader for FileReader {
    fn span(&self) -> Span {
        // A failing refresh leaves what was known; the next cursor meets the same failure and can report it.
        let _ = self.shared.refresh();
        self.shared.span()
    }

    fn cursor(&self, from: Position) -> Result<Box<dyn Cursor>, LogError> {
        self.shared.refresh()?;
        let view = self.shared.view();
        if from < view.first() {
            return Err(LogError::Gone { at: from, first: view.first() });
        }
        if from > view.end.next {
            return Err(LogError::Beyond { at: from, next: view.end.next });
        }
        let mut cursor = FileCursor::new(Arc::clone(&self.shared), from);
        if from < view.end.next
            && let Some((segment, mark)) = self.last_where(&view, &|mark| mark.position <= from)?
        {
            cursor.place(segment, &mark);
        }
        Ok(Box::new(cursor))
    }

    fn seek_time(&self, time: Timestamp) -> Result<Position, LogError> {
        self.shared.refresh()?;
        let view = self.shared.view();
        // The block after this one begins at or after `time`, so it or this one is the answer.
        let Some((segment, mark)) = self.last_where(&view, &|mark| mark.time < time)? else { return Ok(view.first()) };
        let block = self.block(&segment, &mark)?;
        let mut last_time = block.header.first_time;
        for record in block.records() {
            last_time = record.map_err(|error| segment.error(mark.position, mark.offset, error))?.recorded_at;
        }
        Ok(if last_time >= time { mark.position } else { block.header.next_position() })
    }

    fn seek_task(&self, task: Ordinal) -> Result<Option<Position>, LogError> {
        self.shared.refresh()?;
        let view = self.shared.view();
        if task >= view.end.next_ordinal {
            return Ok(None);
        }
        Ok(self.last_where(&view, &|mark| mark.ordinal <= task)?.map(|(_, mark)| mark.position))
    }
}

/// Walks over the blocks of a log, verifying each against the one before it.
struct FileCursor {
    shared: Arc<Shared>,
    /// Position of the next block; before the first block is found, any position within it.
    at: Position,
    segment: Option<Segment>,
    offset: u64,
    /// Hash of the block before, once there was one.
    previous: Option<Hash>,
    window: Window,
}

impl FileCursor {
    const fn new(shared: Arc<Shared>, at: Position) -> FileCursor {
        FileCursor { shared, at, segment: None, offset: 0, previous: None, window: Window::new(READ_BYTES) }
    }

    fn place(&mut self, segment: Segment, mark: &Mark) {
        self.segment = Some(segment);
        self.offset = mark.offset;
        self.at = mark.position;
        self.window.reset();
    }

    /// The end of what may be read, looking for news only where the known part is used up.
    fn view(&self) -> Result<View, LogError> {
        let view = self.shared.view();
        if self.at < view.end.next {
            return Ok(view);
        }
        self.shared.refresh()?;
        Ok(self.shared.view())
    }

    /// Goes on to the segment that begins with the next block, if there is one.
    fn enter(&mut self, view: &View) -> Result<(), LogError> {
        if self.segment.as_ref().is_some_and(|segment| segment.first == self.at) || view.segments.binary_search(&self.at).is_err()
        {
            return Ok(());
        }
        let segment = require(&self.shared, self.at)?;
        self.segment = Some(segment);
        self.offset = 0;
        self.window.reset();
        Ok(())
    }

    /// Finds the block at a cursor that was created at the end of the log.
    fn locate(&mut self, view: &View) -> Result<(), LogError> {
        let reader = FileReader { shared: Arc::clone(&self.shared) };
        let at = self.at;
        match reader.last_where(view, &|mark| mark.position <= at)? {
            Some((segment, mark)) => self.place(segment, &mark),
            None => return Err(LogError::Gone { at, first: view.first() }),
        }
        Ok(())
    }

    fn read(&mut self, view: &View) -> Result<Block, LogError> {
        let (at, offset) = (self.at, self.offset);
        let Some(segment) = &self.segment else { return Err(LogError::Beyond { at, next: view.end.next }) };
        // Zeros behind the published end may become blocks, so they must not be read ahead; other segments are complete.
        let growing = view.segments.last() == Some(&segment.first);
        let limit = if growing { view.end.offset } else { u64::MAX };
        let read = self.window.block(&segment.file, offset, limit);
        let block = read.map_err(|error| segment.error(at, offset, error))?;
        if block.header.first_position != at {
            return Err(segment.error(at, offset, BlockError::Header("its position does not follow the block before it")));
        }
        match self.previous {
            Some(expected) if expected != block.header.previous => {
                Err(LogError::Chain { at, expected, found: block.header.previous })
            }
            Some(_) | None => Ok(block),
        }
    }
}

impl Cursor for FileCursor {
    fn next_block(&mut self) -> Result<Option<Block>, LogError> {
        let view = self.view()?;
        if self.at >= view.end.next {
            return Ok(None);
        }
        self.enter(&view)?;
        if self.segment.is_none() {
            self.locate(&view)?;
        }
        let block = self.read(&view)?;
        self.previous = Some(block.hash());
        self.at = block.header.next_position();
        self.offset += block.header.block_len() as u64;
        Ok(Some(block))
    }
}
