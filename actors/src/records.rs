//! Records of a shard's requests topic on their way to the shard: one message, one buffer, whatever they say.

use std::ops::Range;

use ergate_events::log::Outgoing;

use crate::submission::Extras;

/// Consecutive records of a shard's requests topic; there may be gaps between their offsets.
#[derive(Debug, Default)]
pub struct Records {
    bytes: Vec<u8>,
    items: Vec<Record>,
}

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) offset: u64,
    /// The value as it came.
    raw: Range<usize>,
    what: What,
    around: Option<Box<Around>>,
}

#[derive(Debug)]
enum What {
    Request { name: Range<usize>, payload: Range<usize>, extras: Option<Box<Extras>> },
    Refused(Box<str>),
}

/// What a record has beside its value, for the dead-letter topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Whether it has no value at all, which is not the same as an empty one.
    pub is_tombstone: bool,
}

/// What a record asks for.
pub(crate) enum Wish<'a> {
    Request { name: &'a str, payload: &'a [u8], extras: Option<&'a Extras> },
    Refused(&'a str),
}

impl Records {
    /// An empty batch with room for so many records and bytes.
    pub fn with_capacity(records: usize, bytes: usize) -> Records {
        Records { bytes: Vec::with_capacity(bytes), items: Vec::with_capacity(records) }
    }

    /// Adds a record that asks for work. `name` and `payload` cost no second copy where they lie in `raw`.
    pub fn push_request(
        &mut self,
        offset: u64,
        raw: &[u8],
        (name, payload): (&str, &[u8]),
        extras: Option<Box<Extras>>,
        around: Option<Box<Around>>,
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(raw);
        let name = self.place(raw, start, name.as_bytes());
        let payload = self.place(raw, start, payload);
        let what = What::Request { name, payload, extras };
        self.items.push(Record { offset, raw: start..start + raw.len(), what, around });
    }

    /// Adds a record that is no request.
    pub fn push_refused(&mut self, offset: u64, raw: &[u8], reason: &str, around: Option<Box<Around>>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(raw);
        self.items.push(Record { offset, raw: start..self.bytes.len(), what: What::Refused(reason.into()), around });
    }

    /// Where `part` lies in the buffer: with `raw` if it is a part of it, appended if it is not.
    fn place(&mut self, raw: &[u8], start: usize, part: &[u8]) -> Range<usize> {
        let at = (part.as_ptr() as usize).wrapping_sub(raw.as_ptr() as usize);
        if at.checked_add(part.len()).is_some_and(|end| end <= raw.len()) {
            return start + at..start + at + part.len();
        }
        let at = self.bytes.len();
        self.bytes.extend_from_slice(part);
        at..self.bytes.len()
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of the records.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn items(&self) -> &[Record] {
        &self.items
    }

    pub(crate) fn wish<'a>(&'a self, record: &'a Record) -> Wish<'a> {
        match &record.what {
            What::Request { name, payload, extras } => Wish::Request {
                // It was a `str` when it came; a name that is not one is no name of a task type.
                name: std::str::from_utf8(&self.bytes[name.clone()]).unwrap_or(""),
                payload: &self.bytes[payload.clone()],
                extras: extras.as_deref(),
            },
            What::Refused(reason) => Wish::Refused(reason),
        }
    }

    /// The record as it goes to the dead-letter topic: as it came, with headers that say where it was and why it was refused.
    pub(crate) fn dead_letter(&self, offset: u64, place: &Source, reason: &str) -> Option<Outgoing> {
        let index = self.items.binary_search_by_key(&offset, |record| record.offset).ok()?;
        let record = &self.items[index];
        let (key, mut headers, is_tombstone) = match record.around.as_deref() {
            Some(around) => (around.key.clone(), around.headers.clone(), around.is_tombstone),
            None => (None, Vec::new(), false),
        };
        let said = [
            ("ergate-reason", reason.to_owned()),
            ("ergate-topic", place.requests.clone()),
            ("ergate-partition", place.partition.to_string()),
            ("ergate-offset", offset.to_string()),
        ];
        headers.extend(said.map(|(name, value)| (name.to_owned(), Some(value.into_bytes()))));
        let value = (!is_tombstone).then(|| self.bytes[record.raw.clone()].to_vec());
        Some(Outgoing { topic: place.dead_letters.clone(), key, headers, value })
    }
}

/// Where a shard's records come from, and where those go that are refused.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The topic of requests.
    pub requests: String,
    /// The shard's partition of it.
    pub partition: i32,
    /// The topic of refused records.
    pub dead_letters: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_value_are_not_copied_twice_and_others_are_kept() {
        let mut records = Records::default();
        let raw = br#"{"type":"greet","payload":"Ada"}"#;
        let (name, payload) = (std::str::from_utf8(&raw[9..14]).expect("it is text"), &raw[26..31]);
        records.push_request(7, raw, (name, payload), None, None);
        records.push_request(9, raw, ("else", b"where"), None, None);
        assert_eq!(records.bytes(), 2 * raw.len() + "elsewhere".len());
        let wishes: Vec<_> = records.items().iter().map(|record| records.wish(record)).collect();
        assert!(matches!(wishes[0], Wish::Request { name: "greet", payload: b"\"Ada\"", .. }));
        assert!(matches!(wishes[1], Wish::Request { name: "else", payload: b"where", .. }));
    }

    #[test]
    fn a_dead_letter_is_the_record_with_where_it_was_and_why() {
        let mut records = Records::default();
        let around = Around { key: Some(b"k".to_vec()), headers: vec![("a".to_owned(), None)], is_tombstone: false };
        records.push_refused(3, b"\xff", "value: not JSON", Some(Box::new(around)));
        let place = Source { requests: "ns.requests".to_owned(), partition: 2, dead_letters: "ns.dlq".to_owned() };
        let letter = records.dead_letter(3, &place, "value: not JSON").expect("the record is there");
        assert_eq!(
            (letter.topic.as_str(), letter.key.as_deref(), letter.value.as_deref()),
            ("ns.dlq", Some(&b"k"[..]), Some(&b"\xff"[..]))
        );
        let header = |name: &str| letter.headers.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.clone());
        assert_eq!(header("ergate-offset"), Some(b"3".to_vec()));
        assert_eq!(header("ergate-reason"), Some(b"value: not JSON".to_vec()));
        assert!(records.dead_letter(4, &place, "").is_none());
    }
}
