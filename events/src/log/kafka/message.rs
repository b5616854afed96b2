//! Blocks as messages and back.

use std::str::FromStr;

use rdkafka::message::{Header, Headers, Message, OwnedHeaders};

use super::failed;
use crate::block::{Block, BlockError, Hash, SealedBlock};
use crate::id::Position;
use crate::json::{self, JsonError};
use crate::log::LogError;

/// How the value of a message says its block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// JSON, for readers of any language.
    #[default]
    Json,
    /// The bytes of the block: a third of the size and a tenth of the work.
    Block,
}

impl Form {
    /// Its name, as in the header `ergate-format`.
    pub const fn name(self) -> &'static str {
        match self {
            Form::Json => "json",
            Form::Block => "block",
        }
    }

    /// The form with this name.
    pub fn named(name: &str) -> Option<Form> {
        [Form::Json, Form::Block].into_iter().find(|form| form.name() == name)
    }

    /// The value of the message that says this block.
    ///
    /// # Errors
    /// [`LogError::Damaged`] for a block that cannot be read, which one that was just sealed can.
    pub(super) fn value(self, sealed: &SealedBlock, topic: &str) -> Result<Vec<u8>, LogError> {
        match self {
            Form::Block => Ok(sealed.bytes.clone()),
            Form::Json => {
                let block = Block::parse(&sealed.bytes).map_err(|error| failed("write a block", topic, error))?;
                let mut value = Vec::with_capacity(8 * block.body_len());
                json::encode(&block, sealed.hash, &mut value).map_err(|error| failed("write a block", topic, error))?;
                Ok(value)
            }
        }
    }
}

const FORMAT: &str = "ergate-format";
const POSITION: &str = "ergate-position";
const NEXT: &str = "ergate-next";
const HASH: &str = "ergate-hash";
const SOURCE: &str = "ergate-source";

/// The headers of the message of a block.
pub(super) fn headers(form: Form, sealed: &SealedBlock) -> OwnedHeaders {
    let header = |headers: OwnedHeaders, key, value: &str| headers.insert(Header { key, value: Some(value) });
    let headers = header(OwnedHeaders::new_with_capacity(5), FORMAT, form.name());
    let headers = header(headers, POSITION, &sealed.header.first_position.to_string());
    let headers = header(headers, NEXT, &sealed.header.next_position().to_string());
    let headers = header(headers, HASH, &sealed.hash.to_string());
    header(headers, SOURCE, &sealed.source_next.to_string())
}

/// The position of the first record of the block that a message says, by its header alone.
fn position(message: &impl Message) -> Option<Position> {
    named(message, POSITION)
}

fn named<T: FromStr>(message: &impl Message, name: &str) -> Option<T> {
    let header = message.headers()?.iter().find(|header| header.key == name)?;
    std::str::from_utf8(header.value?).ok()?.parse().ok()
}

/// What the headers of a message say of its block, for readers who need not know more of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heading {
    /// Position of the first record.
    pub position: Position,
    /// Position after the last record.
    pub next: Position,
    /// Offset of the request record that the shard answers next after the block.
    pub source_next: u64,
}

impl Heading {
    /// Reads the headers; `None` where one is missing or cannot be read.
    pub fn of(message: &impl Message) -> Option<Heading> {
        Some(Heading { position: named(message, POSITION)?, next: named(message, NEXT)?, source_next: named(message, SOURCE)? })
    }
}

/// A block as it came, with its place in the partition.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its offset.
    pub offset: i64,
    /// What it says.
    pub block: Block,
    /// Its hash.
    pub hash: Hash,
    /// Bytes of its value.
    pub bytes: usize,
    /// Offset of the request record that the shard answers next after this block, where a header tells it.
    pub source_next: Option<u64>,
}

impl Received {
    /// Reads the block of a message; `None` for one without a value, with which an owner has ended what brokers had left undecided.
    ///
    /// # Errors
    /// [`LogError::NoBlock`] that names the offset and what is wrong, [`LogError::NewerBlock`].
    pub fn of(message: &impl Message) -> Result<Option<Received>, LogError> {
        if position(message).is_none() && message.payload().is_none() {
            return Ok(None);
        }
        let offset = message.offset();
        let place = || format!("{}-{}", message.topic(), message.partition());
        let at = |reason: String| LogError::NoBlock { at: position(message).unwrap_or_default(), place: place(), offset, reason };
        let newer = |found, known| LogError::NewerBlock { place: place(), offset, found, known };
        let value = message.payload().ok_or_else(|| at("it has no value".to_owned()))?;
        // The first byte tells the forms apart; headers may get lost where a mirror copies the topic.
        let (block, hash) = if value.first() == Some(&b'{') {
            json::decode(value).map_err(|error| {
                if let JsonError::FormatTooNew { found, known } = error { newer(found, known) } else { at(error.to_string()) }
            })?
        } else {
            let block = Block::parse(value).map_err(|error| {
                if let BlockError::FormatTooNew { found, known } = error { newer(found, known) } else { at(error.to_string()) }
            })?;
            let hash = block.hash();
            (block, hash)
        };
        Ok(Some(Received { offset, block, hash, bytes: value.len(), source_next: named(message, SOURCE) }))
    }
}
