//! Blocks: the unit in which records are compressed, checked, chained and made durable.
//!
//! ```text
//! header, 88 bytes, little-endian            | stored bytes
//! magic "ERGB" · format u16 · shard u16      | the body as it is (codec 0)
//! epoch u32 · count u32                      | or as one lz4 block (codec 1);
//! first position u64 · first ordinal u64     | the body is `count` records
//! first time u64 (µs)                        | (codec.rs), one after another
//! codec u8 · 3 zero bytes                    |
//! body length u32 · stored length u32        |
//! CRC-32C of everything else u32             |
//! hash of the block before, 32 bytes         |
//! ```
//! The hash of a block is BLAKE3 over the previous hash, the logical header (format, shard, epoch, count, first position,
//! first ordinal, first time, body length; 40 bytes, little-endian) and the body before compression, so it does not depend on codec or backend.
//! A batch never spans two blocks: what was decided together survives or is lost together.

use std::fmt;

use crate::codec::{CodecError, FORMAT, v1};
use crate::event::{Envelope, Event, hex};
use crate::id::{Epoch, Ordinal, Position, ShardId};
use crate::time::Timestamp;

/// Length of a header in bytes.
pub const HEADER_BYTES: usize = 88;
/// Largest body in bytes, before compression; nothing larger is read or written.
pub const BODY_BYTES_MAX: usize = 16 << 20;
/// Bodies shorter than this are stored as they are: lz4 gains nothing on them.
const COMPRESS_BYTES_MIN: usize = 128;
const MAGIC: [u8; 4] = *b"ERGB";
const CRC_AT: usize = 52;

/// The BLAKE3 hash that chains a block to all blocks before it.
#[derive(Clone, Copy, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What the first block of a log is chained to.
    pub const ZERO: Hash = Hash([0; 32]);
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

/// What a block says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Format version of the records.
    pub format: u16,
    /// The shard whose log it is.
    pub shard: ShardId,
    /// The opening of the log in which it was written.
    pub epoch: Epoch,
    /// Number of records.
    pub count: u32,
    /// Position of the first record.
    pub first_position: Position,
    /// Ordinal that the first task created in this block gets.
    pub first_ordinal: Ordinal,
    /// Time of the first record.
    pub first_time: Timestamp,
    /// 0 stored as it is, 1 lz4.
    pub codec: u8,
    /// Bytes of the body before compression.
    pub body_len: u32,
    /// Bytes that follow the header.
    pub stored_len: u32,
    /// CRC-32C of the header without this field, and of the stored bytes.
    pub crc: u32,
    /// Hash of the block before.
    pub previous: Hash,
}

/// Why bytes are not a block.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum BlockError {
    /// Nothing was ever written here: the header is all zeros, or there are no bytes.
    #[error("there is no block here")]
    Absent,
    /// The bytes end before the block does.
    #[error("the block needs {needed} bytes and {found} are there")]
    Truncated { needed: usize, found: usize },
    /// The bytes are not a header of ours.
    #[error("the block header is damaged: {0}")]
    Header(&'static str),
    /// A newer build wrote it.
    #[error("the block has format {found} and this build reads up to {known}; use a newer build")]
    FormatTooNew { found: u16, known: u16 },
    /// The checksum does not match.
    #[error("the checksum is {found:08x} and should be {expected:08x}")]
    Checksum { expected: u32, found: u32 },
    /// The checksum matches and the content is still impossible.
    #[error("the block body is damaged: {0}")]
    Body(&'static str),
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] CodecError),
}

impl Header {
    /// Position after the last record.
    pub const fn next_position(&self) -> Position {
        Position(self.first_position.0 + self.count as u64)
    }

    /// Bytes of the whole block, header included.
    pub const fn block_len(&self) -> usize {
        HEADER_BYTES + self.stored_len as usize
    }

