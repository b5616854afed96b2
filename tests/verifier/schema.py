"""The tables "Events" of docs/log-format.md, and values of their types in both encodings: bytes and JSON."""

import struct

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
30 source_moved next: u64
31 request_refused reason: text
32 shards_observed shards: list of ShardReading
33 limit_defined limit: u16, name: text, allows: LimitSettings, by: text
34 type_limited task_type: u16, limits: list of u16, by: text
35 progressed task: u64, attempt: u32, percent: optional u8, stage: text, message: text
36 limited task: u64, limit: u16
37 admitted task: u64
38 schedule_defined schedule: u16, name: text, plan: ScheduleSettings, by: text
39 schedule_removed schedule: u16, by: text
40 schedule_paused schedule: u16, by: text, reason: text
41 schedule_resumed schedule: u16, by: text, reason: text
42 fired schedule: u16, slot: time, task: u64
43 triggered schedule: u16, slot: time, task: u64, by: text, reason: text
44 slots_passed schedule: u16, from: time, to: time, count: u64, because: PassedOver
45 pool_mode_set pool: u16, name: text, mode: PoolMode, by: text, reason: text
46 dependency_met task: u64, dependency: u64, left: u32
47 types_served types: list of text
48 worker_joined replica: u32, pool: text, slots: u32, worker: WorkerFacts
49 work_asked replica: u32, slots: u32
50 worker_missed replica: u32, last_seen: time
51 attempt_returned task: u64, attempt: u32
52 process_exited replica: u32, code: optional u8, signal: optional u8, note: text, wait: span
53 concurrency_changed replica: u32, before: u32, concurrency: u32, reason: text
54 policy_set pool: u16, policy: text, least: u32, most: u32, by: text, reason: text
55 pool_observed pool: u16, readings: list of Reading, work: list of u64, asked: u32, seen: list of ReplicaReading
56 pool_scaled pool: u16, replicas: u32, decision: text, shadow: optional text
57 shadow_set pool: u16, shadow: text, policy: text, by: text, reason: text
58 size_held pool: u16, replicas: optional u32, until: time, by: text, reason: text
59 pool_resources_set pool: u16, resources: PoolResources, by: text, reason: text
60 attempt_ran task: u64, attempt: u32, ran: Ran
"""
STRUCTURES = """
RuleVersions task: u16, retry: u16, dispatch: u16
TypeSettings pool: text, priority: u8, retry: RetryPolicy, timeouts: Timeouts, cancel_grace: span, losses_max: u32, dead_letter: bool, key_window: span, non_retryable: list of text
RetryPolicy attempts: u32, initial: span, coefficient_milli: u32, max: span, jitter_milli: u32
Timeouts schedule_to_start: optional span, start_to_close: span, schedule_to_close: optional span, heartbeat: optional span
IdempotencyKey key: text, window: optional span
Failure class: text, message: text, retryable: bool, delay: optional span
ShardReading shard: u16, position: u64, waiting: u64, running: u64, lag: u64
LimitSettings key: optional text, concurrency: optional u32, rate: optional Rate, ready: optional u32
Rate permits: u32, per: span, burst: u32
ScheduleSettings when: When, timezone: text, task: text, payload: text, labels: list of Label, priority: optional u8, catch_up: CatchUp, overlap: Overlap
Label name: text, value: text
WorkerFacts id: 16 bytes, name: text, types: list of text, labels: list of Label, lease: span
ReplicaReading stage: Stage, since: time, busy_milli: u32, used: optional Used
Used cpu_milli: optional u64, memory_bytes: optional u64, at: time, over: span
PoolResources asked: Asked, ceiling: Ceiling
Asked cpu_milli: optional u64, memory_bytes: optional u64
Ceiling slots: optional u64, cpu_milli: optional u64, memory_bytes: optional u64
Ran device: text, driver: optional CudaVersion, kernel: 32 bytes, batch_size: u32, queue: span, copy: span, compute: span, memory_bytes: u64
CudaVersion major: u32, minor: u32
"""
ENUMERATIONS = """
Outcome Succeeded, Partial, Failed, Cancelled, Skipped
Cause AttemptsExhausted, NotRetryable, TimedOut(Timeout), LossesExhausted, Cancelled, Killed, Dependency(u64)
Timeout ScheduleToStart, StartToClose, ScheduleToClose, Heartbeat, CancelGrace
Departure Drained, Lost
Ask Priority(u8), NotBefore(time), Retry(RetryPolicy), Timeouts(Timeouts), ContentType(text), TraceParent(text), Label(text, text), ReplyTo(text), CorrelationId(text), After(Dependency), OnFailure(OnFailure), FiredBy(u16)
Dependency Task(u64), Ended(u64, Outcome), Key(optional text, text)
OnFailure Cancel, Run
When Cron(text), Every(span), At(time)
CatchUp Skip, RunOnce, RunAll
Overlap Allow, Skip, CancelPrevious
PassedOver Missed, Overlap, Paused, Refused
PoolMode Running, Paused, Drained
Reading Value(Value), Failed(text)
Value Integer(i64), Milli(i64), Real(f64)
Stage Starting, Ready, Draining
"""
INTEGERS = {"u8": 1 << 8, "u16": 1 << 16, "u32": 1 << 32, "u64": 1 << 64, "time": 1 << 64, "span": 1 << 64}
SIZES = {"16 bytes": 16, "32 bytes": 32}
# How ids are printed in JSON, where they are fields of an event itself.
PREFIXES = {"epoch": "e", "replica": "r", "task_type": "type-", "pool": "pool-", "limit": "limit-", "schedule": "schedule-"}
# Fields of a structure that JSON has as texts of decimal digits.
DECIMALS = {"ShardReading": ("shard", "position")}
# The first numbers of what only a block of format 2 may have, of what only one of format 3, and of 4.
SECOND_EVENT, SECOND_ASK = 30, 7
THIRD_EVENT = 33
FOURTH = {"Event": 38, "Ask": 9, "Cause": 6}


class Damaged(Exception):
    """The log is not what the page says."""


def check(so, what):
    if not so:
        raise Damaged(what)


def split(text):
    """Splits at commas outside of brackets."""
    items, depth = [""], 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            items.append("")
        else:
            items[-1] += char
    return [item.strip() for item in items]


def fields(text):
    return [tuple(field.split(": ")) for field in split(text)]


def variant(text, shout):
    """The name in JSON and the types of a variant."""
    name, _, kinds = text.rstrip(")").partition("(")
    snake = "".join("_" + char.lower() if char.isupper() else char for char in name).lstrip("_")
    return (snake.upper() if shout else snake, split(kinds) if kinds else [])


def rows(table):
    return [line.split(" ", 1) for line in table.split("\n") if line]


NUMBERED = [(rest.split(" ", 1)[0], fields(rest.split(" ", 1)[1])) for _, rest in rows(EVENTS)]
NUMBERS = {name: number for number, (name, _) in enumerate(NUMBERED)}
STRUCTURES_OF = {name: fields(rest) for name, rest in rows(STRUCTURES)}
VARIANTS_OF = {name: [variant(item, name == "Outcome") for item in split(rest)] for name, rest in rows(ENUMERATIONS)}


class Reader:
    """Reads values from the beginning of a body; `format` is the format version that what was read so far needs."""

    def __init__(self, data):
        self.data, self.at, self.format = data, 0, 1

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
        if kind == "u8":
            return self.take(1)[0]
        if kind in INTEGERS:
            return self.integer(INTEGERS[kind])
        if kind == "i64":
            value = self.integer(1 << 64)
            return (value >> 1) ^ -(value & 1)
        if kind == "f64":
            return struct.unpack("<d", self.take(8))[0]
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
        if kind in SIZES:
            return self.take(SIZES[kind])
        if kind.startswith("optional "):
            return self.read(kind[len("optional ") :]) if self.read("bool") else None
        if kind.startswith("list of "):
            return [self.read(kind[len("list of ") :]) for _ in range(self.integer(1 << 64))]
        if kind in STRUCTURES_OF:
            return {name: self.read(inner) for name, inner in STRUCTURES_OF[kind]}
        variants = VARIANTS_OF[kind]
        number = self.integer(1 << 32)
        check(number < len(variants), f"{kind} has no variant {number}")
        self.format = max(self.format, needs(kind, number))
        name, kinds = variants[number]
        return (name, [self.read(inner) for inner in kinds])

    def event(self):
        number = self.integer(1 << 32)
        check(number < len(NUMBERED), f"there is no event {number}; a newer build wrote it")
        self.format = max(self.format, needs("Event", number))
        name, kinds = NUMBERED[number]
        return name, {field: self.read(kind) for field, kind in kinds}


class Writer:
    """Appends values that JSON carried to a body, in canonical bytes; `format` is as a reader's."""

    def __init__(self):
        self.body, self.format = bytearray(), 1

    def integer(self, value, limit=1 << 64):
        check(type(value) is int and 0 <= value < limit, f"{value!r} is no integer of its type")
        if value <= 250:
            self.body.append(value)
            return
        first, size = (251, 2) if value < 1 << 16 else (252, 4) if value < 1 << 32 else (253, 8)
        self.body.append(first)
        self.body += value.to_bytes(size, "little")

    def bytes(self, value):
        self.integer(len(value))
        self.body += value

    def write(self, kind, value):
        if kind == "u8":
            check(type(value) is int and 0 <= value < 256, f"{value!r} is no u8")
            self.body.append(value)
        elif kind in INTEGERS:
            self.integer(value, INTEGERS[kind])
        elif kind == "i64":
            check(type(value) is int and -(1 << 63) <= value < 1 << 63, f"{value!r} is no i64")
            self.integer((value << 1) ^ (value >> 63))
        elif kind == "f64":
            check(type(value) in (int, float), f"{value!r} is no number")
            self.body += struct.pack("<d", value)
        elif kind == "bool":
            check(type(value) is bool, f"{value!r} is neither true nor false")
            self.body.append(value)
        elif kind == "bytes":
            is_hex = type(value) is dict and list(value) == ["hex"]
            self.bytes(unhex(value["hex"]) if is_hex else utf8(value))
        elif kind == "text":
            self.bytes(utf8(value))
        elif kind in SIZES:
            self.body += unhex(value, SIZES[kind])
        elif kind.startswith("optional "):
            self.body.append(value is not None)
            if value is not None:
                self.write(kind[len("optional ") :], value)
        elif kind.startswith("list of "):
            check(type(value) is list, f"{value!r} is no array")
            self.integer(len(value))
            for item in value:
                self.write(kind[len("list of ") :], item)
        elif kind in STRUCTURES_OF:
            if kind in DECIMALS and type(value) is dict:
                value = {name: decimal(item) if name in DECIMALS[kind] else item for name, item in value.items()}
            if kind == "CudaVersion":
                value = version(value)
            self.structure(STRUCTURES_OF[kind], value)
        else:
            self.enumeration(kind, value)

    def structure(self, kinds, value):
        check(type(value) is dict, f"{value!r} is no object")
        odd = [name for name in value if name not in dict(kinds) and value[name] is not None]
        check(not odd, f"unknown field {odd[:1]}")
        for name, kind in kinds:
            check(name in value or kind.startswith("optional "), f"field {name!r} is missing")
            try:
                self.write(kind, value.get(name))
            except Damaged as damage:
                raise Damaged(f"field {name!r}: {damage}") from None

    def enumeration(self, kind, value):
        if type(value) is dict:
            check(len(value) == 1, f"{value!r} is no {kind}")
            ((name, values),) = value.items()
        else:
            name, values = value, []
        names = [known for known, _ in VARIANTS_OF[kind]]
        check(name in names, f"{name!r} is no {kind}")
        number = names.index(name)
        kinds = VARIANTS_OF[kind][number][1]
        if type(value) is dict and len(kinds) == 1:
            values = [values]
        check(type(values) is list and len(values) == len(kinds), f"{kind} {name!r} has {len(kinds)} values")
        self.format = max(self.format, needs(kind, number))
        self.integer(number)
        for inner, item in zip(kinds, values):
            # The only such numbers in an enumeration are ordinals of tasks and ids of schedules, which JSON has as texts.
            if inner == "u16":
                item = numbered(name, PREFIXES["schedule"], item)
            self.write(inner, decimal(item) if inner == "u64" else item)

    def event(self, shard, name, value):
        """Appends an event of that name; `value` has only the fields of its kind."""
        check(type(name) is str and name in NUMBERS, f"there is no event {name!r}; a newer build wrote it")
        self.format = max(self.format, needs("Event", NUMBERS[name]))
        self.integer(NUMBERS[name])
        kinds = NUMBERED[NUMBERS[name]][1]
        plain = {field: unprinted(shard, field, dict(kinds).get(field), item) for field, item in value.items()}
        self.structure(kinds, plain)


