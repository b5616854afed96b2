//! Events to bytes and back. One frozen module for each format version; a log of every released version is a fixture of the tests.

use crate::event::Event;

/// The format version that new blocks are written in. A build that can write an event which an older build cannot read has a higher
/// one, so that the older build says "newer format" and not "damaged".
pub const FORMAT: u16 = 1;

/// Most bytes that one record may claim while it is decoded; nine hostile bytes would otherwise ask for a terabyte.
pub const RECORD_BYTES_MAX: usize = 8 << 20;

/// Bytes that are not a record of the format they claim.
#[derive(Debug, thiserror::Error)]
#[error("failed to decode record {index} of the block")]
pub struct CodecError {
    /// Which record of its block, counted from 0.
    pub index: u32,
    /// What the decoder met.
    #[source]
    pub source: bincode::error::DecodeError,
}

/// Format 1: a record is the time since the record before it in µs, then the event, both as bincode 2 variable-length integers.
pub mod v1 {
    use bincode::config::{Config, standard};

    use super::{Event, RECORD_BYTES_MAX};
    use crate::planted::{self, Bug};

    /// Little-endian, variable-length integers, nothing that claims more than [`RECORD_BYTES_MAX`].
    pub const fn config() -> impl Config {
        standard().with_limit::<RECORD_BYTES_MAX>()
    }

    /// Appends a record to `body`.
    ///
    /// # Panics
    /// When memory runs out; encoding into a vector has no other failure.
    pub fn encode(elapsed: u64, event: &Event<'_>, body: &mut Vec<u8>) {
        bincode::encode_into_std_write(elapsed, body, config()).expect("a vector takes every byte");
        bincode::encode_into_std_write(event, body, config()).expect("a vector takes every byte");
    }

    /// Reads the first record of `body`: the time since the record before it, the event, and how many bytes they took.
    ///
    /// # Errors
    /// When the bytes are no record, or claim more than the limit.
    pub fn decode(body: &[u8]) -> Result<(u64, Event<'_>, usize), bincode::error::DecodeError> {
        let (elapsed, time_len) = decode_elapsed(body)?;
        let (event, event_len) = decode_event(&body[time_len..])?;
        Ok((elapsed, event, time_len + event_len))
    }

    /// Reads the time at the beginning of a record, and how many bytes it took.
    #[inline]
    pub(crate) fn decode_elapsed(body: &[u8]) -> Result<(u64, usize), bincode::error::DecodeError> {
        bincode::borrow_decode_from_slice(body, config())
    }

    /// Reads the event behind the time of a record, and how many bytes it took.
    ///
    /// Kept apart from the time so that the walk over a block can match the answer where it stands: every layer of `?` around an event
    /// copies its hundred bytes, at a third of the cost of folding it.
    #[inline]
    pub(crate) fn decode_event(body: &[u8]) -> Result<(Event<'_>, usize), bincode::error::DecodeError> {
        if planted::is(Bug::NoLimit) {
            return bincode::borrow_decode_from_slice(body, standard());
        }
        bincode::borrow_decode_from_slice(body, config())
    }
}
