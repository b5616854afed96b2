//! The faults of `plain.rs` against the engine: refused by name, or nothing lost.

use std::fs;
use std::path::Path;

use super::prelude::*;
use super::{SledLog, databases, foreign, log_of, small};

/// Opens the log and reads all of it; how many blocks there are.
fn read_all(dir: &Path) -> Result<usize, LogError> {
    let (log, _) = SledLog::open(dir, Options { create: false, ..small() })?;
    let reader = log.reader();
    let mut cursor = reader.cursor(reader.span().first)?;
    let mut count = 0;
    while cursor.next_block()?.is_some() {
        count += 1;
    }
    Ok(count)
}

fn is_named(error: &LogError) -> bool {
    matches!(error, LogError::Unusable { .. } | LogError::Missing { .. } | LogError::Chain { .. } | LogError::Foreign { .. })
}

#[test]
fn an_unfinished_snapshot_is_removed_before_opening() {
    let (dir, blocks) = log_of(40);
    for database in databases(dir.path()) {
        fs::write(database.join("snap.7FFFFFFFFFFFFFFF.generating"), b"half of").unwrap();
    }
    assert_eq!(read_all(dir.path()).unwrap(), blocks.len());
}

#[test]
fn a_damaged_snapshot_of_sled_is_done_without() {
    let (dir, blocks) = log_of(40);
    for database in databases(dir.path()) {
        fs::write(database.join("snap.7FFFFFFFFFFFFFFF"), b"this is not a snapshot of sled's").unwrap();
    }
    assert_eq!(read_all(dir.path()).unwrap(), blocks.len());
}

#[test]
fn no_truncation_is_silent() {
    let (dir, blocks) = log_of(60);
    let files: Vec<_> = databases(dir.path()).iter().map(|database| database.join("db")).collect();
    let mut refused = 0;
    for (index, file) in files.iter().enumerate() {
        let whole = fs::read(file).unwrap();
        // The file is 512 KiB long and little of it is used.
        for len in [0, 1_000, 8_000, 20_000, 100_000, 400_000] {
            super::cut_file(file, |_| len);
            match read_all(dir.path()) {
                Ok(count) => assert_eq!(count, blocks.len(), "database {index} cut at {len}"),
                Err(error) => {
                    assert!(is_named(&error), "{error}");
                    refused += 1;
                }
            }
            super::restore(&files[index], &whole);
        }
    }
    assert!(refused > 0, "some of the cuts went through blocks");
}

#[test]
fn no_flipped_bit_is_silent() {
    let (dir, blocks) = log_of(60);
    let files: Vec<_> = databases(dir.path()).iter().map(|database| database.join("db")).collect();
    let mut refused = 0;
    for seed in 0..40 {
        let file = &files[seed as usize % files.len()];
        let whole = fs::read(file).unwrap();
        super::flip_bit(file, seed);
        match read_all(dir.path()) {
            Ok(count) => assert_eq!(count, blocks.len(), "seed {seed}"),
            Err(error) => {
                assert!(is_named(&error), "{error}");
                refused += 1;
            }
        }
        super::restore(file, &whole);
    }
    assert!(refused > 0, "some of the bits were in blocks");
}

#[test]
fn a_missing_database_and_a_missing_file_are_named() {
    let (dir, _) = log_of(60);
    let databases = databases(dir.path());
    for database in &databases {
        let away = dir.path().join("away");
        fs::rename(database, &away).unwrap();
        assert!(read_all(dir.path()).is_err_and(|error| is_named(&error)), "{}", database.display());
        put_back(&away, database);
        fs::rename(database.join("db"), &away).unwrap();
        assert!(read_all(dir.path()).is_err_and(|error| is_named(&error)), "{}", database.display());
        fs::rename(&away, database.join("db")).unwrap();
    }
    assert!(read_all(dir.path()).is_ok());
}

