//! The records of `tests/fixtures/requests/`, byte for byte as a client would publish them.
#![allow(dead_code, reason = "every test needs a part of it")]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ergate::request::Record;
use rdkafka::message::{self, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use serde::Deserialize;
use serde_json::Value;

/// A record, and what is to become of it.
pub(crate) struct Fixture {
    /// What is special about it.
    pub(crate) name: String,
    /// The record's key.
    pub(crate) key: Option<Vec<u8>>,
    /// The record's headers.
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    /// The record's value.
    pub(crate) value: Option<Vec<u8>>,
    /// The request that a good one holds: nothing is in there that the record does not ask for.
    pub(crate) expect: Value,
    /// The field that the refusal of a bad one names.
    pub(crate) field: String,
    /// Whether the schema, too, refuses a bad one.
    pub(crate) schema: bool,
}

/// A line of a file of fixtures.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    key: Option<Bytes>,
    #[serde(default)]
    headers: Vec<Header>,
    value: Option<Bytes>,
    #[serde(default)]
    expect: Value,
    #[serde(default)]
    field: String,
    #[serde(default)]
    schema: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Header {
    One(String, Option<Bytes>),
    Many { repeat: (String, Bytes), times: usize },
}

/// Bytes as a text, or as a list of pieces.
#[derive(Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Pieces(Vec<Piece>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Base64 { base64: String },
    Many { repeat: String, times: usize },
}

impl Bytes {
    fn all(&self) -> Vec<u8> {
        match self {
            Bytes::Text(text) => text.clone().into_bytes(),
            Bytes::Pieces(pieces) => pieces.iter().flat_map(Piece::all).collect(),
        }
    }
}

impl Piece {
    fn all(&self) -> Vec<u8> {
        match self {
            Piece::Text(text) => text.clone().into_bytes(),
            Piece::Base64 { base64 } => STANDARD.decode(base64).unwrap(),
            Piece::Many { repeat, times } => repeat.repeat(*times).into_bytes(),
        }
    }
}

impl Header {
    fn all(self) -> Vec<(String, Option<Vec<u8>>)> {
        match self {
            Header::One(name, value) => vec![(name, value.as_ref().map(Bytes::all))],
            Header::Many { repeat: (name, value), times } => vec![(name, Some(value.all())); times],
        }
    }
}

/// Records that are requests.
pub(crate) fn good() -> Vec<Fixture> {
    read(include_str!("../fixtures/requests/good.ndjson"))
}

/// Records that are refused.
pub(crate) fn bad() -> Vec<Fixture> {
    read(include_str!("../fixtures/requests/bad.ndjson"))
}

fn read(file: &str) -> Vec<Fixture> {
    let lines = file.lines().map(|line| serde_json::from_str::<Line>(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    lines
        .map(|line| Fixture {
            name: line.name,
            key: line.key.as_ref().map(Bytes::all),
            headers: line.headers.into_iter().flat_map(Header::all).collect(),
            value: line.value.as_ref().map(Bytes::all),
            expect: line.expect,
            field: line.field,
            schema: line.schema,
        })
        .collect()
}

impl Fixture {
    /// Whether the record's value is the request itself.
    pub(crate) fn is_plain(&self) -> bool {
        let is_event = |(name, value): &(String, Option<Vec<u8>>)| {
            let value = value.as_deref().unwrap_or_default().to_ascii_lowercase();
            name.to_ascii_lowercase().starts_with("ce_") || value.starts_with(b"application/cloudevents")
        };
        !self.headers.iter().any(is_event)
    }

    /// Lends the record to `look`.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Record<'_>) -> T) -> T {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        look(&Record { key: self.key.as_deref(), value: self.value.as_deref(), headers: &headers })
    }

    /// The record as a client sends it to a topic.
    pub(crate) fn to<'a>(&'a self, topic: &'a str) -> BaseRecord<'a, [u8], [u8]> {
        let header = |all: OwnedHeaders, (key, value): &(String, Option<Vec<u8>>)| {
            all.insert(message::Header { key, value: value.as_deref() })
        };
        let mut record = BaseRecord::to(topic).headers(self.headers.iter().fold(OwnedHeaders::new(), header));
        (record.key, record.payload) = (self.key.as_deref(), self.value.as_deref());
        record
    }
}
