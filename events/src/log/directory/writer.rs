//! The one writer of a log in a directory.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use super::super::{EventLog, Head, LogError, LogReader, Space};
use super::anchor::{Anchor, seal_of_all};
use super::create::initialise;
use super::disk::{Disk, RealDisk};
use super::engine::{ActiveSegment, Survey};
use super::keeper::Keeper;
use super::layout::{Layout, failed, foreign};
use super::view::End;
use super::{Options, Recovery, require_engine, store};
use crate::block::{Hash, SealedBlock};
use crate::id::Position;

/// The one writer of a log in a directory, whose segments are of the engine of `S`.
#[expect(private_bounds, reason = "engines are ours alone, so the trait is too")]
pub struct DirectoryLog<S: ActiveSegment> {
    layout: Layout,
    options: Options,
    disk: Box<dyn Disk>,
    keeper: Keeper,
    active: Option<S>,
    head: Head,
    /// Bytes in front of the last block in its segment.
    last_at: u64,
    /// Blocks appended since the last sync.
    unsynced: u32,
    /// All segments, the active one last.
    segments: Vec<Position>,
    /// Seals of all segments but the active one.
    seals: Vec<Hash>,
    shared: Arc<S::Shared>,
    /// What went wrong, once something did.
    poison: Option<String>,
    /// Held until the log is dropped, closed or not.
    _lock: File,
}

#[expect(private_bounds, reason = "engines are ours alone, so the trait is too")]
impl<S: ActiveSegment> DirectoryLog<S> {
    /// Opens the log in `dir` for writing, recovering from whatever happened to the process before.
    ///
    /// # Errors
    /// As [`super::open`], and [`LogError::OtherEngine`] for a log of another engine than this one.
    pub fn open(dir: &Path, options: Options) -> Result<(DirectoryLog<S>, Recovery), LogError> {
        DirectoryLog::open_on(dir, options, Box::new(RealDisk))
    }

    pub(in crate::log) fn open_on(
        dir: &Path,
        options: Options,
        disk: Box<dyn Disk>,
    ) -> Result<(DirectoryLog<S>, Recovery), LogError> {
        let layout = Layout::new(dir, S::ENGINE);
        if options.create {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create", dir))?;
        }
        match store::read(dir)? {
            Some(identity) => {
                require_engine(dir, identity.engine, options.engine.unwrap_or(S::ENGINE))?;
                require_engine(dir, identity.engine, S::ENGINE)?;
            }
            None if !options.create => return Err(LogError::NotFound { path: dir.to_owned() }),
            None if !layout.is_vacant()? => {
                return Err(foreign(dir, "it holds files and no log; name an empty or new directory"));
            }
            None => {}
        }
        let lock = store::lock(&layout)?;
        let created = store::read(dir)?.is_none();
        if created {
            initialise(&layout, disk.as_ref(), options.store_id, options.begin)?;
        }
        let (survey, found) = S::survey(&layout)?;
        let recovery = recovery(&survey, created);
        DirectoryLog::take_over(layout, options, disk, lock, survey, found).map(|log| (log, recovery))
    }

    fn take_over(
        layout: Layout,
        options: Options,
        disk: Box<dyn Disk>,
        lock: File,
        survey: Survey,
        found: S::Found,
    ) -> Result<DirectoryLog<S>, LogError> {
        let mut keeper = Keeper::open(&layout, survey.anchor)?;
        let sealed = survey.segments.split_last().map_or(&[][..], |(_, sealed)| sealed);
        let seals: Vec<_> = sealed.iter().map(|first| S::seal_of(&layout, *first)).collect::<Result<_, _>>()?;
        let (active, shared) = S::resume(&layout, disk.as_ref(), &survey, found)?;
        disk.sync_dir(&layout.log()).map_err(failed("sync", &layout.log()))?;
        let (head, last_at, sealed) = (survey.head, survey.last_at, seal_of_all(&seals));
        keeper.commit(disk.as_ref(), Anchor { head, last_at, sealed, loose: false, closed: false, ..survey.anchor })?;
        remove::<S>(&layout, disk.as_ref(), &survey.leftover)?;
        let (unsynced, poison, segments) = (0, None, survey.segments);
        Ok(DirectoryLog {
            layout,
            options,
            disk,
            keeper,
            active,
            head,
            last_at,
            unsynced,
            segments,
            seals,
            shared,
            poison,
            _lock: lock,
        })
    }

