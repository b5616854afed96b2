//! Snapshots of the state, so that a start need not fold the whole log.
//!
//! ```text
//! DIR/snapshots/<next position, 20 digits>.snap, little-endian
//! header, 128 bytes                          | frames
//! magic "ERGN" · format u16 · 2 zero bytes   | raw length u32 · stored length u32
//! store id, 16 bytes                         | stored bytes: as they are when both
//! next position u64 · next ordinal u64       | lengths are equal, else one lz4 block
//! hash of the last block, 32 bytes           | … until the body has its length;
//! last time u64 (µs) · body length u64       | then the file ends
//! BLAKE3 of the body, 32 bytes · CRC-32C u32 |
//! 4 zero bytes                               |
//! ```
//! The hash names the block after which the state was taken, so a snapshot proves which log it belongs to. A damaged snapshot is
//! never an error of the log: the one before it and a longer tail give the same state.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::plain::{self, Keep};
use super::{Head, LogError};
use crate::block::Hash;
use crate::id::{Ordinal, Position};
use crate::time::Timestamp;

/// The format that snapshots are written in.
const FORMAT: u16 = 1;
const MAGIC: [u8; 4] = *b"ERGN";
const HEADER_BYTES: usize = 128;
const CRC_AT: usize = 120;
/// Bytes of the body that one frame holds at most: what writing and reading need in memory, twice.
const FRAME_BYTES: usize = 1 << 20;
/// Largest body in bytes: over fifty million live tasks at 150 bytes. A file that claims more is damaged.
pub const SNAPSHOT_BYTES_MAX: u64 = 8 << 30;
const EXTENSION: &str = "snap";

/// The snapshots of one log.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    folder: PathBuf,
    store_id: [u8; 16],
}

/// A snapshot file that is there, not yet read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The file.
    pub path: PathBuf,
    /// The first position that is not folded into it.
    pub position: Position,
}

/// A snapshot that was read and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Where the log ended when the state was taken.
    pub head: Head,
    /// What was saved.
    pub body: Vec<u8>,
}

/// What a search for a usable snapshot found.
#[derive(Debug, Default)]
pub struct Newest {
    /// The newest usable one, if any.
    pub snapshot: Option<Snapshot>,
    /// Those newer than it, and why each was passed over.
    pub skipped: Vec<Skipped>,
}

