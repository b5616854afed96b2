//! Records that were no requests: they lie in the dead-letter topic as they came, with headers that say where they were and why they
//! were refused, and can be sent again.
//!
//! Sending one again is one transaction of two messages: the record, to the partition that it came from, and in the dead-letter topic a
//! *mark* that says so. So a record is marked when it was sent again and only then. A mark is a message without a value whose key, and
//! header `ergate-redriven`, is the place of the record that it marks: `PARTITION-OFFSET`.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use ergate_events::log::LogError;
use ergate_events::log::kafka::{Patience, rest};
use ergate_events::time::Timestamp;
use rdkafka::message::{BorrowedMessage, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::feed::headers;
use super::messages::{Messages, More};
use super::open::ShardProducer;
use super::settings::KafkaSettings;

/// Header of a record that was sent again, and of a mark: the place where it lies in the dead-letter topic.
const REDRIVEN: &str = "ergate-redriven";
/// Headers that an engine adds to what it refuses.
const ADDED: [&str; 4] = ["ergate-reason", "ergate-topic", "ergate-partition", "ergate-offset"];
/// Header behind those of a record of which only the beginning was kept: the bytes of its whole value. It has no key and no headers of its own.
const CUT: &str = "ergate-cut";
/// How long the brokers may take for one transaction.
const COMMIT_WITHIN: Duration = Duration::from_secs(30);

/// A place in the dead-letter topic; prints as `PARTITION-OFFSET`, and a number alone is an offset of partition 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterId {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.partition, self.offset)
    }
}

impl FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<LetterId, String> {
        let (partition, offset) = text.split_once('-').unwrap_or(("0", text));
        let parsed = partition.parse().ok().zip(offset.parse().ok());
        let id = parsed.map(|(partition, offset)| LetterId { partition, offset });
        id.filter(|id| id.partition >= 0 && id.offset >= 0)
            .ok_or_else(|| "write the place of a refused record, for example `0-17`".to_owned())
    }
}

/// Where a record was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The topic of requests.
    pub topic: String,
    /// The shard's partition of it.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
}

/// A record that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Where it lies.
    pub id: LetterId,
    /// When it was refused, as the broker or the engine says.
    pub at: Option<Timestamp>,
    /// Where it came from; `None` for a message that no engine has put there.
    pub source: Option<Source>,
    /// Why it was refused.
    pub reason: String,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its own headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its value as it came.
    pub value: Option<Vec<u8>>,
    /// Bytes of its value as it came, where it was too long to be kept: then `value` is its beginning, and key and headers are not kept.
    pub cut_from: Option<u64>,
}

/// A message of the dead-letter topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A record that was refused.
    Letter(Box<Letter>),
    /// Says that one was sent again.
    Mark(LetterId),
    /// Says nothing: an engine has ended with it what brokers had left undecided.
    Nothing,
}

/// The refused records of a namespace.
pub struct DeadLetters {
    messages: Messages,
    requests: String,
    topic: String,
    settings: KafkaSettings,
}

impl DeadLetters {
    /// The refused records of a namespace.
    ///
    /// # Errors
    /// [`LogError::Kafka`] for settings that make no client.
    pub fn of(settings: &KafkaSettings, patience: Patience) -> Result<DeadLetters, LogError> {
        let topics = settings.topics();
        let messages = Messages::of(settings, &topics.dead_letters, patience)?;
        Ok(DeadLetters { messages, requests: topics.requests, topic: topics.dead_letters, settings: settings.clone() })
    }

    /// Shows every refused record and every mark to `see`, by partition and offset.
    ///
    /// # Errors
    /// [`LogError::NoTopic`], [`LogError::Kafka`], and what `see` answers.
    pub fn each<E: From<LogError>>(&self, see: &mut dyn FnMut(Entry) -> Result<(), E>) -> Result<(), E> {
        for partition in 0..self.messages.partitions()? {
            self.messages.each(partition, 0, &mut |message| see(entry(message)).map(|()| More::Yes))?;
        }
        Ok(())
    }

    /// The record that lies there; `None` where no refused record does.
    ///
    /// # Errors
    /// [`LogError::Kafka`].
    pub fn get(&self, id: LetterId) -> Result<Option<Letter>, LogError> {
        let mut found = None;
        if id.partition >= self.messages.partitions()? {
            return Ok(None);
        }
        self.messages.each(id.partition, id.offset, &mut |message| {
            if let Entry::Letter(letter) = entry(message) {
                found = Some(*letter).filter(|letter| letter.id == id);
            }
            Ok::<_, LogError>(More::No)
        })?;
        Ok(found)
    }

