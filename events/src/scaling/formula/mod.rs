//! Formulas over numbers that have names: the part of Expr that sizes pools, which is what KEDA's `scalingModifiers` are written in.
//!
//! A formula is read once, when its policy is: whatever is not understood is refused there, by its name, and nothing can go wrong when it is
//! calculated but that the result is no finite number. Every operation is one of IEEE 754 in double precision, in the order in which it is written,
//! and none of them depends on the machine, so the same numbers give the same bits. Source: the language definition of Expr 1.17;
//! `docs/autoscaling.md` lists the part.

mod parse;
mod term;

use std::fmt;

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::real::Real;
use super::setting::{SettingError, require};
use term::Term;

/// Longest formula, in bytes: several times what anybody could still read.
pub const FORMULA_BYTES_MAX: usize = 1_024;
/// How deep the parts of a formula may lie in each other.
pub const FORMULA_DEPTH_MAX: usize = 32;

/// A formula as it was written, with what it says.
#[derive(Clone, Debug)]
pub struct Formula {
    text: String,
    /// It follows from the text and is not written.
    program: Result<Program, FormulaError>,
}

/// What a formula says.
#[derive(Clone, Debug)]
struct Program {
    /// The names in it, each once, in the order in which it has them.
    names: Vec<String>,
    term: Term,
}

/// Why a text is no formula.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}, {reason}")]
pub struct FormulaError {
    /// Which character, counted from 1.
    pub at: usize,
    /// What is wrong there.
    pub reason: String,
}

impl Formula {
    /// Reads a formula. One that is not understood says so in [`Formula::error`], and has no value.
    pub fn new(text: impl Into<String>) -> Formula {
        let text = text.into();
        let program = parse::parse(&text).map(|(names, term)| Program { names, term });
        Formula { text, program }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Why it is none.
    pub fn error(&self) -> Option<&FormulaError> {
        self.program.as_ref().err()
    }

    /// The names in it, each once, in the order in which it has them.
    pub fn names(&self) -> &[String] {
        self.program.as_ref().map_or(&[], |program| &program.names)
    }

    /// Its value where `read` gives the number of each name, by its place in [`Formula::names`]; `None` where that is no finite number.
    pub fn value(&self, read: impl Fn(usize) -> f64) -> Option<Real> {
        let program = self.program.as_ref().ok()?;
        Real::new(program.term.value(&read, 0.0))
    }

    /// Whether it can be used over these names.
    pub(crate) fn check<'a>(&self, key: &str, known: impl Iterator<Item = &'a str> + Clone) -> Result<(), SettingError> {
        if let Some(error) = self.error() {
            return require(false, key, format!("{:?}", self.text), &format!("what docs/autoscaling.md lists: {error}"));
        }
        for name in self.names() {
            let mut same = known.clone().filter(|known| known == name);
            let all = || known.clone().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            require(same.next().is_some(), key, format!("about `{name}`"), &format!("a formula over {}", all()))?;
            require(same.next().is_none(), key, format!("about `{name}`"), "a name that only one of them has")?;
        }
        Ok(())
    }
}

impl PartialEq for Formula {
    fn eq(&self, other: &Formula) -> bool {
        self.text == other.text
    }
}

impl Eq for Formula {}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Encode for Formula {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.text.encode(encoder)
    }
}

impl<Context> Decode<Context> for Formula {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        String::decode(decoder).map(Formula::new)
    }
}

impl<'de, Context> BorrowDecode<'de, Context> for Formula {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Formula::decode(decoder)
    }
}

impl Serialize for Formula {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Formula {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Formula::new)
    }
}
