//! Whether transactions work, and how far the brokers' clock is from this machine's.
//!
//! Beginning with a transactional id makes its coordinator write a record about it into `__transaction_state`, with the time of the broker's
//! clock. That record is read back: the one way to see a broker's clock without writing to a topic of the log.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ergate::kafka::admin::PATIENCE;
use ergate::kafka::context::Listener;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::Patient;
use crate::cli::doctor::Check;

/// Where Kafka keeps the state of transactions.
const STATE: &str = "__transaction_state";
/// How long one try to begin may take.
const BEGIN_TRY: Duration = Duration::from_secs(2);
/// How long the record may take to be seen.
const READ_PATIENCE: Duration = Duration::from_secs(5);
/// Below this nobody notices; machines with NTP are within some milliseconds.
const SKEW_NOTICED_MS: i64 = 1_000;
/// Above this certificates and tokens begin to be refused, and times in the log mislead.
const SKEW_WRONG_MS: i64 = 60_000;

/// What a broker's clock showed, and this machine's before and after.
struct Reading {
    broker_ms: i64,
    before_ms: i64,
    after_ms: i64,
}

/// Begins with a transactional id that no shard has, and looks at the record that this leaves.
pub(super) fn check(patient: &Patient<'_>) -> (Check, Check) {
    let id = patient.url.namespace().transactional_id_for_doctor();
    let reader = Reader::new(patient, &id);
    let (before_ms, started) = (now_ms(), Instant::now());
    let begun = begin(patient, &id);
    let after_ms = now_ms();
    let transactions = match &begun {
        Ok(()) => Check::ok("transactions", format!("{id} is ready after {:.1?}", started.elapsed())),
        Err(error) => refused(&id, error),
    };
    let clock = match begun.and_then(|()| reader.and_then(|reader| reader.find(&id))) {
        Ok(broker_ms) => Reading { broker_ms, before_ms, after_ms }.check(),
        Err(error) => Check::warn(
            "clock",
            format!("not known: {STATE} cannot be read: {error}"),
            "grant Read and Describe on it, or see that every machine keeps its time with NTP",
        ),
    };
    (transactions, clock)
}

fn begin(patient: &Patient<'_>, id: &str) -> Result<(), KafkaError> {
    let producer: BaseProducer<Listener> = patient.settings.producer(patient.url, id).create_with_context(Listener::default())?;
    let started = Instant::now();
    loop {
        // A refusal is tried again by the library until the time is over, and only then told.
        match producer.init_transactions(BEGIN_TRY) {
            Err(error) if is_too_slow(&error) && started.elapsed() < PATIENCE => {}
            answer => return answer,
        }
    }
}

/// Whether the time was too short, as on a cluster that makes its first transaction.
fn is_too_slow(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut)
}

fn refused(id: &str, error: &KafkaError) -> Check {
    let code = error.rdkafka_error_code();
    let advice = if code == Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) {
        "grant Write and Describe on the transactional ids that begin with the namespace"
    } else if code == Some(RDKafkaErrorCode::InvalidTransactionTimeout) {
        "set kafka.transaction_timeout lower, or transaction.max.timeout.ms of the brokers higher"
    } else {
        "the brokers need enough replicas for __transaction_state (transaction.state.log.replication.factor and .min.isr)"
    };
    Check::fail("transactions", format!("{id}: {error}"), advice)
}

/// Reads what is appended to the partition of the state that an id belongs to.
struct Reader {
    consumer: BaseConsumer<Listener>,
}

