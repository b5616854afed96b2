"""What must hold from block to block and from event to event of one shard."""

from blocks import CREATING
from schema import Damaged, check

ZERO = bytes(32)
# These end the attempt that they name; a time-out does where it is the attempt's own.
ENDS_ATTEMPT = ("succeeded", "failed", "lost")
NAMES_RUNNING = ("checkpointed", "heartbeat_missed", "attempt_ran")
OWN_TIMEOUTS = ("start_to_close", "heartbeat")
ENDS_TASK = ("succeeded", "ended", "dead_lettered")


class Life:
    """The tasks of a shard, as far as their events tell."""

    def __init__(self, ordinal):
        # Tasks before this one were created before the log begins.
        self.base = ordinal
        # Live tasks: last attempt and whether it runs, None where nothing was heard of it.
        self.live = {}
        self.dead = set()
        # Of the tasks from before the beginning, those that are known to be over.
        self.over = set()

    def follow(self, name, event, ordinal):
        """Takes an event; `ordinal` is what the next created task gets."""
        task = event.get("of" if name == "deduplicated" else "task")
        if task is None and name not in CREATING:
            return
        check(task is None or task < ordinal, f"{name} names task {task}, which was not created yet")
        if name in ("redriven", "dead_letter_dropped"):
            check(task in self.dead or task < self.base and task not in self.over, f"{name} names task {task}, which is no dead letter")
            self.bury(task, False)
        if name in CREATING:
            self.live[ordinal] = (0, False)
        elif name not in ("dead_letter_dropped", "deduplicated", "slot_released"):
            self.live_event(name, event, task)

    def live_event(self, name, event, task):
        known = task in self.live or task < self.base and task not in self.over
        check(known, f"{name} names task {task}, which is over")
        last, runs = self.live.get(task, (None, None))
        attempt = event.get("attempt")
        if name == "started":
            check(runs is not True, f"task {task} is started while attempt {last} runs")
            check(attempt >= 1 and last in (None, attempt - 1), f"task {task} is started as attempt {attempt} after attempt {last}")
            last, runs = attempt, True
        ends = name in ENDS_ATTEMPT or name == "timed_out" and event["timeout"][0] in OWN_TIMEOUTS
        if ends or name in NAMES_RUNNING:
            check(runs is not False and last in (None, attempt), f"{name} names attempt {attempt} of task {task}, which does not run")
            last, runs = attempt, not ends
        if name in ENDS_TASK:
            self.live.pop(task, None)
            self.bury(task, name == "dead_lettered")
        else:
            self.live[task] = (last, runs)

    def bury(self, task, is_dead):
        if task < self.base:
            self.over.add(task)
        (self.dead.add if is_dead else self.dead.discard)(task)


class Chain:
    """How far a shard was followed."""

    def __init__(self, base=None):
        """`base` is position, hash, ordinal and time before the first block, where somebody else knows them."""
        self.begins = base
        self.position = None if base is None else base[0]
        self.hash = ZERO if base is None else base[1]
        self.shard = self.epoch = self.life = None
        self.first = self.time = self.ordinal = 0
        self.blocks = self.events = self.tasks = 0
        # Hashes of the blocks by their first position.
        self.seen = {}

    def begin(self, block):
        """Takes the place before the first block from that block, where nothing else tells it."""
        base = self.begins or (block.position, block.previous, block.ordinal, block.time)
        self.position, self.hash, self.ordinal, self.time = base
        self.first = self.position
        if self.position == 0:
            check((self.hash, self.ordinal) == (ZERO, 0), "position 0: the first block names one before it")
        self.shard, self.life = block.shard, Life(self.ordinal)

    def repeats(self, block):
        """Whether this is a block that was read before; another one in its place is a contradiction."""
        if self.life is None or block.position >= self.position:
            return False
        known = self.seen.get(block.position)
        check(known == block.hash, f"position {block.position}: the block contradicts the one that was read there")
        return True

    def follow(self, block):
        is_first = self.life is None
        if is_first:
            self.begin(block)
        at = f"position {block.position}"
        check(block.position == self.position, f"{at}: a block begins where position {self.position} follows")
        check(block.previous == self.hash, f"{at}: the chain breaks, the block names another one before it")
        check(block.ordinal == self.ordinal, f"{at}: the block begins with ordinal {block.ordinal} where {self.ordinal} follows")
        check(block.shard == self.shard, f"{at}: a block of shard {block.shard} in the log of {self.shard}")
        check(block.time > self.time or is_first and block.time == self.time, f"{at}: a batch goes on in this block, or time went back")
        for position, self.time, name, event in block.records():
            if name == "opened":
                self.epoch = event["epoch"]
            try:
                self.life.follow(name, event, self.ordinal)
            except Damaged as damage:
                raise Damaged(f"position {position}: {damage}") from None
            self.ordinal += name in CREATING
            self.tasks += name in CREATING
        check(self.epoch in (None, block.epoch), f"{at}: the block has epoch {block.epoch} in epoch {self.epoch}")
        self.seen[block.position] = self.hash = block.hash
        self.position = block.next
        self.blocks += 1
        self.events += block.count

    def report(self):
        return {
            "shard": self.shard or 0,
            "blocks": self.blocks,
            "events": self.events,
            "tasks": self.tasks,
            "first": self.first,
            "head": self.position or 0,
            "head_hash": self.hash.hex(),
        }