    fn usable(&self) -> Result<(), LogError> {
        match &self.poison {
            Some(reason) => Err(LogError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Lets a failed step be the last one: what it left on disk, only a new opening can tell.
    fn settle<T>(&mut self, result: Result<T, LogError>) -> Result<T, LogError> {
        result.inspect_err(|error| {
            let cause = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
            self.poison = Some(format!("{error}{cause}"));
        })
    }

    fn fits(&self, block: &SealedBlock) -> Result<(), LogError> {
        let (head, header) = (&self.head, &block.header);
        if header.first_position != head.next {
            return Err(LogError::Gap { expected: head.next, found: header.first_position });
        }
        if header.previous != head.hash {
            return Err(LogError::Chain { at: head.next, expected: head.hash, found: header.previous });
        }
        Ok(())
    }

    fn write(&mut self, block: &SealedBlock) -> Result<(), LogError> {
        let len = block.bytes.len() as u64;
        if self.active.as_ref().is_none_or(|active| active.is_full_for(len, &self.options)) {
            self.next_segment(block)?;
        }
        if self.unsynced > 0 && !self.keeper.current().loose {
            // From here on a power cut may leave this block and not the one before it, and recovery must know.
            self.keeper.commit(self.disk.as_ref(), Anchor { loose: true, ..*self.keeper.current() })?;
        }
        let Some(active) = &mut self.active else { return Ok(()) };
        let last_at = active.bytes();
        active.append(self.disk.as_ref(), block, &self.options)?;
        self.last_at = last_at;
        self.unsynced = self.unsynced.saturating_add(1);
        self.head = Head::after(block);
        Ok(())
    }

    /// Finishes the active segment, which makes all of it durable, and begins the next.
    fn next_segment(&mut self, block: &SealedBlock) -> Result<(), LogError> {
        if let Some(active) = &mut self.active {
            active.seal(self.disk.as_ref())?;
        }
        if self.unsynced > 0 {
            self.unsynced = 0;
            self.keeper.advance(self.disk.as_ref(), self.head, self.last_at)?;
        }
        self.active = Some(S::create(&self.shared, &self.layout, self.disk.as_ref(), block)?);
        if let Some(sealed) = self.segments.last() {
            self.seals.push(S::seal_of(&self.layout, *sealed)?);
            self.keeper.set_sealed(seal_of_all(&self.seals));
        }
        self.segments.push(self.head.next);
        Ok(())
    }

    fn make_durable(&mut self) -> Result<(), LogError> {
        if self.unsynced == 0 {
            return Ok(());
        }
        if let Some(active) = &mut self.active {
            active.sync(self.disk.as_ref())?;
        }
        self.unsynced = 0;
        self.keeper.advance(self.disk.as_ref(), self.head, self.last_at)
    }

    fn rest(&mut self) -> Result<(), LogError> {
        self.make_durable()?;
        if let Some(active) = &mut self.active {
            active.rest(self.disk.as_ref(), &self.options)?;
        }
        self.keeper.sync(self.disk.as_ref())
    }

    fn finish(&mut self) -> Result<(), LogError> {
        self.make_durable()?;
        if let Some(active) = &mut self.active {
            active.seal(self.disk.as_ref())?;
        }
        self.keeper.commit(
            self.disk.as_ref(),
            Anchor { head: self.head, last_at: self.last_at, loose: false, closed: true, ..*self.keeper.current() },
        )
    }

    /// Shows readers what is there.
    fn show(&self) {
        let offset = self.active.as_ref().map_or(0, ActiveSegment::bytes);
        S::publish(&self.shared, &self.segments, End::of(&self.head, offset));
    }

    fn drop_before(&mut self, keep_from: Position) -> Result<(), LogError> {
        self.make_durable()?;
        // The segment that holds `keep_from` stays, and the active one always does.
        let kept = self.segments.partition_point(|first| *first <= keep_from).saturating_sub(1);
        let Some(first) = self.segments.get(kept).copied().filter(|_| kept > 0) else { return Ok(()) };
        let base = if first == self.head.next { self.head } else { S::base_of(&self.layout, first)? };
        self.seals.drain(..kept);
        self.keeper.commit(self.disk.as_ref(), Anchor { base, sealed: seal_of_all(&self.seals), ..*self.keeper.current() })?;
        let dropped: Vec<_> = self.segments.drain(..kept).collect();
        self.show();
        remove::<S>(&self.layout, self.disk.as_ref(), &dropped)
    }
}

fn recovery(survey: &Survey, created: bool) -> Recovery {
    let anchor_was_behind = survey.anchor.head.next < survey.head.next;
    Recovery { created, store: survey.store, head: survey.head, cut: survey.torn, anchor_was_behind }
}

/// Takes segments away, the oldest first, so that what remains is always without a gap.
fn remove<S: ActiveSegment>(layout: &Layout, disk: &dyn Disk, segments: &[Position]) -> Result<(), LogError> {
    for first in segments {
        match S::remove(layout, disk, *first) {
            // Somebody was faster; gone is gone.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.map_err(failed("remove", &layout.segment(*first)))?,
        }
    }
    if segments.is_empty() { Ok(()) } else { disk.sync_dir(&layout.log()).map_err(failed("sync", &layout.log())) }
}

impl<S: ActiveSegment> EventLog for DirectoryLog<S> {
    fn head(&self) -> Head {
        self.head
    }

    fn append(&mut self, block: &SealedBlock) -> Result<(), LogError> {
        self.usable()?;
        self.fits(block)?;
        let written = self.write(block);
        self.settle(written)
    }

    fn sync(&mut self) -> Result<(), LogError> {
        self.usable()?;
        let synced = self.make_durable();
        self.settle(synced)?;
        self.show();
        Ok(())
    }

    fn publish(&mut self) -> Result<(), LogError> {
        self.usable()?;
        let handed_over = self.active.as_mut().map_or(Ok(()), ActiveSegment::hand_over);
        self.settle(handed_over)?;
        self.show();
        Ok(())
    }

    fn idle(&mut self) -> Result<(), LogError> {
        self.usable()?;
        let rested = self.rest();
        self.settle(rested)?;
        self.show();
        Ok(())
    }

    fn space(&self) -> Result<Space, LogError> {
        let found = rustix::fs::statvfs(&self.layout.dir).map_err(|error| failed("measure", &self.layout.dir)(error.into()))?;
        let free_bytes = found.f_bavail.saturating_mul(found.f_frsize);
        Ok(Space { free_bytes, low_water_bytes: self.options.low_water_bytes })
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        S::reader(&self.shared)
    }

    fn retain(&mut self, keep_from: Position) -> Result<Position, LogError> {
        self.usable()?;
        let dropped = self.drop_before(keep_from);
        self.settle(dropped)?;
        Ok(self.segments.first().copied().unwrap_or(self.head.next))
    }

    fn close(mut self: Box<Self>) -> Result<(), LogError> {
        self.usable()?;
        let finished = self.finish();
        self.settle(finished)?;
        self.show();
        Ok(())
    }
}
