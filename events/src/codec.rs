//! Events to bytes and back. One frozen module for each format version; a log of every released version is a fixture of the tests.

use crate::event::Event;

/// The highest format version that this build reads. A block has the lowest one that all its events have ([`Event::format`]), so that an
/// older build reads what it can and says "newer format" and not "damaged" of the rest.
pub const FORMAT: u16 = 4;

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

/// Formats 1 to 4, where each only has more events than the one before: a record is the time since the record before it in µs, then the event, both as bincode 2 variable-length integers.
pub mod v1 {
    use bincode::config::{Config, standard};

    use super::{Event, RECORD_BYTES_MAX};
    use crate::id::{Ordinal, ReplicaId, TypeId};
    use crate::planted::{self, Bug};
    use crate::task::Outcome;

    /// Little-endian, variable-length integers, nothing that claims more than [`RECORD_BYTES_MAX`].
    pub const fn config() -> impl Config {
        standard().with_limit::<RECORD_BYTES_MAX>()
    }

    /// Appends a record to `body`.
    ///
    /// # Panics
    /// When memory runs out; encoding into a vector has no other failure.
    pub fn encode(elapsed: u64, event: &Event<'_>, body: &mut Vec<u8>) {
        put(body, elapsed);
        if !encode_usual(event, body) {
            bincode::encode_into_std_write(event, body, config()).expect("a vector takes every byte");
        }
    }

    /// The counterpart of [`usual`]; false for other records.
    #[expect(clippy::wildcard_enum_match_arm, reason = "what it does not know is bincode's")]
    fn encode_usual(event: &Event<'_>, body: &mut Vec<u8>) -> bool {
        match event {
            Event::Requested { task_type, payload, key: None, asks } if asks.is_empty() => {
                body.push(REQUESTED);
                put(body, u64::from(task_type.0));
                put_slice(body, payload);
                body.extend_from_slice(&[0, 0]);
            }
            Event::Succeeded { task, attempt, outcome, result } => {
                body.push(SUCCEEDED);
                put(body, task.0);
                put(body, u64::from(*attempt));
                put(body, *outcome as u64);
                put_slice(body, result);
            }
            Event::Started { task, attempt, replica } => {
                body.push(STARTED);
                [task.0, u64::from(*attempt), u64::from(replica.0)].into_iter().for_each(|number| put(body, number));
            }
            _ => return false,
        }
        true
    }

    /// Appends an integer in as few bytes as bincode would.
    #[expect(clippy::cast_possible_truncation, reason = "each arm holds what fits")]
    fn put(body: &mut Vec<u8>, number: u64) {
        match number {
            0..251 => body.push(number as u8),
            251..=0xffff => {
                body.push(LONG_16);
                body.extend_from_slice(&(number as u16).to_le_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                body.push(LONG_32);
                body.extend_from_slice(&(number as u32).to_le_bytes());
            }
            _ => {
                body.push(LONG_64);
                body.extend_from_slice(&number.to_le_bytes());
            }
        }
    }

    fn put_slice(body: &mut Vec<u8>, bytes: &[u8]) {
        put(body, bytes.len() as u64);
        body.extend_from_slice(bytes);
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
        match body.first() {
            // Nearly always 0, for the records of a batch have one time.
            Some(byte) if *byte < LONG_16 => Ok((u64::from(*byte), 1)),
            Some(_) | None => bincode::borrow_decode_from_slice(body, config()),
        }
    }

    /// Reads the event behind the time of a record, and how many bytes it took.
    ///
    /// Kept apart from the time so that the walk over a block can match the answer where it stands: every layer of `?` around an event
    /// copies its hundred bytes, at a third of the cost of folding it.
    #[inline]
    pub(crate) fn decode_event(body: &[u8]) -> Result<(Event<'_>, usize), bincode::error::DecodeError> {
        if let Some(usual) = usual(body) {
            return Ok(usual);
        }
        if planted::is(Bug::NoLimit) {
            return bincode::borrow_decode_from_slice(body, standard());
        }
        bincode::borrow_decode_from_slice(body, config())
    }
    /// First bytes of integers that take 2, 4 and 8 more; smaller ones are the integer.
    const LONG_16: u8 = 251;
    const LONG_32: u8 = 252;
    const LONG_64: u8 = 253;
    /// Numbers of the variants that [`usual`] reads.
    const REQUESTED: u8 = 2;
    const SUCCEEDED: u8 = 4;
    const STARTED: u8 = 20;

    /// The records of a task that goes well, which are nearly all there are, read without bincode's layers: in a third of the time.
    /// `None` leaves the record, or what is wrong with it, to bincode.
    #[inline]
    fn usual(body: &[u8]) -> Option<(Event<'_>, usize)> {
        let mut rest = Rest { bytes: body };
        let event = match rest.byte()? {
            REQUESTED => {
                let (task_type, payload) = (TypeId(rest.u16()?), rest.slice()?);
                let plain = rest.byte()? == 0 && rest.byte()? == 0;
                plain.then(|| Event::Requested { task_type, payload, key: None, asks: Vec::new() })?
            }
            SUCCEEDED => {
                let (task, attempt) = (Ordinal(rest.u64()?), rest.u32()?);
                Event::Succeeded { task, attempt, outcome: outcome(rest.byte()?)?, result: rest.slice()? }
            }
            STARTED => Event::Started { task: Ordinal(rest.u64()?), attempt: rest.u32()?, replica: ReplicaId(rest.u32()?) },
            _ => return None,
        };
        Some((event, body.len() - rest.bytes.len()))
    }

    const fn outcome(number: u8) -> Option<Outcome> {
        match number {
            0 => Some(Outcome::Succeeded),
            1 => Some(Outcome::Partial),
            _ => None,
        }
    }

    /// What is left to read.
    struct Rest<'a> {
        bytes: &'a [u8],
    }

