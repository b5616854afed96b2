//! Publishes three requests in plain form and two CloudEvents: `cargo run --example producer [BROKERS] [TOPIC] [PARTITIONER]`
//!
//! Needs `rdkafka` and `serde_json`.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use serde_json::{Value, json};

/// Keeps what was not taken.
#[derive(Clone, Default)]
struct Failures(Arc<Mutex<Vec<String>>>);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |index: usize, default| arguments.get(index).map_or(default, String::as_str);
    publish(argument(0, "localhost:9092"), argument(1, "demo.requests"), argument(2, "murmur2_random"))
}

pub(crate) fn publish(brokers: &str, topic: &str, partitioner: &str) -> Result<(), Box<dyn Error>> {
    let failures = Failures::default();
    let producer: ThreadedProducer<Failures> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        // A record is taken when all replicas that are in sync have it, and a retry does not publish it twice.
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        // Sends a key where Java's clients send it; consistent_random (CRC32) is what this client does by itself.
        .set("partitioner", partitioner)
        .create_with_context(failures.clone())?;
    let send = |key: &str, value: &Value, headers: &[(&str, &str)]| {
        let add = |all: OwnedHeaders, (key, value): &(&str, &str)| all.insert(Header { key, value: Some(*value) });
        let (headers, value) = (headers.iter().fold(OwnedHeaders::new(), add), value.to_string());
        producer.send(BaseRecord::to(topic).key(key).payload(&value).headers(headers)).map_err(|(error, _)| error)
    };

    // Plain: the value is the request. The record's key chooses the partition, the request's key is the idempotency key.
    for customer in ["customer-1", "customer-2", "customer-3"] {
        let request = json!({
            "type": "noop",
            "payload": {"customer": customer},
            "key": format!("producer.rs/{customer}"),
            "priority": 7,
            "labels": {"client": "producer.rs"},
        });
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        send(customer, &request, &[("correlation-id", "run-1"), ("traceparent", trace)])?;
    }

    // A CloudEvent in binary mode: attributes are headers, the value is the payload.
    let attributes = [
        ("content-type", "application/json"),
        ("ce_specversion", "1.0"),
        ("ce_type", "noop"),
        ("ce_id", "producer.rs-1"),
        ("ce_source", "/examples/producer.rs"),
        ("ce_idempotencykey", "producer.rs/event-1"),
        ("ce_priority", "7"),
    ];
    send("customer-1", &json!({"customer": "customer-1"}), &attributes)?;

    // A CloudEvent in structured mode: one header says what the value is.
    let event = json!({
        "specversion": "1.0",
        "type": "noop",
        "id": "producer.rs-2",
        "source": "/examples/producer.rs",
        "idempotencykey": "producer.rs/event-2",
        "data": {"customer": "customer-2"},
    });
    send("customer-2", &event, &[("content-type", "application/cloudevents+json; charset=UTF-8")])?;

    // Waits until everything is taken; without it the program would end too early.
    producer.flush(Duration::from_secs(30))?;
    match failures.0.lock().unwrap_or_else(PoisonError::into_inner).first() {
        Some(failure) => Err(failure.clone().into()),
        None => Ok(()),
    }
}