def needs(kind, number):
    """The format version that a variant needs."""
    if number >= FOURTH.get(kind, number + 1):
        return 4
    if kind == "Event" and number >= THIRD_EVENT:
        return 3
    return 2 if (kind == "Event" and number >= SECOND_EVENT) or (kind == "Ask" and number >= SECOND_ASK) else 1


def unprinted(shard, field, kind, value):
    """The number that a printed id stands for; other values as they are."""
    if field in ("task", "of", "dependency") and kind == "u64":
        owner, _, digits = value.partition("-") if type(value) is str else ("", "", "")
        check(decimal(owner) == shard, f"field {field!r}: {value!r} is of another shard")
        return decimal(digits)
    if field == "limits" and kind == "list of u16":
        check(type(value) is list, f"field {field!r}: {value!r} is no list")
        return [numbered(field, "limit-", each) for each in value]
    if field in PREFIXES and kind in INTEGERS:
        return numbered(field, PREFIXES[field], value)
    return value


def numbered(field, prefix, value):
    """The number in an id."""
    check(type(value) is str and value.startswith(prefix), f"field {field!r}: {value!r} does not begin with {prefix!r}")
    return decimal(value[len(prefix) :])


def decimal(text):
    check(type(text) is str and text.isascii() and text.isdigit() and len(text) <= 20, f"{text!r} is no decimal number")
    return int(text)


def version(text):
    """The numbers of a version, each in its only form."""
    check(type(text) is str and text.count(".") == 1, f"{text!r} is no version of CUDA")
    major, minor = (decimal(part) for part in text.split("."))
    check(text == f"{major}.{minor}", f"{text!r} has leading zeros")
    return {"major": major, "minor": minor}


def utf8(text):
    check(type(text) is str, f"{text!r} is no text")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise Damaged("a text has a lone surrogate") from None


def unhex(text, size=None):
    known = type(text) is str and len(text) % 2 == 0 and all(char in "0123456789abcdef" for char in text)
    check(known and size in (None, len(text) // 2), f"{text!r} is not hexadecimal digits of the right number")
    return bytes.fromhex(text)
