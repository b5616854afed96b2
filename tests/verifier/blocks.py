"""Blocks in their two forms, stored bytes and JSON, to one: header, canonical body, hash, records."""

import datetime
import json
import struct

import lz4.block
from blake3 import blake3

from schema import Damaged, Reader, Writer, check, decimal, unhex

HEADER = struct.Struct("<4sHHIIQQQB3xIII32s")
BODY_BYTES_MAX = 16 << 20
FORMATS = (1, 2, 3, 4)
FIELDS = ["format", "shard", "epoch", "position", "count", "ordinal", "recorded_at", "previous", "hash", "events"]
CREATING = ("requested", "redriven")


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


class Block:
    """A block that was read: the hash is computed, not believed."""

    def __init__(self, form, shard, epoch, count, position, ordinal, time, previous, body):
        self.form, self.shard, self.epoch, self.count = form, shard, epoch, count
        self.position, self.ordinal, self.time, self.previous = position, ordinal, time, previous
        try:
            logical = struct.pack("<HHIIQQQI", form, shard, epoch, count, position, ordinal, time, len(body))
        except struct.error:
            raise Damaged("a field of the header is outside its limits") from None
        check(count > 0 and position + count < 1 << 64 and len(body) <= BODY_BYTES_MAX, "a field of the header is outside its limits")
        self.hash = blake3(previous + logical + body).digest()
        self.body = body

    @property
    def next(self):
        return self.position + self.count

    def records(self):
        """Position, time, name and fields of each record."""
        reader, time = Reader(self.body), self.time
        for index in range(self.count):
            try:
                elapsed = reader.read("u64")
                time += elapsed
                check(index > 0 or elapsed == 0, "the first record has another time than its block")
                check(time < 1 << 64, "time overflows")
                name, event = reader.event()
            except Damaged as damage:
                raise Damaged(f"position {self.position + index}: {damage}") from None
            yield self.position + index, time, name, event
        check(reader.at == len(self.body), f"position {self.next - 1}: bytes are left after the last record")
        check(reader.format == self.form, f"position {self.position}: the block says format {self.form}, its records need {reader.format}")


def stored(data, at=0):
    """The stored block there and where it ends; None where the segment ends."""
    raw = data[at : at + HEADER.size]
    if not any(raw):
        return None
    check(len(raw) == HEADER.size, "a header is cut off")
    magic, form, shard, epoch, count, position, ordinal, time, codec, length, size, crc, previous = HEADER.unpack(raw)
    check(magic == b"ERGB", "no block begins here")
    check(form in FORMATS, f"format {form} is not known")
    check(codec <= 1 and length <= BODY_BYTES_MAX and size <= BODY_BYTES_MAX, "a field of the header is outside its limits")
    end = at + HEADER.size + size
    check(end <= len(data), "a block is cut off")
    check(crc32c(data[at : at + 52], data[at + 56 : end]) == crc, "the checksum of a block is wrong")
    body = data[at + HEADER.size : end]
    if codec == 1:
        try:
            body = lz4.block.decompress(body, uncompressed_size=length)
        except lz4.block.LZ4BlockError:
            raise Damaged("lz4 refuses the body") from None
    check(len(body) == length, "the body has another length than the header says")
    return Block(form, shard, epoch, count, position, ordinal, time, previous, body), end


def unique(pairs):
    found = dict(pairs)
    check(len(found) == len(pairs), "a field comes twice")
    return found


def refuse(number):
    raise Damaged(f"{number} is no integer")


def from_json(text):
    """The block of one JSON object, as bytes."""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"no JSON: {error}") from None
    check(type(value) is dict and list(value)[-1:] == ["events"], "no object that ends with `events`")
    # The format first: a newer one may have other fields.
    form = value.get("format")
    check(type(form) is int and form in FORMATS, f"format {form} is not known")
    check(sorted(value) == sorted(FIELDS), f"other fields than a block has: {sorted(set(value) ^ set(FIELDS))}")
    for name in ("count", "recorded_at"):
        check(type(value[name]) is int and value[name] >= 0, f"field {name!r} is no integer")
    shard, position, ordinal = (decimal(value[name]) for name in ("shard", "position", "ordinal"))
    check(type(value["epoch"]) is str and value["epoch"].startswith("e"), "field 'epoch' does not begin with 'e'")
    epoch, time = decimal(value["epoch"][1:]), value["recorded_at"]
    check(type(value["events"]) is list and len(value["events"]) == value["count"], f"position {position}: not {value['count']} events")
    writer, at, created = Writer(), time, ordinal
    for index, event in enumerate(value["events"]):
        try:
            at, created = append(writer, event, shard, position + index, at, created)
        except Damaged as damage:
            raise Damaged(f"position {position + index}: {damage}") from None
    check(writer.format == form, f"position {position}: the block says format {form}, its records need {writer.format}")
    previous, claimed = unhex(value["previous"], 32), unhex(value["hash"], 32)
    block = Block(form, shard, epoch, value["count"], position, ordinal, time, previous, bytes(writer.body))
    check(block.hash == claimed, f"position {position}: the block has the hash {block.hash.hex()} and names {claimed.hex()}")
    return block


def append(writer, event, shard, position, last, ordinal):
    """Appends an event; returns its time and the ordinal of the next task that is created."""
    check(type(event) is dict, "an event is no object")
    fields = dict(event)
    name, at = fields.pop("event", None), fields.pop("recorded_at", None)
    check(fields.pop("position", None) == str(position), "field 'position' is another one")
    check(type(at) is int and at >= last, f"field 'recorded_at' is {at!r} where {last} or later follows")
    printed = fields.pop("time", None)
    check(printed in (None, rfc3339(at)), f"field 'time' is {printed!r} where 'recorded_at' is {rfc3339(at)}")
    creates = name in CREATING
    if creates:
        task = fields.pop("task", None)
        check(task in (None, f"{shard}-{ordinal}"), f"field 'task' is {task!r} where {shard}-{ordinal} follows")
    if name == "redriven" and "of" in fields:
        fields["task"] = fields.pop("of")
    writer.integer(at - last)
    writer.event(shard, name, fields)
    return at, ordinal + creates


def rfc3339(micros):
    if micros > 253402300799999999:
        return f"{micros}µs"
    return (datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=micros)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
