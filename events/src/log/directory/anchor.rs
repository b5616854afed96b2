//! The head anchor: a small file beside the log that remembers how far the log was acknowledged.
//!
//! ```text
//! two slots of 512 bytes, written in turn; little-endian
//! magic "ERGA" · format u16 · flags u16 · store id, 16 bytes · counter u64
//! base: position u64 · hash, 32 bytes · next ordinal u64 · time u64      where the log begins
//! head: position u64 · hash, 32 bytes · next ordinal u64 · time u64      where it ended
//! zeros · CRC-32C of everything before u32
//! ```
//! The slot with the higher counter counts. A torn write spoils one slot and leaves the one before it.

use std::path::Path;

use super::super::{Head, LogError};
use super::layout::{failed, open_file, read_full};
use super::store::StoreId;
use crate::block::Hash;
use crate::id::{Ordinal, Position};
use crate::time::Timestamp;

/// Bytes of one slot: a sector, so that a torn write cannot spoil both.
const SLOT_BYTES: usize = 512;
const CRC_AT: usize = SLOT_BYTES - 4;
const MAGIC: [u8; 4] = *b"ERGA";
const FORMAT: u16 = 1;
/// Blocks may stand behind ones that were not yet synced when these were written.
const FLAG_LOOSE: u16 = 1;

/// What the newest slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log) struct Anchor {
    pub(in crate::log) store: StoreId,
    /// Counts the writes; its parity names the slot.
    pub(in crate::log) counter: u64,
    /// Whether several blocks may have been written between two syncs since the log was last closed: only then can a
    /// power cut leave a whole block behind a torn one.
    pub(in crate::log) loose: bool,
    /// Where retention has let the log begin.
    pub(in crate::log) base: Head,
    /// How far it was acknowledged.
    pub(in crate::log) head: Head,
}

impl Anchor {
    /// The anchor of a store without records.
    pub(in crate::log) fn empty(store: StoreId) -> Anchor {
        Anchor { store, counter: 0, loose: false, base: Head::default(), head: Head::default() }
    }

    /// Where in the file this anchor belongs.
    pub(in crate::log) const fn offset(&self) -> u64 {
        (self.counter % 2) * SLOT_BYTES as u64
    }

    /// A whole anchor file that says only this.
    pub(in crate::log) fn to_file(self) -> [u8; 2 * SLOT_BYTES] {
        let mut file = [0; 2 * SLOT_BYTES];
        let at = if self.counter.is_multiple_of(2) { 0 } else { SLOT_BYTES };
        file[at..at + SLOT_BYTES].copy_from_slice(&self.to_slot());
        file
    }

    pub(in crate::log) fn to_slot(self) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[..4].copy_from_slice(&MAGIC);
        slot[4..6].copy_from_slice(&FORMAT.to_le_bytes());
        slot[6..8].copy_from_slice(&(if self.loose { FLAG_LOOSE } else { 0 }).to_le_bytes());
        slot[8..24].copy_from_slice(&self.store.0);
        slot[24..32].copy_from_slice(&self.counter.to_le_bytes());
        put_head(&mut slot[32..88], &self.base);
        put_head(&mut slot[88..144], &self.head);
        let crc = crc32c::crc32c(&slot[..CRC_AT]);
        slot[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        slot
    }
}

fn put_head(bytes: &mut [u8], head: &Head) {
    bytes[..8].copy_from_slice(&head.next.0.to_le_bytes());
    bytes[8..40].copy_from_slice(&head.hash.0);
    bytes[40..48].copy_from_slice(&head.next_ordinal.0.to_le_bytes());
    bytes[48..56].copy_from_slice(&head.last_time.0.to_le_bytes());
}

fn get_head(slot: &[u8; SLOT_BYTES], at: usize) -> Head {
    Head {
        next: Position(u64::from_le_bytes(field(slot, at))),
        hash: Hash(field(slot, at + 8)),
        next_ordinal: Ordinal(u64::from_le_bytes(field(slot, at + 40))),
        last_time: Timestamp(u64::from_le_bytes(field(slot, at + 48))),
    }
}

fn field<const N: usize>(slot: &[u8; SLOT_BYTES], at: usize) -> [u8; N] {
    *slot[at..].first_chunk().expect("every field ends within the slot")
}

/// What one slot holds.
enum Slot {
    Valid(Anchor),
    TooNew(u16),
    Invalid,
}

fn parse(slot: &[u8; SLOT_BYTES]) -> Slot {
    if slot[..4] != MAGIC || crc32c::crc32c(&slot[..CRC_AT]) != u32::from_le_bytes(field(slot, CRC_AT)) {
        return Slot::Invalid;
    }
    let format = u16::from_le_bytes(field(slot, 4));
    if format > FORMAT {
        return Slot::TooNew(format);
    }
    Slot::Valid(Anchor {
        store: StoreId(field(slot, 8)),
        counter: u64::from_le_bytes(field(slot, 24)),
        loose: u16::from_le_bytes(field(slot, 6)) & FLAG_LOOSE != 0,
        base: get_head(slot, 32),
        head: get_head(slot, 88),
    })
}

/// Reads the newer of the two slots, which must belong to this store.
///
/// # Errors
/// [`LogError::Anchor`] when there is none that fits the store, [`LogError::FormatTooNew`], [`LogError::Io`].
pub(in crate::log) fn read(path: &Path, store: StoreId) -> Result<Anchor, LogError> {
    let unusable = |reason| LogError::Anchor { path: path.to_owned(), reason };
    let anchor = newest(path)?.ok_or_else(|| unusable("it is missing, or neither of its two slots is valid"))?;
    if anchor.store == store { Ok(anchor) } else { Err(unusable("it belongs to another store")) }
}

/// Reads the newer of the two slots; `None` without a valid one.
///
/// # Errors
/// [`LogError::FormatTooNew`], [`LogError::Foreign`], [`LogError::Io`].
pub(in crate::log) fn newest(path: &Path) -> Result<Option<Anchor>, LogError> {
    let Some(file) = open_file(path, false)? else { return Ok(None) };
    let mut newest: Option<Anchor> = None;
    for index in 0..2 {
        let mut slot = [0; SLOT_BYTES];
        let read = read_full(&file, &mut slot, index * SLOT_BYTES as u64).map_err(failed("read", path))?;
        // A slot that is not there as a whole is as good as a torn one.
        match parse(&slot) {
            Slot::Valid(anchor) if read == SLOT_BYTES && newest.is_none_or(|newest| newest.counter < anchor.counter) => {
                newest = Some(anchor);
            }
            Slot::TooNew(found) => return Err(LogError::FormatTooNew { path: path.to_owned(), found, known: FORMAT }),
            Slot::Valid(_) | Slot::Invalid => {}
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_read_back_as_it_was_written_and_no_flipped_bit_is_believed() {
        let head = Head { next: Position(7), next_ordinal: Ordinal(3), hash: Hash([9; 32]), last_time: Timestamp(11) };
        let anchor = Anchor { store: StoreId([5; 16]), counter: 41, loose: true, base: Head::default(), head };
        let slot = anchor.to_slot();
        assert!(matches!(parse(&slot), Slot::Valid(read) if read == anchor));
        for bit in 0..SLOT_BYTES * 8 {
            let mut flipped = slot;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(parse(&flipped), Slot::Invalid), "bit {bit}");
        }
    }
}