    /// Bytes of the whole block as a header of any format claims, ours or a newer one: lengths and checksum lie in the same places.
    pub(crate) fn claimed_len(header: &[u8]) -> usize {
        let claimed = header.get(48..52).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes));
        HEADER_BYTES + (claimed as usize).min(BODY_BYTES_MAX)
    }

    /// Whether a block of any format, with nothing behind it, has the checksum that it names.
    pub(crate) fn is_whole(block: &[u8]) -> bool {
        let named = block.get(CRC_AT..).and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_le_bytes(*bytes));
        block.len() >= HEADER_BYTES && named == Some(checksum(block))
    }

    /// Reads a header; the checksum is checked with the body, by [`Block::parse`].
    ///
    /// # Errors
    /// [`BlockError::Absent`] for zeros, [`BlockError::Truncated`], [`BlockError::Header`] or [`BlockError::FormatTooNew`].
    pub fn parse(bytes: &[u8]) -> Result<Header, BlockError> {
        if bytes.iter().take(HEADER_BYTES).all(|byte| *byte == 0) {
            return Err(BlockError::Absent);
        }
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BlockError::Truncated { needed: HEADER_BYTES, found: bytes.len() });
        };
        if bytes[..4] != MAGIC {
            return Err(BlockError::Header("it does not begin with \"ERGB\""));
        }
        let header = Header {
            format: u16::from_le_bytes(field(bytes, 4)),
            shard: ShardId(u16::from_le_bytes(field(bytes, 6))),
            epoch: Epoch(u32::from_le_bytes(field(bytes, 8))),
            count: u32::from_le_bytes(field(bytes, 12)),
            first_position: Position(u64::from_le_bytes(field(bytes, 16))),
            first_ordinal: Ordinal(u64::from_le_bytes(field(bytes, 24))),
            first_time: Timestamp(u64::from_le_bytes(field(bytes, 32))),
            codec: bytes[40],
            body_len: u32::from_le_bytes(field(bytes, 44)),
            stored_len: u32::from_le_bytes(field(bytes, 48)),
            crc: u32::from_le_bytes(field(bytes, CRC_AT)),
            previous: Hash(field(bytes, 56)),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), BlockError> {
        if self.format > FORMAT {
            return Err(BlockError::FormatTooNew { found: self.format, known: FORMAT });
        }
        if self.format == 0 || self.codec > 1 {
            return Err(BlockError::Header("format or codec is not a known one"));
        }
        if self.count == 0 || self.body_len as usize > BODY_BYTES_MAX || self.stored_len as usize > BODY_BYTES_MAX {
            return Err(BlockError::Header("a length is outside its limits"));
        }
        if self.first_position.0.checked_add(u64::from(self.count)).is_none() {
            return Err(BlockError::Header("its positions overflow"));
        }
        Ok(())
    }

    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.format.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.shard.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_position.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_ordinal.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first_time.0.to_le_bytes());
        bytes[40] = self.codec;
        bytes[44..48].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.stored_len.to_le_bytes());
        bytes[CRC_AT..56].copy_from_slice(&self.crc.to_le_bytes());
        bytes[56..].copy_from_slice(&self.previous.0);
        bytes
    }

    /// The hash of the block with this header and this body, chained to `previous`.
    fn hash(&self, previous: Hash, body: &[u8]) -> Hash {
        let mut logical = [0; 40];
        logical[..2].copy_from_slice(&self.format.to_le_bytes());
        logical[2..4].copy_from_slice(&self.shard.0.to_le_bytes());
        logical[4..8].copy_from_slice(&self.epoch.0.to_le_bytes());
        logical[8..12].copy_from_slice(&self.count.to_le_bytes());
        logical[12..20].copy_from_slice(&self.first_position.0.to_le_bytes());
        logical[20..28].copy_from_slice(&self.first_ordinal.0.to_le_bytes());
        logical[28..36].copy_from_slice(&self.first_time.0.to_le_bytes());
        logical[36..40].copy_from_slice(&self.body_len.to_le_bytes());
        let mut hasher = blake3::Hasher::new();
        hasher.update(&previous.0).update(&logical).update(body);
        Hash(*hasher.finalize().as_bytes())
    }
}

fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("every field ends within the header")
}

/// A block that is still being filled: records in their canonical bytes.
#[derive(Clone, Debug)]
pub struct OpenBlock {
    shard: ShardId,
    /// The opening of the log in which it is written.
    pub epoch: Epoch,
    count: u32,
    first_position: Position,
    first_ordinal: Ordinal,
    first_time: Timestamp,
    last_time: Timestamp,
    created: u64,
    format: u16,
    /// Offset of the request record after the last one that is answered up to here, where requests come from a topic.
    pub source_next: u64,
    body: Vec<u8>,
}

impl OpenBlock {
    /// An empty block whose first record will have this position; `ordinal` is what the next created task gets.
    pub fn new(shard: ShardId, epoch: Epoch, position: Position, ordinal: Ordinal) -> OpenBlock {
        OpenBlock {
            shard,
            epoch,
            count: 0,
            first_position: position,
            first_ordinal: ordinal,
            first_time: Timestamp(0),
            last_time: Timestamp(0),
            created: 0,
            format: 1,
            source_next: 0,
            body: Vec::new(),
        }
    }

