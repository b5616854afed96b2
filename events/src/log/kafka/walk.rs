//! Clients that read one partition, and are used again for the next question: making one costs more than most answers.
#![expect(clippy::disallowed_methods, reason = "how long the brokers are waited for changes nothing that is recorded")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::failed;
use super::message::Received;
use super::reader::Watermarks;
use crate::log::LogError;

/// How long a reader waits for one answer unless it is told otherwise.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How long one try of a question may take before it is asked anew.
const TRY_FOR: Duration = Duration::from_secs(5);
/// Pause between two tries that failed at once.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long a wait goes on before anybody hears of it: a change of leaders takes less.
const SAY_AFTER: Duration = Duration::from_secs(3);
/// How often a wait that goes on is told.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// How long a cursor at the end waits for a block before it says that there is none.
pub(super) const AT_END: Duration = Duration::from_millis(20);
/// How often a client that got no answer is asked why, and how long each time: librdkafka says one thing at a time.
const DENIAL_POLLS: u32 = 10;
const DENIAL_POLL: Duration = Duration::from_millis(10);
/// How far back the last block is looked for at first; the markers of transactions lie behind it.
const LOOK_BACK: i64 = 4;

/// Hears for how long the brokers have not answered, and why as far as that is known.
pub type Listener = Arc<dyn Fn(Duration, &str) + Send + Sync>;

/// How patient a reader is.
#[derive(Clone)]
pub struct Patience {
    /// How long it waits for one answer before it gives up; brokers may start again meanwhile.
    pub answer_within: Duration,
    /// Who hears of long waits.
    pub listener: Option<Listener>,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { answer_within: ANSWER_WITHIN, listener: None }
    }
}

/// A wait for one answer.
pub(super) struct Wait<'a> {
    patience: &'a Patience,
    since: Instant,
    told: Option<Instant>,
}