/// Puts a database back. A thread of sled that ends late may have made an empty one in its place.
fn put_back(away: &Path, database: &Path) {
    for _ in 0..500 {
        if fs::rename(away, database).is_ok() {
            return;
        }
        let _ = fs::remove_dir_all(database);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    fs::rename(away, database).unwrap();
}

#[test]
fn no_link_is_followed() {
    let (dir, _) = log_of(10);
    let file = databases(dir.path()).pop().unwrap().join("db");
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    assert!(matches!(read_all(dir.path()), Err(LogError::Foreign { .. })));
}

/// Whatever the sizes of blocks, no value is long enough for a file of its own, which sled would never sync.
#[test]
fn no_blob_file_ever_appears() {
    let dir = tempfile::tempdir().unwrap();
    let mut filler = Filler::new(6);
    let options = Options { segment_bytes: 64 << 20, ..small() };
    let (mut log, _) = SledLog::open(dir.path(), options).unwrap();
    for (records, bytes) in [(1, 0), (3_000, 3), (1, 1 << 20), (15, 1 << 20), (40, 100), (1, 6_900), (1, 7_100), (70, 99_000)] {
        for _ in 0..12 {
            write(&mut log, &[filler.block(records, bytes)]);
        }
    }
    Box::new(log).close().unwrap();
    for database in databases(dir.path()) {
        assert_eq!(fs::read_dir(database.join("blobs")).unwrap().count(), 0, "{}", database.display());
    }
}

/// A database that was created and got no block is what a crash leaves between the two; the log goes on in it or without it.
#[test]
fn a_database_without_blocks_is_begun_again() {
    let (dir, blocks) = log_of(40);
    let next = blocks[blocks.len() - 1].header.next_position();
    let unborn = Layout::new(dir.path(), Engine::Sled).segment(next);
    fs::create_dir(&unborn).unwrap();
    assert_eq!(read_all(dir.path()).unwrap(), blocks.len());
    drop(foreign(&unborn));
    assert_eq!(read_all(dir.path()).unwrap(), blocks.len());
    let (mut log, _) = SledLog::open(dir.path(), small()).unwrap();
    let more = Filler::after(&log.head(), 9).blocks(40);
    more.iter().for_each(|block| write(&mut log, std::slice::from_ref(block)));
    Box::new(log).close().unwrap();
    assert_eq!(read_all(dir.path()).unwrap(), blocks.len() + more.len());
}

/// Blocks behind the anchor that nobody was told of, and chunks that are no block.
#[test]
fn what_follows_the_end_and_is_no_block_is_cut() {
    let (dir, blocks) = log_of(10);
    let next = blocks[blocks.len() - 1].header.next_position();
    let last = databases(dir.path()).pop().unwrap();
    let db = foreign(&last);
    db.open_tree("blocks").unwrap().insert(crate::log::sled::chunks::key(next, 0), b"ERGB and no more".to_vec()).unwrap();
    drop(db);
    let (log, recovery) = SledLog::open(dir.path(), small()).unwrap();
    assert_eq!(recovery.cut, Some(CutTail { at: next, bytes: 16 }));
    assert_holds(log.reader().as_ref(), Position(0), &blocks);
    drop(log);
    assert_eq!(SledLog::open(dir.path(), small()).unwrap().1.cut, None, "it is gone");
}

#[test]
fn one_process_has_the_log_and_the_next_is_told_which() {
    let (dir, blocks) = log_of(5);
    let (log, _) = SledLog::open(dir.path(), small()).unwrap();
    assert!(matches!(SledLog::open(dir.path(), small()), Err(LogError::Locked { .. })));
    // Within the process the files are shared.
    let reader = crate::log::directory::read(dir.path()).unwrap();
    assert_holds(reader.as_ref(), Position(0), &blocks);
    drop((log, reader));
    assert!(SledLog::open(dir.path(), small()).is_ok());
}

#[test]
fn the_other_engine_is_named() {
    let (dir, _) = log_of(5);
    let error = crate::log::file::FileLog::open(dir.path(), small()).err().unwrap();
    assert!(matches!(error, LogError::OtherEngine { found: Engine::Sled, asked: Engine::File, .. }), "{error}");
    assert!(crate::log::directory::open(dir.path(), &Options { engine: Some(Engine::File), ..small() }).is_err());
    assert!(crate::log::directory::open(dir.path(), &small()).is_ok());
}
