//! Sidecar files: the index of one sealed range of the log.
//!
//! ```text
//! DIR/index/<first position, 20 digits>.idx, little-endian
//! magic "ERGI" · format u16 · 2 zero bytes            16 bytes
//! summary length u32 · CRC-32C of 12 bytes and summary
//! summary (bincode): store, range, hashes at both ends, names of types, counts of endings by type and outcome
//! directory: 28 bytes a page (page.rs)                its CRC is in the summary
//! pages: creations, types, postings, endings, revivals  their CRCs are in the directory
//! ```
//! Opening a sidecar reads the summary only; directory and pages are read, and checked, when a question needs them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bincode::{Decode, Encode};

use super::entry::TypeOf;
use super::page::{PageList, SLOT_BYTES, Slot, Unusable};
use super::tail::Parts;
use super::{Ending, EndingQuery, TypeNames, search};
use crate::block::Hash;
use crate::id::{Ordinal, Position, TypeId};
use crate::log::plain::{self, Keep};
use crate::log::{LogError, Span};
use crate::task::Outcome;

const MAGIC: [u8; 4] = *b"ERGI";
const FORMAT: u16 = 1;
const PREFIX_BYTES: usize = 16;
/// Longest summary: five outcomes of each possible type fit.
const SUMMARY_BYTES_MAX: usize = 4 << 20;
/// What a sidecar's name ends in.
pub(super) const EXTENSION: &str = "idx";

/// The sections of a sidecar, in the order in which they lie there.
#[derive(Clone, Copy)]
enum Section {
    Creations,
    Types,
    Postings,
    Endings,
    Revivals,
}

/// What is known of a sidecar without reading its pages.
#[derive(Clone, Debug, Encode, Decode)]
struct Summary {
    store_id: [u8; 16],
    first: Position,
    next: Position,
    /// Ordinals of the first created task and of the one after the last.
    ordinals: (Ordinal, Ordinal),
    last_block: Position,
    /// Hashes of the block in front of the range, and of its last one.
    hashes: (Hash, Hash),
    /// Lowest and highest task of all postings.
    posted: Option<(Ordinal, Ordinal)>,
    /// Lowest and highest task of all revivals.
    revived: Option<(Ordinal, Ordinal)>,
    /// What the types are called that were defined up to the end of the range.
    names: TypeNames,
    /// How many tasks of a type ended with an outcome; 65,535 is the type that is not known.
    counts: Vec<(TypeOf, Outcome, u64)>,
    /// Pages of each section.
    pages: [u32; 5],
    directory_crc: u32,
    /// Bytes of all pages; their offsets count from the end of the directory.
    pages_len: u32,
}

/// A sidecar file whose summary was read.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) path: PathBuf,
    summary: Summary,
    /// Where the directory begins.
    directory_at: u64,
    /// Whether its last block was found in the log.
    fits: AtomicBool,
}

impl Sidecar {
    /// Writes a sidecar.
    pub(super) fn write(folder: &Path, store_id: [u8; 16], parts: &Parts) -> Result<PathBuf, LogError> {
        let path = plain::path(folder, parts.span.first, EXTENSION);
        plain::replace(&path, Keep::Rebuildable, |file| file.write_all(&encode(store_id, parts)))?;
        Ok(path)
    }

    /// Reads the summary of a sidecar.
    pub(super) fn open(path: &Path, named: Position, store_id: [u8; 16]) -> Result<Sidecar, Unusable> {
        let file = plain::open(path)?;
        let mut prefix = [0; PREFIX_BYTES];
        file.read_exact_at(&mut prefix, 0)?;
        let part = |at: usize| u32::from_le_bytes(*prefix[at..].first_chunk().expect("every part ends within the prefix"));
        if prefix[..4] != MAGIC {
            return Err(Unusable::Damaged("it does not begin with \"ERGI\""));
        }
        if part(4) != u32::from(FORMAT) {
            return Err(Unusable::OtherFormat(part(4) as u16));
        }
        let summary_len = part(8) as usize;
        if summary_len > SUMMARY_BYTES_MAX || summary_len as u64 > file.metadata()?.len() {
            return Err(Unusable::Damaged("its summary is longer than any"));
        }
        let mut bytes = vec![0; summary_len];
        file.read_exact_at(&mut bytes, PREFIX_BYTES as u64)?;
        if crc32c::crc32c_append(crc32c::crc32c(&prefix[..12]), &bytes) != part(12) {
            return Err(Unusable::Damaged("its summary has another checksum than it says"));
        }
        let summary = Summary::parse(&bytes)?;
        summary.check(named, store_id)?;
        let directory_at = (PREFIX_BYTES + summary_len) as u64;
        if directory_at + summary.directory_len() + u64::from(summary.pages_len) != file.metadata()?.len() {
            return Err(Unusable::Damaged("it has another length than it says"));
        }
        Ok(Sidecar { path: path.to_owned(), summary, directory_at, fits: AtomicBool::new(false) })
    }

