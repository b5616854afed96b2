//! What a crash leaves is recovered from, and reported.

use super::super::*;
use super::prelude::*;
use super::{append_bytes, last_segment, reopen, small, some_blocks, store_of};
use crate::log::conformance::{Filler, assert_holds, write};

#[test]
fn a_second_writer_is_refused_and_told_who_has_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, _) = FileLog::open(dir.path(), small()).unwrap();
    let error = FileLog::open(dir.path(), small()).err().unwrap();
    assert!(matches!(&error, LogError::Locked { pid, .. } if *pid == std::process::id().to_string()), "{error}");
}

#[test]
fn the_lock_file_of_a_dead_process_is_harmless() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lock"), "999999999\n").unwrap();
    assert!(FileLog::open(dir.path(), small()).unwrap().1.created);
}

#[test]
fn a_directory_without_a_log_is_named_unless_one_may_be_created_there() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { create: false, ..small() };
    let missing = dir.path().join("missing");
    assert!(matches!(FileLog::open(&missing, options.clone()), Err(LogError::NotFound { .. })));
    assert!(matches!(FileLog::open(dir.path(), options), Err(LogError::NotFound { .. })));
    assert!(matches!(FileReader::open(dir.path()), Err(LogError::NotFound { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "looking leaves nothing behind");
    std::fs::write(dir.path().join("thesis.tex"), "precious").unwrap();
    assert!(matches!(FileLog::open(dir.path(), small()), Err(LogError::Foreign { .. })), "somebody else's directory");
    assert!(FileLog::open(&missing, small()).unwrap().1.created);
    assert!(!FileLog::open(&missing, small()).unwrap().1.created);
}

#[test]
fn a_dropped_log_keeps_its_blocks_and_says_that_the_anchor_was_behind() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = some_blocks(20);
    let (mut log, _) = FileLog::open(dir.path(), small()).unwrap();
    write(&mut log, &blocks[..10]);
    for block in &blocks[10..] {
        log.append(block).unwrap();
    }
    drop(log);
    let (log, recovery) = FileLog::open(dir.path(), small()).unwrap();
    assert!(recovery.anchor_was_behind && recovery.cut.is_none(), "{recovery:?}");
    assert_holds(log.reader().as_ref(), Position(0), &blocks);
}

#[test]
fn a_torn_block_that_nobody_was_told_of_is_cut_and_reported() {
    let next = |blocks: &[SealedBlock]| Filler::after(&Head::after(blocks.last().unwrap()), 99).block(20, 100).bytes;
    type Tear = fn(Vec<u8>) -> Vec<u8>;
    let cases: [(&str, Tear); 6] = [
        ("half of a block", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("half of a header", |bytes| bytes[..40].to_vec()),
        ("a block with a hole", |mut bytes| {
            bytes[200..900].fill(0);
            bytes
        }),
        ("a block without its header", |mut bytes| {
            bytes[..100].fill(0);
            bytes
        }),
        ("random bytes", |bytes| bytes.iter().map(|byte| byte ^ 0x5a).collect()),
        ("a single byte", |_| vec![7]),
    ];
    for (what, tear) in cases {
        let (dir, blocks) = store_of(12);
        let torn = tear(next(&blocks));
        append_bytes(&last_segment(dir.path()), &torn);
        let reader = FileReader::open(dir.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_holds(&reader, Position(0), &blocks);
        let (mut log, recovery) = FileLog::open(dir.path(), small()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let at = Head::after(blocks.last().unwrap()).next;
        assert_eq!(recovery.cut, Some(CutTail { at, bytes: torn.len() as u64 }), "{what}");
        let more = Filler::after(&log.head(), 5).blocks(9);
        write(&mut log, &more);
        drop(log);
        assert_holds(reopen(dir.path()).reader().as_ref(), Position(0), &[blocks, more].concat());
    }
}

#[test]
fn a_whole_block_behind_a_torn_one_is_refused_where_every_block_was_synced_on_its_own() {
    let (dir, blocks) = store_of(5);
    let mut filler = Filler::after(&Head::after(blocks.last().unwrap()), 9);
    let (mut torn, whole) = (filler.block(3, 50).bytes, filler.block(3, 50));
    torn[130] ^= 1;
    append_bytes(&last_segment(dir.path()), &[torn, whole.bytes].concat());
    assert!(matches!(FileLog::open(dir.path(), small()), Err(LogError::Damaged { .. })));
    assert_holds(&FileReader::open(dir.path()).unwrap(), Position(0), &blocks);
}

#[test]
fn a_whole_block_behind_a_torn_one_is_cut_where_both_were_written_before_a_sync() {
    let (dir, mut blocks) = store_of(5);
    let (mut log, _) = FileLog::open(dir.path(), small()).unwrap();
    let mut filler = Filler::after(&log.head(), 9);
    let [synced, torn, whole] = [50, 60, 70].map(|bytes| filler.block(3, bytes));
    write(&mut log, std::slice::from_ref(&synced));
    log.append(&torn).unwrap();
    log.append(&whole).unwrap();
    drop(log);
    blocks.push(synced);
    let offset = last_segment(dir.path());
    let bytes = std::fs::read(&offset).unwrap();
    let at = bytes.windows(torn.bytes.len()).position(|window| window == torn.bytes).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&File::options().write(true).open(&offset).unwrap(), &[0; 60], at as u64).unwrap();
    let (log, recovery) = FileLog::open(dir.path(), small()).unwrap();
    assert_eq!(recovery.cut.unwrap().at, torn.header.first_position);
    assert_holds(log.reader().as_ref(), Position(0), &blocks);
}

#[test]
fn a_reader_in_another_process_follows_a_live_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = FileLog::open(dir.path(), small()).unwrap();
    let reader = FileReader::open(dir.path()).unwrap();
    let mut cursor = reader.cursor(Position(0)).unwrap();
    let blocks = some_blocks(200);
    for (index, block) in blocks.iter().enumerate() {
        assert!(cursor.next_block().unwrap().is_none());
        write(&mut log, std::slice::from_ref(block));
        assert_eq!(cursor.next_block().unwrap().unwrap().hash(), block.hash, "block {index}");
    }
    log.retain(blocks[150].header.first_position).unwrap();
    let span = reader.span();
    assert!(span.first > Position(0) && span == log.reader().span(), "{span:?}");
    assert!(matches!(reader.cursor(Position(0)), Err(LogError::Gone { .. })));
    Box::new(log).close().unwrap();
    assert_eq!(reader.span(), span);
}

#[test]
fn a_reader_in_another_process_never_sees_damage_while_the_writer_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = FileLog::open(dir.path(), small()).unwrap();
    let blocks = some_blocks(400);
    let next = Head::after(blocks.last().unwrap()).next;
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let reader = FileReader::open(dir.path()).unwrap();
            let mut cursor = reader.cursor(Position(0)).unwrap();
            let mut at = Position(0);
            while at < next {
                let block = cursor.next_block().unwrap();
                at = block.map_or(at, |block| block.header.next_position());
            }
        });
        let opener = scope.spawn(|| while FileReader::open(dir.path()).unwrap().span().next < next {});
        for block in &blocks {
            write(&mut log, std::slice::from_ref(block));
        }
        follower.join().unwrap();
        opener.join().unwrap();
    });
}

