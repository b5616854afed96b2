#!/usr/bin/env bash
# Publishes three requests in plain form and two CloudEvents: kcat.sh [BROKERS] [TOPIC] [PARTITIONER]
set -euo pipefail
brokers=${1:-localhost:9092} topic=${2:-demo.requests} partitioner=${3:-murmur2_random}

# murmur2_random sends a key where Java's clients send it; consistent_random (CRC32) is what kcat does by itself.
publish() {
  kcat -P -b "$brokers" -t "$topic" -z lz4 -K '|' \
    -X acks=all -X enable.idempotence=true -X "topic.partitioner=$partitioner" "$@"
}

# Plain: a line is a record, the record's key stands before the bar and the request behind it.
for customer in customer-1 customer-2 customer-3; do
  echo "$customer|{\"type\":\"noop\",\"payload\":{\"customer\":\"$customer\"},\"key\":\"kcat/$customer\",\"priority\":7,\"labels\":{\"client\":\"kcat\"}}"
done | publish -H "correlation-id=run-1" -H "traceparent=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

# A CloudEvent in binary mode: attributes are headers, the value is the payload.
echo 'customer-1|{"customer":"customer-1"}' | publish \
  -H "content-type=application/json" -H "ce_specversion=1.0" -H "ce_type=noop" -H "ce_id=kcat-1" \
  -H "ce_source=/examples/kcat" -H "ce_idempotencykey=kcat/event-1" -H "ce_priority=7"

# A CloudEvent in structured mode: one header says what the value is.
echo 'customer-2|{"specversion":"1.0","type":"noop","id":"kcat-2","source":"/examples/kcat","idempotencykey":"kcat/event-2","data":{"customer":"customer-2"}}' |
  publish -H "content-type=application/cloudevents+json; charset=UTF-8"
