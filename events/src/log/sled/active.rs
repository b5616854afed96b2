//! The newest database, which is written.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::super::directory::chain::Chain;
use super::super::directory::disk::{Disk, RealDisk};
use super::super::directory::engine::{ActiveSegment, Follow, Survey};
use super::super::directory::layout::{Layout, failed, foreign, open_file};
use super::super::directory::view::End;
use super::super::directory::{Engine, Options};
use super::super::{Head, LogError, LogReader};
use super::database::Database;
use super::databases::Databases;
use super::reader::{SledReader, Walk};
use super::recover::{self, Newest};
use super::{ballast, first};
use crate::block::{Hash, SealedBlock};
use crate::id::Position;

/// Bytes that sled takes on disk for each byte of a block, in eighths: measured 1.5 to 1.7, for it writes leaves anew as they fill.
const DISK_BYTES_PER_EIGHT: u64 = 13;

/// The newest database.
pub(in crate::log) struct Active {
    shared: Arc<Databases>,
    database: Arc<Database>,
    /// A second handle on sled's file, for the sync that sled's own flush is not.
    file: File,
    path: std::path::PathBuf,
    bytes: u64,
}

impl Active {
    fn new(shared: &Arc<Databases>, database: Arc<Database>, bytes: u64) -> Result<Active, LogError> {
        let path = database.file();
        let file = open_file(&path, true)?.ok_or_else(|| foreign(&path, "it vanished while the log was opened"))?;
        Ok(Active { shared: Arc::clone(shared), database, file, path, bytes })
    }

    /// Makes the file and every name in the folder durable.
    fn sync_all(&self, disk: &dyn Disk) -> Result<(), LogError> {
        let (folder, blobs) = (&self.database.path, self.database.path.join("blobs"));
        self.database.flush()?;
        disk.sync_all(&self.file).map_err(failed("sync", &self.path))?;
        disk.sync_dir(&blobs).map_err(failed("sync", &blobs))?;
        disk.sync_dir(folder).map_err(failed("sync", folder))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.shared.settle(self.database.first);
    }
}

impl ActiveSegment for Active {
    const ENGINE: Engine = Engine::Sled;
    type Shared = Databases;
    type Found = (Arc<Databases>, Option<Newest>);

    fn survey(layout: &Layout) -> Result<(Survey, Self::Found), LogError> {
        let shared = Databases::written(layout);
        let (survey, newest) = recover::survey(&shared)?;
        Ok((survey, (shared, newest)))
    }

    fn resume(
        layout: &Layout,
        disk: &dyn Disk,
        survey: &Survey,
        (shared, newest): Self::Found,
    ) -> Result<(Option<Active>, Arc<Databases>), LogError> {
        ballast::hold(layout);
        let bytes = newest.as_ref().map_or(0, |newest| newest.bytes);
        shared.open_to_readers(survey.view(bytes));
        let Some(newest) = newest else { return Ok((None, shared)) };
        if let Some(torn) = survey.torn {
            newest.database.cut(torn.at)?;
        }
        let active = Active::new(&shared, newest.database, bytes)?;
        active.sync_all(disk)?;
        Ok((Some(active), shared))
    }

    fn create(shared: &Arc<Databases>, layout: &Layout, disk: &dyn Disk, block: &SealedBlock) -> Result<Active, LogError> {
        let at = block.header.first_position;
        let path = layout.segment(at);
        let database = Database::create(&path, at)?;
        first::write(&path, disk, &block.header)?;
        let active = Active::new(shared, shared.adopt(database), 0)?;
        active.sync_all(disk)?;
        disk.sync_dir(&layout.log()).map_err(failed("sync", &layout.log()))?;
        Ok(active)
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn is_full_for(&self, bytes: u64, options: &Options) -> bool {
        self.bytes > 0 && (self.bytes + bytes) * DISK_BYTES_PER_EIGHT / 8 > options.segment_bytes
    }

    fn append(&mut self, _: &dyn Disk, block: &SealedBlock, _: &Options) -> Result<(), LogError> {
        self.database.insert(block)?;
        self.bytes += block.bytes.len() as u64;
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), LogError> {
        self.database.flush()
    }

    fn sync(&mut self, disk: &dyn Disk) -> Result<(), LogError> {
        self.hand_over()?;
        disk.sync_data(&self.file).map_err(failed("sync", &self.path))
    }

    fn rest(&mut self, _: &dyn Disk, _: &Options) -> Result<(), LogError> {
        Ok(())
    }

    fn seal(&mut self, disk: &dyn Disk) -> Result<(), LogError> {
        self.sync_all(disk)
    }

    fn publish(shared: &Databases, segments: &[Position], end: End) {
        shared.view.advance(segments, end);
    }

    fn reader(shared: &Arc<Databases>) -> Arc<dyn LogReader> {
        Arc::new(SledReader::new(Arc::clone(shared)))
    }

    fn base_of(layout: &Layout, first: Position) -> Result<Head, LogError> {
        recover::base_of(&Databases::here(layout), first)
    }

    /// Its readers look at no sealed database before they read it.
    fn seal_of(_: &Layout, _: Position) -> Result<Hash, LogError> {
        Ok(Hash::ZERO)
    }

    fn remove(layout: &Layout, disk: &dyn Disk, first: Position) -> io::Result<()> {
        Databases::here(layout).forget(first);
        disk.remove_dir(&layout.segment(first))
    }

    fn follow(layout: &Layout, first: Position, chain: &mut Chain) -> Result<Follow, LogError> {
        let database = match Databases::here(layout).get(first) {
            Err(LogError::Unusable { .. }) => return Ok(Follow::Broken(0)),
            opened => opened?,
        };
        let scan = recover::scan(&database, chain)?;
        Ok(if scan.stop.is_some() { Follow::Broken(scan.bytes) } else { Follow::Whole })
    }

    fn evidence(
        layout: &Layout,
        segments: &[Position],
        _: u64,
        anchored: Position,
        found: Position,
    ) -> Result<Position, LogError> {
        recover::evidence(&Databases::here(layout), segments, anchored, found)
    }

    fn hash_before(layout: &Layout, segments: &[Position], at: Position, head: Head) -> Result<Option<Hash>, LogError> {
        recover::hash_before(&Databases::here(layout), segments, at, head)
    }

    fn keep_beginning(layout: &Layout, first: Position, aside: &Path, _: u64, next: Position) -> Result<(), LogError> {
        let path = layout.segment(first);
        let draft = path.with_extension("tmp");
        match std::fs::remove_dir_all(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace", &draft)(error)),
            Ok(()) | Err(_) => {}
        }
        copy_until(layout, &draft, first, next)?;
        std::fs::rename(&path, aside).map_err(failed("set aside", &path))?;
        RealDisk.rename(&draft, &path).map_err(failed("replace", &path))
    }
}

/// Copies the blocks before `next` into a new database, durably.
fn copy_until(layout: &Layout, draft: &Path, first: Position, next: Position) -> Result<(), LogError> {
    let shared = Databases::here(layout);
    let source = shared.get(first)?;
    let copy = Database::create(draft, first)?;
    let mut walk = Walk::new(Arc::clone(&source), first);
    let mut at = first;
    while at < next
        && let Some((header, bytes)) = walk.next_bytes(at, next)?
    {
        if at == first {
            first::write(draft, &RealDisk, &header)?;
        }
        copy.insert_bytes(at, &bytes)?;
        at = header.next_position();
    }
    Active::new(&shared, Arc::new(copy), 0)?.sync_all(&RealDisk)
}
