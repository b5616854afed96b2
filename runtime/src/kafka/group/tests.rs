//! The group's thread on a stand-in for brokers.

use ergate_actors::clock::SystemClock;
use ergate_events::id::ShardId;
use ergate_events::time::Timestamp;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaApiKey;

use super::super::ends::Ends;
use super::*;

/// How long anything may take; a member joins within three seconds of the stand-in's own delay.
const WITHIN: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_secs(1);

fn producer(bootstrap: &str) -> BaseProducer {
    rdkafka::ClientConfig::new().set("bootstrap.servers", bootstrap).set("linger.ms", "0").create().unwrap()
}

/// A group of one member on a stand-in for brokers.
struct Alone {
    cluster: MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
    settings: Arc<KafkaSettings>,
    group: Group,
    events: mpsc::UnboundedReceiver<GroupEvent>,
    /// How often the engine was given its shard.
    given: usize,
}

impl Alone {
    fn join() -> Alone {
        let cluster = MockCluster::new(1).unwrap();
        let url = format!("kafka://{}/ns", cluster.bootstrap_servers());
        let settings = Arc::new(url.parse::<KafkaSettings>().unwrap());
        let topics = settings.topics();
        [&topics.requests, &topics.capacity].into_iter().for_each(|topic| cluster.create_topic(topic, 1, 1).unwrap());
        let (told, events) = mpsc::unbounded_channel();
        let clock = Arc::new(SystemClock::starting(Timestamp(0)));
        let ends = Ends::follow(Arc::clone(&settings), || vec![ShardId(0)]).unwrap();
        let watch = Watch::new(Arc::clone(&settings), ends, QUIET);
        let group = Group::join(&settings, Feed::new(BTreeMap::new(), Vec::new()), clock, told, watch).unwrap();
        Alone { cluster, settings, group, events, given: 0 }
    }

    /// Publishes a request.
    fn publish(&self, name: &str) {
        let producer = producer(&self.cluster.bootstrap_servers());
        let (topic, value) = (self.settings.topics().requests, format!(r#"{{"task_type":"{name}"}}"#));
        producer.send(BaseRecord::<[u8], str>::to(&topic).partition(0).payload(&value)).unwrap();
        producer.flush(WITHIN).unwrap();
    }

    /// Does what the engine does until so many records have come, and says how many have.
    fn read(&mut self, next: &mut u64, wanted: usize, for_: Duration, lane: &mut Option<mpsc::Receiver<Records>>) -> usize {
        let (until, mut got) = (Instant::now() + for_, 0);
        while Instant::now() < until && got < wanted {
            match self.events.try_recv() {
                Ok(GroupEvent::Assigned(held)) if held.contains(&Held::Shard(0)) => {
                    let (to, from) = mpsc::channel(8);
                    self.group.start(0, *next, to);
                    (*lane, self.given) = (Some(from), self.given + 1);
                }
                Ok(GroupEvent::Revoked { held, done, .. }) => {
                    if held.contains(&Held::Shard(0)) {
                        self.group.stop(0);
                    }
                    done.send(()).unwrap();
                }
                Ok(GroupEvent::Fatal(reason)) => panic!("{reason}"),
                Ok(GroupEvent::Assigned(_)) | Err(_) => {}
            }
            while let Some(Ok(records)) = lane.as_mut().map(mpsc::Receiver::try_recv) {
                (got, *next) = (got + records.len(), *next + records.len() as u64);
            }
            std::thread::sleep(POLL_SOON);
        }
        got
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some(thread) = self.group.leave() {
            while !thread.is_finished() {
                // Whoever waits for an answer to this waits no longer.
                drop(self.events.try_recv());
                std::thread::sleep(POLL_SOON);
            }
        }
    }
}

/// Brokers that never saw the end of a transaction do not tell, for ever, where the group had read to. The log knows.
#[test]
fn a_member_reads_whatever_became_of_the_groups_own_offsets() {
    let (mut alone, mut next, mut lane) = (Alone::join(), 0, None);
    let unstable = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT;
    alone.cluster.request_errors(RDKafkaApiKey::OffsetFetch, &[unstable; 1_000]);
    alone.publish("only");
    assert_eq!(alone.read(&mut next, 1, WITHIN, &mut lane), 1);
    assert_eq!((alone.given, next), (1, 1));
}

/// A place that the client asks brokers for comes into force again half a second after another one was set: at the end of the partition, that
/// skips records.
#[test]
fn no_record_is_skipped_that_is_published_while_reading_begins() {
    const RECORDS: usize = 400;
    let (mut alone, mut next, mut lane) = (Alone::join(), 0, None);
    // Answers are still on their way when the shard begins to read.
    alone.cluster.broker_round_trip_time(1, Duration::from_millis(20)).unwrap();
    let got = std::thread::scope(|scope| {
        let (bootstrap, topic) = (alone.cluster.bootstrap_servers(), alone.settings.topics().requests);
        scope.spawn(move || {
            let producer = producer(&bootstrap);
            for _ in 0..RECORDS {
                producer.send(BaseRecord::<[u8], str>::to(&topic).partition(0).payload(r#"{"task_type":"any"}"#)).unwrap();
                producer.poll(Duration::from_millis(10));
            }
            producer.flush(WITHIN).unwrap();
        });
        alone.read(&mut next, RECORDS, WITHIN, &mut lane)
    });
    assert_eq!((got, next), (RECORDS, RECORDS as u64));
}

/// An engine stayed a member and was handed nothing for ever; here somebody pauses its partition behind its back.
#[test]
fn a_member_that_is_handed_nothing_joins_anew() {
    let (mut alone, mut next, mut lane) = (Alone::join(), 0, None);
    alone.publish("first");
    assert_eq!(alone.read(&mut next, 1, WITHIN, &mut lane), 1);
    let client = alone.group.member.get().unwrap();
    client.pause(&client.assignment().unwrap()).unwrap();
    drop(client);
    alone.publish("second");
    assert_eq!(alone.read(&mut next, 1, WITHIN, &mut lane), 1, "the second request is read");
    assert_eq!((alone.given, next), (2, 2));
}

/// The same before reading has begun: the client takes no place to read from.
#[test]
fn a_member_that_cannot_begin_to_read_joins_anew() {
    let (mut alone, mut next, mut lane) = (Alone::join(), 0, None);
    alone.publish("only");
    let until = Instant::now() + WITHIN;
    let client = loop {
        let client = alone.group.member.get().unwrap();
        if client.assignment().unwrap().count() > 0 {
            break client;
        }
        assert!(Instant::now() < until, "the member is given its shard");
        std::thread::sleep(POLL_SOON);
    };
    client.incremental_unassign(&client.assignment().unwrap()).unwrap();
    drop(client);
    assert_eq!(alone.read(&mut next, 1, WITHIN, &mut lane), 1);
    assert_eq!((alone.given, next), (2, 1));
}

#[test]
fn a_member_with_nothing_to_read_stays() {
    let (mut alone, mut next, mut lane) = (Alone::join(), 0, None);
    alone.publish("only");
    assert_eq!(alone.read(&mut next, 1, WITHIN, &mut lane), 1);
    assert_eq!(alone.read(&mut next, 1, QUIET * 5, &mut lane), 0);
    assert_eq!((alone.given, next), (1, 1));
}
