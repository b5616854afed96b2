//! A foreign producer: publishes requests of every kind and remembers which ones the brokers acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use crate::SHARDS;
use crate::process::Chance;
use crate::topic::client;

/// Where each acknowledged record lies, and what it says. A broker that is sent a record twice says that it has it and not where: such a
/// record has a negative number of its own in place of the offset.
pub(crate) type Acknowledged = BTreeMap<(i32, i64), Option<Vec<u8>>>;

/// Records between two pauses.
const BURST: u64 = 8;
/// Every this many bursts an earlier keyed record is published once more.
const REPEATED_OF: u64 = 3;

/// Keeps what was acknowledged.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<(Acknowledged, u64)>>);

impl ClientContext for Ledger {}

impl ProducerContext for Ledger {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(message) => {
                let unplaced = -1 - i64::try_from(ledger.0.len()).expect("there are few");
                let offset = if message.offset() < 0 { unplaced } else { message.offset() };
                ledger.0.insert((message.partition(), offset), message.payload().map(<[u8]>::to_vec));
            }
            // Nobody promised anything; the record may be there all the same.
            Err(_) => ledger.1 += 1,
        }
    }
}

/// A producer at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    ledger: Ledger,
}

impl Load {
    /// Begins to publish to a topic, so many records a second.
    pub(crate) fn start(bootstrap: &str, topic: &str, seed: u64, a_second: u64) -> Load {
        let (stop, ledger) = (Arc::new(AtomicBool::new(false)), Ledger::default());
        let mut config = client(bootstrap);
        config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "2").set("message.timeout.ms", "60000");
        let producer: BaseProducer<Ledger> = config.create_with_context(ledger.clone()).unwrap();
        let (over, topic) = (Arc::clone(&stop), topic.to_owned());
        let thread = std::thread::spawn(move || publish(&producer, &topic, Chance(seed), a_second, &over));
        Load { stop, thread: Some(thread), ledger }
    }

    /// Ends it when everything under way has its answer; gives what was acknowledged, and how many records were not.
    pub(crate) fn finish(mut self) -> (Acknowledged, u64) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("it is taken once").join().expect("the producer's thread ends well");
        std::mem::take(&mut self.ledger.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn publish(producer: &BaseProducer<Ledger>, topic: &str, mut chance: Chance, a_second: u64, over: &AtomicBool) {
    let pause = Duration::from_micros(1_000_000 * BURST / a_second.max(1));
    let (mut n, mut keyed) = (chance.0 << 20 & 0xffff_ffff_ffff, Vec::new());
    while !over.load(Ordering::SeqCst) {
        for _ in 0..BURST {
            n += 1;
            send(producer, topic, &request(&mut chance, n, &mut keyed), &mut chance);
        }
        if chance.below(REPEATED_OF) == 0 && !keyed.is_empty() {
            let index = chance.below(keyed.len() as u64) as usize;
            send(producer, topic, &keyed[index], &mut chance);
        }
        producer.poll(pause);
        std::thread::sleep(pause.saturating_sub(Duration::from_millis(1)));
    }
    producer.flush(Duration::from_secs(70)).expect("everything is delivered or given up");
}

/// A record to be published.
#[derive(Clone, Debug, Default)]
struct Record {
    key: Option<String>,
    value: Option<Vec<u8>>,
}

fn send(producer: &BaseProducer<Ledger>, topic: &str, record: &Record, chance: &mut Chance) {
    loop {
        let mut sent = BaseRecord::<str, [u8]>::to(topic);
        match &record.key {
            Some(key) => sent = sent.key(key),
            None => sent = sent.partition(chance.below(SHARDS as u64) as i32),
        }
        sent.payload = record.value.as_deref();
        if producer.send(sent).is_ok() {
            return;
        }
        producer.poll(Duration::from_millis(5));
    }
}

/// A request, most of them good.
fn request(chance: &mut Chance, n: u64, keyed: &mut Vec<Record>) -> Record {
    let value = match chance.below(40) {
        0..=11 => format!(r#"{{"type":"effect","payload":{{"n":{n}}}}}"#),
        12..=15 => format!(r#"{{"type":"effect","payload":{{"n":{n},"millis":{}}}}}"#, chance.below(300)),
        16..=21 => format!(r#"{{"type":"flaky","payload":{{"n":{n}}}}}"#),
        22..=23 => format!(r#"{{"type":"broken","payload":{{"n":{n}}},"priority":{}}}"#, chance.below(10)),
        24..=28 => format!(r#"{{"type":"effect","payload":{{"n":{n}}},"delay":"{}ms"}}"#, chance.below(900)),
        29..=36 => {
            let key = format!("k{n}");
            let value = format!(r#"{{"type":"effect","payload":{{"n":{n}}},"key":"{key}"}}"#).into_bytes();
            // Of one key, so of one partition.
            keyed.push(Record { key: Some(key), value: Some(value) });
            return keyed[keyed.len() - 1].clone();
        }
        _ => return malformed(chance, n),
    };
    let key = (chance.below(2) == 0).then(|| format!("customer-{}", n % 17));
    Record { key, value: Some(value.into_bytes()) }
}

/// A record that is no request.
fn malformed(chance: &mut Chance, n: u64) -> Record {
    let value = match chance.below(6) {
        0 => None,
        1 => Some(Vec::new()),
        2 => Some(format!(r#"{{"type":"effect","payload":{{"n":{n}}}"#).into_bytes()),
        3 => Some(format!(r#"{{"type":"unheard-of","payload":{{"n":{n}}}}}"#).into_bytes()),
        4 => Some([b"\xff\xfe".as_slice(), n.to_string().as_bytes()].concat()),
        _ => Some(format!(r#"{{"type":"effect","payload":{{"n":{n}}},"priorty":3}}"#).into_bytes()),
    };
    Record { key: (chance.below(2) == 0).then(|| format!("bad-{n}")), value }
}
