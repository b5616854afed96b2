//! The power fails at random moments: of what was not synced, any sectors may be lost, in any order.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::super::*;
use super::prelude::*;
use super::small;
use crate::log::conformance::{Filler, assert_holds};
use crate::log::directory::disk::{Disk, RealDisk};

const SECTOR_BYTES: usize = 512;

/// A change that is in the page cache only.
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

/// What the platter has and what it has not yet, by inode. Names are durable at once, which journals grant in this order.
#[derive(Default)]
struct Platter {
    durable: BTreeMap<u64, Vec<u8>>,
    pending: BTreeMap<u64, Vec<Change>>,
}

impl Platter {
    fn note(&mut self, file: &File, change: Change) {
        self.pending.entry(file.metadata().unwrap().ino()).or_default().push(change);
    }

    fn sync(&mut self, file: &File) {
        let inode = file.metadata().unwrap().ino();
        let content = self.durable.entry(inode).or_default();
        self.pending.remove(&inode).into_iter().flatten().for_each(|change| change.apply(content, &mut || true));
    }

    /// What is left of a file when the power fails.
    fn after_failure(&mut self, path: &Path, random: &mut Filler) -> Vec<u8> {
        let inode = fs::metadata(path).unwrap().ino();
        let mut content = self.durable.remove(&inode).unwrap_or_default();
        let survivors = random.random() % 5;
        for change in self.pending.remove(&inode).into_iter().flatten() {
            change.apply(&mut content, &mut || random.random() % 4 < survivors);
        }
        content
    }
}

impl Change {
    fn apply(self, content: &mut Vec<u8>, survives: &mut dyn FnMut() -> bool) {
        match self {
            Change::Cut(len) if survives() => content.resize(len, 0),
            Change::Cut(_) => {}
            Change::Write(offset, bytes) => {
                let mut at = 0;
                while at < bytes.len() {
                    let end = bytes.len().min(at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES);
                    if survives() {
                        content.resize(content.len().max(offset + end), 0);
                        content[offset + at..offset + end].copy_from_slice(&bytes[at..end]);
                    }
                    at = end;
                }
            }
        }
    }
}

struct PowerDisk(Arc<Mutex<Platter>>);

impl Disk for PowerDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        let file = RealDisk.create(path)?;
        let mut platter = self.0.lock().unwrap();
        // An inode may have belonged to a file that is gone.
        platter.durable.insert(file.metadata()?.ino(), Vec::new());
        platter.pending.remove(&file.metadata()?.ino());
        Ok(file)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.lock().unwrap().note(file, Change::Write(offset as usize, bytes.to_vec()));
        RealDisk.write_at(file, bytes, offset)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.0.lock().unwrap().sync(file);
        Ok(())
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        self.sync_data(file)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().note(file, Change::Cut(len as usize));
        RealDisk.set_len(file, len)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// Appends up to 60 blocks, `batch` at most between two syncs, until the power fails; says how many were synced.
fn write_until_dark(dir: &Path, disk: PowerDisk, random: &mut Filler, batch: u64) -> (Vec<SealedBlock>, usize) {
    let (mut log, _) = FileLog::open_on(dir, small(), Box::new(disk)).unwrap();
    let (mut blocks, mut synced) = (Vec::new(), 0);
    let mut filler = Filler::after(&log.head(), random.random());
    for _ in 0..random.random() % 60 {
        for block in filler.blocks((random.random() % batch + 1) as usize) {
            log.append(&block).unwrap();
            blocks.push(block);
        }
        match random.random() % 30 {
            // Dark before the sync.
            0 => break,
            1 => log.idle().unwrap(),
            _ => log.sync().unwrap(),
        }
        synced = blocks.len();
    }
    (blocks, synced)
}

fn survives_power_cuts(batch: u64) {
    let mut cuts = 0;
    for seed in 0..60 {
        let dir = tempfile::tempdir().unwrap();
        let mut random = Filler::new(seed);
        let mut kept: Vec<SealedBlock> = Vec::new();
        drop(FileLog::open(dir.path(), small()).unwrap());
        for opening in 0..4 {
            let what = format!("seed {seed}, opening {opening}");
            let platter = Arc::new(Mutex::new(Platter::default()));
            let names = [dir.path().join("anchor")].into_iter().chain(super::segment_files(dir.path()));
            for path in names {
                let inode = fs::metadata(&path).unwrap().ino();
                platter.lock().unwrap().durable.insert(inode, fs::read(&path).unwrap());
            }
            let disk = PowerDisk(Arc::clone(&platter));
            let (blocks, synced) = write_until_dark(dir.path(), disk, &mut random, batch);
            for path in [dir.path().join("anchor")].into_iter().chain(super::segment_files(dir.path())) {
                let left = platter.lock().unwrap().after_failure(&path, &mut random);
                fs::write(&path, left).unwrap();
            }
            let least = kept.len() + synced;
            kept.extend(blocks);
            let (log, recovery) = FileLog::open(dir.path(), small()).unwrap_or_else(|error| panic!("{what}: {error}"));
            cuts += usize::from(recovery.cut.is_some());
            let found = kept.partition_point(|block| block.header.first_position < log.head().next);
            assert!(found >= least, "{what}: {least} blocks were synced and {found} are there");
            kept.truncate(found);
            assert_holds(log.reader().as_ref(), Position(0), &kept);
        }
    }
    assert!(cuts > 0, "some blocks were torn");
}

#[test]
fn a_power_cut_takes_only_a_suffix_that_was_not_synced_when_blocks_are_synced_one_by_one() {
    survives_power_cuts(1);
}

#[test]
fn a_power_cut_takes_only_a_suffix_that_was_not_synced_when_blocks_are_synced_in_batches() {
    survives_power_cuts(5);
}
