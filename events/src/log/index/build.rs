//! Building sidecars: for ranges that have none, and behind the newest one as the log grows.

use super::{Source, TailIndex, TaskIndex, TypeNames, Unusable};
use crate::id::Position;
use crate::log::index::sidecar::Sidecar;
use crate::log::{LogError, Span};

/// A range is cut in two sidecars where its index needs more memory than this, in bytes: half a million events of short tasks. Twice
/// as much may be allocated, and as much again is packed when it is written.
const TAIL_BYTES_MAX: usize = 6 << 20;
/// A sidecar of fewer events than this is built again together with what follows, so that many short runs of a process do not
/// leave many small files.
const RANGE_EVENTS_MIN: u64 = 256 << 10;

/// A short sidecar is built again for this part of it in new events, or more.
const JOINED_PART: u64 = 16;

/// Whether whoever builds may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// There is time.
    GoOn,
    /// What is not written yet is given up.
    Stop,
}

impl TaskIndex {
    /// Builds what is missing of the indexes of these ranges, and tells `progress` how far it is.
    ///
    /// # Errors
    /// What the log meets, and [`LogError::Full`], [`LogError::Io`] for an index that cannot be written; the log stays usable.
    pub fn build_missing(&self, ranges: &[Span], progress: &mut dyn FnMut(Position)) -> Result<(), LogError> {
        for range in ranges {
            for gap in self.gaps(*range)? {
                let go_on = &mut |at| {
                    progress(at);
                    Pace::GoOn
                };
                self.build(gap, go_on)?;
            }
        }
        Ok(())
    }

    /// Builds what is missing of the index of all that the log holds before `until`, which is best where a block ends. The last
    /// part is left out where it has fewer than `least` events, or would take many more with it. `pace` is asked at every block and told how far it is.
    ///
    /// # Errors
    /// As [`TaskIndex::build_missing`].
    pub fn extend(&self, until: Position, least: u64, pace: &mut dyn FnMut(Position) -> Pace) -> Result<(), LogError> {
        self.discard();
        for gap in self.gaps(Span { first: Position(0), next: until })? {
            let is_last = gap.next == until;
            let first = if is_last { self.joined(gap.first) } else { gap.first };
            if is_last && gap.next.0 - gap.first.0 < least.max((gap.first.0 - first.0) / JOINED_PART) {
                break;
            }
            if self.build(Span { first, ..gap }, pace)? == Pace::Stop {
                break;
            }
        }
        Ok(())
    }

    /// Where the part of the log begins that has no sidecars yet, at its end.
    ///
    /// # Errors
    /// What the log meets.
    pub fn reaches(&self) -> Result<Position, LogError> {
        let span = self.reader.span();
        let sources = self.sources(span, None)?;
        Ok(sources.last().filter(|(_, source)| matches!(source, Source::Log)).map_or(span.next, |(part, _)| part.first))
    }

    /// The parts of a range that the log holds and no sidecar covers.
    fn gaps(&self, range: Span) -> Result<Vec<Span>, LogError> {
        let log = self.reader.span();
        let span = Span { first: range.first.max(log.first), next: range.next.min(log.next) };
        let sources = self.sources(span, None)?.into_iter();
        Ok(sources.filter(|(_, source)| matches!(source, Source::Log)).map(|(gap, _)| gap).collect())
    }

    /// Takes away what lies in the place of sidecars and is none, or none of this log: what is built may have other names.
    fn discard(&self) {
        let mut known = self.known();
        for aside in std::mem::take(&mut known.set_aside) {
            let unreadable = matches!(*aside.reason, Unusable::Io(_));
            if unreadable || std::fs::remove_file(&aside.path).is_err() {
                known.set_aside.push(aside);
            }
        }
    }

    /// Where a new range begins that would begin at `first`, if it takes in the one before because that is short.
    fn joined(&self, first: Position) -> Position {
        let span = self.known().ending(first).map(|before| before.span());
        let short = span.filter(|span| span.next.0 - span.first.0 < RANGE_EVENTS_MIN);
        short.map_or(first, |span| span.first).max(self.reader.span().first)
    }

    fn build(&self, gap: Span, pace: &mut dyn FnMut(Position) -> Pace) -> Result<Pace, LogError> {
        let mut tail = TailIndex::knowing(gap.first, self.names_before(gap.first));
        let mut cursor = self.reader.cursor(gap.first)?;
        while tail.span().next < gap.next {
            let Some(block) = cursor.next_block()? else { break };
            if tail.bytes() >= TAIL_BYTES_MAX {
                self.save(&mut tail)?;
                tail = TailIndex::knowing(tail.span().next, tail.names().clone());
            }
            tail.add_block(&block, &mut |task| self.type_of(task))?;
            if pace(tail.span().next) == Pace::Stop {
                return Ok(Pace::Stop);
            }
        }
        self.save(&mut tail)?;
        Ok(Pace::GoOn)
    }

    /// The types that are known to be defined before a range.
    fn names_before(&self, first: Position) -> TypeNames {
        let before = self.known().ending(first);
        before.map_or_else(|| TypeNames::new(first == Position(0)), |before| before.names().clone())
    }

    /// Writes the sidecar of a range and uses it from here on; an empty range has none.
    ///
    /// # Errors
    /// [`LogError::Full`], [`LogError::Io`]; the tail still answers then.
    pub fn save(&self, tail: &mut TailIndex) -> Result<(), LogError> {
        let Some(parts) = tail.parts() else { return Ok(()) };
        let first = parts.span.first;
        let path = Sidecar::write(&self.folder, self.store_id, &parts)?;
        let opened = Sidecar::open(&path, first, self.store_id);
        let mut known = self.known();
        known.forget(&path);
        known.add(path, opened);
        Ok(())
    }
}
