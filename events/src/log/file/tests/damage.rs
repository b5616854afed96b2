//! Everything that a crash does not leave is refused by name, with nothing changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::super::*;
use super::prelude::*;
use super::{last_segment, segment_files, small, some_blocks, store_of};
use crate::block::{Block, Hash, OpenBlock};
use crate::event::Event;
use crate::id::{Epoch, Ordinal, ShardId};
use crate::log::conformance::{Filler, assert_holds, read_all, write};
use crate::time::Timestamp;

/// Every plain file below the directory but the lock, whose text changes with each attempt.
pub(super) fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = [dir.to_owned(), dir.join("log")].into_iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
    let files = entries.map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("lock") && path.is_file());
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Asserts that writer and reader refuse the directory for the same reason, and that nothing in it changes.
fn refused(dir: &Path, what: &str) -> LogError {
    let before = contents(dir);
    let error = FileLog::open(dir, small()).err().unwrap_or_else(|| panic!("{what}: the writer opens it"));
    assert!(contents(dir) == before, "{what}: something was changed");
    let by_reader = FileReader::open(dir).err().unwrap_or_else(|| panic!("{what}: the reader opens it"));
    assert_eq!(std::mem::discriminant(&error), std::mem::discriminant(&by_reader), "{what}: {error} / {by_reader}");
    error
}

fn truncate(path: &Path, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

fn next(blocks: &[SealedBlock]) -> Position {
    Head::after(blocks.last().unwrap()).next
}

fn assert_missing(error: &LogError, next: Position, first_lost: Position, what: &str) {
    let LogError::Missing { anchored, found, missing } = error else { panic!("{what}: {error}") };
    assert_eq!((*anchored, *found, *missing), (next, first_lost, next.0 - first_lost.0), "{what}");
}

/// The position in a segment's name.
fn named(path: &Path) -> Position {
    Position(path.file_stem().unwrap().to_str().unwrap().parse().unwrap())
}

#[test]
fn a_missing_emptied_or_shortened_segment_is_refused_with_the_number_of_missing_events() {
    for index in 0..3 {
        for what in ["missing", "empty", "shortened to a block", "shortened within a block", "zeros"] {
            let (dir, blocks) = store_of(30);
            let files = segment_files(dir.path());
            assert!(files.len() >= 3, "{files:?}");
            let file = &files[[0, 1, files.len() - 1][index]];
            let first = named(file);
            let held: Vec<_> = blocks.iter().filter(|block| block.header.first_position >= first).collect();
            let (mut lost_from, one) = (first, held[0].bytes.len() as u64);
            match what {
                "missing" => fs::remove_file(file).unwrap(),
                "empty" => truncate(file, 0),
                "zeros" => fs::write(file, [0; 9000]).unwrap(),
                _ => {
                    truncate(file, if what == "shortened to a block" { one } else { one + 30 });
                    lost_from = held[1].header.first_position;
                }
            }
            let what = format!("segment {index} {what}");
            let error = refused(dir.path(), &what);
            if index == 0 && what.ends_with("missing") {
                // The rest is there; only the beginning is not.
                assert_missing(&error, named(&files[1]), Position(0), &what);
            } else {
                assert_missing(&error, next(&blocks), lost_from, &what);
            }
        }
    }
}

#[test]
fn no_segment_left_is_refused_with_the_number_of_missing_events() {
    let (dir, blocks) = store_of(30);
    segment_files(dir.path()).iter().for_each(|file| fs::remove_file(file).unwrap());
    assert_missing(&refused(dir.path(), "all gone"), next(&blocks), Position(0), "all gone");
    fs::remove_dir(dir.path().join("log")).unwrap();
    assert!(matches!(refused(dir.path(), "no folder"), LogError::Io { .. }));
}

#[test]
fn yesterday_s_log_with_today_s_anchor_is_refused_with_the_number_of_missing_events() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = some_blocks(40);
    let mut yesterday = BTreeMap::new();
    for (day, part) in blocks.chunks(25).enumerate() {
        let (mut log, _) = FileLog::open(dir.path(), small()).unwrap();
        write(&mut log, part);
        Box::new(log).close().unwrap();
        if day == 0 {
            yesterday = contents(&dir.path().join("log"));
        }
    }
    segment_files(dir.path()).iter().for_each(|file| fs::remove_file(file).unwrap());
    yesterday.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    assert_missing(&refused(dir.path(), "yesterday"), next(&blocks), next(&blocks[..25]), "yesterday");
}

