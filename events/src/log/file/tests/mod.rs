//! What the file backend does beyond the conformance suite: recovery, faults, damage.

mod damage;
mod faults;
mod hostile;
mod power;
mod recovery;
mod repair;

use std::io::Write;
use std::path::{Path, PathBuf};

use self::prelude::*;
use super::super::conformance::{self, Filler, Harness, write};
use super::*;

/// What every test here uses beside the engine's own names.
mod prelude {
    pub(super) use std::fs::File;

    pub(super) use crate::log::directory::{CutTail, StoreId, anchor};
    pub(super) use crate::log::{EventLog, LogError};
}

/// Small segments, so that a few blocks make several.
fn small() -> Options {
    Options {
        create: true,
        engine: None,
        segment_bytes: 6 << 10,
        prealloc_bytes: 4 << 10,
        low_water_bytes: 0,
        store_id: Some(StoreId([7; 16])),
        ..Options::default()
    }
}

struct Folder(tempfile::TempDir, Options);

impl Harness for Folder {
    fn open(&mut self) -> Box<dyn EventLog> {
        Box::new(FileLog::open(self.0.path(), self.1.clone()).unwrap().0)
    }

    fn is_durable(&self) -> bool {
        true
    }
}

#[test]
fn the_file_log_conforms_with_small_segments() {
    conformance::run(&mut || Box::new(Folder(tempfile::tempdir().unwrap(), small())));
}

#[test]
fn the_file_log_conforms_with_default_segments() {
    let options = Options { create: true, ..Options::default() };
    conformance::run(&mut || Box::new(Folder(tempfile::tempdir().unwrap(), options.clone())));
}

/// Blocks of about a kilobyte each.
fn some_blocks(count: usize) -> Vec<SealedBlock> {
    Filler::new(42).blocks(count)
}

/// A closed store with this many blocks, each synced on its own.
fn store_of(count: usize) -> (tempfile::TempDir, Vec<SealedBlock>) {
    let dir = tempfile::tempdir().unwrap();
    let blocks = some_blocks(count);
    let (mut log, _) = FileLog::open(dir.path(), small()).unwrap();
    for block in &blocks {
        write(&mut log, std::slice::from_ref(block));
    }
    Box::new(log).close().unwrap();
    (dir, blocks)
}

fn reopen(dir: &Path) -> FileLog {
    FileLog::open(dir, small()).unwrap().0
}

/// All segment files, in order.
fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let layout = Layout::new(dir, Engine::File);
    layout.segments().unwrap().into_iter().map(|first| layout.segment(first)).collect()
}

fn last_segment(dir: &Path) -> PathBuf {
    segment_files(dir).pop().unwrap()
}

fn append_bytes(path: &Path, bytes: &[u8]) {
    File::options().append(true).open(path).unwrap().write_all(bytes).unwrap();
}