    /// A writer that sends records again; there is one at a time in a namespace, and a later one takes over.
    ///
    /// # Errors
    /// [`LogError::Kafka`] when the brokers do not let it in.
    pub fn redriver(&self) -> Result<Redriver<'_>, LogError> {
        let config = self.settings.producer(&format!("{}-redrive", self.settings.namespace()));
        let producer: BaseProducer<ShardProducer> =
            config.create_with_context(ShardProducer::new(&self.topic)).map_err(|error| self.failed("make a producer", error))?;
        producer.init_transactions(COMMIT_WITHIN).map_err(|error| self.failed("begin to redrive", error))?;
        Ok(Redriver { letters: self, producer })
    }

    /// Whether a record can be sent again: it came from the requests of this namespace, and all of it was kept.
    pub fn can_redrive(&self, letter: &Letter) -> bool {
        letter.cut_from.is_none() && letter.source.as_ref().is_some_and(|source| source.topic == self.requests)
    }

    fn failed(&self, step: &'static str, reason: impl fmt::Display) -> LogError {
        LogError::Kafka { step, topic: self.topic.clone(), reason: reason.to_string() }
    }
}

/// Sends refused records again.
pub struct Redriver<'a> {
    letters: &'a DeadLetters,
    producer: BaseProducer<ShardProducer>,
}

impl Redriver<'_> {
    /// Sends these records again, all or none, and marks them. Records of other topics are left out; the answer is how many were sent.
    ///
    /// # Errors
    /// [`LogError::Kafka`]; nothing was sent then, or, where the brokers did not answer the commit, perhaps everything.
    pub fn send(&self, letters: &[Letter]) -> Result<usize, LogError> {
        let failed = |error| self.letters.failed("redrive", error);
        let letters: Vec<&Letter> = letters.iter().filter(|letter| self.letters.can_redrive(letter)).collect();
        self.producer.begin_transaction().map_err(failed)?;
        let filled = letters.iter().try_for_each(|letter| self.put(letter)).and_then(|()| self.delivered());
        if let Err(error) = filled {
            // The error is what matters; a transaction that is left open is aborted by the brokers.
            let _ = self.producer.abort_transaction(COMMIT_WITHIN);
            return Err(error);
        }
        self.producer.commit_transaction(COMMIT_WITHIN).map_err(failed)?;
        Ok(letters.len())
    }

    fn put(&self, letter: &Letter) -> Result<(), LogError> {
        let Some(source) = &letter.source else { return Ok(()) };
        let id = letter.id.to_string();
        let own = letter.headers.iter().filter(|(name, _)| name != REDRIVEN);
        let add = |headers: OwnedHeaders, key: &str, value: Option<&[u8]>| headers.insert(Header { key, value });
        let headers = own.fold(OwnedHeaders::new(), |headers, (name, value)| add(headers, name, value.as_deref()));
        let mark = add(OwnedHeaders::new(), REDRIVEN, Some(id.as_bytes()));
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.letters.requests).partition(source.partition);
        (record.key, record.payload) = (letter.key.as_deref(), letter.value.as_deref());
        self.send_one(record.headers(add(headers, REDRIVEN, Some(id.as_bytes()))))?;
        let record = BaseRecord::<[u8], [u8]>::to(&self.letters.topic).partition(letter.id.partition);
        self.send_one(record.key(id.as_bytes()).headers(mark))
    }

    fn send_one(&self, record: BaseRecord<'_, [u8], [u8]>) -> Result<(), LogError> {
        self.producer.send(record).map_err(|(error, _)| self.letters.failed("redrive", error))
    }

    fn delivered(&self) -> Result<(), LogError> {
        let until = Instant::now() + COMMIT_WITHIN;
        while self.producer.in_flight_count() > 0 {
            rest(&self.producer);
            if Instant::now() >= until {
                return Err(self.letters.failed("redrive", "the brokers take no messages"));
            }
        }
        Ok(())
    }
}

pub(super) fn entry(message: &BorrowedMessage<'_>) -> Entry {
    let headers = headers(message).unwrap_or_default();
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect();
    let id = LetterId { partition: message.partition(), offset: message.offset() };
    let millis = message.timestamp().to_millis().and_then(|millis| u64::try_from(millis).ok());
    read(Raw {
        id,
        at: millis.map(|millis| Timestamp(millis.saturating_mul(1_000))),
        key: message.key(),
        value: message.payload(),
        headers,
    })
}