impl Reader {
    fn new(patient: &Patient<'_>, id: &str) -> Result<Reader, KafkaError> {
        let mut config = patient.settings.reader(patient.url);
        // The coordinator's records are in no transaction themselves.
        config.set("isolation.level", "read_uncommitted").set("fetch.wait.max.ms", "10");
        let consumer: BaseConsumer<Listener> = config.create_with_context(Listener::default())?;
        let topic = patient.metadata.topics().iter().find(|topic| topic.name() == STATE);
        // Kafka makes the topic when it is first needed, which may be in a moment; its partitions are then as the brokers say.
        let count = topic.map(|topic| topic.partitions().len() as i64).filter(|count| *count > 0);
        let count = count.or_else(|| patient.least("transaction.state.log.num.partitions")).unwrap_or(50);
        let partition = partition(id, count);
        let end = topic.and_then(|_| consumer.fetch_watermarks(STATE, partition, PATIENCE).ok()).map(|(_, high)| high);
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(STATE, partition, end.map_or(Offset::Beginning, Offset::Offset))?;
        consumer.assign(&from)?;
        Ok(Reader { consumer })
    }

    /// The time of the newest record about an id, in ms since the Unix epoch.
    fn find(&self, id: &str) -> Result<i64, KafkaError> {
        let started = Instant::now();
        while started.elapsed() < READ_PATIENCE {
            match self.consumer.poll(Duration::from_millis(50)) {
                Some(Ok(message)) if names(message.key(), id) => {
                    return message
                        .timestamp()
                        .to_millis()
                        .ok_or(KafkaError::MessageConsumption(RDKafkaErrorCode::InvalidTimestamp));
                }
                Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                    return Err(error);
                }
                // Records about others, and connections that come and go.
                Some(_) | None => {}
            }
        }
        Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
    }
}

/// A key of the state is two bytes of version, then the id with its length.
fn names(key: Option<&[u8]>, id: &str) -> bool {
    key.is_some_and(|key| key.ends_with(id.as_bytes()) && key.len() <= id.len() + 4)
}

/// Where Kafka keeps an id: Java's hash of its text, without the sign, modulo the partitions.
fn partition(id: &str, count: i64) -> i32 {
    let hash = id.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit.cast_signed())));
    // The one number without a positive twin counts as 0 there.
    let hash = if hash == i32::MIN { 0 } else { hash.abs() };
    i32::try_from(i64::from(hash) % count.max(1)).unwrap_or(0)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Reading {
    /// How far the broker's clock was outside of what this machine's showed; 0 when it was between the two.
    fn skew_ms(&self) -> i64 {
        (self.broker_ms - self.after_ms).max(0) + (self.broker_ms - self.before_ms).min(0)
    }

    fn check(&self) -> Check {
        let skew = self.skew_ms();
        let within = self.after_ms - self.before_ms;
        let found = match skew {
            0 => format!("the same as the coordinator's, within {within} ms"),
            ahead @ 1.. => format!("the coordinator's clock is {ahead} ms ahead of this machine's"),
            behind => format!("the coordinator's clock is {} ms behind this machine's", -behind),
        };
        let advice = "let NTP keep the time on all machines: times in the log are the engines', retention goes by the brokers'";
        match skew.abs() {
            SKEW_WRONG_MS.. => Check::fail("clock", found, advice),
            SKEW_NOTICED_MS.. => Check::warn("clock", found, advice),
            _ => Check::ok("clock", found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_where_java_puts_it() {
        // "hello".hashCode() is 99162322 in Java, and "polygenelubricants".hashCode() is the least number.
        assert_eq!(partition("hello", 50), 22);
        assert_eq!(partition("polygenelubricants", 50), 0);
        assert_eq!(partition("a-doctor", 1), 0);
        assert!(names(Some(b"\0\0\0\x08a-doctor"), "a-doctor") && !names(Some(b"\0\0\0\x09ba-doctor2"), "a-doctor"));
    }

    #[test]
    fn a_clock_is_wrong_only_outside_of_what_was_possible() {
        let skew = |broker_ms| Reading { broker_ms, before_ms: 1_000, after_ms: 1_200 }.skew_ms();
        assert_eq!([1_000, 1_100, 1_200, 1_250, 400].map(skew), [0, 0, 0, 50, -600]);
    }
}
