//! Every call that the writer makes to its disk fails once, and nothing that was acknowledged is lost.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::*;
use super::prelude::*;
use super::{small, some_blocks};
use crate::block::SealedBlock;
use crate::log::conformance::read_all;
use crate::log::directory::disk::{Disk, RealDisk};

/// What the failing call does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    InputOutput,
    NoSpace,
    /// Half of the bytes are written first.
    ShortWrite,
}

/// A disk of which one call fails; it counts all of them.
struct FaultyDisk {
    calls: Arc<AtomicU32>,
    failing: u32,
    fault: Fault,
}

impl FaultyDisk {
    fn pass(&self) -> io::Result<()> {
        if self.calls.fetch_add(1, Ordering::Relaxed) + 1 != self.failing {
            return Ok(());
        }
        Err(match self.fault {
            Fault::InputOutput => rustix::io::Errno::IO.into(),
            Fault::NoSpace | Fault::ShortWrite => rustix::io::Errno::NOSPC.into(),
        })
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.pass()?;
        RealDisk.create(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.pass().inspect_err(|_| {
            if self.fault == Fault::ShortWrite {
                RealDisk.write_at(file, &bytes[..bytes.len() / 2], offset).unwrap();
            }
        })?;
        RealDisk.write_at(file, bytes, offset)
    }

    fn sync_data(&self, _: &File) -> io::Result<()> {
        self.pass()
    }

    fn sync_all(&self, _: &File) -> io::Result<()> {
        self.pass()
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        self.pass()?;
        RealDisk.set_len(file, len)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass()?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.pass()?;
        RealDisk.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.pass()?;
        RealDisk.remove_dir(path)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.pass()
    }
}

/// Writes all blocks with idling and retention in between; says how many were acknowledged, and the failed log.
fn write_until_failure(mut log: FileLog, blocks: &[SealedBlock]) -> (usize, Option<(FileLog, LogError)>) {
    for (index, block) in blocks.iter().enumerate() {
        let step = log.append(block).and_then(|()| if index % 3 == 0 { log.sync() } else { Ok(()) });
        let step = step.and_then(|()| if index % 10 == 9 { log.idle() } else { Ok(()) });
        let step = step.and_then(|()| if index == 30 { log.retain(log.head().next).map(|_| ()) } else { Ok(()) });
        if let Err(error) = step {
            return (acknowledged(&log, blocks), Some((log, error)));
        }
    }
    match Box::new(log).close() {
        Ok(()) => (blocks.len(), None),
        Err(_) => (blocks.len() / 10 * 10, None),
    }
}

fn acknowledged(log: &FileLog, blocks: &[SealedBlock]) -> usize {
    let next = log.reader().span().next;
    blocks.partition_point(|block| block.header.next_position() <= next)
}

fn assert_poisoned(mut log: FileLog, calls: &AtomicU32, block: &SealedBlock) {
    let before = calls.load(Ordering::Relaxed);
    assert!(matches!(log.append(block), Err(LogError::Poisoned { .. })));
    assert!(matches!(log.sync(), Err(LogError::Poisoned { .. })));
    assert!(matches!(log.idle(), Err(LogError::Poisoned { .. })));
    assert!(matches!(log.retain(Position(0)), Err(LogError::Poisoned { .. })));
    assert!(matches!(Box::new(log).close(), Err(LogError::Poisoned { .. })));
    assert_eq!(calls.load(Ordering::Relaxed), before, "a poisoned writer leaves the disk alone");
}

fn assert_recovers(dir: &Path, blocks: &[SealedBlock], acknowledged: usize, what: &str) {
    let (log, _) = FileLog::open(dir, small()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let first = log.reader().span().first;
    let read = read_all(log.reader().cursor(first).unwrap().as_mut()).unwrap();
    let from = blocks.partition_point(|block| block.header.first_position < first);
    assert!(from + read.len() >= acknowledged, "{what}: {acknowledged} were acknowledged, {} are there", from + read.len());
    for (read, written) in read.iter().zip(&blocks[from..]) {
        assert!(read.hash() == written.hash, "{what}: bytes differ");
    }
}

fn fail_every_call(fault: Fault) {
    let blocks = some_blocks(50);
    for failing in 1.. {
        let what = format!("{fault:?} at call {failing}");
        let dir = tempfile::tempdir().unwrap();
        let calls = Arc::new(AtomicU32::new(0));
        let disk = FaultyDisk { calls: Arc::clone(&calls), failing, fault };
        let acknowledged = match FileLog::open_on(dir.path(), small(), Box::new(disk)) {
            Ok((log, _)) => {
                let (acknowledged, failed) = write_until_failure(log, &blocks);
                if let Some((log, error)) = failed {
                    let full = matches!(error, LogError::Full { .. });
                    assert!(
                        full != matches!(error, LogError::Io { .. }) && full == (fault != Fault::InputOutput),
                        "{what}: {error}"
                    );
                    assert_poisoned(log, &calls, &blocks[0]);
                }
                acknowledged
            }
            Err(LogError::Io { .. } | LogError::Full { .. }) => 0,
            Err(error) => panic!("{what}: {error}"),
        };
        assert_recovers(dir.path(), &blocks, acknowledged, &what);
        if calls.load(Ordering::Relaxed) < failing {
            assert!(failing > 100, "the run has many calls");
            return;
        }
    }
}

#[test]
fn an_input_output_error_at_any_call_poisons_the_writer_and_loses_nothing_acknowledged() {
    fail_every_call(Fault::InputOutput);
}

#[test]
fn a_full_disk_at_any_call_poisons_the_writer_and_loses_nothing_acknowledged() {
    fail_every_call(Fault::NoSpace);
}

#[test]
fn a_short_write_at_any_call_poisons_the_writer_and_loses_nothing_acknowledged() {
    fail_every_call(Fault::ShortWrite);
}
