"""Where blocks come from: a data directory of the engine `file`, lines of JSON, a topic of Kafka. Each returns chains by shard."""

import os
import struct
import urllib.parse

from blocks import crc32c, from_json, stored
from chain import Chain
from schema import Damaged, check

HEAD = struct.Struct("<Q32sQQ")
# How long a broker may take to say anything.
PATIENCE_S = 30


def read_store(path):
    with open(path, "rb") as file:
        data = file.read(4096)
    content, _, crc = data.partition(b"crc ")
    check(crc.strip() == b"%08x" % crc32c(content), "the checksum of `store` is wrong")
    lines = content.decode("utf-8").splitlines()
    check(lines and lines[0] == "ergate store", "`store` is something else")
    facts = dict(line.partition(" ")[::2] for line in lines[1:])
    check(facts.get("format") == "1", "the directory has an unknown format")
    engine = facts.get("engine")
    check(engine == "file", f"engine {engine} is not known here; pipe `ergate log export --format blocks` into `verify.py -`")
    check(len(facts.get("id", "")) == 32, "`store` names no store")
    return bytes.fromhex(facts["id"])


def read_anchor(path, store):
    with open(path, "rb") as file:
        data = file.read(1024)
    slots = []
    for slot in (data[:512], data[512:]):
        if len(slot) == 512 and slot[:4] == b"ERGA" and crc32c(slot[:508]) == int.from_bytes(slot[508:], "little"):
            check(slot[4:6] == b"\1\0", "the anchor has an unknown format")
            slots.append(slot)
    check(slots, "no slot of the anchor is valid")
    slot = max(slots, key=lambda slot: slot[24:32][::-1])
    check(slot[8:24] == store, "the anchor belongs to another store")
    return HEAD.unpack(slot[32:88]), HEAD.unpack(slot[88:144])


def directory(folder):
    """The chain of a data directory, and how many bytes of a torn block follow it."""
    store = read_store(os.path.join(folder, "store"))
    base, head = read_anchor(os.path.join(folder, "anchor"), store)
    chain, torn = Chain(base), 0
    reached = base[:2] == head[:2]
    log = os.path.join(folder, "log")
    names = sorted(name for name in os.listdir(log) if len(name) == 24 and name.endswith(".seg") and name[:20].isdigit())
    names = [name for name in names if int(name[:20]) >= base[0]]
    for index, name in enumerate(names):
        check(int(name[:20]) == chain.position, f"position {chain.position}: {name} follows")
        with open(os.path.join(log, name), "rb") as file:
            data = file.read()
        at = 0
        while True:
            try:
                found = stored(data, at)
            except Damaged as damage:
                check(reached and index == len(names) - 1, f"position {chain.position} in {name}: {damage}")
                torn = len(data) - at
                break
            if found is None:
                check(not any(data[at:]), f"position {chain.position} in {name}: something follows the zeros")
                break
            block, at = found
            chain.follow(block)
            if chain.position == head[0]:
                check(chain.hash == head[1], f"the anchor knows another block before position {chain.position}")
                reached = True
    check(reached, f"the log ends at position {chain.position} and was acknowledged up to {head[0]}")
    return {0: chain}, torn


def lines(file):
    """The chains of blocks as JSON, one a line; shards may lie between each other."""
    chains, last = {}, None
    for number, line in enumerate(file, 1):
        try:
            check(line.endswith(b"\n"), "the line is cut off")
            block = from_json(line)
        except Damaged as damage:
            after = "" if last is None else f", after position {last.next - 1} of shard {last.shard}"
            raise Damaged(f"line {number}{after}: {damage}") from None
        chains.setdefault(block.shard, Chain()).follow(block)
        last = block
    return chains


def messages(found):
    """The chains of messages, each its partition, key, headers (name, bytes) and value."""
    chains = {}
    for partition, key, headers, value in found:
        if key is None and not headers and value is None:
            continue
        chain = chains.setdefault(partition, Chain())
        at = f"partition {partition}, after position {chain.position or 0}"
        try:
            block = message(partition, key, headers, value)
        except Damaged as damage:
            raise Damaged(f"{at}: {damage}") from None
        if not chain.repeats(block):
            chain.follow(block)
    return chains


def message(partition, key, headers, value):
    facts = dict(headers or [])
    form = facts.get("ergate-format")
    check(form in (b"json", b"block"), f"the header ergate-format is {form!r}")
    if form == b"json":
        block = from_json(value or b"")
    else:
        found = stored(value or b"")
        check(found is not None and found[1] == len(value), "the value is not one block")
        block = found[0]
    check(block.shard == partition, f"position {block.position}: a block of shard {block.shard}")
    said = {"key": key, **{name: facts.get(f"ergate-{name}") for name in ("position", "next", "hash")}}
    for name, fact in zip(said, (block.shard, block.position, block.next, block.hash.hex())):
        check(said[name] == str(fact).encode(), f"position {block.position}: {name} is {said[name]!r} and should be {fact}")
    return block


def kafka(url):
    """Yields the committed messages of `kafka://host:port[,host:port…]/namespace[?option=value&…]`, each partition from its beginning."""
    try:
        import confluent_kafka
    except ImportError:
        raise Damaged("reading Kafka needs the package confluent-kafka: pip install confluent-kafka") from None
    parts = urllib.parse.urlsplit(url)
    topic = parts.path.strip("/") + ".events"
    options = {
        "bootstrap.servers": parts.netloc,
        "group.id": "ergate-verifier",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        **dict(urllib.parse.parse_qsl(parts.query)),
    }
    consumer = None
    try:
        consumer = confluent_kafka.Consumer(options)
        known = consumer.list_topics(topic, timeout=PATIENCE_S).topics[topic]
        check(known.error is None, f"topic {topic}: {known.error}")
        open_partitions = set(known.partitions)
        begin = confluent_kafka.OFFSET_BEGINNING
        consumer.assign([confluent_kafka.TopicPartition(topic, partition, begin) for partition in open_partitions])
        while open_partitions:
            found = consumer.poll(PATIENCE_S)
            check(found is not None, f"the brokers said nothing for {PATIENCE_S} s")
            if found.error() is None:
                yield found.partition(), found.key(), found.headers(), found.value()
            elif found.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                open_partitions.discard(found.partition())
            else:
                raise Damaged(f"the brokers said: {found.error()}")
    except confluent_kafka.KafkaException as error:
        raise Damaged(f"the brokers said: {error}") from None
    finally:
        if consumer is not None:
            consumer.close()
