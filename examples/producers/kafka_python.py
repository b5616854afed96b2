"""Publishes three requests in plain form and two CloudEvents: pip install kafka-python; python FILE [BROKERS] [TOPIC]"""

import json
import sys

from kafka import KafkaProducer

arguments = dict(enumerate(sys.argv))
brokers, topic = arguments.get(1, "localhost:9092"), arguments.get(2, "demo.requests")

# Its partitioner is Java's (murmur2). Compression by lz4 or zstd needs another package.
producer = KafkaProducer(
    bootstrap_servers=brokers.split(","),
    # A record is taken when all replicas that are in sync have it, and a retry does not publish it twice.
    acks="all",
    enable_idempotence=True,
    compression_type="gzip",
    linger_ms=5,
)
sent = []


def publish(key, value, headers):
    headers = [(name, text.encode()) for name, text in headers.items()]
    sent.append(producer.send(topic, key=key.encode(), value=json.dumps(value).encode(), headers=headers))


# Plain: the value is the request. The record's key chooses the partition, the request's key is the idempotency key.
for customer in ["customer-1", "customer-2", "customer-3"]:
    request = {
        "type": "noop",
        "payload": {"customer": customer},
        "key": f"kafka_python.py/{customer}",
        "priority": 7,
        "labels": {"client": "kafka_python.py"},
    }
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    publish(customer, request, {"correlation-id": "run-1", "traceparent": trace})

# A CloudEvent in binary mode: attributes are headers, the value is the payload.
attributes = {
    "content-type": "application/json",
    "ce_specversion": "1.0",
    "ce_type": "noop",
    "ce_id": "kafka_python.py-1",
    "ce_source": "/examples/kafka_python.py",
    "ce_idempotencykey": "kafka_python.py/event-1",
    "ce_priority": "7",
}
publish("customer-1", {"customer": "customer-1"}, attributes)

# A CloudEvent in structured mode: one header says what the value is.
event = {
    "specversion": "1.0",
    "type": "noop",
    "id": "kafka_python.py-2",
    "source": "/examples/kafka_python.py",
    "idempotencykey": "kafka_python.py/event-2",
    "data": {"customer": "customer-2"},
}
publish("customer-2", event, {"content-type": "application/cloudevents+json; charset=UTF-8"})

# Raises what went wrong with any of them.
for future in sent:
    future.get(timeout=30)
producer.close()