/// A snapshot that was passed over.
#[derive(Debug)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: SnapshotError,
}

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum SnapshotError {
    /// The file cannot be read, or ends too early.
    #[error("the snapshot cannot be read")]
    Io(#[from] io::Error),
    /// The content is not what was written.
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    /// A newer build wrote it.
    #[error("the snapshot has format {found} and this build reads up to {known}; use a newer build")]
    FormatTooNew { found: u16, known: u16 },
    /// It was taken of another log.
    #[error("the snapshot belongs to another log")]
    OtherStore,
    /// It was taken of a longer log.
    #[error("the snapshot was taken at {found} and the log is used up to {limit}")]
    TooNew { found: Position, limit: Position },
    /// The log has another history at the snapshot's position.
    #[error("the snapshot was taken at {at} after block {hash}, which is not in this log")]
    OtherHistory { at: Position, hash: Hash },
}

impl SnapshotStore {
    /// The snapshots in the data directory `dir`; the folder is created with the first of them.
    pub fn open(dir: &Path, store_id: [u8; 16]) -> SnapshotStore {
        SnapshotStore { folder: dir.join("snapshots"), store_id }
    }

    /// The log that they are snapshots of.
    pub const fn store_id(&self) -> [u8; 16] {
        self.store_id
    }

    /// Where the snapshot at a position lies, or would.
    pub fn path(&self, position: Position) -> PathBuf {
        plain::path(&self.folder, position, EXTENSION)
    }

    /// Removes what a writer that was killed left half written; only for the one writer of the log.
    pub fn clear_unfinished(&self) {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.path().extension().is_some_and(|name| name == plain::UNFINISHED)) {
            // It only takes space; the next start tries again.
            let _ = std::fs::remove_file(entry.path());
        }
    }

    /// Saves the state at `head`: `body` writes it, a frame at a time reaches the disk, and all of it is durable on return.
    ///
    /// # Errors
    /// [`LogError::Full`], [`LogError::Io`], [`LogError::Foreign`]; an earlier snapshot is still there then.
    pub fn save(&self, head: &Head, body: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<PathBuf, LogError> {
        let path = self.path(head.next);
        plain::replace(&path, Keep::Durably, |file| {
            // The header states length and hash of the body, so its place is filled last.
            file.write_all(&[0; HEADER_BYTES])?;
            let mut frames = Frames::new(BufWriter::new(file));
            body(&mut frames)?;
            let (file, body_len, digest) = frames.finish()?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&Header { store_id: self.store_id, head: *head, body_len, digest }.to_bytes())?;
            file.flush()
        })?;
        Ok(path)
    }

    /// The snapshots that are there, newest first, by their names alone.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Foreign`].
    pub fn list(&self) -> Result<Vec<SnapshotInfo>, LogError> {
        let found = plain::list(&self.folder, EXTENSION)?;
        Ok(found.into_iter().rev().map(|(position, path)| SnapshotInfo { path, position }).collect())
    }

    /// Reads one snapshot and verifies every byte of it.
    ///
    /// # Errors
    /// A [`SnapshotError`] that says why it cannot be used.
    pub fn load(&self, info: &SnapshotInfo) -> Result<Snapshot, SnapshotError> {
        self.load_if(info, &|_| Ok(()))
    }

    /// The newest usable snapshot at or before `not_after` whose head `accept` recognizes as a place in this log.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Foreign`]; snapshots that cannot be used are no error but reported in the answer.
    pub fn newest_valid(&self, not_after: Position, accept: &dyn Fn(&Head) -> bool) -> Result<Newest, LogError> {
        let usable = |head: &Head| {
            if head.next > not_after {
                return Err(SnapshotError::TooNew { found: head.next, limit: not_after });
            }
            if !accept(head) {
                return Err(SnapshotError::OtherHistory { at: head.next, hash: head.hash });
            }
            Ok(())
        };
        let mut newest = Newest::default();
        for info in self.list()? {
            match self.load_if(&info, &usable) {
                Ok(snapshot) => {
                    newest.snapshot = Some(snapshot);
                    break;
                }
                Err(reason) => newest.skipped.push(Skipped { path: info.path, reason }),
            }
        }
        Ok(newest)
    }

    /// Removes all but the newest `keep` snapshots and the one at `keep_also`, the base of a log that retention has cut.
    /// Returns what it removed.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Foreign`].
    pub fn prune(&self, keep: usize, keep_also: Position) -> Result<Vec<PathBuf>, LogError> {
        let mut removed = Vec::new();
        for info in self.list()?.into_iter().skip(keep).filter(|info| info.position != keep_also) {
            std::fs::remove_file(&info.path).map_err(plain::io_error("remove", &info.path))?;
            removed.push(info.path);
        }
        Ok(removed)
    }

    /// Reads a snapshot whose head is `usable`; the body is not touched before that is known.
    fn load_if(
        &self,
        info: &SnapshotInfo,
        usable: &dyn Fn(&Head) -> Result<(), SnapshotError>,
    ) -> Result<Snapshot, SnapshotError> {
        let mut file = BufReader::new(plain::open(&info.path)?);
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact(&mut bytes)?;
        let header = Header::parse(&bytes)?;
        if header.store_id != self.store_id {
            return Err(SnapshotError::OtherStore);
        }
        if header.head.next != info.position {
            return Err(SnapshotError::Damaged("it was taken at another position than its name says"));
        }
        usable(&header.head)?;
        let body = read_frames(&mut file, header.body_len)?;
        if blake3::hash(&body).as_bytes() != &header.digest {
            return Err(SnapshotError::Damaged("its body has another hash than the header says"));
        }
        Ok(Snapshot { head: header.head, body })
    }
}

/// What a snapshot says about itself.
struct Header {
    store_id: [u8; 16],
    head: Head,
    body_len: u64,
    digest: [u8; 32],
}

