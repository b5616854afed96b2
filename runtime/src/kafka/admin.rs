//! Looks how the topics of a namespace are, creates those that are missing, and mends settings.
//!
//! Everything here blocks until the brokers answer or [`PATIENCE`] is over: call it from a thread that may wait.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::producer::{BaseProducer, Producer};

use super::client::Settings;
use super::context::Listener;
use super::survey::{Expected, Found, Survey, shards};
use super::topics::{Shape, Topic};
use super::url::KafkaUrl;

/// How long an answer may take. A cluster that is electing leaders needs some seconds.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long one try to reach a broker may take; between two it is seen whether the next can do better.
const ASKING: Duration = Duration::from_secs(1);
/// How often a client is asked why it failed, and how long each time: librdkafka says one thing at a time.
const REASON_POLLS: u32 = 20;
const REASON_POLL: Duration = Duration::from_millis(10);

/// Somebody who may look at topics and create them.
pub struct Admin {
    client: AdminClient<Listener>,
    /// Asks for metadata. A client for administration keeps to itself why its connections fail; this one tells.
    asking: BaseProducer<Listener>,
    url: KafkaUrl,
}

/// Why the brokers could not be asked.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum AdminError {
    /// The options make no client. What an option was set to is not told, for it may be a secret under a wrong name.
    #[error("the options under [kafka.options] make no client: {reason}{hint}")]
    Options { reason: String, hint: &'static str },
    /// No broker answers.
    #[error("no broker of {brokers} answers: {reason}")]
    Unreachable { brokers: String, reason: String },
    /// They answer, and not with what was asked for.
    #[error("failed to {step}")]
    Request {
        step: &'static str,
        #[source]
        source: KafkaError,
    },
}

impl Admin {
    /// Makes a client; nothing is asked yet.
    ///
    /// # Errors
    /// [`AdminError::Options`].
    pub fn new(url: &KafkaUrl, settings: &Settings) -> Result<Admin, AdminError> {
        let common = settings.common(url);
        let client = common.create_with_context(Listener::default()).map_err(options_error)?;
        let asking = common.create_with_context(Listener::default()).map_err(options_error)?;
        Ok(Admin { client, asking, url: url.clone() })
    }

