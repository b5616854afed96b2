//! A log on its way to where somebody keeps a copy of it: how a service tells it, and how it is taken apart again.
//!
//! The numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `ergcopy1` |
//! | 16 | identity of the log |
//! | 8 | the position where the copy begins |
//! | 8 | the position behind the last event of the copy |
//!
//! Then pieces come, each of its kind (1 byte), its length (4 bytes) and its content:
//!
//! | kind | content |
//! |---|---|
//! | `s` | a part of the snapshot from which a log goes on whose beginning retention has dropped, as its file has it; all parts come before the first block |
//! | `b` | a block, as files of logs have it (docs/log-format.md) |
//! | `e` | the hash of the last block; nothing comes behind it, and a copy without it is not whole |

use ergate_events::block::{BODY_BYTES_MAX, HEADER_BYTES, Hash};
use ergate_events::id::Position;

const MAGIC: &[u8; 8] = b"ergcopy1";
/// Bytes before the first piece.
const BEGIN_BYTES: usize = 8 + 16 + 8 + 8;
/// Bytes of a piece before its content.
const PIECE_BYTES: usize = 1 + 4;
/// Largest content of a piece: a block whose body is as large as one may be.
const CONTENT_BYTES_MAX: usize = HEADER_BYTES + BODY_BYTES_MAX;
/// Bytes of a part of a snapshot.
pub const PART_BYTES: usize = 256 << 10;

/// What is said first of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The identity of the log.
    pub store: [u8; 16],
    /// Where the copy begins.
    pub first: Position,
    /// Behind its last event.
    pub next: Position,
}

/// What comes of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// What is said first.
    Begin(Begin),
    /// A part of the snapshot's file.
    Snapshot(Vec<u8>),
    /// A block.
    Block(Vec<u8>),
    /// The end, with the hash of the last block.
    End(Hash),
}

/// What came is no copy of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what came is no copy of a log: {0}")]
pub struct NoCopy(&'static str);

impl Begin {
    /// What is sent first.
    pub fn to_bytes(self) -> Vec<u8> {
        [&MAGIC[..], &self.store, &self.first.0.to_le_bytes(), &self.next.0.to_le_bytes()].concat()
    }

    fn parse(bytes: &[u8; BEGIN_BYTES]) -> Result<Begin, NoCopy> {
        let Some(rest) = bytes.strip_prefix(MAGIC) else { return Err(NoCopy("it does not begin like one")) };
        let (store, rest) = rest.split_at(16);
        let (first, next) = rest.split_at(8);
        let number = |bytes: &[u8]| Position(u64::from_le_bytes(bytes.try_into().expect("eight bytes were split off")));
        Ok(Begin { store: store.try_into().expect("sixteen bytes were split off"), first: number(first), next: number(next) })
    }
}

/// Appends a piece with a part of a snapshot's file, of at most [`PART_BYTES`].
pub fn snapshot(part: &[u8], to: &mut Vec<u8>) {
    piece(b's', part, to);
}

/// Appends a piece with a block.
pub fn block(block: &[u8], to: &mut Vec<u8>) {
    piece(b'b', block, to);
}

/// Appends the last piece.
pub fn end(last: Hash, to: &mut Vec<u8>) {
    piece(b'e', &last.0, to);
}

fn piece(kind: u8, content: &[u8], to: &mut Vec<u8>) {
    let len = u32::try_from(content.len()).expect("blocks and parts of snapshots have a limit far below");
    to.push(kind);
    to.extend_from_slice(&len.to_le_bytes());
    to.extend_from_slice(content);
}

/// Takes a copy apart as it comes.
#[derive(Debug, Default)]
pub struct Pieces {
    rest: Vec<u8>,
    has_begun: bool,
    has_ended: bool,
}

impl Pieces {
    /// Takes some bytes and gives the pieces that are whole with them.
    ///
    /// # Errors
    /// [`NoCopy`] for what a service does not send.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Vec<Piece>, NoCopy> {
        self.rest.extend_from_slice(bytes);
        let (mut found, mut used) = (Vec::new(), 0);
        while let Some((piece, len)) = self.next(&self.rest[used..])? {
            self.has_begun = true;
            self.has_ended |= matches!(piece, Piece::End(_));
            found.push(piece);
            used += len;
        }
        self.rest.drain(..used);
        Ok(found)
    }

    /// The first piece of some bytes and how many it takes, if it is whole.
    fn next(&self, bytes: &[u8]) -> Result<Option<(Piece, usize)>, NoCopy> {
        if !self.has_begun {
            let Some(begin) = bytes.first_chunk() else { return Ok(None) };
            return Ok(Some((Piece::Begin(Begin::parse(begin)?), BEGIN_BYTES)));
        }
        if self.has_ended && !bytes.is_empty() {
            return Err(NoCopy("something comes behind its end"));
        }
        let Some(&[kind, a, b, c, d]) = bytes.first_chunk::<PIECE_BYTES>() else { return Ok(None) };
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        if len > CONTENT_BYTES_MAX {
            return Err(NoCopy("a piece is longer than any block"));
        }
        let Some(content) = bytes.get(PIECE_BYTES..PIECE_BYTES + len) else { return Ok(None) };
        let piece = match kind {
            b's' => Piece::Snapshot(content.to_vec()),
            b'b' => Piece::Block(content.to_vec()),
            b'e' => Piece::End(Hash(content.try_into().map_err(|_| NoCopy("its end has no hash"))?)),
            _ => return Err(NoCopy("a piece has a kind that this build does not know")),
        };
        Ok(Some((piece, PIECE_BYTES + len)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn whole() -> (Vec<u8>, Vec<Piece>) {
        let begin = Begin { store: [7; 16], first: Position(3), next: Position(1 << 40) };
        let mut bytes = begin.to_bytes();
        snapshot(b"state", &mut bytes);
        block(&[9; 300], &mut bytes);
        block(b"", &mut bytes);
        end(Hash([1; 32]), &mut bytes);
        let pieces = vec![
            Piece::Begin(begin),
            Piece::Snapshot(b"state".to_vec()),
            Piece::Block(vec![9; 300]),
            Piece::Block(Vec::new()),
            Piece::End(Hash([1; 32])),
        ];
        (bytes, pieces)
    }

    #[test]
    fn pieces_are_whole_however_they_are_cut() {
        let (bytes, expected) = whole();
        for size in [1, 2, 7, 64, 10_000] {
            let mut pieces = Pieces::default();
            let found: Vec<_> = bytes.chunks(size).flat_map(|part| pieces.take(part).unwrap()).collect();
            assert_eq!(found, expected, "{size}");
        }
    }

    #[test]
    fn what_no_service_sends_is_refused() {
        let (bytes, _) = whole();
        let behind = [&bytes[..], b"x"].concat();
        let kind = [&bytes[..BEGIN_BYTES], b"z\0\0\0\0"].concat();
        let long = [&bytes[..BEGIN_BYTES], b"b\xff\xff\xff\xff"].concat();
        let short = [&bytes[..BEGIN_BYTES], b"e\x01\0\0\0x"].concat();
        let other = [&b"{\"type\":"[..], &bytes[8..]].concat();
        for (bytes, reason) in [(behind, "behind"), (kind, "kind"), (long, "longer"), (short, "hash"), (other, "begin")] {
            let error = Pieces::default().take(&bytes).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