#[test]
fn random_bytes_in_place_of_a_segment_are_refused_at_its_first_position() {
    for index in [0, 1, 2] {
        let (dir, _) = store_of(30);
        let files = segment_files(dir.path());
        let file = &files[[0, 1, files.len() - 1][index]];
        let mut random = Filler::new(1);
        fs::write(file, (0..2000).flat_map(|_| random.random().to_le_bytes()).collect::<Vec<_>>()).unwrap();
        let error = refused(dir.path(), "random");
        let LogError::Damaged { at, path, offset, .. } = &error else { panic!("{error}") };
        assert_eq!((*at, path, *offset), (named(file), file, 0));
    }
}

#[test]
fn a_flipped_bit_in_the_last_block_is_refused_with_its_place() {
    let (dir, blocks) = store_of(30);
    let file = last_segment(dir.path());
    let mut bytes = fs::read(&file).unwrap();
    let last = blocks.last().unwrap();
    let at = bytes.len() - last.bytes.len();
    bytes[at + 100] ^= 4;
    fs::write(&file, bytes).unwrap();
    let error = refused(dir.path(), "flip");
    let LogError::Damaged { at: position, path, offset, .. } = &error else { panic!("{error}") };
    assert_eq!((*position, path, *offset), (last.header.first_position, &file, at as u64));
}

/// A reader begins with the last block and finds what is wrong in front of it when it comes there; whoever writes or inspects looks first.
#[test]
fn a_flipped_bit_before_the_last_block_is_found_where_it_is_read_and_by_inspection() {
    let in_last = |dir: &Path, blocks: &[SealedBlock]| {
        let first = named(&last_segment(dir));
        blocks.iter().filter(|block| block.header.first_position >= first).cloned().collect::<Vec<_>>()
    };
    let long = (30..50).map(store_of).find(|(dir, blocks)| in_last(dir.path(), blocks).len() > 2);
    let (dir, blocks) = long.expect("some have more than two blocks in the last segment");
    let (file, held) = (last_segment(dir.path()), in_last(dir.path(), &blocks));
    let mut bytes = fs::read(&file).unwrap();
    bytes[held[0].bytes.len() + 100] ^= 4;
    fs::write(&file, bytes).unwrap();
    let is_named = |error: LogError| matches!(error, LogError::Damaged { at, .. } if at == held[1].header.first_position);
    let reader = FileReader::open(dir.path()).unwrap();
    assert_eq!(reader.span().next, next(&blocks));
    let (last, damaged) = (blocks.last().unwrap(), held[1].header.first_position);
    let read = |at: Position| read_all(reader.cursor(at)?.as_mut());
    assert_eq!(read(last.header.first_position).unwrap(), [Block::parse(&last.bytes).unwrap()]);
    assert!(read(damaged).is_err_and(is_named));
    assert!(crate::log::directory::inspect(dir.path()).is_err_and(is_named));
    assert!(FileLog::open(dir.path(), small()).err().is_some_and(is_named));
}

#[test]
fn a_whole_block_that_does_not_belong_there_is_refused() {
    let (dir, blocks) = store_of(10);
    let head = Head::after(blocks.last().unwrap());
    let other = Head { hash: Hash([3; 32]), ..head };
    let mut foreign_shard = OpenBlock::new(ShardId(9), Epoch(1), head.next, head.next_ordinal);
    foreign_shard.push(Timestamp(head.last_time.0), &Event::Ready { task: Ordinal(0) });
    let mut newer = Filler::after(&head, 1).block(2, 20).bytes;
    newer[4] = 99;
    // What a newer build writes has the checksum that it should; without it this is damage.
    let crc = crc32c::crc32c_append(crc32c::crc32c(&newer[..52]), &newer[56..]);
    newer[52..56].copy_from_slice(&crc.to_le_bytes());
    let later = Filler::after(&Head { next: head.next.next(), ..head }, 1).block(1, 1).bytes;
    let file = last_segment(dir.path());
    let before = fs::read(&file).unwrap();
    for (what, bytes) in [
        ("another predecessor", Filler::after(&other, 1).block(1, 1).bytes),
        ("another shard", foreign_shard.seal(head.hash).bytes),
        ("a later position", later),
        ("an earlier block", blocks[9].bytes.clone()),
        ("a newer format", newer),
    ] {
        fs::write(&file, [before.clone(), bytes].concat()).unwrap();
        let error = FileLog::open(dir.path(), small()).err().unwrap_or_else(|| panic!("{what}: opened"));
        let named = match what {
            "another predecessor" => matches!(error, LogError::Chain { .. }),
            "a newer format" => matches!(error, LogError::FormatTooNew { .. }),
            _ => matches!(error, LogError::Damaged { .. }),
        };
        assert!(named, "{what}: {error}");
        assert_holds(&FileReader::open(dir.path()).unwrap(), Position(0), &blocks);
    }
}

