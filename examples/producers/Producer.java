// Publishes three requests in plain form and two CloudEvents: java -cp "kafka-clients.jar:…" Producer.java [BROKERS] [TOPIC]

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.StringSerializer;

public class Producer {
    static final String TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    public static void main(String[] arguments) throws Exception {
        String brokers = arguments.length > 0 ? arguments[0] : "localhost:9092";
        String topic = arguments.length > 1 ? arguments[1] : "demo.requests";

        Properties settings = new Properties();
        settings.put("bootstrap.servers", brokers);
        // A record is taken when all replicas that are in sync have it, and a retry does not publish it twice.
        settings.put("acks", "all");
        settings.put("enable.idempotence", true);
        settings.put("compression.type", "lz4");
        settings.put("linger.ms", 5);

        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            // Plain: the value is the request. The record's key chooses the partition, the request's key is the idempotency key.
            for (String customer : List.of("customer-1", "customer-2", "customer-3")) {
                String request = """
                    {
                      "type": "noop",
                      "payload": {"customer": "%1$s"},
                      "key": "Producer.java/%1$s",
                      "priority": 7,
                      "labels": {"client": "Producer.java"}
                    }
                    """.formatted(customer);
                sent.add(producer.send(record(topic, customer, request, Map.of("correlation-id", "run-1", "traceparent", TRACE))));
            }

            // A CloudEvent in binary mode: attributes are headers, the value is the payload.
            Map<String, String> attributes = Map.of(
                "content-type", "application/json",
                "ce_specversion", "1.0",
                "ce_type", "noop",
                "ce_id", "Producer.java-1",
                "ce_source", "/examples/Producer.java",
                "ce_idempotencykey", "Producer.java/event-1",
                "ce_priority", "7");
            sent.add(producer.send(record(topic, "customer-1", "{\"customer\": \"customer-1\"}", attributes)));

            // A CloudEvent in structured mode: one header says what the value is.
            String event = """
                {
                  "specversion": "1.0",
                  "type": "noop",
                  "id": "Producer.java-2",
                  "source": "/examples/Producer.java",
                  "idempotencykey": "Producer.java/event-2",
                  "data": {"customer": "customer-2"}
                }
                """;
            sent.add(producer.send(record(topic, "customer-2", event, Map.of("content-type", "application/cloudevents+json; charset=UTF-8"))));
        }

        // Throws what went wrong with any of them.
        for (Future<RecordMetadata> one : sent) {
            one.get();
        }
    }

    static ProducerRecord<String, String> record(String topic, String key, String value, Map<String, String> headers) {
        var record = new ProducerRecord<>(topic, key, value);
        headers.forEach((name, text) -> record.headers().add(name, text.getBytes(StandardCharsets.UTF_8)));
        return record;
    }
}
