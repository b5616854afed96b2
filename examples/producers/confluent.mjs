// Publishes three requests in plain form and two CloudEvents: npm install @confluentinc/kafka-javascript; node FILE [BROKERS] [TOPIC] [PARTITIONER]

import confluent from "@confluentinc/kafka-javascript";

const { CompressionTypes, Kafka, logLevel } = confluent.KafkaJS;
const [brokers = "localhost:9092", topic = "demo.requests", partitioner = "murmur2_random"] = process.argv.slice(2);

const kafka = new Kafka({ kafkaJS: { clientId: "example", brokers: brokers.split(","), logLevel: logLevel.ERROR } });
const producer = kafka.producer({
  // A record is taken when all replicas that are in sync have it, and a retry does not publish it twice.
  kafkaJS: { acks: -1, idempotent: true, compression: CompressionTypes.LZ4 },
  "linger.ms": 5,
  // Sends a key where Java's clients send it, which is what this client does by itself.
  partitioner,
});

// Plain: the value is the request. The record's key chooses the partition, the request's key is the idempotency key.
const plain = ["customer-1", "customer-2", "customer-3"].map((customer) => ({
  key: customer,
  value: JSON.stringify({
    type: "noop",
    payload: { customer },
    key: `confluent.mjs/${customer}`,
    priority: 7,
    labels: { client: "confluent.mjs" },
  }),
  headers: { "correlation-id": "run-1", traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" },
}));

// A CloudEvent in binary mode: attributes are headers, the value is the payload.
const binary = {
  key: "customer-1",
  value: JSON.stringify({ customer: "customer-1" }),
  headers: {
    "content-type": "application/json",
    ce_specversion: "1.0",
    ce_type: "noop",
    ce_id: "confluent.mjs-1",
    ce_source: "/examples/confluent.mjs",
    ce_idempotencykey: "confluent.mjs/event-1",
    ce_priority: "7",
  },
};

// A CloudEvent in structured mode: one header says what the value is.
const structured = {
  key: "customer-2",
  value: JSON.stringify({
    specversion: "1.0",
    type: "noop",
    id: "confluent.mjs-2",
    source: "/examples/confluent.mjs",
    idempotencykey: "confluent.mjs/event-2",
    data: { customer: "customer-2" },
  }),
  headers: { "content-type": "application/cloudevents+json; charset=UTF-8" },
};

await producer.connect();
try {
  await producer.send({ topic, messages: [...plain, binary, structured] });
} finally {
  await producer.disconnect();
}