    impl<'a> Rest<'a> {
        fn byte(&mut self) -> Option<u8> {
            let (first, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            Some(*first)
        }

        fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
            let (first, rest) = self.bytes.split_first_chunk()?;
            self.bytes = rest;
            Some(*first)
        }

        fn u16(&mut self) -> Option<u16> {
            match self.byte()? {
                small @ 0..LONG_16 => Some(u16::from(small)),
                LONG_16 => self.array().map(u16::from_le_bytes),
                _ => None,
            }
        }

        fn u32(&mut self) -> Option<u32> {
            match self.byte()? {
                small @ 0..LONG_16 => Some(u32::from(small)),
                LONG_16 => self.array().map(u16::from_le_bytes).map(u32::from),
                LONG_32 => self.array().map(u32::from_le_bytes),
                _ => None,
            }
        }

        fn u64(&mut self) -> Option<u64> {
            match self.byte()? {
                small @ 0..LONG_16 => Some(u64::from(small)),
                LONG_16 => self.array().map(u16::from_le_bytes).map(u64::from),
                LONG_32 => self.array().map(u32::from_le_bytes).map(u64::from),
                LONG_64 => self.array().map(u64::from_le_bytes),
                _ => None,
            }
        }

        /// Bytes behind their length. Those that come near the limit are left to bincode, which counts exactly.
        fn slice(&mut self) -> Option<&'a [u8]> {
            let len = usize::try_from(self.u64()?).ok().filter(|len| *len < RECORD_BYTES_MAX / 2)?;
            let (slice, rest) = self.bytes.split_at_checked(len)?;
            self.bytes = rest;
            Some(slice)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::log::conformance::Filler;

        /// As [`decode_event`] without [`usual`].
        fn plain(body: &[u8]) -> Option<(Event<'_>, usize)> {
            bincode::borrow_decode_from_slice(body, config()).ok()
        }

        #[test]
        fn what_is_read_without_bincode_is_what_bincode_reads() {
            let mut random = Filler::new(1);
            let mut read = 0;
            for _ in 0..200_000 {
                let len = random.random() % 40;
                let mut body: Vec<u8> = (0..len).map(|_| random.random() as u8).collect();
                // The bytes that decide most: the variant, and the first byte of integers.
                for (at, byte) in body.iter_mut().enumerate() {
                    *byte = match random.random() % 8 {
                        0 if at == 0 => [REQUESTED, SUCCEEDED, STARTED][random.random() as usize % 3],
                        0 => LONG_16 + (random.random() % 5) as u8,
                        1 | 2 => (random.random() % 4) as u8,
                        _ if at == 0 => [REQUESTED, SUCCEEDED, STARTED][random.random() as usize % 3],
                        _ => *byte,
                    };
                }
                if let Some(usual) = usual(&body) {
                    assert_eq!(Some(usual), plain(&body), "{body:?}");
                    read += 1;
                }
            }
            assert!(read > 10_000, "{read} of the bodies were records");
        }

        #[test]
        fn integers_are_written_as_bincode_writes_them() {
            let mut numbers =
                vec![0, 250, 251, 252, 253, 254, 255, 256, u64::from(u16::MAX), 1 << 16, u64::from(u32::MAX), 1 << 32, u64::MAX];
            numbers.extend((0..64).map(|bit| 1 << bit));
            for number in numbers {
                let (mut body, mut expected) = (Vec::new(), Vec::new());
                put(&mut body, number);
                bincode::encode_into_std_write(number, &mut expected, config()).unwrap();
                assert_eq!(body, expected, "{number}");
            }
        }

        #[test]
        fn the_usual_records_are_read_without_bincode() {
            let (task, replica) = (Ordinal(u64::MAX), ReplicaId(300));
            let events = [
                Event::Requested { task_type: TypeId(7), payload: b"payload", key: None, asks: Vec::new() },
                Event::Started { task, attempt: 70_000, replica },
                Event::Succeeded { task: Ordinal(1), attempt: 1, outcome: Outcome::Succeeded, result: b"" },
                Event::Succeeded { task: Ordinal(1), attempt: 1, outcome: Outcome::Partial, result: &[9; 300] },
            ];
            for event in events {
                let (mut body, mut expected) = (Vec::new(), Vec::new());
                encode(0, &event, &mut body);
                bincode::encode_into_std_write(0_u64, &mut expected, config()).unwrap();
                bincode::encode_into_std_write(&event, &mut expected, config()).unwrap();
                assert_eq!(body, expected);
                assert_eq!(usual(&body[1..]), Some((event, body.len() - 1)));
            }
        }
    }
}
