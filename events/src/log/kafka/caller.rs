//! The end of a transaction, on a thread of its own: what the client is asked for may take longer than it was told.
//!
//! `send_offsets_to_transaction` ignores its timeout where the group's coordinator went away while it was asked
//! (librdkafka issues 5456 and 5511): it then returns never, or when some broker happens to change its state. Nobody but that thread waits
//! for it; it keeps its client, which nothing else can end. And a commit waits for news of messages that failed, which the client tells only
//! to whoever polls it meanwhile.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer, PurgeConfig};

use super::log::Delivers;

/// How much longer than it was told a call may take.
const GRACE: Duration = Duration::from_millis(500);
/// How often the client is asked for news of messages that failed. A commit that goes well takes about as long.
const NEWS_EVERY: Duration = Duration::from_millis(10);

/// How often it is looked whether all messages have arrived: a small part of a commit, and most have arrived when the offsets are put.
const SENT_EVERY: Duration = Duration::from_micros(500);

/// Offsets to be committed with a transaction, and who commits them.
pub(super) type Offsets = (TopicPartitionList, ConsumerGroupMetadata);

/// How a transaction is to end.
enum Call {
    /// With these offsets put into it first, which has an answer of its own.
    Commit(Option<Offsets>, Duration),
    Abort(Duration),
}

/// Why there is no answer.
pub(super) enum NoAnswer {
    /// The client answered with an error.
    Refused(KafkaError),
    /// The offsets could not be put into the transaction, and so it was not committed.
    NotPut(KafkaError),
    /// It did not answer, and this producer is of no use any more.
    Stuck,
    /// There is no thread to call from.
    NoThread(std::io::Error),
}

/// The thread, started by the first call.
pub(super) struct Caller<C: Delivers> {
    producer: Arc<BaseProducer<C>>,
    thread: Option<Thread>,
}

struct Thread {
    calls: Sender<Call>,
    answers: Receiver<Result<(), KafkaError>>,
}

impl<C: Delivers> Caller<C> {
    pub(super) const fn new(producer: Arc<BaseProducer<C>>) -> Caller<C> {
        Caller { producer, thread: None }
    }

    /// Commits when every message has arrived, and gives up early when one cannot. Offsets get half of the time: the rest is for whoever takes
    /// the shard up after a client that is stuck.
    pub(super) fn commit(&mut self, offsets: Option<Offsets>, within: Duration) -> Result<(), NoAnswer> {
        let has_offsets = offsets.is_some();
        let thread = self.call(Call::Commit(offsets, within))?;
        let put = if has_offsets { self.answer(&thread, within / 2)? } else { Ok(()) };
        let committed = if put.is_ok() { self.answer(&thread, within)? } else { Ok(()) };
        self.thread = Some(thread);
        put.map_err(NoAnswer::NotPut)?;
        committed.map_err(NoAnswer::Refused)
    }

    /// Gives the transaction up.
    pub(super) fn abort(&mut self, within: Duration) -> Result<(), NoAnswer> {
        let thread = self.call(Call::Abort(within))?;
        let aborted = self.answer(&thread, within)?;
        self.thread = Some(thread);
        aborted.map_err(NoAnswer::Refused)
    }

    fn call(&mut self, call: Call) -> Result<Thread, NoAnswer> {
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => start(&self.producer).map_err(NoAnswer::NoThread)?,
        };
        thread.calls.send(call).map_err(|_| NoAnswer::Stuck)?;
        Ok(thread)
    }

    /// Waits for an answer a little longer than it may take. A thread that gives none is left behind with its client.
    fn answer(&self, thread: &Thread, within: Duration) -> Result<Result<(), KafkaError>, NoAnswer> {
        let (mut waited, mut is_purged) = (Duration::ZERO, false);
        loop {
            match thread.answers.recv_timeout(NEWS_EVERY) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) if waited < within + GRACE => waited += NEWS_EVERY,
                Err(_) => return Err(NoAnswer::Stuck),
            }
            self.producer.poll(Duration::ZERO);
            // Nothing more of the transaction is sent then, so waiting for the rest would be in vain.
            if !is_purged && self.producer.context().take_failure().is_some() {
                self.producer.purge(PurgeConfig::default().queue().inflight());
                is_purged = true;
            }
        }
    }
}

/// Waits until the brokers have every message and that was told: a commit would wait too, a tenth of a second at a time.
fn wait_sent<C: Delivers>(producer: &BaseProducer<C>, within: Duration) {
    let mut waited = Duration::ZERO;
    producer.poll(Duration::ZERO);
    while producer.in_flight_count() > 0 && waited < within {
        std::thread::sleep(SENT_EVERY);
        waited += SENT_EVERY;
        producer.poll(Duration::ZERO);
    }
}

fn start<C: Delivers>(producer: &Arc<BaseProducer<C>>) -> std::io::Result<Thread> {
    let (calls, received) = channel();
    let (answer, answers) = channel();
    let producer = Arc::clone(producer);
    std::thread::Builder::new().name("ergate-caller".to_owned()).spawn(move || {
        let tell = |answered: Result<(), KafkaError>| answer.send(answered).is_ok();
        for call in received {
            match call {
                Call::Abort(within) => _ = tell(producer.abort_transaction(within)),
                Call::Commit(offsets, within) => {
                    let put = offsets.map(|(offsets, group)| producer.send_offsets_to_transaction(&offsets, &group, within / 2));
                    let is_put = !matches!(put, Some(Err(_)));
                    let is_heard = put.is_none_or(tell);
                    if is_put && is_heard {
                        wait_sent(&producer, within);
                        tell(producer.commit_transaction(within));
                    }
                }
            }
        }
    })?;
    Ok(Thread { calls, answers })
}
