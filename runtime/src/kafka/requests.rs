//! Publishes requests: one idempotent producer for the engine, on a thread of its own, which also polls it for reports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ergate_actors::submission::{AnswerRun, Extras, RequestBatch, SubmitError};
use ergate_events::command::Rejection;
use ergate_events::id::{ShardId, TypeId};
use ergate_events::log::kafka::{MOMENT, rest};
use ergate_events::time::Micros;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::answers::{Shared, Ticket};
use super::context::Listener;
use super::partition;
use super::settings::KafkaSettings;
use crate::request;

/// How long the thread sleeps while nothing is on its way; then it lets the client say what it has to say.
const IDLE: Duration = Duration::from_secs(1);
/// How long the brokers may take to accept a record before its answer is unknown, and to tell the ends of the shards before a batch is refused.
const DELIVER_WITHIN: Duration = Duration::from_secs(30);
/// How long records on their way are waited for when the engine ends.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// A batch to publish.
struct Job {
    batch: u64,
    requests: RequestBatch,
    /// The shard that gets all of them, whatever their keys.
    shard: Option<ShardId>,
}

/// The engine's end of the thread.
pub(crate) struct Requests {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl Requests {
    /// Starts the thread; `names` are the task types by the ids that batches name them with.
    ///
    /// # Errors
    /// When the client refuses its settings, or there is no thread.
    pub(crate) fn start(
        settings: &Arc<KafkaSettings>,
        names: BTreeMap<TypeId, String>,
        shards: u16,
        shared: Arc<Shared>,
    ) -> Result<Requests, String> {
        let producer = producer(settings, &shared)?;
        let (jobs, received) = channel();
        let publisher = Publisher {
            settings: Arc::clone(settings),
            topic: settings.topics().requests,
            names,
            shards,
            shared,
            producer,
            turn: 0,
        };
        let thread = std::thread::Builder::new().name("ergate-requests".to_owned());
        let thread = thread.spawn(move || publisher.run(&received)).map_err(|error| error.to_string())?;
        Ok(Requests { jobs, thread })
    }

    /// Publishes the requests of a batch that is waited for.
    pub(crate) fn publish(&self, batch: u64, requests: RequestBatch, shard: Option<ShardId>) {
        // A thread that is gone was ended, and with it whoever waits.
        let _ = self.jobs.send(Job { batch, requests, shard });
    }

    /// Ends the thread after what is on its way has arrived.
    pub(crate) fn end(self) -> JoinHandle<()> {
        self.thread
    }
}

/// What the client calls with reports.
struct Reports {
    shared: Arc<Shared>,
    listener: Listener,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.listener.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let ticket = Ticket::from_number(number);
        let message = match result {
            Ok(message) | Err((_, message)) => message,
        };
        let shard = u16::try_from(message.partition()).unwrap_or(u16::MAX);
        let offset = result.as_ref().ok().and_then(|message| u64::try_from(message.offset()).ok());
        self.shared.book(|book| {
            book.delivered(ticket, shard, offset);
            match (result, offset) {
                (_, Some(_)) => {}
                (Err((error, _)), None) if is_refusal(error) => {
                    book.refuse(ticket, AnswerRun::Refused(error.to_string().into()));
                }
                (Err((error, _)), None) => book.fail(ticket.batch, unknown(error)),
                (Ok(_), None) => {
                    let reason = "the brokers have the request and do not say where".to_owned();
                    book.fail(ticket.batch, SubmitError::Unknown { reason });
                }
            }
        });
    }
}

fn unknown(error: &KafkaError) -> SubmitError {
    SubmitError::Unknown { reason: format!("the brokers did not confirm the request ({error})") }
}

/// Whether an error says that the record is certainly not in the topic.
fn is_refusal(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::InvalidRecord
                | RDKafkaErrorCode::PolicyViolation
        )
    )
}

