use std::fs;

use super::*;

const STORE: [u8; 16] = [7; 16];

fn head(next: u64) -> Head {
    Head { next: Position(next), next_ordinal: Ordinal(next / 3), hash: Hash([next as u8; 32]), last_time: Timestamp(next * 10) }
}

/// A body of which half compresses.
fn body(len: usize) -> Vec<u8> {
    let mut noise = 9_u64;
    let mut next = || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (noise >> 56) as u8
    };
    (0..len).map(|index| if index / 1_000 % 2 == 0 { next() } else { 5 }).collect()
}

fn save(store: &SnapshotStore, next: u64, body: &[u8]) -> PathBuf {
    let mut write = |out: &mut dyn Write| body.chunks(10_007).try_for_each(|chunk| out.write_all(chunk));
    store.save(&head(next), &mut write).unwrap()
}

fn info(store: &SnapshotStore, next: u64) -> SnapshotInfo {
    store.list().unwrap().into_iter().find(|info| info.position == Position(next)).unwrap()
}

#[test]
fn a_snapshot_gives_back_what_was_saved_whatever_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), STORE);
    for len in [0, 1, 999, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES + 5] {
        let body = body(len);
        save(&store, len as u64, &body);
        let snapshot = store.load(&info(&store, len as u64)).unwrap();
        assert_eq!(snapshot, Snapshot { head: head(len as u64), body });
    }
}

#[test]
fn snapshots_are_listed_newest_first_and_the_newest_usable_one_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), STORE);
    assert!(store.newest_valid(Position(9), &|_| true).unwrap().snapshot.is_none());
    for next in [5, 200, 30] {
        save(&store, next, b"state");
    }
    let listed: Vec<_> = store.list().unwrap().into_iter().map(|info| info.position.0).collect();
    assert_eq!(listed, [200, 30, 5]);
    let newest = store.newest_valid(Position(200), &|_| true).unwrap();
    assert_eq!((newest.snapshot.unwrap().head, newest.skipped.len()), (head(200), 0));
}

#[test]
fn snapshots_that_are_damaged_foreign_newer_or_of_another_history_are_skipped_with_reasons() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), STORE);
    save(&SnapshotStore::open(dir.path(), [8; 16]), 60, b"of another log");
    let damaged = save(&store, 50, b"will be damaged");
    for next in [10, 40, 70] {
        save(&store, next, b"state");
    }
    let mut bytes = fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let path = plain::path(&dir.path().join("snapshots"), Position(55), EXTENSION);
    std::os::unix::fs::symlink(info(&store, 10).path, path).unwrap();

    let newest = store.newest_valid(Position(65), &|found| *found != head(40)).unwrap();
    assert_eq!(newest.snapshot.unwrap().head, head(10));
    let reasons: Vec<_> = newest.skipped.iter().map(|skipped| skipped.reason.to_string()).collect();
    assert_eq!(reasons.len(), 5, "{reasons:?}");
    for (reason, expected) in reasons.iter().zip(["taken at 70", "another log", "cannot be read", "damaged", "not in this log"]) {
        assert!(reason.contains(expected), "{reason:?} should say {expected:?}");
    }
}

#[test]
fn a_snapshot_of_a_newer_format_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), STORE);
    let path = save(&store, 3, b"state");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4] = 9;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(store.load(&info(&store, 3)), Err(SnapshotError::FormatTooNew { found: 9, known: 1 })));
}

#[test]
fn no_changed_byte_and_no_cut_gives_another_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), STORE);
    let path = save(&store, 3, &body(1_500));
    let whole = fs::read(&path).unwrap();
    let info = info(&store, 3);
    let saved = store.load(&info).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        // lz4 has more than one form of the same bytes; those do no harm.
        assert!(store.load(&info).map_or(true, |found| found == saved), "byte {at} was changed");
        fs::write(&path, &whole[..at]).unwrap();
        assert!(store.load(&info).is_err(), "the file was cut at {at}");
    }
    fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    assert!(store.load(&info).is_err(), "a byte was added");
}

#[test]
fn lengths_that_lie_cost_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), STORE);
    let path = save(&store, 3, b"");
    let lie = Header { store_id: STORE, head: head(3), body_len: SNAPSHOT_BYTES_MAX, digest: [0; 32] };
    fs::write(&path, [&lie.to_bytes()[..], &u32::MAX.to_le_bytes(), &u32::MAX.to_le_bytes()].concat()).unwrap();
    assert!(matches!(store.load(&info(&store, 3)), Err(SnapshotError::Damaged(_))));
    let lie = Header { body_len: SNAPSHOT_BYTES_MAX + 1, ..lie };
    fs::write(&path, lie.to_bytes()).unwrap();
    assert!(matches!(store.load(&info(&store, 3)), Err(SnapshotError::Damaged(_))));
}

#[test]
fn pruning_keeps_the_newest_and_the_base() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), STORE);
    for next in [10, 20, 30, 40, 50] {
        save(&store, next, b"state");
    }
    assert_eq!(store.prune(2, Position(20)).unwrap().len(), 2);
    let kept: Vec<_> = store.list().unwrap().into_iter().map(|info| info.position.0).collect();
    assert_eq!(kept, [50, 40, 20]);
}

#[test]
fn a_state_that_cannot_be_written_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), STORE);
    let failed = store.save(&head(4), &mut |_| Err(io::Error::other("the state could not be encoded")));
    assert!(matches!(failed, Err(LogError::Io { .. })));
    assert!(store.list().unwrap().is_empty());
}
