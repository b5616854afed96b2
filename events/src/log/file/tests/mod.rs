//! What the file backend does beyond the conformance suite: recovery, faults, damage.
#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use super::super::conformance::{self, Harness};
use super::*;

/// Small segments, so that a few blocks make several.
fn small() -> FileOptions {
    FileOptions {
        create: true,
        segment_bytes: 16 << 10,
        prealloc_bytes: 4 << 10,
        low_water_bytes: 0,
        store_id: Some(StoreId([7; 16])),
    }
}

struct Folder(tempfile::TempDir, FileOptions);

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
    let options = FileOptions { create: true, ..FileOptions::default() };
    conformance::run(&mut || Box::new(Folder(tempfile::tempdir().unwrap(), options.clone())));
}