    /// The records that it covers.
    pub(super) fn span(&self) -> Span {
        Span { first: self.summary.first, next: self.summary.next }
    }

    /// Hash of the block in front of the range.
    pub(super) fn hash_before(&self) -> Hash {
        self.summary.hashes.0
    }

    /// Hash of the last block.
    pub(super) fn last_hash(&self) -> Hash {
        self.summary.hashes.1
    }

    /// What the types are called that were defined up to the end of the range.
    pub(super) fn names(&self) -> &TypeNames {
        &self.summary.names
    }

    /// Whether the last block is known to be in the log.
    pub(super) fn fits(&self) -> bool {
        self.fits.load(Ordering::Acquire)
    }

    /// Notes that the last block was found in the log.
    pub(super) fn set_fits(&self) {
        self.fits.store(true, Ordering::Release);
    }

    /// Ordinal after the last created task.
    pub(super) fn next_ordinal(&self) -> Ordinal {
        self.summary.ordinals.1
    }

    /// The task's place among the tasks that the range creates.
    pub(super) fn index_of(&self, task: Ordinal) -> Option<usize> {
        let (first, next) = self.summary.ordinals;
        usize::try_from((first..next).contains(&task).then(|| task.0 - first.0)?).ok()
    }

    /// The page with the type of the task with this index.
    pub(super) fn type_page(&self, index: usize) -> Result<Vec<u8>, Unusable> {
        self.section(&plain::open(&self.path)?, Section::Types)?.raw(search::type_page(index))
    }

    /// First positions, at or after `from`, of the blocks that hold events of the task, in order.
    pub(super) fn history(&self, task: Ordinal, from: Position) -> Result<Vec<Position>, Unusable> {
        let creates = self.index_of(task).is_some();
        let posted = self.summary.posted.is_some_and(|(low, high)| (low..=high).contains(&task));
        let mut found = Vec::new();
        if !creates && !posted {
            return Ok(found);
        }
        let file = plain::open(&self.path)?;
        if creates {
            found.extend(search::creation(&self.section(&file, Section::Creations)?, task)?);
        }
        if posted {
            search::postings(&self.section(&file, Section::Postings)?, task, &mut found)?;
        }
        found.retain(|block| *block >= from);
        Ok(found)
    }

    /// The newest endings at or after `from` that the query asks for, newest first.
    pub(super) fn endings(&self, from: Position, query: &EndingQuery<'_>) -> Result<Vec<Ending>, Unusable> {
        let wanted = |(id, outcome, _): &(TypeOf, Outcome, u64)| query.wants(id.known(), *outcome);
        if !self.summary.counts.iter().any(wanted) {
            return Ok(Vec::new());
        }
        search::endings(&self.section(&plain::open(&self.path)?, Section::Endings)?, from, query)
    }

    /// Adds those of the tasks that the range tells to be dead letters no more.
    pub(super) fn revived(&self, tasks: &BTreeSet<Ordinal>, found: &mut BTreeSet<Ordinal>) -> Result<(), Unusable> {
        let Some((low, high)) = self.summary.revived else { return Ok(()) };
        match tasks.range(low..=high).next() {
            Some(_) => search::among(&self.section(&plain::open(&self.path)?, Section::Revivals)?, tasks, found),
            None => Ok(()),
        }
    }

    /// How many tasks of each type ended with each outcome in the range.
    pub(super) fn counts(&self) -> impl Iterator<Item = (Option<TypeId>, Outcome, u64)> {
        self.summary.counts.iter().map(|(id, outcome, count)| (id.known(), *outcome, *count))
    }

    /// Reads all of the file again, the summary included, which questions take from memory.
    pub(super) fn check(&self) -> Result<(), Unusable> {
        let fresh = Sidecar::open(&self.path, self.summary.first, self.summary.store_id)?;
        let file = plain::open(&fresh.path)?;
        for section in [Section::Creations, Section::Types, Section::Postings, Section::Endings, Section::Revivals] {
            let pages = fresh.section(&file, section)?;
            (0..pages.count()).try_for_each(|page| pages.raw(page).map(drop))?;
        }
        Ok(())
    }

