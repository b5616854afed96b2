//! Accepting a loss: the beginning that is whole stays, the rest is set aside.

use std::fs;

use super::prelude::*;
use super::{SledLog, databases, foreign, log_of, small};
use crate::log::directory::repair;

/// Damages the middle database; how many events a repair has to give up.
fn damaged() -> (tempfile::TempDir, Vec<SealedBlock>, u64) {
    let (dir, blocks) = log_of(80);
    let middle = databases(dir.path())[1].clone();
    super::cut_file(&middle.join("db"), |_| 8_000);
    let Err(LogError::Missing { missing, .. }) = repair(dir.path(), u64::MAX) else { panic!("a loss is to be accepted") };
    (dir, blocks, missing)
}

#[test]
fn exactly_the_loss_that_there_is_can_be_accepted() {
    let (dir, blocks, missing) = damaged();
    assert!(missing > 0);
    assert!(matches!(repair(dir.path(), missing - 1), Err(LogError::Missing { .. })));
    let done = repair(dir.path(), missing).unwrap();
    assert_eq!((done.lost, done.anchor_rewritten), (missing, true));
    let (log, _) = SledLog::open(dir.path(), small()).unwrap();
    let kept = blocks.partition_point(|block| block.header.next_position() <= log.head().next);
    assert!(kept > 0 && kept < blocks.len());
    assert_holds(log.reader().as_ref(), Position(0), &blocks[..kept]);
    assert!(done.set_aside.iter().all(|path| fs::metadata(path).is_ok_and(|found| found.is_dir())));
}

#[test]
fn a_whole_log_gets_a_new_anchor_without_loss() {
    let (dir, blocks) = log_of(30);
    fs::remove_file(dir.path().join("anchor")).unwrap();
    assert!(matches!(SledLog::open(dir.path(), small()), Err(LogError::Anchor { .. })));
    assert!(repair(dir.path(), 0).unwrap().anchor_rewritten);
    let (log, _) = SledLog::open(dir.path(), small()).unwrap();
    assert_holds(log.reader().as_ref(), Position(0), &blocks);
}

/// The beginning of a database that holds blocks behind the damage is copied, and the original kept.
#[test]
fn the_beginning_of_a_damaged_database_is_kept() {
    let (dir, blocks) = log_of(80);
    let first = databases(dir.path())[0].clone();
    let victim = blocks[3].header.first_position;
    let db = foreign(&first);
    db.open_tree("blocks").unwrap().remove(crate::log::sled::chunks::key(victim, 0)).unwrap();
    drop(db);
    let Err(LogError::Missing { missing, found, .. }) = repair(dir.path(), u64::MAX) else { panic!("a loss is to be accepted") };
    assert_eq!(found, victim);
    repair(dir.path(), missing).unwrap();
    let (log, _) = SledLog::open(dir.path(), small()).unwrap();
    assert_holds(log.reader().as_ref(), Position(0), &blocks[..3]);
}