#[test]
fn segments_of_another_store_are_refused() {
    let other = tempfile::tempdir().unwrap();
    let (mut log, _) = FileLog::open(other.path(), small()).unwrap();
    // The same sizes at the same positions, other contents.
    let mut head = Head { hash: Hash::ZERO, ..Head::default() };
    for block in some_blocks(30) {
        let mut open = OpenBlock::new(ShardId(0), Epoch(2), head.next, head.next_ordinal);
        for record in Block::parse(&block.bytes).unwrap().records() {
            let record = record.unwrap();
            open.push(record.recorded_at, &record.event);
        }
        let sealed = open.seal(head.hash);
        head = Head::after(&sealed);
        write(&mut log, &[sealed]);
    }
    Box::new(log).close().unwrap();
    let theirs = segment_files(other.path());
    for index in 0..theirs.len() {
        let (dir, _) = store_of(30);
        let ours = segment_files(dir.path());
        assert_eq!(ours.len(), theirs.len());
        fs::copy(&theirs[index], &ours[index]).unwrap();
        assert!(matches!(refused(dir.path(), "one segment"), LogError::Chain { .. }), "segment {index}");
    }
    let (dir, _) = store_of(30);
    for (theirs, ours) in theirs.iter().zip(segment_files(dir.path())) {
        fs::copy(theirs, ours).unwrap();
    }
    assert!(matches!(refused(dir.path(), "all segments"), LogError::Chain { .. }));
    fs::copy(other.path().join("anchor"), dir.path().join("anchor")).unwrap();
    assert!(FileReader::open(dir.path()).is_ok(), "both stores have the same identity here");
    let (dir, _) = store_of(30);
    let mut anchor = anchor::newest(&dir.path().join("anchor")).unwrap().unwrap();
    anchor.store = StoreId([1; 16]);
    fs::write(dir.path().join("anchor"), anchor.to_slot()).unwrap();
    assert!(matches!(refused(dir.path(), "the anchor"), LogError::Anchor { .. }));
}

#[test]
fn overlapping_segments_are_refused() {
    let (dir, blocks) = store_of(30);
    let files = segment_files(dir.path());
    let inside = blocks[1].header.first_position;
    fs::copy(&files[0], dir.path().join(format!("log/{:020}.seg", inside.0))).unwrap();
    assert!(matches!(refused(dir.path(), "overlap"), LogError::Foreign { .. }));
}

#[test]
fn an_unusable_anchor_is_refused() {
    let (dir, _) = store_of(30);
    let anchor = dir.path().join("anchor");
    let good = fs::read(&anchor).unwrap();
    for (what, bytes) in [("empty", Vec::new()), ("zeros", vec![0; 1024]), ("short", good[..100].to_vec())] {
        fs::write(&anchor, bytes).unwrap();
        assert!(matches!(refused(dir.path(), what), LogError::Anchor { .. }), "{what}");
    }
    fs::remove_file(&anchor).unwrap();
    assert!(matches!(refused(dir.path(), "missing"), LogError::Anchor { .. }));
}

#[test]
fn an_unusable_store_file_is_refused() {
    let (dir, _) = store_of(30);
    let store = dir.path().join("store");
    let good = fs::read_to_string(&store).unwrap();
    let newer = good.split_once("crc").unwrap().0.replace("format 1", "format 2");
    let newer = format!("{newer}crc {:08x}\n", crc32c::crc32c(newer.as_bytes()));
    for (what, text) in [("empty", String::new()), ("flipped", good.replace("07", "17")), ("binary", "\0\u{7f}".to_owned())] {
        fs::write(&store, text).unwrap();
        assert!(matches!(refused(dir.path(), what), LogError::Foreign { .. }), "{what}");
    }
    fs::write(&store, newer).unwrap();
    assert!(matches!(refused(dir.path(), "newer"), LogError::FormatTooNew { found: 2, .. }));
    fs::remove_file(&store).unwrap();
    assert!(matches!(FileLog::open(dir.path(), small()), Err(LogError::Foreign { .. })), "a store is not made over segments");
    segment_files(dir.path()).iter().for_each(|file| fs::remove_file(file).unwrap());
    assert!(
        matches!(FileLog::open(dir.path(), small()), Err(LogError::Foreign { .. })),
        "nor over an anchor that knows of events"
    );
}

