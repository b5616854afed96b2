//! Calls of the client that may take longer than they were told to, on a thread of their own.
//!
//! `send_offsets_to_transaction` ignores its timeout where the group's coordinator went away while it was asked
//! (librdkafka issues 5456 and 5511): it then returns never, or when some broker happens to change its state. Nobody but that thread waits
//! for it; it keeps its client, which nothing else can end.
#![expect(clippy::disallowed_methods, reason = "how long the client is waited for changes nothing that is recorded")]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

use super::MOMENT;

/// How much longer than it was told a call may take.
const GRACE: Duration = Duration::from_millis(500);

/// What is called.
pub(super) enum Call {
    /// Puts the offset of the next request into the transaction.
    Offsets(TopicPartitionList, ConsumerGroupMetadata),
    /// Gives the transaction up. Meanwhile the client waits for news of each message, and tells them only to whoever polls.
    Abort,
}

/// Why there is no answer.
pub(super) enum NoAnswer {
    /// The client answered with an error.
    Refused(KafkaError),
    /// It did not answer, and this producer is of no use any more.
    Stuck,
    /// There is no thread to call from.
    NoThread(std::io::Error),
}

/// The thread, started by the first call.
pub(super) struct Caller<C: ProducerContext + 'static> {
    producer: Arc<BaseProducer<C>>,
    thread: Option<Thread>,
}

struct Thread {
    calls: Sender<(Call, Duration)>,
    answers: Receiver<Result<(), KafkaError>>,
}

impl<C: ProducerContext + 'static> Caller<C> {
    pub(super) const fn new(producer: Arc<BaseProducer<C>>) -> Caller<C> {
        Caller { producer, thread: None }
    }

    /// Calls, and waits for the answer a little longer than the call may take.
    pub(super) fn call(&mut self, call: Call, within: Duration) -> Result<(), NoAnswer> {
        let polls = matches!(call, Call::Abort);
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => start(&self.producer).map_err(NoAnswer::NoThread)?,
        };
        if thread.calls.send((call, within)).is_err() {
            return Err(NoAnswer::Stuck);
        }
        let answer = if polls { self.poll(&thread, within + GRACE) } else { thread.answers.recv_timeout(within + GRACE) };
        // One that does not answer is left behind with its client.
        let answer = answer.map_err(|_| NoAnswer::Stuck)?;
        self.thread = Some(thread);
        answer.map_err(NoAnswer::Refused)
    }

    fn poll(&self, thread: &Thread, within: Duration) -> Result<Result<(), KafkaError>, RecvTimeoutError> {
        let began = Instant::now();
        loop {
            match thread.answers.recv_timeout(MOMENT) {
                Err(RecvTimeoutError::Timeout) if began.elapsed() < within => {
                    self.producer.poll(Duration::ZERO);
                }
                answer => return answer,
            }
        }
    }
}

fn start<C: ProducerContext + 'static>(producer: &Arc<BaseProducer<C>>) -> std::io::Result<Thread> {
    let (calls, received) = channel();
    let (answer, answers) = channel();
    let producer = Arc::clone(producer);
    std::thread::Builder::new().name("ergate-caller".to_owned()).spawn(move || {
        for (call, within) in received {
            let answered = match call {
                Call::Offsets(offsets, group) => producer.send_offsets_to_transaction(&offsets, &group, within),
                Call::Abort => producer.abort_transaction(within),
            };
            if answer.send(answered).is_err() {
                return;
            }
        }
    })?;
    Ok(Thread { calls, answers })
}
