//! Numbers that are not whole: every one of them is finite, so that decisions can be compared bit for bit.

use std::cmp::Ordering;
use std::fmt;

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A finite number. There is one zero: −0 becomes 0, so that equal numbers have equal bits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Real(f64);

impl Real {
    /// Nothing.
    pub const ZERO: Real = Real(0.0);
    /// As much as the target.
    pub const ONE: Real = Real(1.0);

    /// This number; `None` for infinities and what is no number.
    pub fn new(number: f64) -> Option<Real> {
        // −0 + 0 is 0, and nothing else changes.
        number.is_finite().then_some(Real(number + 0.0))
    }

    /// A number that is known when the program is written.
    ///
    /// # Panics
    /// For infinities and what is no number.
    pub const fn constant(number: f64) -> Real {
        assert!(number.is_finite(), "a constant is finite");
        Real(number + 0.0)
    }

    /// The number.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl Eq for Real {}

impl PartialOrd for Real {
    fn partial_cmp(&self, other: &Real) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Real {
    fn cmp(&self, other: &Real) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// At most four decimals: sentences are for people, and the bits are in the log.
impl fmt::Display for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 != 0.0 && !(1e-4..1e15).contains(&self.0.abs()) {
            return write!(f, "{:e}", self.0);
        }
        let text = format!("{:.4}", self.0);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Encode for Real {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.encode(encoder)
    }
}

impl<Context> Decode<Context> for Real {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Real::new(f64::decode(decoder)?).ok_or(DecodeError::Other("a number is not finite"))
    }
}

impl<'de, Context> BorrowDecode<'de, Context> for Real {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Real::decode(decoder)
    }
}

impl Serialize for Real {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Real {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Real::new(f64::deserialize(from)?).ok_or_else(|| D::Error::custom("a number is not finite"))
    }
}