/// A message of the dead-letter topic as it came.
struct Raw<'a> {
    id: LetterId,
    at: Option<Timestamp>,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn read(raw: Raw<'_>) -> Entry {
    let Raw { id, at, key, value, mut headers } = raw;
    if key.is_none() && value.is_none() && headers.is_empty() {
        return Entry::Nothing;
    }
    // What a producer has sent under these names lies before what the engine added.
    let cut = headers.pop_if(|(name, _)| name == CUT).and_then(|(_, value)| number(value.as_deref()));
    let cut_from = cut.and_then(|bytes| u64::try_from(bytes).ok());
    let mut taken = ADDED.map(|name| take_last(&mut headers, name));
    let [reason, topic, partition, offset] = &mut taken;
    let text = |value: &mut Option<Vec<u8>>| value.take().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let (reason, topic) = (text(reason), text(topic));
    let (partition, offset) = (number(partition.as_deref()), number(offset.as_deref()));
    if reason.is_none()
        && let Some(of) = mark(&headers)
    {
        return Entry::Mark(of);
    }
    let source = topic.zip(partition.and_then(|number| i32::try_from(number).ok())).zip(offset);
    let source = source.map(|((topic, partition), offset)| Source { topic, partition, offset });
    let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
    let reason = reason.unwrap_or_else(|| "no engine says why this message is here".to_owned());
    Entry::Letter(Box::new(Letter { id, at, source, reason, key, headers, value, cut_from }))
}

fn take_last(headers: &mut Vec<(String, Option<Vec<u8>>)>, name: &str) -> Option<Vec<u8>> {
    let index = headers.iter().rposition(|(known, _)| known == name)?;
    headers.remove(index).1
}

fn number(text: Option<&[u8]>) -> Option<i64> {
    std::str::from_utf8(text?).ok()?.parse().ok()
}

fn mark(headers: &[(String, Option<Vec<u8>>)]) -> Option<LetterId> {
    let (_, value) = headers.iter().rfind(|(name, _)| name == REDRIVEN)?;
    std::str::from_utf8(value.as_deref()?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: LetterId = LetterId { partition: 2, offset: 17 };

    fn message(headers: &[(&str, &str)]) -> Entry {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec()))).collect();
        read(Raw { id: ID, at: None, key: Some(b"k"), value: Some(b"{"), headers })
    }

    #[test]
    fn places_print_and_are_read_back() {
        for (text, partition, offset) in [("2-17", 2, 17), ("17", 0, 17), ("0-0", 0, 0)] {
            assert_eq!(text.parse(), Ok(LetterId { partition, offset }));
        }
        assert_eq!(ID.to_string().parse(), Ok(ID));
        for text in ["", "-", "-1", "1-", "a-1", "1--1", "1-2-3"] {
            assert!(text.parse::<LetterId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_letter_is_the_record_without_what_the_engine_added() {
        let entry = message(&[
            ("ergate-reason", "the producer's own"),
            ("a", "1"),
            ("ergate-redriven", "2-9"),
            ("ergate-reason", "value: not JSON"),
            ("ergate-topic", "ns.requests"),
            ("ergate-partition", "3"),
            ("ergate-offset", "41"),
        ]);
        let Entry::Letter(letter) = entry else { panic!("{entry:?}") };
        assert_eq!(letter.source, Some(Source { topic: "ns.requests".to_owned(), partition: 3, offset: 41 }));
        assert_eq!(
            (letter.reason.as_str(), letter.headers.len()),
            ("value: not JSON", 3),
            "one that was redriven and refused again"
        );
        assert_eq!((letter.key.as_deref(), letter.value.as_deref()), (Some(&b"k"[..]), Some(&b"{"[..])));
    }

    #[test]
    fn a_record_of_which_only_the_beginning_was_kept_says_so() {
        let place = [("ergate-reason", "too long"), ("ergate-topic", "t"), ("ergate-partition", "3"), ("ergate-offset", "41")];
        let cut = |headers: &[(&str, &str)]| {
            let Entry::Letter(letter) = message(headers) else { panic!("{headers:?}") };
            letter.cut_from
        };
        assert_eq!(cut(&[&place[..], &[("ergate-cut", "20000000")]].concat()), Some(20_000_000));
        assert_eq!(cut(&[&[("ergate-cut", "the producer's own")], &place[..]].concat()), None);
    }

    #[test]
    fn a_mark_names_the_record_that_was_sent_again() {
        assert_eq!(message(&[("ergate-redriven", "2-9")]), Entry::Mark(LetterId { partition: 2, offset: 9 }));
    }

    #[test]
    fn an_empty_message_is_nobodys_letter() {
        assert_eq!(read(Raw { id: ID, at: None, key: None, value: None, headers: Vec::new() }), Entry::Nothing);
    }

    #[test]
    fn what_strangers_put_there_is_shown_and_has_no_source() {
        for headers in [&[][..], &[("ergate-partition", "x"), ("ergate-offset", "1"), ("ergate-topic", "t")]] {
            let Entry::Letter(letter) = message(headers) else { panic!("{headers:?}") };
            assert_eq!(letter.source, None);
        }
    }
}
