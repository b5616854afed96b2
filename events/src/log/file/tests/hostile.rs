//! Bytes with right checksums and wrong contents: nothing panics, whatever they claim.

use std::fs;
use std::path::PathBuf;

use super::super::*;
use super::prelude::*;
use super::{segment_files, small, store_of};
use crate::block::{HEADER_BYTES, Hash};
use crate::id::Ordinal;
use crate::log::conformance::{Filler, read_all};
use crate::log::directory::anchor::Anchor;
use crate::log::directory::repair;
use crate::time::Timestamp;

/// A number of the kind that breaks arithmetic.
fn awkward(random: &mut Filler) -> u64 {
    let draw = random.random();
    match draw % 5 {
        0 => u64::MAX - draw / 5 % 3,
        1 => draw / 5 % 3,
        2 => 1 << (draw / 5 % 64),
        3 => draw / 5 % 300,
        _ => draw,
    }
}

/// Opens, reads, seeks and repairs; any answer will do.
fn provoke(dir: &Path, random: &mut Filler) {
    if let Ok(reader) = FileReader::open(dir) {
        let _ = reader.cursor(reader.span().first).and_then(|mut cursor| read_all_unchecked(cursor.as_mut()));
        let _ = reader.seek_time(Timestamp(awkward(random)));
        let _ = reader.seek_task(Ordinal(awkward(random)));
        let _ = reader.cursor(Position(awkward(random)));
    }
    if let Ok((mut log, _)) = FileLog::open(dir, small()) {
        let _ = log.retain(Position(awkward(random)));
        let _ = Box::new(log).close();
    }
    let lost = match repair(dir, awkward(random)) {
        Err(LogError::Missing { missing, .. }) => missing,
        Ok(_) | Err(_) => 0,
    };
    let _ = repair(dir, lost);
    if let Ok((log, _)) = FileLog::open(dir, small()) {
        let _ = log.reader().cursor(Position(0)).map(|mut cursor| read_all(cursor.as_mut()));
    }
}

fn read_all_unchecked(cursor: &mut dyn crate::log::Cursor) -> Result<(), LogError> {
    while cursor.next_block()?.is_some() {}
    Ok(())
}

fn restored(good: &[(PathBuf, Vec<u8>)], dir: &Path) {
    fs::remove_dir_all(dir.join("log")).unwrap();
    fs::create_dir(dir.join("log")).unwrap();
    good.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
}

#[test]
fn an_anchor_may_claim_anything() {
    let (dir, _) = store_of(20);
    let good: Vec<_> = super::damage::contents(dir.path()).into_iter().collect();
    let mut random = Filler::new(8);
    let real = anchor::newest(&dir.path().join("anchor")).unwrap().unwrap();
    for _ in 0..300 {
        let mut head = |known: Head| Head {
            next: Position(awkward(&mut random)),
            next_ordinal: Ordinal(awkward(&mut random)),
            hash: if random.random().is_multiple_of(2) { known.hash } else { Hash([1; 32]) },
            last_time: Timestamp(awkward(&mut random)),
        };
        let (base, other) = (head(real.base), head(real.head));
        let base = if random.random().is_multiple_of(2) { real.base } else { base };
        let head = if random.random().is_multiple_of(3) { real.head } else { other };
        let anchor = Anchor { base, head, counter: awkward(&mut random), loose: random.random().is_multiple_of(2), ..real };
        fs::write(dir.path().join("anchor"), anchor.to_file()).unwrap();
        if random.random().is_multiple_of(4) {
            segment_files(dir.path()).iter().for_each(|file| fs::remove_file(file).unwrap());
        }
        provoke(dir.path(), &mut random);
        restored(&good, dir.path());
    }
}

#[test]
fn a_header_may_claim_anything() {
    let (dir, _) = store_of(20);
    let good: Vec<_> = super::damage::contents(dir.path()).into_iter().collect();
    let mut random = Filler::new(9);
    for _ in 0..300 {
        let files = segment_files(dir.path());
        let file = &files[random.random() as usize % files.len()];
        let mut bytes = fs::read(file).unwrap();
        let starts: Vec<_> = (0..bytes.len() - HEADER_BYTES).filter(|at| bytes[*at..].starts_with(b"ERGB")).collect();
        let at = starts[random.random() as usize % starts.len()];
        let (field, len) = [(8, 4), (12, 4), (16, 8), (24, 8), (32, 8), (40, 1), (44, 4), (48, 4)][random.random() as usize % 8];
        bytes[at + field..at + field + len].copy_from_slice(&awkward(&mut random).to_le_bytes()[..len]);
        let stored = u32::from_le_bytes(bytes[at + 48..at + 52].try_into().unwrap()) as usize;
        if let Some(block) = bytes[at..].get_mut(..HEADER_BYTES.saturating_add(stored)) {
            let crc = crc32c::crc32c_append(crc32c::crc32c(&block[..52]), &block[56..]);
            block[52..56].copy_from_slice(&crc.to_le_bytes());
        }
        fs::write(file, bytes).unwrap();
        provoke(dir.path(), &mut random);
        restored(&good, dir.path());
    }
}