    /// Appends a record. `at` must not be earlier than the record before.
    pub fn push(&mut self, at: Timestamp, event: &Event<'_>) {
        if self.count == 0 {
            self.first_time = at;
            self.last_time = at;
        }
        debug_assert!(at >= self.last_time, "time never decreases within a shard");
        v1::encode(at.since(self.last_time).0, event, &mut self.body);
        self.last_time = at;
        self.count += 1;
        self.created += u64::from(event.creates_task());
        self.format = self.format.max(event.format());
    }

    /// The shard whose log it belongs to.
    pub const fn shard(&self) -> ShardId {
        self.shard
    }

    /// The lowest format version that has all its events.
    pub const fn format(&self) -> u16 {
        self.format
    }

    /// Number of records.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the body so far.
    pub const fn body_len(&self) -> usize {
        self.body.len()
    }

    /// Position after the last record.
    pub const fn next_position(&self) -> Position {
        Position(self.first_position.0 + self.count as u64)
    }

    /// Ordinal that the next created task gets.
    pub const fn next_ordinal(&self) -> Ordinal {
        Ordinal(self.first_ordinal.0 + self.created)
    }

    /// Time of the last record.
    pub const fn last_time(&self) -> Timestamp {
        self.last_time
    }

    /// Makes an empty block out of this one that continues after it, keeping the allocation.
    pub fn restart(&mut self) {
        self.first_position = self.next_position();
        self.first_ordinal = self.next_ordinal();
        self.created = 0;
        self.format = 1;
        self.count = 0;
        self.body.clear();
    }

    /// The block as reading it back would give it, had it been stored as it is in this format; for records that did not come as a block.
    ///
    /// # Panics
    /// As [`OpenBlock::seal`].
    pub fn into_block(self, format: u16, previous: Hash) -> Block {
        let mut header = Header { format, ..self.header(previous) };
        let bytes = header.to_bytes();
        header.crc = crc32c::crc32c_append(checksum(&bytes), &self.body);
        Block { header, body: self.body }
    }

    /// The header of the block if it is stored as it is, but for the checksum.
    fn header(&self, previous: Hash) -> Header {
        assert!(self.count > 0 && self.body.len() <= BODY_BYTES_MAX, "a block holds 1 record to {BODY_BYTES_MAX} bytes");
        let body_len = u32::try_from(self.body.len()).expect("checked above");
        Header {
            format: self.format,
            shard: self.shard,
            epoch: self.epoch,
            count: self.count,
            first_position: self.first_position,
            first_ordinal: self.first_ordinal,
            first_time: self.first_time,
            codec: 0,
            body_len,
            stored_len: body_len,
            crc: 0,
            previous,
        }
    }

    /// Compresses, checksums and chains the block to the block before it.
    ///
    /// # Panics
    /// When the block is empty or its body is longer than [`BODY_BYTES_MAX`]; the shard seals before that.
    pub fn seal(&self, previous: Hash) -> SealedBlock {
        let mut header = self.header(previous);
        let mut bytes = vec![0; HEADER_BYTES];
        header.codec = u8::from(self.body.len() >= COMPRESS_BYTES_MIN && compress(&self.body, &mut bytes));
        if header.codec == 0 {
            bytes.extend_from_slice(&self.body);
        }
        header.stored_len = u32::try_from(bytes.len() - HEADER_BYTES).expect("lz4 output kept only where it is shorter");
        finish(&mut header, &mut bytes);
        let hash = header.hash(previous, &self.body);
        let (last_time, next_ordinal, source_next) = (self.last_time, self.next_ordinal(), self.source_next);
        SealedBlock { header, hash, last_time, next_ordinal, source_next, bytes }
    }
}

/// Writes a header in front of the stored bytes, with the checksum of both.
fn finish(header: &mut Header, bytes: &mut [u8]) {
    bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
    header.crc = checksum(bytes);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&header.crc.to_le_bytes());
}

/// Appends the lz4 form of `body` to `bytes` if it is shorter; says whether it did.
fn compress(body: &[u8], bytes: &mut Vec<u8>) -> bool {
    bytes.resize(HEADER_BYTES + lz4_flex::block::get_maximum_output_size(body.len()), 0);
    let len =
        lz4_flex::block::compress_into(body, &mut bytes[HEADER_BYTES..]).expect("the output has the size that lz4 asks for");
    let shorter = len < body.len();
    bytes.truncate(if shorter { HEADER_BYTES + len } else { HEADER_BYTES });
    shorter
}

/// CRC-32C of a whole block without its checksum field.
fn checksum(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..CRC_AT]), &block[CRC_AT + 4..])
}

