//! What the sled backend does beyond the conformance suite: what sled alone gets wrong, and what is left of a log after it.

mod faults;
mod plain;
mod repair;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use self::prelude::*;
use super::*;

/// What every test here uses beside the engine's own names.
mod prelude {
    pub(super) use crate::block::SealedBlock;
    pub(super) use crate::id::Position;
    pub(super) use crate::log::conformance::{self, Filler, Harness, assert_holds, write};
    pub(super) use crate::log::directory::layout::Layout;
    pub(super) use crate::log::directory::{CutTail, Engine, Options, StoreId};
    pub(super) use crate::log::{EventLog, LogError};
}

/// Small databases, so that some dozen blocks make several.
fn small() -> Options {
    Options { create: true, segment_bytes: 24 << 10, low_water_bytes: 0, store_id: Some(StoreId([7; 16])), ..Options::default() }
}

struct Folder(tempfile::TempDir, Options);

impl Harness for Folder {
    fn open(&mut self) -> Box<dyn EventLog> {
        Box::new(SledLog::open(self.0.path(), self.1.clone()).unwrap().0)
    }

    fn is_durable(&self) -> bool {
        true
    }
}

#[test]
fn the_sled_log_conforms_with_small_databases() {
    conformance::run(&mut || Box::new(Folder(tempfile::tempdir().unwrap(), small())));
}

#[test]
fn the_sled_log_conforms_with_default_databases() {
    let options = Options { create: true, ..Options::default() };
    conformance::run(&mut || Box::new(Folder(tempfile::tempdir().unwrap(), options.clone())));
}

/// What docs/log-format.md says to whoever reads the databases with a sled of their own.
/// A database opened by other means. It has no thread that flushes, for that one may hold its lock for a moment longer; sled's other threads may
/// do so, too, after the log is closed.
fn foreign(database: &Path) -> sled::Db {
    let open = || sled::Config::new().path(database).flush_every_ms(None).open();
    let is_locked = |error: &sled::Error| error.to_string().contains("acquire lock");
    // Ten seconds.
    for _ in 0..1_000 {
        match open() {
            Err(error) if is_locked(&error) => std::thread::sleep(std::time::Duration::from_millis(10)),
            opened => return opened.unwrap(),
        }
    }
    open().unwrap()
}

#[test]
fn blocks_lie_there_as_the_page_says() {
    let (dir, blocks) = log_of(30);
    let (mut found, mut filler) = (Vec::new(), Filler::new(8));
    let (mut log, _) = SledLog::open(dir.path(), small()).unwrap();
    let large = Filler::after(&log.head(), filler.random()).block(3, 20_000);
    write(&mut log, std::slice::from_ref(&large));
    Box::new(log).close().unwrap();
    for database in databases(dir.path()) {
        let tree = foreign(&database).open_tree("blocks").unwrap();
        for entry in tree.iter() {
            let (key, chunk) = entry.unwrap();
            let (position, number) = (&key[..8], u16::from_be_bytes([key[8], key[9]]));
            match number {
                0 => found.push((position.to_vec(), chunk.to_vec())),
                _ => found.last_mut().unwrap().1.extend_from_slice(&chunk),
            }
            assert!(chunk.len() <= 7_000);
        }
    }
    let written = blocks.iter().chain([&large]);
    let written: Vec<_> =
        written.map(|block| (block.header.first_position.0.to_be_bytes().to_vec(), block.bytes.clone())).collect();
    assert!(found == written);
}

/// A closed log with this many blocks of about a kilobyte, each synced on its own.
fn log_of(count: usize) -> (tempfile::TempDir, Vec<SealedBlock>) {
    let dir = tempfile::tempdir().unwrap();
    let blocks = Filler::new(42).blocks(count);
    let (mut log, _) = SledLog::open(dir.path(), small()).unwrap();
    for block in &blocks {
        write(&mut log, std::slice::from_ref(block));
    }
    Box::new(log).close().unwrap();
    (dir, blocks)
}

/// The folders of all databases, in order.
fn databases(dir: &Path) -> Vec<PathBuf> {
    let layout = Layout::new(dir, Engine::Sled);
    layout.segments().unwrap().into_iter().map(|first| layout.segment(first)).collect()
}

fn cut_file(path: &Path, len: impl Fn(u64) -> u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(len(file.metadata().unwrap().len())).unwrap();
}

/// Flips one bit where there is something.
fn flip_bit(path: &Path, seed: u64) {
    let mut bytes = fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64 + 1;
    let bit = Filler::new(seed).random() % (used * 8);
    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    fs::write(path, bytes).unwrap();
}

/// Puts a file back as it was, and takes away what sled has made beside it meanwhile.
fn restore(file: &Path, bytes: &[u8]) {
    fs::write(file, bytes).unwrap();
    for entry in file.parent().unwrap().read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains("snap.")) {
            fs::remove_file(path).unwrap();
        }
    }
}

/// A copy of a log on Kafka begins where a snapshot was taken; what lies before it stays in the topic.
#[test]
fn a_log_may_begin_behind_what_another_copy_has() {
    use crate::block::Hash;
    use crate::id::Ordinal;
    use crate::log::{Head, Span};
    use crate::time::Timestamp;
    let dir = tempfile::tempdir().unwrap();
    let begin = Head { next: Position(70), next_ordinal: Ordinal(9), hash: Hash([3; 32]), last_time: Timestamp(5) };
    let options = Options { begin, ..small() };
    let open = || SledLog::open(dir.path(), options.clone()).unwrap().0;
    assert_eq!(open().head(), begin);
    let mut log = open();
    assert_eq!((log.head(), log.reader().span()), (begin, Span { first: Position(70), next: Position(70) }));
    let blocks = Filler::after(&begin, 1).blocks(20);
    write(&mut log, &blocks);
    Box::new(log).close().unwrap();
    let log = open();
    assert_eq!(log.head(), Head::after(blocks.last().unwrap()));
    assert_eq!(log.reader().hash_before(Position(70)).unwrap(), Some(begin.hash));
    let mut cursor = log.reader().cursor(Position(70)).unwrap();
    assert_eq!(cursor.next_block().unwrap().unwrap().hash(), blocks[0].hash);
    assert!(matches!(log.reader().cursor(Position(0)), Err(LogError::Gone { .. })));
}