impl Header {
    fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.store_id);
        bytes[24..32].copy_from_slice(&self.head.next.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.head.next_ordinal.0.to_le_bytes());
        bytes[40..72].copy_from_slice(&self.head.hash.0);
        bytes[72..80].copy_from_slice(&self.head.last_time.0.to_le_bytes());
        bytes[80..88].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[88..120].copy_from_slice(&self.digest);
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Header, SnapshotError> {
        if bytes[..4] != MAGIC {
            return Err(SnapshotError::Damaged("it does not begin with \"ERGN\""));
        }
        let format = u16::from_le_bytes(field(bytes, 4));
        if format > FORMAT {
            return Err(SnapshotError::FormatTooNew { found: format, known: FORMAT });
        }
        if crc32c::crc32c(&bytes[..CRC_AT]) != u32::from_le_bytes(field(bytes, CRC_AT)) {
            return Err(SnapshotError::Damaged("its header has another checksum than it says"));
        }
        let padding = [&bytes[6..8], &bytes[CRC_AT + 4..]].concat();
        if format == 0 || padding.iter().any(|byte| *byte != 0) {
            return Err(SnapshotError::Damaged("its header is not of format 1"));
        }
        let head = Head {
            next: Position(u64::from_le_bytes(field(bytes, 24))),
            next_ordinal: Ordinal(u64::from_le_bytes(field(bytes, 32))),
            hash: Hash(field(bytes, 40)),
            last_time: Timestamp(u64::from_le_bytes(field(bytes, 72))),
        };
        let body_len = u64::from_le_bytes(field(bytes, 80));
        if body_len > SNAPSHOT_BYTES_MAX {
            return Err(SnapshotError::Damaged("its body is larger than any snapshot may be"));
        }
        Ok(Header { store_id: field(bytes, 8), head, body_len, digest: field(bytes, 88) })
    }
}

fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("every field ends within the header")
}

/// Cuts what is written into frames and hashes it.
struct Frames<W> {
    out: W,
    raw: Vec<u8>,
    stored: Vec<u8>,
    hasher: blake3::Hasher,
    body_len: u64,
}

impl<'f> Frames<BufWriter<&'f mut File>> {
    fn new(out: BufWriter<&'f mut File>) -> Self {
        let stored = vec![0; lz4_flex::block::get_maximum_output_size(FRAME_BYTES)];
        Frames { out, raw: Vec::with_capacity(FRAME_BYTES), stored, hasher: blake3::Hasher::new(), body_len: 0 }
    }

    fn finish(mut self) -> io::Result<(&'f mut File, u64, [u8; 32])> {
        self.write_frame()?;
        let digest = *self.hasher.finalize().as_bytes();
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((file, self.body_len, digest))
    }

    fn write_frame(&mut self) -> io::Result<()> {
        if self.raw.is_empty() {
            return Ok(());
        }
        self.body_len += self.raw.len() as u64;
        if self.body_len > SNAPSHOT_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the state is larger than any snapshot may be"));
        }
        self.hasher.update(&self.raw);
        let len = lz4_flex::block::compress_into(&self.raw, &mut self.stored).map_err(io::Error::other)?;
        let stored = if len < self.raw.len() { &self.stored[..len] } else { &self.raw };
        self.out.write_all(&(self.raw.len() as u32).to_le_bytes())?;
        self.out.write_all(&(stored.len() as u32).to_le_bytes())?;
        self.out.write_all(stored)?;
        self.raw.clear();
        Ok(())
    }
}

impl Write for Frames<BufWriter<&mut File>> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(FRAME_BYTES - self.raw.len());
        self.raw.extend_from_slice(&bytes[..taken]);
        if self.raw.len() == FRAME_BYTES {
            self.write_frame()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the frames of a body. Memory grows with what is really there, whatever the lengths claim.
fn read_frames(file: &mut impl Read, body_len: u64) -> Result<Vec<u8>, SnapshotError> {
    let mut body = Vec::new();
    let mut stored = Vec::new();
    while (body.len() as u64) < body_len {
        let raw_len = read_len(file)?;
        let stored_len = read_len(file)?;
        let left = body_len - body.len() as u64;
        if raw_len == 0 || raw_len > FRAME_BYTES || raw_len as u64 > left || stored_len > raw_len {
            return Err(SnapshotError::Damaged("a frame has an impossible length"));
        }
        let begin = body.len();
        body.resize(begin + raw_len, 0);
        if stored_len == raw_len {
            file.read_exact(&mut body[begin..])?;
            continue;
        }
        stored.resize(stored_len, 0);
        file.read_exact(&mut stored)?;
        let len = lz4_flex::block::decompress_into(&stored, &mut body[begin..])
            .map_err(|_| SnapshotError::Damaged("lz4 refuses a frame"))?;
        if len != raw_len {
            return Err(SnapshotError::Damaged("a frame has another length than it says"));
        }
    }
    match file.read(&mut [0])? {
        0 => Ok(body),
        _ => Err(SnapshotError::Damaged("bytes are left after the last frame")),
    }
}

fn read_len(file: &mut impl Read) -> io::Result<usize> {
    let mut bytes = [0; 4];
    file.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes) as usize)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
