"""Publishes three requests in plain form and two CloudEvents: pip install confluent-kafka; python FILE [BROKERS] [TOPIC] [PARTITIONER]"""

import json
import sys

from confluent_kafka import Producer

arguments = dict(enumerate(sys.argv))
brokers, topic = arguments.get(1, "localhost:9092"), arguments.get(2, "demo.requests")
partitioner = arguments.get(3, "murmur2_random")

producer = Producer(
    {
        "bootstrap.servers": brokers,
        # A record is taken when all replicas that are in sync have it, and a retry does not publish it twice.
        "acks": "all",
        "enable.idempotence": True,
        "compression.type": "lz4",
        "linger.ms": 5,
        # Sends a key where Java's clients send it; consistent_random (CRC32) is what this client does by itself.
        "partitioner": partitioner,
    }
)
failures = []


def delivered(error, _):
    if error:
        failures.append(error)


def publish(key, value, headers):
    producer.produce(topic, key=key, value=json.dumps(value), headers=headers, on_delivery=delivered)


# Plain: the value is the request. The record's key chooses the partition, the request's key is the idempotency key.
for customer in ["customer-1", "customer-2", "customer-3"]:
    request = {
        "type": "noop",
        "payload": {"customer": customer},
        "key": f"confluent_python.py/{customer}",
        "priority": 7,
        "labels": {"client": "confluent_python.py"},
    }
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    publish(customer, request, {"correlation-id": "run-1", "traceparent": trace})

# A CloudEvent in binary mode: attributes are headers, the value is the payload.
attributes = {
    "content-type": "application/json",
    "ce_specversion": "1.0",
    "ce_type": "noop",
    "ce_id": "confluent_python.py-1",
    "ce_source": "/examples/confluent_python.py",
    "ce_idempotencykey": "confluent_python.py/event-1",
    "ce_priority": "7",
}
publish("customer-1", {"customer": "customer-1"}, attributes)

# A CloudEvent in structured mode: one header says what the value is.
event = {
    "specversion": "1.0",
    "type": "noop",
    "id": "confluent_python.py-2",
    "source": "/examples/confluent_python.py",
    "idempotencykey": "confluent_python.py/event-2",
    "data": {"customer": "customer-2"},
}
publish("customer-2", event, {"content-type": "application/cloudevents+json; charset=UTF-8"})

# Waits until everything is taken; without it the program would end too early.
left = producer.flush(30)
if left or failures:
    sys.exit(f"{left} records were not taken in time, {len(failures)} failed: {failures[:1]}")
