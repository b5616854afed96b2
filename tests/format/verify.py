#!/usr/bin/env python3
"""Verifies a log of the engine `file` by docs/log-format.md alone: `verify.py DIR`.

It needs nothing but that page and Python's standard library. It does the steps of
"What a verifier checks" but the last, which needs the rules, and prints the hash of the last block.
"""

import os
import struct
import sys

BLOCK_HEADER = struct.Struct("<4sHHIIQQQB3xIII32s")
HEAD = struct.Struct("<Q32sQQ")
BYTES_MAX = 16 << 20


class Damaged(Exception):
    """The log is not what the page says."""


def check(so, what):
    if not so:
        raise Damaged(what)


# CRC-32C


def crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC = crc_table()


def crc32c(*parts):
    crc = 0xFFFFFFFF
    for part in parts:
        for byte in part:
            crc = CRC[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


# lz4


def lz4(stored, length):
    """Undoes one lz4 block."""
    out, at = bytearray(), 0

    def more(value):
        nonlocal at
        if value == 15:
            while True:
                value += stored[at]
                at += 1
                if stored[at - 1] != 255:
                    break
        return value

    try:
        while True:
            token = stored[at]
            at += 1
            literals = more(token >> 4)
            check(at + literals <= len(stored), "lz4: the literals end behind the block")
            out += stored[at : at + literals]
            at += literals
            if at == len(stored):
                break
            offset = stored[at] | stored[at + 1] << 8
            at += 2
            check(0 < offset <= len(out), "lz4: an offset from before the beginning")
            match = more(token & 15) + 4
            check(len(out) + match <= length, "lz4: longer than the body")
            for _ in range(match):
                out.append(out[-offset])
    except IndexError:
        raise Damaged("lz4: the block ends within a sequence") from None
    check(len(out) == length, "the body has another length than the header says")
    return bytes(out)


# BLAKE3

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MIXES = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
MASK = 0xFFFFFFFF


def compress(chaining, block, counter, length, flags):
    words = struct.unpack("<16I", block)
    v = [*chaining, *IV[:4], counter & MASK, counter >> 32, length, flags]
    for _ in range(7):
        for index, (a, b, c, d) in enumerate(MIXES):
            va, vb, vc, vd = v[a], v[b], v[c], v[d]
            va = va + vb + words[2 * index] & MASK
            vd ^= va
            vd = (vd >> 16 | vd << 16) & MASK
            vc = vc + vd & MASK
            vb ^= vc
            vb = (vb >> 12 | vb << 20) & MASK
            va = va + vb + words[2 * index + 1] & MASK
            vd ^= va
            vd = (vd >> 8 | vd << 24) & MASK
            vc = vc + vd & MASK
            vb ^= vc
            v[a], v[b], v[c], v[d] = va, (vb >> 7 | vb << 25) & MASK, vc, vd
        words = [words[index] for index in PERMUTATION]
    return [v[index] ^ v[index + 8] for index in range(8)]


def node(data, first_chunk, root):
    """The chaining value of the subtree over this data."""
    if len(data) <= 1024:
        chaining = IV
        blocks = [data[at : at + 64] for at in range(0, len(data), 64)] or [b""]
        for index, block in enumerate(blocks):
            flags = CHUNK_START if index == 0 else 0
            if index == len(blocks) - 1:
                flags |= CHUNK_END | root
            chaining = compress(chaining, block.ljust(64, b"\0"), first_chunk, len(block), flags)
        return chaining
    chunks = (len(data) + 1023) // 1024
    left = 1 << (chunks - 1).bit_length() - 1
    both = node(data[: left * 1024], first_chunk, 0) + node(data[left * 1024 :], first_chunk + left, 0)
    return compress(IV, struct.pack("<16I", *both), 0, 64, PARENT | root)


def blake3(data):
    return struct.pack("<8I", *node(data, 0, ROOT))


# Records

EVENTS = """
0 opened epoch: u32, rules: RuleVersions, writer: text
1 type_defined task_type: u16, name: text, settings: TypeSettings, by: text
2 requested task_type: u16, payload: bytes, key: optional IdempotencyKey, asks: list of Ask
3 deduplicated task_type: u16, key: text, digest: 16 bytes, of: u64
4 succeeded task: u64, attempt: u32, outcome: Outcome, result: bytes
5 failed task: u64, attempt: u32, failure: Failure
6 slot_released task: u64, attempt: u32, replica: u32
7 checkpointed task: u64, attempt: u32, details: bytes
8 heartbeat_missed task: u64, attempt: u32, last_seen: time
9 cancel_requested task: u64, by: text, reason: text
10 kill_requested task: u64, by: text, reason: text
11 redriven task: u64, by: text, reason: text
12 replica_joined replica: u32, pool: text, slots: u32
13 replica_draining replica: u32
14 replica_left replica: u32, departure: Departure
15 pool_defined pool: u16, name: text, replicas: u32, slots: u32, by: text, reason: text
16 replica_ready replica: u32
17 replica_stopped replica: u32, departure: Departure
18 clock_stepped from: time, to: time
19 loss_accepted missing: u64, by: text, reason: text
20 started task: u64, attempt: u32, replica: u32
21 ready task: u64
22 timed_out task: u64, attempt: u32, timeout: Timeout
23 retry_scheduled task: u64, due: time
24 lost task: u64, attempt: u32, departure: Departure
25 ended task: u64, outcome: Outcome, cause: Cause
26 dead_lettered task: u64, cause: Cause
27 dead_letter_dropped task: u64
28 replica_requested replica: u32, pool: u16
29 drain_requested replica: u32
"""
STRUCTURES = {
    "RuleVersions": "task: u16, retry: u16, dispatch: u16",
    "TypeSettings": "pool: text, priority: u8, retry: RetryPolicy, timeouts: Timeouts, cancel_grace: span, losses_max: u32, "
    "dead_letter: bool, key_window: span, non_retryable: list of text",
    "RetryPolicy": "attempts: u32, initial: span, coefficient_milli: u32, max: span, jitter_milli: u32",
    "Timeouts": "schedule_to_start: optional span, start_to_close: span, schedule_to_close: optional span, heartbeat: optional span",
    "IdempotencyKey": "key: text, window: optional span",
    "Failure": "class: text, message: text, retryable: bool, delay: optional span",
}
ENUMERATIONS = {
    "Outcome": [[], [], [], [], []],
    "Cause": [[], [], ["Timeout"], [], [], []],
    "Timeout": [[], [], [], [], []],
    "Departure": [[], []],
    "Ask": [["u8"], ["time"], ["RetryPolicy"], ["Timeouts"], ["text"], ["text"], ["text", "text"]],
}
INTEGERS = {"u16": 1 << 16, "u32": 1 << 32, "u64": 1 << 64, "time": 1 << 64, "span": 1 << 64}


def fields(text):
    return [tuple(field.split(": ")) for field in text.split(", ")]


SCHEMA = [(name, fields(rest)) for _, name, rest in (line.split(" ", 2) for line in EVENTS.split("\n") if line)]
STRUCTURES = {name: fields(text) for name, text in STRUCTURES.items()}


class Reader:
    """Reads values of the types of the page from the beginning of a body."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        check(self.at + count <= len(self.data), "a record ends behind its block")
        self.at += count
        return self.data[self.at - count : self.at]

    def integer(self, limit):
        value = self.take(1)[0]
        if value > 250:
            check(value <= 253, "an integer of no known length")
            size, least = ((2, 251), (4, 1 << 16), (8, 1 << 32))[value - 251]
            value = int.from_bytes(self.take(size), "little")
            check(value >= least, "an integer is longer than it must be")
        check(value < limit, "an integer is too large for its type")
        return value

    def read(self, kind):
        if kind in INTEGERS:
            return self.integer(INTEGERS[kind])
        if kind == "u8":
            return self.take(1)[0]
        if kind == "bool":
            value = self.take(1)[0]
            check(value <= 1, "neither yes nor no")
            return value == 1
        if kind == "bytes":
            return self.take(self.integer(1 << 64))
        if kind == "text":
            try:
                return self.take(self.integer(1 << 64)).decode("utf-8")
            except UnicodeDecodeError:
                raise Damaged("a text is not UTF-8") from None
        if kind == "16 bytes":
            return self.take(16)
        if kind.startswith("optional "):
            return self.read(kind[len("optional ") :]) if self.read("bool") else None
        if kind.startswith("list of "):
            return [self.read(kind[len("list of ") :]) for _ in range(self.integer(1 << 64))]
        if kind in STRUCTURES:
            return {name: self.read(inner) for name, inner in STRUCTURES[kind]}
        variants = ENUMERATIONS[kind]
        number = self.integer(1 << 32)
        check(number < len(variants), f"{kind} has no variant {number}")
        return (number, [self.read(inner) for inner in variants[number]])

    def event(self):
        number = self.integer(1 << 32)
        check(number < len(SCHEMA), f"there is no event {number}")
        name, kinds = SCHEMA[number]
        return name, {field: self.read(kind) for field, kind in kinds}


# The log


class Chain:
    """Where the log has come to."""

    def __init__(self, base):
        self.position, self.hash, self.ordinal, self.time = base
        self.begins = True
        self.shard = self.epoch = None
        self.blocks = self.events = 0

    def follow(self, header, body):
        magic, form, shard, epoch, count, position, ordinal, time, codec, length, stored, crc, previous = header
        check(previous == self.hash, f"the chain breaks at position {self.position}")
        check(position == self.position, f"a block begins at position {position} where {self.position} follows")
        check(ordinal == self.ordinal, f"a block begins with ordinal {ordinal} where {self.ordinal} follows")
        check(self.shard in (None, shard), "a block of another shard")
        check(time > self.time or self.begins and time >= self.time, f"a batch goes on in the block at position {position}, or time went back")
        self.shard, self.begins = shard, False
        reader = Reader(body)
        for index in range(count):
            time += reader.read("u64")
            check(index > 0 or time == header[7], "the first record has another time than its block")
            check(time < 1 << 64, "time overflows")
            name, event = reader.event()
            if name == "opened":
                self.epoch = event["epoch"]
            self.ordinal += name in ("requested", "redriven")
        check(reader.at == len(body), "bytes are left after the last record")
        check(self.epoch in (None, epoch), f"the block at position {position} has epoch {epoch} in epoch {self.epoch}")
        self.position, self.time = position + count, time
        logical = struct.pack("<HHIIQQQI", form, shard, epoch, count, position, ordinal, header[7], length)
        self.hash = blake3(previous + logical + body)
        self.blocks += 1
        self.events += count


def read_block(data, at):
    """The header and body of the block there, and where it ends; None where the segment ends."""
    raw = data[at : at + BLOCK_HEADER.size]
    if not any(raw):
        return None
    check(len(raw) == BLOCK_HEADER.size, "a header is cut off")
    header = BLOCK_HEADER.unpack(raw)
    magic, form, _, _, count, _, _, _, codec, length, stored, crc, _ = header
    check(magic == b"ERGB", "no block begins here")
    check(form == 1, f"format {form} is not known")
    check(codec <= 1 and count > 0 and length <= BYTES_MAX and stored <= BYTES_MAX, "a field of the header is outside its limits")
    end = at + BLOCK_HEADER.size + stored
    check(end <= len(data), "a block is cut off")
    check(crc32c(data[at : at + 52], data[at + 56 : end]) == crc, "the checksum of a block is wrong")
    rest = data[at + BLOCK_HEADER.size : end]
    body = lz4(rest, length) if codec else rest
    check(len(body) == length, "the body has another length than the header says")
    return header, body, end


def read_store(path):
    with open(path, "rb") as file:
        data = file.read(4096)
    content, _, crc = data.partition(b"crc ")
    check(crc.strip() == b"%08x" % crc32c(content), "the checksum of `store` is wrong")
    lines = content.decode("utf-8").splitlines()
    check(lines and lines[0] == "ergate store", "`store` is something else")
    facts = dict(line.partition(" ")[::2] for line in lines[1:])
    check(facts.get("format") == "1", "the directory has an unknown format")
    check(facts.get("engine") == "file", f"engine {facts.get('engine')} is not known here")
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


def verify(folder):
    store = read_store(os.path.join(folder, "store"))
    base, head = read_anchor(os.path.join(folder, "anchor"), store)
    chain, torn = Chain(base), 0
    reached = chain.position == head[0] and chain.hash == head[1]
    log = os.path.join(folder, "log")
    names = sorted(name for name in os.listdir(log) if len(name) == 24 and name.endswith(".seg") and name[:20].isdigit())
    names = [name for name in names if int(name[:20]) >= base[0]]
    for index, name in enumerate(names):
        check(int(name[:20]) == chain.position, f"{name} follows on position {chain.position}")
        with open(os.path.join(log, name), "rb") as file:
            data = file.read()
        at = 0
        while True:
            try:
                found = read_block(data, at)
            except Damaged as damage:
                check(reached and index == len(names) - 1, f"position {chain.position} in {name}: {damage}")
                torn = len(data) - at
                break
            if found is None:
                check(not any(data[at:]), f"position {chain.position} in {name}: something follows the zeros")
                break
            header, body, at = found
            chain.follow(header, body)
            if chain.position == head[0]:
                check(chain.hash == head[1], f"the anchor knows another block before position {chain.position}")
                reached = True
    check(reached, f"the log ends at position {chain.position} and was acknowledged up to {head[0]}")
    return chain, torn


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: verify.py DIR")
    try:
        chain, torn = verify(sys.argv[1])
    except (Damaged, OSError) as error:
        print(f"verify.py: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"events {chain.events}\nblocks {chain.blocks}\nhead position {chain.position}\nhead hash {chain.hash.hex()}")
    if torn:
        print(f"torn tail of {torn} bytes")


if __name__ == "__main__":
    main()