/// A block ready to be written.
#[derive(Clone, Debug)]
pub struct SealedBlock {
    /// What it says about itself.
    pub header: Header,
    /// Its place in the chain.
    pub hash: Hash,
    /// Time of its last record.
    pub last_time: Timestamp,
    /// Ordinal that the first task created after it gets.
    pub next_ordinal: Ordinal,
    /// See [`OpenBlock::source_next`].
    pub source_next: u64,
    /// Header and stored bytes.
    pub bytes: Vec<u8>,
}

/// A block that was read: checksum verified, body uncompressed. Its hash is verified by whoever follows the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What it says about itself.
    pub header: Header,
    body: Vec<u8>,
}

impl Block {
    /// Reads one block from the beginning of `bytes`.
    ///
    /// # Errors
    /// A [`BlockError`] that says what is wrong with the bytes.
    pub fn parse(bytes: &[u8]) -> Result<Block, BlockError> {
        let header = Header::parse(bytes)?;
        let Some(block) = bytes.get(..header.block_len()) else {
            return Err(BlockError::Truncated { needed: header.block_len(), found: bytes.len() });
        };
        let found = checksum(block);
        if found != header.crc {
            return Err(BlockError::Checksum { expected: header.crc, found });
        }
        let stored = &block[HEADER_BYTES..];
        let body = match header.codec {
            0 => stored.to_vec(),
            _ => lz4_flex::block::decompress(stored, header.body_len as usize).map_err(|_| BlockError::Body("lz4 refuses it"))?,
        };
        if body.len() != header.body_len as usize {
            return Err(BlockError::Body("it has another length than the header says"));
        }
        Ok(Block { header, body })
    }

    /// The block that was sealed from these records with this header, as reading it back would give it.
    pub fn sealed(open: OpenBlock, header: Header) -> Block {
        Block { header, body: open.body }
    }

    /// The block ready to be written once more: the same content and hash, compressed here.
    ///
    /// # Errors
    /// [`BlockError`] for a record that cannot be read.
    pub fn seal_again(&self) -> Result<SealedBlock, BlockError> {
        let (mut last_time, mut created) = (self.header.first_time, 0);
        for record in self.records() {
            let record = record?;
            last_time = record.recorded_at;
            created += u64::from(record.event.creates_task());
        }
        let next_ordinal = Ordinal(self.header.first_ordinal.0 + created);
        let mut bytes = vec![0; HEADER_BYTES];
        let mut header = self.header;
        header.codec = u8::from(self.body.len() >= COMPRESS_BYTES_MIN && compress(&self.body, &mut bytes));
        if header.codec == 0 {
            bytes.extend_from_slice(&self.body);
        }
        header.stored_len = u32::try_from(bytes.len() - HEADER_BYTES).expect("lz4 output kept only where it is shorter");
        finish(&mut header, &mut bytes);
        Ok(SealedBlock { header, hash: self.hash(), last_time, next_ordinal, source_next: 0, bytes })
    }

    /// Bytes of the body before compression.
    pub const fn body_len(&self) -> usize {
        self.body.len()
    }

    /// The hash that the next block must name as its previous one.
    pub fn hash(&self) -> Hash {
        self.header.hash(self.header.previous, &self.body)
    }

    /// The records in order.
    pub fn records(&self) -> Records<'_> {
        Records { rest: &self.body, index: 0, at: self.header.first_time, header: &self.header, failed: false }
    }
}

/// The records of a block in order; ends after the first that cannot be read.
#[derive(Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    index: u32,
    at: Timestamp,
    header: &'a Header,
    failed: bool,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Envelope<'a>, BlockError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.index == self.header.count {
            let left_over = !self.failed && !self.rest.is_empty();
            self.failed |= left_over;
            return left_over.then_some(Err(BlockError::Body("bytes are left after the last record")));
        }
        let record = self.record();
        self.failed = record.is_err();
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn record(&mut self) -> Result<Envelope<'a>, BlockError> {
        let (elapsed, time_len) = match v1::decode_elapsed(self.rest) {
            Ok(time) => time,
            Err(source) => return Err(CodecError { index: self.index, source }.into()),
        };
        let Some(at) = self.at.0.checked_add(elapsed) else { return Err(BlockError::Body("its times overflow")) };
        let rest = &self.rest[time_len..];
        match v1::decode_event(rest) {
            Ok((event, event_len)) => {
                let position = Position(self.header.first_position.0 + u64::from(self.index));
                self.at = Timestamp(at);
                self.rest = &rest[event_len..];
                self.index += 1;
                Ok(Envelope { position, recorded_at: self.at, event })
            }
            Err(source) => Err(CodecError { index: self.index, source }.into()),
        }
    }
}
