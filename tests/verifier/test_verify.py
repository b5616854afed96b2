"""Holds the verifier against the page that it was written from, without a log and without brokers: `python -m unittest`."""

import os
import random
import re
import sys
import unittest
import unittest.mock

import sources
from blocks import from_json, stored
from chain import Chain, Life
from schema import ENUMERATIONS, EVENTS, STRUCTURES, Damaged

PAGE_PATH = os.path.join(os.path.dirname(__file__), "../../docs/log-format.md")
with open(PAGE_PATH, encoding="utf-8") as page:
    PAGE = page.read()


def fenced(heading):
    return PAGE.split(f"\n### {heading}")[1].split("\n```")[1].split("\n", 1)[1]


def worked(number):
    digits = (re.sub("^ *[0-9]+: ", "", line).split(";")[0] for line in fenced(f"Block {number}:").split("\n"))
    return bytes.fromhex("".join(digits))


BLOCKS = [worked(number) for number in (1, 2, 3)]
HASHES = re.findall("\nHash: `([0-9a-f]{64})`\n", PAGE)
JSON_2 = fenced("Block 2 as JSON").replace("\n", "").encode()


def sent(form, value, **other):
    """A message as it should be, but for what is told otherwise."""
    block = from_json(value) if form == "json" else stored(value)[0]
    facts = {"key": block.shard, "format": form, "position": block.position, "next": block.next, "hash": block.hash.hex(), **other}
    headers = [(f"ergate-{name}", str(facts[name]).encode()) for name in ("format", "position", "next", "hash")]
    return 0, str(facts["key"]).encode(), headers, value


class Page(unittest.TestCase):
    def test_the_tables_are_those_of_the_page(self):
        section = PAGE.split("\n## Events\n")[1].split("\n## ")[0]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.split("\n") if line.startswith("|")]
        known = {row[0].strip("`"): row for row in rows}
        for line in EVENTS.strip().split("\n"):
            number, name, fields = line.split(" ", 2)
            self.assertEqual(known[number][1:], [f"`{name}`", fields])
        self.assertEqual(len(EVENTS.strip().split("\n")), sum(row[0].isdigit() for row in rows))
        for line in STRUCTURES.strip().split("\n"):
            name, fields = line.split(" ", 1)
            self.assertEqual(known[name][1], fields)
        for line in ENUMERATIONS.strip().split("\n"):
            name, variants = line.split(" ", 1)
            self.assertEqual(re.sub("[0-9]+ `([^`]+)`", r"\1", known[name][1]), variants)

    def test_the_worked_blocks_have_the_hashes_of_the_page(self):
        chain = Chain((0, bytes(32), 0, 0))
        for block in BLOCKS:
            chain.follow(stored(block)[0])
        self.assertEqual([chain.seen[position].hex() for position in (0, 3, 6)], HASHES)
        self.assertEqual((chain.blocks, chain.events, chain.tasks), (3, 12, 5))

    def test_the_worked_json_gives_the_body_of_its_block(self):
        block = from_json(JSON_2)
        self.assertEqual((block.body, block.hash.hex()), (BLOCKS[1][88:], HASHES[1]))

    def test_no_flip_of_a_byte_gives_another_block_or_a_crash(self):
        chance = random.Random(1)
        for _ in range(3_000):
            altered = bytearray(JSON_2)
            altered[chance.randrange(len(altered))] = chance.randrange(256)
            try:
                self.assertEqual(from_json(bytes(altered)).hash.hex(), HASHES[1])
            except Damaged:
                pass

    def test_a_wrong_field_is_refused_with_its_position(self):
        cases = {
            ('"format":1', '"format":5'): "format 5 is not known",
            ('"format":1', '"format":4'): "position 3: the block says format 4, its records need 1",
            ('"format":1', '"format":3'): "position 3: the block says format 3, its records need 1",
            ('"format":1', '"format":true'): "format True is not known",
            ('"format":1', '"format":2'): "position 3: the block says format 2, its records need 1",
            ('{"priority":7}', '{"reply_to":"there"}'): "position 3: the block says format 1, its records need 2",
            ('"position":"4"', '"position":"5"'): "position 4: field 'position'",
            ('"task":"0-0","task_type"', '"task":"0-1","task_type"'): "position 3: field 'task'",
            ('"task":"0-0","time"', '"task":"1-0","time"'): "position 4: .*another shard",
            ("01.001500Z", "01.001501Z"): "position 5: field 'time'",
            ('"event":"started"', '"event":"sang"'): "position 4: .*newer build",
            ('"event":"started"', '"event":["started"]'): "position 4: ",
            ('"replica":"r0"', '"replica":"r0","colour":1'): "position 4: unknown field",
            ('"replica":"r0",', ""): "position 4: field 'replica' is missing",
            ('"attempt":1,"event":"started"', '"attempt":1.0,"event":"started"'): "no integer",
            ('"attempt":1,"event":"started"', '"attempt":true,"event":"started"'): "position 4: .*no integer",
            ('"attempt":1,"event":"started"', '"attempt":2,"event":"started"'): "position 3: the block has the hash",
            ('"attempt":1,', '"attempt":1,"attempt":1,'): "comes twice",
            ('"count":3', '"count":4'): "position 3: not 4 events",
            ('"result":"', '"result":"\\ud800'): "position 5: .*lone surrogate",
            ('{"priority":7}', "[" * 100_000): "no JSON",
        }
        for (old, new), said in cases.items():
            self.assertIn(old, JSON_2.decode())
            with self.assertRaisesRegex(Damaged, said, msg=new[:80]):
                from_json(JSON_2.decode().replace(old, new, 1).encode())


