// Publishes three requests in plain form and two CloudEvents: npm install kafkajs; node FILE [BROKERS] [TOPIC]

import { CompressionTypes, Kafka, Partitioners, logLevel } from "kafkajs";

const [brokers = "localhost:9092", topic = "demo.requests"] = process.argv.slice(2);

const kafka = new Kafka({ clientId: "example", brokers: brokers.split(","), logLevel: logLevel.ERROR });
// The default partitioner is Java's (murmur2). Idempotence lets one request be under way at a time.
const producer = kafka.producer({
  createPartitioner: Partitioners.DefaultPartitioner,
  idempotent: true,
  maxInFlightRequests: 1,
});

// Plain: the value is the request. The record's key chooses the partition, the request's key is the idempotency key.
const plain = ["customer-1", "customer-2", "customer-3"].map((customer) => ({
  key: customer,
  value: JSON.stringify({
    type: "noop",
    payload: { customer },
    key: `kafkajs.mjs/${customer}`,
    priority: 7,
    labels: { client: "kafkajs.mjs" },
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
    ce_id: "kafkajs.mjs-1",
    ce_source: "/examples/kafkajs.mjs",
    ce_idempotencykey: "kafkajs.mjs/event-1",
    ce_priority: "7",
  },
};

// A CloudEvent in structured mode: one header says what the value is.
const structured = {
  key: "customer-2",
  value: JSON.stringify({
    specversion: "1.0",
    type: "noop",
    id: "kafkajs.mjs-2",
    source: "/examples/kafkajs.mjs",
    idempotencykey: "kafkajs.mjs/event-2",
    data: { customer: "customer-2" },
  }),
  headers: { "content-type": "application/cloudevents+json; charset=UTF-8" },
};

await producer.connect();
try {
  // A record is taken when all replicas that are in sync have it (acks -1).
  await producer.send({ topic, acks: -1, compression: CompressionTypes.GZIP, messages: [...plain, binary, structured] });
} finally {
  await producer.disconnect();
}
