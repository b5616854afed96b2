//! A loss is accepted only by its exact number, and nothing is thrown away.

use std::fs;

use super::super::*;
use super::damage::contents;
use super::prelude::*;
use super::{append_bytes, last_segment, reopen, segment_files, small, store_of};
use crate::log::conformance::{Filler, assert_holds, write};
use crate::log::directory::{Repair, repair};

fn next(blocks: &[SealedBlock]) -> Position {
    Head::after(blocks.last().unwrap()).next
}

/// Asserts that only the exact number is accepted, and that the log then holds `kept` and can be written.
fn assert_repairs(dir: &Path, kept: &[SealedBlock], lost: u64, what: &str) -> Repair {
    let before = contents(dir);
    for wrong in [lost + 1, lost.wrapping_sub(1), 1 << 40] {
        let error = repair(dir, wrong).err().unwrap_or_else(|| panic!("{what}: {wrong} was accepted"));
        assert!(matches!(error, LogError::Missing { missing, .. } if missing == lost), "{what}: {error}");
    }
    assert!(contents(dir) == before, "{what}: a refused repair changed something");
    let repair = repair(dir, lost).unwrap_or_else(|error| panic!("{what}: {error}"));
    let from = kept.first().map_or(repair.head.next, |block| block.header.first_position);
    assert_eq!((repair.lost, repair.head.next), (lost, kept.last().map_or(from, |block| Head::after(block).next)), "{what}");
    let mut log = reopen(dir);
    assert_eq!(log.head(), repair.head, "{what}");
    assert_holds(log.reader().as_ref(), from, kept);
    let more = Filler::after(&log.head(), 77).blocks(12);
    write(&mut log, &more);
    Box::new(log).close().unwrap();
    assert_holds(reopen(dir).reader().as_ref(), from, &[kept, more.as_slice()].concat());
    repair
}

#[test]
fn a_damaged_block_and_everything_behind_it_is_set_aside() {
    for index in [0, 1, 2] {
        let (dir, blocks) = store_of(30);
        let files = segment_files(dir.path());
        let file = &files[[0, 1, files.len() - 1][index]];
        let mut bytes = fs::read(file).unwrap();
        let first: u64 = file.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let second = blocks.iter().position(|block| block.header.first_position.0 == first).unwrap() + 1;
        bytes[blocks[second - 1].bytes.len() + 95] ^= 1;
        fs::write(file, &bytes).unwrap();
        let lost = next(&blocks).0 - blocks[second].header.first_position.0;
        let repair = assert_repairs(dir.path(), &blocks[..second], lost, &format!("segment {index}"));
        assert!(repair.anchor_rewritten);
        assert_eq!(repair.set_aside.len(), files.len() - [0, 1, files.len() - 1][index]);
        assert_eq!(fs::read(repair.set_aside.last().unwrap()).unwrap(), bytes, "the damaged file is kept as it was");
    }
}

#[test]
fn missing_segments_are_accepted_by_their_number() {
    for index in [1, 2] {
        let (dir, blocks) = store_of(30);
        let file = segment_files(dir.path()).swap_remove(index);
        fs::remove_file(&file).unwrap();
        let first: u64 = file.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let kept = blocks.partition_point(|block| block.header.first_position.0 < first);
        assert_repairs(dir.path(), &blocks[..kept], next(&blocks).0 - first, &format!("segment {index}"));
    }
    let (dir, blocks) = store_of(30);
    segment_files(dir.path()).iter().for_each(|file| fs::remove_file(file).unwrap());
    assert_repairs(dir.path(), &[], next(&blocks).0, "all segments");
}

#[test]
fn a_missing_beginning_costs_only_the_beginning() {
    let (dir, blocks) = store_of(30);
    let files = segment_files(dir.path());
    fs::remove_file(&files[0]).unwrap();
    let first: u64 = files[1].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let from = blocks.partition_point(|block| block.header.first_position.0 < first);
    let repair = assert_repairs(dir.path(), &blocks[from..], first, "the first segment");
    assert!(repair.set_aside.is_empty());
}