    fn section<'f>(&self, file: &'f File, section: Section) -> Result<PagesOnDisk<'f>, Unusable> {
        // The file was as long as this when it was opened, so the length is no lie.
        let directory_len = self.summary.directory_len();
        let mut directory = vec![0; directory_len as usize];
        file.read_exact_at(&mut directory, self.directory_at)?;
        if crc32c::crc32c(&directory) != self.summary.directory_crc {
            return Err(Unusable::Damaged("its directory has another checksum than the summary says"));
        }
        let count = |index: usize| self.summary.pages[index] as usize;
        let begin = (0..section as usize).map(count).sum::<usize>() * SLOT_BYTES;
        directory.truncate(begin + count(section as usize) * SLOT_BYTES);
        directory.drain(..begin);
        Ok(PagesOnDisk { file, directory, begin: self.directory_at + directory_len, len: self.summary.pages_len })
    }
}

impl Summary {
    fn config() -> impl bincode::config::Config {
        bincode::config::standard().with_limit::<{ 4 * SUMMARY_BYTES_MAX }>()
    }

    fn parse(bytes: &[u8]) -> Result<Summary, Unusable> {
        match bincode::decode_from_slice(bytes, Summary::config()) {
            Ok((summary, used)) if used == bytes.len() => Ok(summary),
            Ok(_) | Err(_) => Err(Unusable::Damaged("its summary cannot be decoded")),
        }
    }

    fn directory_len(&self) -> u64 {
        self.pages.iter().map(|count| u64::from(*count)).sum::<u64>() * SLOT_BYTES as u64
    }

    fn check(&self, named: Position, store_id: [u8; 16]) -> Result<(), Unusable> {
        if self.store_id != store_id {
            return Err(Unusable::OtherStore);
        }
        let blocks = self.first == named && (self.first..self.next).contains(&self.last_block);
        let reversed = |range: Option<(Ordinal, Ordinal)>| range.is_some_and(|(low, high)| low > high);
        if !blocks || self.ordinals.0 > self.ordinals.1 || reversed(self.revived) {
            return Err(Unusable::Damaged("its summary is impossible"));
        }
        Ok(())
    }
}

/// The pages of one section, on disk.
struct PagesOnDisk<'f> {
    file: &'f File,
    directory: Vec<u8>,
    /// Where the pages of all sections begin, and how long they are together.
    begin: u64,
    len: u32,
}

impl PagesOnDisk<'_> {
    fn slot(&self, page: usize) -> Option<Slot> {
        self.directory.get(page.checked_mul(SLOT_BYTES)?..)?.first_chunk().map(Slot::read)
    }
}

impl PageList for PagesOnDisk<'_> {
    fn count(&self) -> usize {
        self.directory.len() / SLOT_BYTES
    }

    fn key_and_mask(&self, page: usize) -> (u64, u32) {
        self.slot(page).map_or((0, 0), |slot| (slot.key, slot.mask))
    }

    fn raw(&self, page: usize) -> Result<Vec<u8>, Unusable> {
        let slot = self.slot(page).ok_or(Unusable::Damaged("a page is missing"))?;
        if slot.offset.checked_add(slot.stored_len).is_none_or(|end| end > self.len) {
            return Err(Unusable::Damaged("a page lies behind the end of the file"));
        }
        let mut stored = vec![0; slot.stored_len as usize];
        self.file.read_exact_at(&mut stored, self.begin + u64::from(slot.offset))?;
        slot.unpack(&stored)
    }
}

fn encode(store_id: [u8; 16], parts: &Parts) -> Vec<u8> {
    let mut directory = Vec::new();
    let mut pages_len = 0;
    for page in parts.pages.iter().flatten() {
        Slot::of(page, pages_len).write(&mut directory);
        pages_len += page.stored.len() as u32;
    }
    let summary = Summary {
        store_id,
        first: parts.span.first,
        next: parts.span.next,
        ordinals: parts.ordinals,
        last_block: parts.last_block,
        hashes: parts.hashes,
        posted: parts.posted,
        revived: parts.revived,
        names: parts.names.clone(),
        counts: parts.counts.clone(),
        pages: parts.pages.each_ref().map(|pages| pages.len() as u32),
        directory_crc: crc32c::crc32c(&directory),
        pages_len,
    };
    let summary = bincode::encode_to_vec(&summary, Summary::config()).expect("a vector takes every byte");
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + summary.len() + directory.len() + pages_len as usize);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&u32::from(FORMAT).to_le_bytes());
    bytes.extend_from_slice(&(summary.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), &summary);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&summary);
    bytes.extend_from_slice(&directory);
    parts.pages.iter().flatten().for_each(|page| bytes.extend_from_slice(&page.stored));
    bytes
}