fn producer(settings: &KafkaSettings, shared: &Arc<Shared>) -> Result<BaseProducer<Reports>, String> {
    let mut config = settings.client("requests");
    config
        // Each record once and in order, whatever is sent again.
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // What is submitted together travels together.
        .set("linger.ms", "2")
        .set("compression.type", "lz4")
        .set("message.max.bytes", "8388608")
        .set("message.timeout.ms", DELIVER_WITHIN.as_millis().to_string());
    config
        .create_with_context(Reports { shared: Arc::clone(shared), listener: Listener::default() })
        .map_err(|error| error.to_string())
}

/// The thread.
struct Publisher {
    settings: Arc<KafkaSettings>,
    topic: String,
    names: BTreeMap<TypeId, String>,
    shards: u16,
    shared: Arc<Shared>,
    producer: BaseProducer<Reports>,
    /// The shard that gets the next batch.
    turn: u16,
}

impl Publisher {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let is_idle = self.producer.in_flight_count() == 0;
            match jobs.recv_timeout(if is_idle { IDLE } else { MOMENT }) {
                Ok(job) => self.publish(&job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.flush(),
            }
            self.producer.poll(Duration::ZERO);
            self.replace_if_fatal();
        }
    }

    /// A producer that has failed for good fails what is on its way when it is dropped, and another one takes its place.
    fn replace_if_fatal(&mut self) {
        let Some((_, reason)) = self.producer.client().fatal_error() else { return };
        tracing::error!(reason, "the producer of requests failed and is replaced");
        match producer(&self.settings, &self.shared) {
            Ok(producer) => self.producer = producer,
            Err(reason) => tracing::error!(reason, "there is no other producer"),
        }
    }

    fn flush(&self) {
        let until = Instant::now() + FLUSH_WITHIN;
        while self.producer.in_flight_count() > 0 && Instant::now() < until {
            rest(&self.producer);
        }
    }

    fn publish(&mut self, job: &Job) {
        // Answers that are committed before the record is followed would be missed.
        if !self.shared.wait_until_following(DELIVER_WITHIN) {
            let error = SubmitError::Busy { reason: "the brokers do not answer", retry_after: Micros::from_secs(1) };
            return self.shared.book(|book| book.fail(job.batch, error));
        }
        self.turn = (self.turn + 1) % self.shards.max(1);
        for (index, (task_type, payload, extras)) in (0..=u16::MAX).zip(job.requests.iter()) {
            let ticket = Ticket { batch: job.batch, index };
            let of_key = |key: &str| partition::of_key(key.as_bytes(), self.shards);
            let by_key = extras.and_then(|extras| extras.key.as_deref()).map_or(self.turn, of_key);
            let shard = job.shard.map_or(by_key, |shard| shard.0);
            if let Err(answer) = self.send(ticket, shard, task_type, payload, extras) {
                self.shared.book(|book| book.refuse(ticket, answer));
            }
        }
    }

    /// Publishes a request to a shard, or says why it cannot be.
    fn send(
        &self,
        ticket: Ticket,
        shard: u16,
        task_type: TypeId,
        payload: &[u8],
        extras: Option<&Extras>,
    ) -> Result<(), AnswerRun> {
        let refused = |reason: String| AnswerRun::Refused(reason.into());
        let name = self.names.get(&task_type).ok_or(AnswerRun::Rejected(Rejection::UnknownType(task_type)))?;
        let value = request::record(name, payload, extras).map_err(|error| refused(error.to_string()))?;
        let key = extras.and_then(|extras| extras.key.as_deref());
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.topic, ticket.to_number())
            .partition(i32::from(shard))
            .payload(&value);
        record.key = key.map(str::as_bytes);
        // Before the record is anywhere, so that an answer that comes before the report is kept.
        self.shared.book(|book| book.sent(shard));
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same)) => {
                    record = same;
                    rest(&self.producer);
                }
                Err((error, _)) => {
                    self.shared.book(|book| book.delivered(ticket, shard, None));
                    if is_refusal(&error) {
                        return Err(refused(error.to_string()));
                    }
                    // Others of its batch may be on their way.
                    self.shared.book(|book| book.fail(ticket.batch, unknown(&error)));
                    return Ok(());
                }
            }
        }
    }
}