#[test]
fn an_unusable_anchor_of_a_whole_log_is_written_anew() {
    for missing in [true, false] {
        let (dir, blocks) = store_of(30);
        let anchor = dir.path().join("anchor");
        if missing {
            fs::remove_file(&anchor).unwrap()
        } else {
            fs::write(&anchor, [3; 1024]).unwrap()
        }
        let repair = assert_repairs(dir.path(), &blocks, 0, "anchor");
        assert!(repair.anchor_rewritten && repair.set_aside.is_empty());
    }
}

#[test]
fn a_whole_log_is_left_alone() {
    let (dir, _) = store_of(30);
    let before = contents(dir.path());
    let repair = repair(dir.path(), 0).unwrap();
    assert!(!repair.anchor_rewritten && repair.set_aside.is_empty());
    assert!(contents(dir.path()) == before);
}

#[test]
fn a_torn_end_that_nobody_was_told_of_is_no_loss() {
    let (dir, blocks) = store_of(12);
    append_bytes(&last_segment(dir.path()), &[5; 300]);
    let repair = assert_repairs(dir.path(), &blocks, 0, "torn");
    assert_eq!(repair.set_aside.len(), 1);
}

#[test]
fn a_whole_log_that_the_anchor_does_not_know_is_not_repaired() {
    let (dir, _) = store_of(30);
    let path = dir.path().join("anchor");
    let mut anchor = anchor::newest(&path).unwrap().unwrap();
    anchor.head.hash.0[0] ^= 1;
    fs::write(&path, anchor.to_file()).unwrap();
    assert!(matches!(repair(dir.path(), 0), Err(LogError::Chain { .. })));
}

#[test]
fn a_log_that_is_in_use_is_not_repaired() {
    let (dir, _) = store_of(3);
    let _log = reopen(dir.path());
    assert!(matches!(repair(dir.path(), 0), Err(LogError::Locked { .. })));
    assert!(matches!(FileLog::open(dir.path(), small()), Err(LogError::Locked { .. })));
}

#[test]
fn whatever_is_damaged_a_repair_names_a_number_and_accepting_it_opens_the_log() {
    let (dir, blocks) = store_of(40);
    let (good, mut random) = (contents(dir.path()), Filler::new(5));
    for round in 0..100 {
        let files = segment_files(dir.path());
        let wounds = random.random() % 2 + 1;
        for _ in 0..wounds {
            let file = File::options().write(true).open(&files[random.random() as usize % files.len()]).unwrap();
            let at = random.random() % file.metadata().unwrap().len().max(1);
            match random.random() % 2 {
                0 => file.set_len(at).unwrap(),
                _ => std::os::unix::fs::FileExt::write_all_at(&file, &random.random().to_le_bytes(), at).unwrap(),
            }
        }
        let announced = match FileLog::open(dir.path(), small()) {
            Err(LogError::Missing { missing, .. }) => Some(missing),
            Ok(_) | Err(_) => None,
        };
        let lost = match repair(dir.path(), u64::MAX) {
            Err(LogError::Missing { missing, .. }) => missing,
            other => panic!("round {round}: {other:?}"),
        };
        // Opening does not read the middle of earlier segments; repairing does, and may find a second wound there.
        let same = announced.is_none_or(|announced| announced == lost || wounds > 1 && announced < lost);
        assert!(same, "round {round}: {announced:?}, {lost}");
        let repair = repair(dir.path(), lost).unwrap();
        assert_eq!(repair.head.next.0 + lost, next(&blocks).0, "round {round}");
        let kept = blocks.partition_point(|block| block.header.first_position < repair.head.next);
        assert_holds(reopen(dir.path()).reader().as_ref(), Position(0), &blocks[..kept]);
        fs::remove_dir_all(dir.path().join("log")).unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        good.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    }
}
