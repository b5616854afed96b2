//! Records of a shard's requests topic on their way to the shard: one message, one buffer, whatever they say.

use std::ops::Range;

use ergate_events::log::Outgoing;

use crate::submission::Extras;

/// Most bytes of a record, key and headers included, that are kept whole among the dead letters: with what is said of it, it fits a message of
/// 4 MiB. Requests are at most 2 MiB, but anybody's record may be any size once it is no longer compressed, and an operator may allow more.
const LETTER_BYTES_MAX: usize = 3 << 20;
/// How much of the value is kept of a longer one, so that one sees what it is.
const CUT_BYTES: usize = 64 << 10;

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

    /// The record as it goes to the dead-letter topic: as it came, with headers that say where it was and why it was refused. Of one that is
    /// too long for that topic only the beginning of its value goes there, and a last header with the bytes of all of it.
    pub(crate) fn dead_letter(&self, offset: u64, place: &Source, reason: &str) -> Option<Outgoing> {
        let index = self.items.binary_search_by_key(&offset, |record| record.offset).ok()?;
        let record = &self.items[index];
        let (value, nothing) = (&self.bytes[record.raw.clone()], Around::default());
        let around = record.around.as_deref().unwrap_or(&nothing);
        let is_cut = around.bytes() + value.len() > LETTER_BYTES_MAX;
        let said = [
            ("ergate-reason", reason.to_owned()),
            ("ergate-topic", place.requests.clone()),
            ("ergate-partition", place.partition.to_string()),
            ("ergate-offset", offset.to_string()),
        ];
        let cut = is_cut.then(|| ("ergate-cut", value.len().to_string()));
        let (key, mut headers) = if is_cut { (None, Vec::new()) } else { (around.key.clone(), around.headers.clone()) };
        headers.extend(said.into_iter().chain(cut).map(|(name, value)| (name.to_owned(), Some(value.into_bytes()))));
        let kept = if is_cut { &value[..value.len().min(CUT_BYTES)] } else { value };
        let value = (!around.is_tombstone).then(|| kept.to_vec());
        Some(Outgoing { topic: place.dead_letters.clone(), partition: Some(place.dead_letters_partition), key, headers, value })
    }
}

impl Around {
    fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
        self.key.as_ref().map_or(0, Vec::len) + headers.sum::<usize>()
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
    /// The shard's partition of it.
    pub dead_letters_partition: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Source {
        let (requests, dead_letters) = ("ns.requests".to_owned(), "ns.dlq".to_owned());
        Source { requests, partition: 2, dead_letters, dead_letters_partition: 1 }
    }

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
        let place = place();
        let letter = records.dead_letter(3, &place, "value: not JSON").expect("the record is there");
        assert_eq!(
            (letter.topic.as_str(), letter.partition, letter.key.as_deref(), letter.value.as_deref()),
            ("ns.dlq", Some(1), Some(&b"k"[..]), Some(&b"\xff"[..]))
        );
        let header = |name: &str| letter.headers.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.clone());
        assert_eq!(header("ergate-offset"), Some(b"3".to_vec()));
        assert_eq!(header("ergate-reason"), Some(b"value: not JSON".to_vec()));
        assert!(records.dead_letter(4, &place, "").is_none());
    }

    #[test]
    fn a_record_that_no_dead_letter_holds_is_cut() {
        let place = place();
        let whole = Around { key: Some(b"k".to_vec()), headers: vec![("a".to_owned(), None)], is_tombstone: false };
        let many = vec![("header".to_owned(), Some(vec![b'h'; 1 << 10])); 4 << 10];
        let cases = [
            (whole.clone(), vec![b'x'; LETTER_BYTES_MAX - 2], None),
            (whole, vec![b'x'; LETTER_BYTES_MAX - 1], Some(CUT_BYTES)),
            (Around { key: Some(vec![b'k'; 4 << 20]), ..Around::default() }, b"{}".to_vec(), Some(2)),
            (Around { headers: many, ..Around::default() }, b"{}".to_vec(), Some(2)),
        ];
        for (around, value, kept) in cases {
            let mut records = Records::default();
            records.push_refused(3, &value, "value: too long", Some(Box::new(around.clone())));
            let letter = records.dead_letter(3, &place, "value: too long").expect("the record is there");
            let sent = letter.value.expect("it has a value");
            let last = letter.headers.last().expect("there are headers");
            match kept {
                None => assert_eq!((&sent, &letter.key, last.0.as_str()), (&value, &around.key, "ergate-offset")),
                Some(kept) => {
                    assert_eq!((sent.len(), letter.key, letter.headers.len()), (kept, None, 5));
                    assert_eq!(*last, ("ergate-cut".to_owned(), Some(value.len().to_string().into_bytes())));
                }
            }
        }
    }
}