class Kafka(unittest.TestCase):
    def setUp(self):
        self.good = [sent("block", BLOCKS[0]), sent("json", JSON_2), sent("block", BLOCKS[2])]

    def refuses(self, messages, said):
        with self.assertRaisesRegex(Damaged, said):
            sources.messages(messages)

    def test_both_forms_lie_in_one_partition_and_repeats_are_ignored(self):
        first, second, third = self.good
        for messages in (self.good, [first, second, second, first, third, sent("block", BLOCKS[1])]):
            report = sources.messages(messages)[0].report()
            self.assertEqual((report["head"], report["head_hash"], report["blocks"]), (12, HASHES[2], 3))

    def test_a_message_that_says_nothing_is_passed_over(self):
        report = sources.messages([self.good[0], (0, None, None, None), *self.good[1:]])[0].report()
        self.assertEqual((report["head"], report["head_hash"], report["blocks"]), (12, HASHES[2], 3))

    def test_a_partition_may_begin_later(self):
        report = sources.messages(self.good[1:])[0].report()
        self.assertEqual((report["first"], report["head_hash"], report["tasks"]), (3, HASHES[2], 5))

    def test_gaps_and_contradictions_are_refused(self):
        first, second, third = self.good
        self.refuses([first, third], "position 6: a block begins where position 3 follows")
        # Another history: the same block with another writer, which is not damaged in itself.
        other = BLOCKS[0][:88] + BLOCKS[0][88:].replace(b"me", b"ME")
        crc = sources.crc32c(other[:52], other[56:])
        other = sent("block", other[:52] + crc.to_bytes(4, "little") + other[56:])
        self.refuses([other, second], "position 3: the chain breaks")
        self.refuses([first, second, other], "position 0: the block contradicts")

    def test_what_a_message_says_beside_its_value_must_be_right(self):
        block = BLOCKS[0]
        self.refuses([sent("block", block, key=1)], "position 0: key")
        self.refuses([sent("block", block, position=1)], "position 0: position")
        self.refuses([sent("block", block, next=4)], "position 0: next")
        self.refuses([sent("block", block, hash="00")], "position 0: hash")
        self.refuses([sent("block", block)[:3] + (block + b"x",)], "not one block")
        self.refuses([(0, b"0", None, block)], "ergate-format")
        self.refuses([(0, b"0", [("ergate-format", b"json")], None)], "after position 0")
        self.refuses([(1,) + sent("block", block)[1:]], "a block of shard 0")


class Broker:
    """What is used of the package confluent-kafka, without brokers: two partitions, the second one empty."""

    OFFSET_BEGINNING, KafkaException = -2, type("KafkaException", (Exception,), {})
    KafkaError = type("KafkaError", (), {"_PARTITION_EOF": -191})

    def __init__(self, messages):
        self.queue = [self.Message(*message) for message in messages]
        self.queue[1:1] = [self.Message(1, error=-191)]
        self.queue.append(self.Message(0, error=-191))

    class Message:
        def __init__(self, partition, key=None, headers=None, value=None, error=None):
            self.partition, self.key, self.headers, self.value = (lambda: partition), (lambda: key), (lambda: headers), (lambda: value)
            self.error = lambda: None if error is None else type("Error", (), {"code": lambda _: error})()

    @staticmethod
    def TopicPartition(*place):
        return place

    def Consumer(self, options):
        self.options = options
        return self

    def list_topics(self, topic, timeout):
        return type("Metadata", (), {"topics": {topic: type("Topic", (), {"error": None, "partitions": {0: None, 1: None}})}})

    def assign(self, places):
        self.places = places

    def poll(self, timeout):
        return self.queue.pop(0)

    def close(self):
        self.closed = True


