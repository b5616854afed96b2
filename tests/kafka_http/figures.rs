//! What an engine on Kafka says of itself.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;

use crate::command::until;
use crate::engines::Engines;
use crate::kafka::{Cluster, Options, shared};
use crate::service::Service;

/// The value of a figure.
fn value(engine: &Service, name: &str) -> Option<f64> {
    let told = engine.get("/metrics").expect(200).text();
    told.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[test]
fn a_transaction_that_stays_open_is_seen_in_the_figures_of_its_shard() {
    let Some(kafka) = shared() else { return };
    let engines = Engines::two("figures", kafka);
    let leader = &engines.all[engines.leader("2")];
    let unstable = "ergate_kafka_unstable_offsets{shard=\"2\"}";
    until("nothing is open", || value(leader, unstable) == Some(0.0));
    assert_eq!(value(engines.other("2"), unstable), None, "it is told by the engine that leads the shard");
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap()).set("transactional.id", format!("{}-stranger", engines.namespace.name));
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(Duration::from_secs(30)).unwrap();
    producer.begin_transaction().unwrap();
    let topic = format!("{}.events", engines.namespace.name);
    producer.send(BaseRecord::<[u8], [u8]>::to(&topic).partition(2)).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();
    until("the open transaction is seen", || value(leader, unstable) == Some(1.0));
    producer.abort_transaction(Duration::from_secs(30)).unwrap();
    until("it is over", || value(leader, unstable) == Some(0.0));
    assert!(value(leader, "ergate_kafka_rebalances_total").is_some_and(|count| count >= 1.0));
    assert_eq!(value(leader, "ergate_shard_led{shard=\"2\"}"), Some(1.0));
    until("nothing waits", || value(leader, "ergate_kafka_lag{shard=\"2\"}") == Some(0.0));
}

#[test]
fn an_engine_is_ready_while_it_gets_on_or_has_nothing_to_do() {
    // The broker stands still here, which others would feel.
    let Some(kafka) = Cluster::start(Options::default()) else { return };
    let engines = Engines::two("ready", &kafka);
    let leader = &engines.all[engines.leader("0")];
    engines.all.iter().for_each(|engine| drop(engine.get("/readyz").expect(200)));
    let id = engines.submit(0, &json!({"type": "sleep", "payload": {"ms": 3_000}}));
    kafka.pause(0);
    // The task ends, and that cannot be made durable.
    until("the engine says that it does not get on", || leader.get("/readyz").status == 503);
    leader.get("/readyz").problem(503, "closed");
    assert_eq!(leader.get("/livez").expect(200).json()["status"], "alive");
    kafka.resume(0);
    until("it gets on again", || engines.all.iter().all(|engine| engine.get("/readyz").status == 200));
    until("the task has ended", || engines.all[0].get(&format!("/v1/tasks/{id}/result?wait=10s")).status == 200);
}