#[test]
fn links_folders_and_pipes_in_place_of_our_files_are_refused() {
    for name in ["store", "anchor", "log", "lock", "log/00000000000000000000.seg"] {
        for kind in ["link", "folder", "dangling link"] {
            let (dir, _) = store_of(30);
            let (ours, aside) = (dir.path().join(name), dir.path().join("aside"));
            if (name, kind) == ("log", "folder") {
                continue;
            }
            fs::rename(&ours, &aside).unwrap();
            match kind {
                "link" => std::os::unix::fs::symlink(&aside, &ours).unwrap(),
                "folder" => fs::create_dir(&ours).unwrap(),
                _ => std::os::unix::fs::symlink("/nowhere/at/all", &ours).unwrap(),
            }
            let error = FileLog::open(dir.path(), small()).err().unwrap_or_else(|| panic!("{name} as {kind}: opened"));
            assert!(matches!(error, LogError::Foreign { .. }), "{name} as {kind}: {error}");
            let read = FileReader::open(dir.path());
            assert_eq!(read.is_ok(), name == "lock", "a reader needs no lock");
        }
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped part says so aloud")]
fn a_directory_that_cannot_be_written_can_still_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, blocks) = store_of(30);
    for name in ["lock", "anchor", "log", ""] {
        let path = dir.path().join(name);
        let mode = if path.is_dir() { 0o500 } else { 0o400 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    assert_holds(&FileReader::open(dir.path()).unwrap(), Position(0), &blocks);
    if fs::write(dir.path().join("probe"), "").is_ok() {
        eprintln!("skipped: the superuser may write everywhere");
    } else {
        assert!(matches!(FileLog::open(dir.path(), small()), Err(LogError::Io { .. })));
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(dir.path().join("log"), fs::Permissions::from_mode(0o700)).unwrap();
}

/// Opens and reads everything; what is acknowledged is there byte for byte, or the error has a name.
fn harmless_or_named(dir: &Path, blocks: &[SealedBlock], what: &str) -> bool {
    let opened = FileReader::open(dir).map(|reader| Arc::new(reader) as Arc<dyn LogReader>);
    let by_writer = FileLog::open(dir, small()).map(|(log, _)| log.reader());
    let mut harmless = true;
    for reader in [opened, by_writer] {
        let read = reader.and_then(|reader| read_all(reader.cursor(Position(0))?.as_mut()));
        harmless &= read.is_ok();
        if let Ok(read) = read {
            assert_eq!(read.len(), blocks.len(), "{what}: silent loss");
            assert!(read.iter().zip(blocks).all(|(read, block)| *read == Block::parse(&block.bytes).unwrap()), "{what}");
        }
    }
    harmless
}

/// Damages a copy of a store in one place, 200 times; says how often that was harmless.
fn damage_at_random(seed: u64, closed: bool, damage: fn(&mut Filler, &File, u64)) -> usize {
    let (dir, mut blocks) = store_of(40);
    if !closed {
        let (mut log, _) = FileLog::open(dir.path(), small()).unwrap();
        let more = Filler::after(&log.head(), 3).blocks(6);
        more.iter().for_each(|block| write(&mut log, std::slice::from_ref(block)));
        blocks.extend(more);
    }
    let (good, mut random) = (contents(dir.path()), Filler::new(seed));
    let sizes: u64 = good.values().map(|bytes| bytes.len() as u64 + 300).sum();
    let mut harmless = 0;
    for round in 0..200 {
        // Small files get their share.
        let mut at = random.random() % sizes;
        let (path, bytes) = good
            .iter()
            .find(|(_, bytes)| {
                let share = bytes.len() as u64 + 300;
                let hit = at < share;
                at = at.saturating_sub(share);
                hit
            })
            .unwrap();
        damage(&mut random, &File::options().read(true).write(true).open(path).unwrap(), bytes.len() as u64);
        harmless += usize::from(harmless_or_named(dir.path(), &blocks, &format!("seed {seed}, round {round}, {path:?}")));
        for (path, bytes) in &good {
            fs::write(path, bytes).unwrap();
        }
    }
    harmless
}

#[test]
fn a_flipped_bit_anywhere_is_harmless_or_named() {
    for closed in [true, false] {
        let harmless = damage_at_random(1, closed, |random, file, len| {
            let at = random.random() % len;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ (1 << (random.random() % 8))], at).unwrap();
        });
        assert!(harmless < 100, "{harmless} of 200");
    }
}

#[test]
fn a_file_cut_anywhere_is_harmless_or_named() {
    for closed in [true, false] {
        let harmless = damage_at_random(2, closed, |random, file, len| file.set_len(random.random() % len).unwrap());
        assert!(harmless < 100, "{harmless} of 200");
    }
}

/// A bit of the format was taken for a newer build's block, and the advice was to use a newer build.
#[test]
fn a_flipped_bit_in_the_format_is_damage() {
    let (dir, _) = store_of(40);
    let file = segment_files(dir.path())[0].clone();
    let whole = fs::read(&file).unwrap();
    for bit in 0..16 {
        let mut bytes = whole.clone();
        bytes[4 + bit / 8] ^= 1 << (bit % 8);
        fs::write(&file, bytes).unwrap();
        // A format that is known too is found by whoever reads the block.
        let read = FileLog::open(dir.path(), small()).and_then(|(log, _)| read_all(log.reader().cursor(Position(0))?.as_mut()));
        let error = read.err().unwrap();
        assert!(matches!(error, LogError::Damaged { .. }), "bit {bit}: {error}");
    }
}