class Reading(unittest.TestCase):
    def test_every_partition_is_read_to_its_committed_end(self):
        broker = Broker([sent("block", BLOCKS[0]), sent("json", JSON_2)])
        with unittest.mock.patch.dict(sys.modules, confluent_kafka=broker):
            chains = sources.messages(sources.kafka("kafka://one:9092,two:9092/shop?security.protocol=SSL"))
        self.assertEqual(chains[0].report()["head_hash"], HASHES[1])
        self.assertEqual(broker.places, [("shop.events", 0, -2), ("shop.events", 1, -2)])
        for option, value in {"isolation.level": "read_committed", "bootstrap.servers": "one:9092,two:9092", "security.protocol": "SSL"}.items():
            self.assertEqual(broker.options[option], value)
        self.assertTrue(broker.closed)


class Lives(unittest.TestCase):
    def live(self, *events, base=0):
        """Follows events of task 0, or of another that they name."""
        life, ordinal = Life(base), base
        for text in events:
            name, *values = text.split()
            event = {} if name == "requested" else {"task": 0}
            for value in values:
                key, _, given = value.partition("=")
                event[key] = (given, []) if key == "timeout" else int(given)
            if name == "deduplicated":
                event["of"] = event.pop("task")
            life.follow(name, event, ordinal)
            ordinal += name in ("requested", "redriven")

    def test_lives_that_are_lived(self):
        start, again = "started attempt=1", "started attempt=2"
        self.live("requested", start, "succeeded attempt=1", "deduplicated", "slot_released attempt=1")
        self.live("requested", start, "checkpointed attempt=1", "failed attempt=1", "retry_scheduled", "ready", again, "ended")
        self.live("requested", start, "timed_out attempt=1 timeout=heartbeat", "dead_lettered", "redriven", "started task=1 attempt=1")
        self.live("requested", start, "timed_out attempt=1 timeout=cancel_grace", "ended", "slot_released attempt=1")
        self.live("requested", start, "lost attempt=1", again, "succeeded attempt=2")
        self.live("requested", start, "attempt_ran attempt=1", "failed attempt=1", again, "attempt_ran attempt=2", "succeeded attempt=2")
        # Of tasks from before the beginning anything may be true, once.
        self.live("succeeded attempt=7", "slot_released attempt=6", base=3)
        self.live("started attempt=7", "failed attempt=7", base=3)
        self.live("redriven", base=3)

    def test_lives_that_are_not(self):
        start = "started attempt=1"
        refused = {
            ("started attempt=1",): "not created yet",
            ("requested", "deduplicated task=1"): "not created yet",
            ("requested", "started attempt=2"): "after attempt 0",
            ("requested", "started attempt=0"): "attempt 0",
            ("requested", start, start): "while attempt 1 runs",
            ("requested", start, "failed attempt=1", start): "attempt 1 after attempt 1",
            ("requested", start, "failed attempt=2"): "does not run",
            ("requested", "succeeded attempt=1"): "does not run",
            ("requested", start, "failed attempt=1", "checkpointed attempt=1"): "does not run",
            ("requested", start, "failed attempt=1", "attempt_ran attempt=1"): "does not run",
            ("requested", start, "attempt_ran attempt=2"): "does not run",
            ("requested", start, "succeeded attempt=1", "attempt_ran attempt=1"): "is over",
            ("requested", start, "succeeded attempt=1", "started attempt=2"): "is over",
            ("requested", start, "succeeded attempt=1", "succeeded attempt=1"): "is over",
            ("requested", start, "succeeded attempt=1", "ended"): "is over",
            ("requested", "ended", "ready"): "is over",
            ("requested", "ended", "redriven"): "no dead letter",
            ("requested", "dead_lettered", "redriven", "redriven"): "no dead letter",
            ("requested", "dead_lettered", "dead_letter_dropped", "redriven"): "no dead letter",
        }
        for events, said in refused.items():
            with self.assertRaisesRegex(Damaged, said, msg=events):
                self.live(*events)
        with self.assertRaisesRegex(Damaged, "is over"):
            self.live("ended", "started attempt=1", base=3)


if __name__ == "__main__":
    unittest.main()