    /// All brokers and topics that this user may see.
    ///
    /// # Errors
    /// [`AdminError::Unreachable`] with what the connections failed of.
    pub fn metadata(&self) -> Result<Metadata, AdminError> {
        let started = Instant::now();
        loop {
            // All topics rather than one: a broker that creates topics on its own creates those that are asked for.
            let error = match self.asking.client().fetch_metadata(None, ASKING) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => error,
            };
            // What the connections have to say comes only when they are asked.
            (0..REASON_POLLS).for_each(|_| self.asking.poll(REASON_POLL));
            let listener = self.asking.context();
            if listener.refusal().is_none() && started.elapsed() < PATIENCE {
                continue;
            }
            let reason = listener.refusal().or_else(|| listener.reason()).unwrap_or_else(|| error.to_string());
            return Err(AdminError::Unreachable { brokers: self.url.bootstrap(), reason });
        }
    }

    /// Every topic of the namespace beside how it must be.
    ///
    /// # Errors
    /// [`AdminError::Unreachable`], [`AdminError::Request`].
    pub fn survey(&self, expected: Expected) -> Result<Vec<Survey>, AdminError> {
        let metadata = self.metadata()?;
        let namespace = self.url.namespace();
        let there: Vec<(Topic, &MetadataTopic)> =
            Topic::ALL.into_iter().filter_map(|topic| Some((topic, find(&metadata, &namespace.topic(topic))?))).collect();
        let names: Vec<&str> = there.iter().map(|(_, found)| found.name()).collect();
        let settings = self.describe_topics(&names)?;
        let shards = expected.partitions.or_else(|| shards(&there));
        let found = there.iter().map(|(topic, metadata)| {
            (*topic, Found::new(*topic, metadata, settings.get(metadata.name()), shards, expected.replication))
        });
        let found: BTreeMap<Topic, Found> = found.collect();
        Ok(Topic::ALL.into_iter().map(|topic| Survey::new(topic, namespace, &found)).collect())
    }

    /// The settings of topics by their names, of those that tell them: why the others do not is kept to itself by the client library, which
    /// gives a topic without any setting instead.
    fn describe_topics(&self, names: &[&str]) -> Result<BTreeMap<String, ConfigResource>, AdminError> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let topics: Vec<ResourceSpecifier<'_>> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let asked = wait(self.client.describe_configs(&topics, &options()));
        let answers = asked.map_err(|source| AdminError::Request { step: "read the settings of the topics", source })?;
        let told = answers.into_iter().flatten().filter(|resource| !resource.entries.is_empty());
        Ok(told.filter_map(|resource| Some((topic_name(&resource.specifier)?.to_owned(), resource))).collect())
    }

    /// The settings of a broker, asked of itself; a secret has none. Empty where this user may not read them.
    ///
    /// # Errors
    /// Kafka's word for why there is no answer.
    pub fn describe_broker(&self, id: i32) -> Result<BTreeMap<String, String>, KafkaError> {
        let broker = [ResourceSpecifier::Broker(id)];
        let answers = wait(self.client.describe_configs(&broker, &options()))?;
        let entries = answers.into_iter().flatten().flat_map(|resource| resource.entries);
        Ok(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect())
    }

    /// Creates topics with everything that they must have, or only asks whether it would work; says of each how it went.
    ///
    /// # Errors
    /// [`AdminError::Request`] when nothing was done at all.
    pub fn create(
        &self,
        topics: &[Topic],
        shape: Shape,
        only_ask: bool,
    ) -> Result<Vec<Result<(), RDKafkaErrorCode>>, AdminError> {
        let names: Vec<String> = topics.iter().map(|topic| self.url.namespace().topic(*topic)).collect();
        let wanted: Vec<_> = topics.iter().map(|topic| topic.wanted(shape.replication)).collect();
        let count = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
        let new = topics.iter().zip(&names).zip(&wanted).map(|((topic, name), wanted)| {
            let replication = TopicReplication::Fixed(count(shape.replication));
            let new = NewTopic::new(name, count(topic.partitions(shape)), replication);
            wanted.iter().fold(new, |new, wanted| new.set(wanted.name, &wanted.value))
        });
        let new: Vec<NewTopic<'_>> = new.collect();
        let asked = wait(self.client.create_topics(&new, &options().validate_only(only_ask)));
        let answers = asked.map_err(|source| AdminError::Request { step: "create topics", source })?;
        Ok(answers.into_iter().map(|answer| answer.map(drop).map_err(|(_, code)| code)).collect())
    }

    /// Removes topics of the namespace with everything in them; those that are not there are no error.
    ///
    /// # Errors
    /// [`AdminError::Request`] with the first refusal.
    pub fn delete(&self, topics: &[Topic]) -> Result<(), AdminError> {
        let names: Vec<String> = topics.iter().map(|topic| self.url.namespace().topic(*topic)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let failed = |source| AdminError::Request { step: "remove topics", source };
        let answers = wait(self.client.delete_topics(&names, &options())).map_err(failed)?;
        let codes = answers.into_iter().filter_map(Result::err).map(|(_, code)| code);
        let refused = codes.into_iter().find(|code| *code != RDKafkaErrorCode::UnknownTopicOrPartition);
        refused.map_or(Ok(()), |code| Err(failed(KafkaError::AdminOp(code))))
    }

    /// Sets every setting of a topic that is not as it must be. Look again afterwards: the answer does not tell what was refused.
    ///
    /// The request that this client knows replaces all settings of a topic's own, so those that are there are sent again. One that somebody
    /// sets at the same moment is lost.
    ///
    /// # Errors
    /// [`AdminError::Request`].
    pub fn fix(&self, survey: &Survey) -> Result<(), AdminError> {
        let Some(found) = &survey.found else { return Ok(()) };
        let own = found.own.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let fixes =
            found.differences.iter().filter_map(|difference| Some((difference.what.as_str(), difference.fix.as_deref()?)));
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(&survey.name));
        change.entries = own.chain(fixes).collect();
        let asked = wait(self.client.alter_configs([&change], &options()));
        asked.map(drop).map_err(|source| AdminError::Request { step: "change the settings of a topic", source })
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A topic by its name; brokers list those that are just being deleted with an error and without partitions.
fn find<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a MetadataTopic> {
    metadata.topics().iter().find(|topic| topic.name() == name && !topic.partitions().is_empty())
}

fn topic_name(specifier: &OwnedResourceSpecifier) -> Option<&str> {
    match specifier {
        OwnedResourceSpecifier::Topic(name) => Some(name),
        OwnedResourceSpecifier::Group(_) | OwnedResourceSpecifier::Broker(_) => None,
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

/// Says which option is wrong, and which feature is missing where librdkafka was built without.
fn options_error(error: KafkaError) -> AdminError {
    let reason =
        if let KafkaError::ClientConfig(_, said, name, _) = &error { format!("{name}: {said}") } else { error.to_string() };
    let names = |word: &&str| reason.to_lowercase().contains(word);
    let is_missing = !cfg!(feature = "kafka-ssl") && ["ssl", "sasl", "scram"].iter().any(names);
    let hint = if is_missing { "; this build has no TLS and no SCRAM, build it with `--features kafka-ssl`" } else { "" };
    AdminError::Options { reason, hint }
}

/// Waits for an answer; librdkafka's own thread brings it.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Unpark>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