impl<'a> Wait<'a> {
    pub(super) fn new(patience: &'a Patience) -> Wait<'a> {
        Wait { patience, since: Instant::now(), told: None }
    }

    /// Says that there is no answer yet; `false` when it was long enough.
    pub(super) fn goes_on(&mut self, reason: &str) -> bool {
        let waited = self.since.elapsed();
        if let Some(listener) = &self.patience.listener
            && waited >= SAY_AFTER
            && self.told.is_none_or(|told| told.elapsed() >= SAY_EVERY)
        {
            self.told = Some(Instant::now());
            listener(waited, reason);
        }
        waited < self.patience.answer_within
    }
}

/// What is called while a client is polled: of all that it says only why brokers do not let it in concerns a reader.
#[derive(Default)]
pub(super) struct Denials(Mutex<Option<String>>);

impl Denials {
    fn last(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Denials {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        // A handshake also fails where a broker ends in the middle of it.
        let is_certificate = code == Some(RDKafkaErrorCode::SSL) && reason.contains("certificate");
        if is_certificate || code == Some(RDKafkaErrorCode::Authentication) {
            *self.last() = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Denials {}

pub(super) type Client = BaseConsumer<Denials>;

/// Clients of one configuration, those that nobody uses kept for the next.
pub(super) struct Clients {
    config: ClientConfig,
    idle: Mutex<Vec<Client>>,
}

impl Clients {
    pub(super) fn new(config: ClientConfig) -> Clients {
        Clients { config, idle: Mutex::default() }
    }

    /// Others with one more setting.
    pub(super) fn with(&self, name: &str, value: &str) -> Clients {
        let mut config = self.config.clone();
        config.set(name, value);
        Clients::new(config)
    }

    pub(super) fn take(&self) -> Result<Client, KafkaError> {
        let idle = self.idle().pop();
        idle.map_or_else(|| self.config.create_with_context(Denials::default()), Ok)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client that reads one partition.
pub(super) struct Walk {
    /// Given back when the walk ends.
    client: Option<Client>,
    clients: Arc<Clients>,
    topic: String,
    partition: i32,
    patience: Patience,
    /// Offset from which on messages are wanted; the client may still hand out some of an earlier walk.
    from: i64,
    at_end: bool,
    /// Whether retention has dropped what was to be read.
    outrun: bool,
}

impl Drop for Walk {
    fn drop(&mut self) {
        // One that cannot forget its partition is not used again.
        if let Some(client) = self.client.take().filter(|client| client.unassign().is_ok()) {
            self.clients.idle().push(client);
        }
    }
}

impl Walk {
    pub(super) fn new(clients: &Arc<Clients>, topic: &str, partition: i32, patience: &Patience) -> Result<Walk, LogError> {
        let client = clients.take().map_err(|error| failed("read", topic, error))?;
        Ok(Walk {
            client: Some(client),
            clients: Arc::clone(clients),
            topic: topic.to_owned(),
            partition,
            patience: patience.clone(),
            from: 0,
            at_end: false,
            outrun: false,
        })
    }

    fn client(&self) -> &Client {
        self.client.as_ref().expect("it is given back when the walk ends")
    }

    /// Whether the last error was that retention had dropped what was to be read.
    pub(super) const fn was_outrun(&self) -> bool {
        self.outrun
    }

    /// How many partitions the topic has.
    pub(super) fn partitions(&self) -> Result<usize, LogError> {
        let asked = self.ask("ask for the topic", || self.client().fetch_metadata(Some(&self.topic), TRY_FOR))?;
        let topic = asked.topics().first();
        match topic.and_then(|topic| topic.error()) {
            Some(error) if is_missing(RDKafkaErrorCode::from(error)) => Err(LogError::NoTopic { topic: self.topic.clone() }),
            Some(error) => Err(failed("ask for the topic", &self.topic, RDKafkaErrorCode::from(error))),
            None => Ok(topic.map_or(0, |topic| topic.partitions().len())),
        }
    }

    /// The name that the cluster has given itself; empty where it does not say.
    pub(super) fn cluster(&self) -> String {
        self.client().client().fetch_cluster_id(TRY_FOR).unwrap_or_default()
    }

    /// Asks until there is an answer, or waiting is over.
    fn ask<T>(&self, step: &'static str, question: impl Fn() -> Result<T, KafkaError>) -> Result<T, LogError> {
        let mut wait = Wait::new(&self.patience);
        loop {
            let error = match question() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.rdkafka_error_code().is_some_and(is_missing) {
                return Err(LogError::NoTopic { topic: self.topic.clone() });
            }
            if let Some(reason) = self.denial() {
                return Err(failed(step, &self.topic, reason));
            }
            if is_final(&error) || !wait.goes_on(&error.to_string()) {
                return Err(failed(step, &self.topic, error));
            }
            std::thread::sleep(AGAIN_AFTER);
        }
    }

    /// Why the brokers do not let this client in, if that is why they do not answer. What connections have to say comes only when the
    /// client is polled; it reads no partition yet.
    fn denial(&self) -> Option<String> {
        (0..DENIAL_POLLS).for_each(|_| drop(self.client().poll(DENIAL_POLL)));
        self.client().context().last().take()
    }

    /// Where the partition begins and ends for a reader of committed messages.
    pub(super) fn watermarks(&self) -> Result<Watermarks, LogError> {
        let marks = self.ask("ask for the ends of", || self.client().fetch_watermarks(&self.topic, self.partition, TRY_FOR))?;
        Ok(Watermarks { low: marks.0, stable: marks.1 })
    }

    /// Reads on from an offset.
    pub(super) fn go(&mut self, offset: i64) -> Result<(), LogError> {
        let mut assignment = TopicPartitionList::new();
        let added = assignment.add_partition_offset(&self.topic, self.partition, Offset::Offset(offset));
        added.and_then(|()| self.client().assign(&assignment)).map_err(|error| failed("read", &self.topic, error))?;
        (self.from, self.at_end) = (offset, false);
        Ok(())
    }

    /// The first block at or after an offset.
    pub(super) fn at(&mut self, offset: i64) -> Result<Option<Received>, LogError> {
        self.go(offset)?;
        self.next()
    }

    /// The last block of the log; one that is there again behind it is not the last one.
    pub(super) fn last(&mut self, marks: Watermarks) -> Result<Option<Received>, LogError> {
        let mut back = LOOK_BACK;
        loop {
            let from = (marks.stable - back).max(marks.low);
            let (mut last, mut next): (Option<Received>, _) = (None, self.at(from)?);
            while let Some(received) = next.filter(|received| received.offset < marks.stable) {
                let reaches = received.block.header.next_position();
                if last.as_ref().is_none_or(|last| reaches > last.block.header.next_position()) {
                    last = Some(received);
                }
                next = self.next()?;
            }
            if last.is_some() || from <= marks.low {
                return Ok(last);
            }
            back = back.saturating_mul(4);
        }
    }

    /// The next block, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Received>, LogError> {
        let patience = self.patience.clone();
        let mut wait = Wait::new(&patience);
        loop {
            let reason = match self.client().poll(if self.at_end { AT_END } else { SAY_AFTER }) {
                Some(Ok(message)) => {
                    if message.partition() != self.partition || message.topic() != self.topic || message.offset() < self.from {
                        continue;
                    }
                    let received = Received::of(&message);
                    self.at_end = false;
                    match received? {
                        Some(received) => return Ok(Some(received)),
                        None => continue,
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) if partition == self.partition => {
                    self.at_end = true;
                    return Ok(None);
                }
                Some(Err(error)) if is_final(&error) => {
                    self.outrun = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset);
                    return Err(failed("read", &self.topic, error));
                }
                // The client connects again by itself.
                Some(Err(error)) => error.to_string(),
                None if self.at_end => return Ok(None),
                None => "the brokers do not answer".to_owned(),
            };
            if !wait.goes_on(&reason) {
                return Err(failed("read", &self.topic, reason));
            }
        }
    }
}

/// Whether an error says that what is asked for is not there, or not for this user, which no waiting changes.
pub(super) fn is_final(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(|code| {
        is_missing(code)
            || matches!(
                code,
                RDKafkaErrorCode::AutoOffsetReset
                    | RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::ClusterAuthorizationFailed
                    | RDKafkaErrorCode::GroupAuthorizationFailed
                    | RDKafkaErrorCode::Authentication
            )
    })
}

const fn is_missing(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownPartition
    )
}
