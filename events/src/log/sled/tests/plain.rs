//! sled as it comes, under the same faults: each of these tests shows that one of the next ones has something to find.

use std::fs;
use std::path::Path;

use super::prelude::*;

/// What a log on plain sled would be: a key for each block, sled's own flush, and whatever sled finds when it opens.
fn write_plain(dir: &Path, blocks: &[SealedBlock]) -> sled::Result<()> {
    let db = sled::Config::new().path(dir).flush_every_ms(None).open()?;
    for block in blocks {
        db.insert(block.header.first_position.0.to_be_bytes(), block.bytes.as_slice())?;
        db.flush()?;
    }
    Ok(())
}

/// How many blocks plain sled has; `None` when it fails or panics.
fn read_plain(dir: &Path) -> Option<usize> {
    let dir = dir.to_owned();
    let count = move || -> sled::Result<usize> {
        let db = sled::Config::new().path(dir).flush_every_ms(None).open()?;
        db.iter().try_fold(0, |count, found| found.map(|_| count + 1))
    };
    std::panic::catch_unwind(count).ok().and_then(Result::ok)
}

#[test]
fn plain_sled_does_not_open_beside_an_unfinished_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    write_plain(dir.path(), &Filler::new(1).blocks(5)).unwrap();
    assert_eq!(read_plain(dir.path()), Some(5), "it is well");
    fs::write(dir.path().join("snap.7FFFFFFFFFFFFFFF.generating"), b"half of").unwrap();
    assert_eq!(read_plain(dir.path()), None);
}

#[test]
fn plain_sled_opens_a_truncated_file_shorter_and_says_nothing() {
    let silent = (1..20).filter(|step| {
        let dir = tempfile::tempdir().unwrap();
        write_plain(dir.path(), &Filler::new(2).blocks(40)).unwrap();
        super::cut_file(&dir.path().join("db"), |len| len * step / 20);
        read_plain(dir.path()).is_some_and(|count| count < 40)
    });
    assert!(silent.count() > 0);
}

#[test]
fn plain_sled_believes_or_panics_over_flipped_bits() {
    let mut outcomes = [0; 3];
    for seed in 0..30 {
        let dir = tempfile::tempdir().unwrap();
        write_plain(dir.path(), &Filler::new(3).blocks(40)).unwrap();
        super::flip_bit(&dir.path().join("db"), seed);
        match read_plain(dir.path()) {
            None => outcomes[0] += 1,
            Some(40) => outcomes[1] += 1,
            Some(_) => outcomes[2] += 1,
        }
    }
    assert!(outcomes[0] + outcomes[2] > 0, "errors or panics, whole, silently shorter: {outcomes:?}");
}

#[test]
fn plain_sled_puts_large_values_into_files_that_it_never_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let mut filler = Filler::new(4);
    write_plain(dir.path(), &[filler.block(1, 600_000)]).unwrap();
    assert!(fs::read_dir(dir.path().join("blobs")).unwrap().count() > 0);
}

#[test]
fn plain_sled_follows_a_link_out_of_its_folder() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let thesis = elsewhere.path().join("thesis.tex");
    fs::write(&thesis, "").unwrap();
    std::os::unix::fs::symlink(&thesis, dir.path().join("db")).unwrap();
    let _ = write_plain(dir.path(), &Filler::new(5).blocks(1));
    assert!(fs::metadata(&thesis).unwrap().len() > 0);
}