#[test]
fn a_huge_sparse_tail_costs_nothing() {
    let (dir, blocks) = store_of(12);
    File::options().write(true).open(last_segment(dir.path())).unwrap().set_len(1 << 40).unwrap();
    let (log, recovery) = FileLog::open(dir.path(), small()).unwrap();
    assert_eq!(recovery.cut, None);
    assert_holds(log.reader().as_ref(), Position(0), &blocks);
}

#[test]
fn other_files_beside_the_segments_are_nobody_s_business() {
    let (dir, blocks) = store_of(12);
    for name in ["notes.txt", "1.seg", "00000000000000000000.seg.damaged", "+0000000000000000001.seg"] {
        std::fs::write(dir.path().join("log").join(name), "something else").unwrap();
    }
    assert_holds(reopen(dir.path()).reader().as_ref(), Position(0), &blocks);
}

/// A copy of a log on Kafka begins where a snapshot was taken; what lies before it stays in the topic.
#[test]
fn a_log_may_begin_behind_what_another_copy_has() {
    use crate::id::Ordinal;
    use crate::log::{Head, Span};
    use crate::time::Timestamp;
    let dir = tempfile::tempdir().unwrap();
    let begin = Head { next: Position(70), next_ordinal: Ordinal(9), hash: Hash([3; 32]), last_time: Timestamp(5) };
    let options = Options { begin, ..small() };
    let open = || FileLog::open(dir.path(), options.clone()).unwrap().0;
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
