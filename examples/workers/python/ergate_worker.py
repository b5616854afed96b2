"""A worker for Ergate in one file: it asks an engine for work, runs it on threads, and says how it ended.

    from ergate_worker import Worker
    worker = Worker("http://127.0.0.1:7420", pool="models", slots=8)
    @worker.task("resize")
    def resize(payload, context): return {"ok": True}
    worker.run()

It speaks version 1 of the worker protocol (docs/worker-protocol.md) and needs nothing but Python 3.9.

    main thread      registers, waits for signals, drains, leaves
    ergate-lease     keeps one question for work waiting while a slot is free
    ergate-report    reports outcomes in batches, and is the sign of life
    ergate-run-N     run the functions, at most `slots` of them
"""

import base64
import http.client
import json
import logging
import os
import queue
import random
import secrets
import signal
import socket
import ssl
import threading
import time
import urllib.parse

__all__ = ["Worker", "Context", "Failure", "Stopped", "Partial", "Skipped", "Refused"]

PROTOCOL = 1
# How long a question waits for work. An answer that does not come a while later is taken for lost.
LEASE_WAIT_S = 30.0
LEASE_GRACE_S = 10.0
# Waits between repetitions of a call.
PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 5.0
# How long the calls that say goodbye are repeated.
FAREWELL_S = 5.0
# How long functions have to notice that the time for draining is over.
CANCEL_GRACE_S = 1.0
# What an engine takes: 2 MiB a request, 1 MiB a result, 64 KiB a checkpoint.
BODY_BYTES_MAX = 1_900_000
RESULT_BYTES_MAX = 1 << 20
CHECKPOINT_BYTES_MAX = 64 << 10
MESSAGE_CHARS_MAX = 4096
# How long a heartbeat waits for others, so that a function that reports its progress in a tight loop costs few calls.
HEARTBEATS_GATHER_S = 0.05
# How many ids of attempts are remembered that were stopped before they came.
STOPPED_EARLY_MAX = 4096
# Shortest time over which it is measured what the worker uses.
USAGE_MEASURE_S = 1.0

log = logging.getLogger("ergate.worker")


class Failure(Exception):
    """Ends an attempt as failed, with all that can be said of it. `retry_after` is in seconds, or a span such as "10s"."""

    def __init__(self, class_, message="", *, retryable=None, retry_after=None):
        super().__init__(message or class_)
        self.class_, self.message, self.retryable = str(class_), str(message), retryable
        self.retry_after = _seconds(retry_after) if isinstance(retry_after, str) else retry_after


class Stopped(Exception):
    """Ends an attempt that found `context.cancelled` set: it did not do its work, and that is as wanted."""


class Partial:
    """A result of which something is missing: the task ends as PARTIAL."""

    outcome = "PARTIAL"

    def __init__(self, result=None):
        self.result = result


class Skipped(Partial):
    """There was nothing to do: the task ends as SKIPPED."""

    outcome = "SKIPPED"


class Refused(Exception):
    """The engine answered that repeating the call will not help."""

    def __init__(self, method, path, status, problem):
        self.status, self.problem = status, problem
        said = problem.get("detail") or problem.get("title") or "it says no more"
        super().__init__(f"the engine refused {method} {path} with {status} {_kind(problem)}: {said}")


class _Unattached(Exception):
    """The engine does not know what the worker runs."""


class _Ended(Exception):
    """The call is not wanted any more."""


class _Broken:
    """Why a thread cannot go on. Without reports nothing that runs is of use; without new work the rest can end as it should."""

    def __init__(self, error, is_final):
        self.error, self.is_final = error, is_final

    def log(self):
        log.error("%s", self.error, exc_info=None if isinstance(self.error, Refused) else self.error)


class Context:
    """What a function may know and say about the attempt that it runs.

    `attempt`, `task`, `number` (which start of the task, from 1), `fence`, `type`, `deadline` (RFC 3339), `timeout_ms`, `heartbeat_ms`, `checkpoint`
    (what the attempt before kept, else None) and `traceparent` are as the engine sent them. `cancelled` is an Event that is set when nobody wants the
    attempt any more, or the worker has to leave.
    """

    __slots__ = ("attempt", "task", "number", "fence", "type", "deadline", "timeout_ms", "heartbeat_ms", "checkpoint", "traceparent", "cancelled",
                 "_payload", "_worker", "_received", "_news", "_outcome", "_stop", "_hard")

    def __init__(self, worker, lease):
        get = lease.get
        self.attempt, self.task, self.number, self.fence = lease["attempt"], get("task"), get("number"), get("fence")
        self.type, self.deadline, self.timeout_ms, self.heartbeat_ms = get("type"), get("deadline"), get("timeout_ms"), get("heartbeat_ms")
        kept = get("checkpoint_base64")
        self.checkpoint = get("checkpoint") if kept is None else base64.b64decode(kept)
        self.traceparent, self.cancelled = get("traceparent"), threading.Event()
        self._payload, self._worker, self._received = lease, worker, time.monotonic()
        self._news = None  # what the next heartbeat says, as an object; None when there is nothing to say
        self._outcome = None  # the object to report, as JSON text; empty once it is on its way
        self._stop = self._hard = False  # whether the engine wants it stopped, and does not want its outcome

    def seconds_left(self):
        """How long the attempt may still take, or None when it may take as long as it likes."""
        return None if self.timeout_ms is None else self._received + self.timeout_ms / 1000 - time.monotonic()

    def heartbeat(self):
        """Says that the attempt goes on. Needed only for tasks with `heartbeat_ms`, at least that often."""
        self._worker._hear(self, {})

    def progress(self, percent=None, stage=None, message=None):
        """Says how far the attempt is; of several in a short time the newest is sent. A heartbeat as well."""
        if percent is not None and not 0 <= percent <= 100:
            raise ValueError(f"{percent} percent is not between 0 and 100")
        said = {"percent": None if percent is None else int(percent), "stage": stage, "message": message}
        self._worker._hear(self, {"progress": {key: value for key, value in said.items() if value is not None}})

    def keep(self, checkpoint):
        """Keeps a checkpoint (JSON or bytes, at most 64 KiB) for the attempt after this one, should there be one. A heartbeat as well."""
        key, value, size = _json_or_base64("checkpoint", checkpoint)
        if size > CHECKPOINT_BYTES_MAX:
            raise ValueError(f"a checkpoint has at most {CHECKPOINT_BYTES_MAX} bytes, and this one has {size}")
        # As it is now: the function may go on changing what it gave.
        self._worker._hear(self, {key: json.loads(value)})


class Worker:
    """A process that runs tasks for an engine.

    `lease` is how long the worker may be silent, as a span; `drain` how many seconds running attempts have after SIGTERM; `token` or the file that
    ERGATE_TOKEN_FILE names are shown to the engine; `ca` is a file of certificates to trust instead of the system's.
    """

    def __init__(self, url, *, pool="default", slots=1, name=None, labels=None, lease="5s", drain=30.0, token=None, ca=None):
        address = urllib.parse.urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"{url!r} is not an address such as http://127.0.0.1:7420")
        if token is None and os.environ.get("ERGATE_TOKEN_FILE"):
            with open(os.environ["ERGATE_TOKEN_FILE"], encoding="utf-8") as file:
                token = file.read().strip()
        self.id = secrets.token_hex(16)
        self.slots, self._drain_s = slots, drain
        self._address, self._token = address, token
        self._tls = ssl.create_default_context(cafile=ca) if address.scheme == "https" else None
        self._path = f"{address.path.rstrip('/')}/v1/workers/{self.id}"
        self._facts = {"protocol": PROTOCOL, "pool": pool, "slots": slots, "lease": lease,
                       "name": name or f"{socket.gethostname()}/{os.getpid()}", "labels": labels or {}}
        self._tasks = {}
        self._lease_s, self._wait_s = 5.0, LEASE_WAIT_S
        self._usage = _Usage()

        self._changed = threading.Condition()  # guards what follows, up to the empty line
        self._attempts = {}  # all that are the worker's: running, or ended and not yet acknowledged
        self._seq = 1
        self._generation = 0  # counts registrations: what was asked in an older one does not count
        self._stopped_early = {}
        self._threads = 0

        self._registering = threading.Lock()  # held while the engine is told what runs
        self._fruitless = 0  # registrations since the engine last took another call
        self._listening = threading.Lock()  # guards what attempts say: their news and their outcomes
        self._work = queue.SimpleQueue()  # contexts to run
        self._said = queue.SimpleQueue()  # contexts with news or an outcome; ids of attempts that do not run here and shall be stopped
        self._astray = ([], [])  # heartbeats and outcomes to report again: their tasks move from one engine to another
        self._control = queue.SimpleQueue()  # what the main thread has to know; its `put` may be called in a signal handler
        self._signals = 0
        self._draining = self._leaving = False
        self._is_alone = False  # whether the engine did not answer when it was told that the worker drains
        self._leasing, self._goodbye = _Connection(self), _Connection(self)

    def task(self, name):
        """Makes the decorated function run the tasks of this type: `function(payload, context)` returns the result, JSON or bytes."""
        def decorate(function):
            self._tasks[name] = function
            return function
        return decorate

    def stop(self):
        """Drains and ends `run`, as SIGTERM does. A second call does not wait for what runs."""
        self._signals += 1
        self._control.put(None)

    def run(self):
        """Works until SIGTERM or SIGINT, or until the engine drains the worker; then returns. Raises SystemExit when the engine refuses it."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self.stop())
        self._facts["types"] = sorted(self._tasks)
        try:
            self._register(0, lambda: not self._signals)
        except _Ended:
            return
        except Refused as refused:
            log.error("%s", refused)
            raise SystemExit(1) from None
        lease = self._start(self._lease_loop, "ergate-lease")
        self._start(self._report_loop, "ergate-report")
        failed = self._serve(lease)
        self._leaving = True
        self._say_goodbye("DELETE", "", signals_max=2)
        if failed:
            raise SystemExit(1)

    # The main thread.

    def _serve(self, lease):
        """Waits for a reason to end and until all has ended; whether it was a failure."""
        reason = self._control.get()
        is_broken = isinstance(reason, _Broken)
        if is_broken:
            reason.log()
            if reason.is_final:
                return True
        with self._changed:
            self._draining = True
            self._changed.notify_all()
        # An engine that drains its worker lets it end what runs; a signal means that somebody is waiting.
        limit = None if reason == "drain" else time.monotonic() + self._drain_s

        def is_over():
            nonlocal limit
            if limit is None and self._signals:
                limit = time.monotonic() + self._drain_s
            return self._signals > 1 or (limit is not None and time.monotonic() > limit)

        if not self._say_goodbye("POST", "/drain", signals_max=1):
            # Nor will it answer the question for work. What it may have given goes to others after the lease, or with the DELETE.
            self._is_alone = True
            self._leasing.sever()
        if not self._until(is_over, lease):
            self._give_back(lease)
        if self._attempts:
            log.error("%d outcomes could not be reported", len(self._attempts))
        return is_broken or bool(self._attempts)

    def _until(self, is_over, lease):
        """Waits until nothing is left to do, or until it is over; whether nothing is left."""
        while self._attempts or lease.is_alive():
            if is_over():
                return False
            try:
                reason = self._control.get(timeout=0.05)
            except queue.Empty:
                continue
            if isinstance(reason, _Broken):
                reason.log()
                if reason.is_final:
                    return False
        return True

    def _give_back(self, lease):
        """Returns what did not end in time."""
        for context in list(self._attempts.values()):
            context.cancelled.set()
        grace = time.monotonic() + CANCEL_GRACE_S
        self._until(lambda: time.monotonic() > grace, lease)
        for context in list(self._attempts.values()):
            self._end(context, {"returned": True})
        farewell = time.monotonic() + FAREWELL_S
        self._until(lambda: time.monotonic() > farewell, lease)

    def _say_goodbye(self, method, path, signals_max):
        """Makes a call that is polite and not needed: without it the engine notices later. Whether it was answered."""
        until = time.monotonic() + FAREWELL_S
        try:
            self._call(self._goodbye, method, path, b"", timeout=2.0, is_wanted=lambda: time.monotonic() < until and self._signals <= signals_max)
        except _Ended:
            return False
        except _Unattached:
            pass
        except Refused as refused:
            log.warning("%s", refused)
        return True

    def _start(self, loop, name):
        def run():
            try:
                loop()
            except _Ended:
                pass
            except Exception as error:
                self._control.put(_Broken(error, name == "ergate-report"))
        # A daemon, for a function that does not end must not keep the process.
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    # Registering.

    def _register(self, generation, is_wanted):
        """Tells the engine who this is and what runs, unless another thread did since."""
        with self._registering:
            with self._changed:
                if generation != self._generation:
                    return
                self._generation += 1
                self._seq = 1
                running = list(self._attempts)
            # A question of before has no answer that counts.
            self._leasing.sever()
            if self._fruitless:
                self._pause(min(PAUSE_MIN_S * 2 ** self._fruitless, self._pause_max()), is_wanted)
            self._fruitless = min(self._fruitless + 1, 10)
            body = json.dumps({**self._facts, "running": running}).encode()
            connection = _Connection(self)
            answer = self._call(connection, "PUT", "", body, timeout=5.0, is_wanted=is_wanted, registers=True)
            connection.close()
            self._lease_s = _seconds(answer.get("lease", "5s"))
            self._wait_s = min(LEASE_WAIT_S, _seconds(answer.get("wait_max", "1m")))
            self._usage.every_s = _seconds(answer["usage_every"]) if "usage_every" in answer else None
        self._obey(answer)

    # Leasing.

    def _lease_loop(self):
        while True:
            with self._registering:
                generation = self._generation
            with self._changed:
                self._changed.wait_for(lambda: self._draining or len(self._attempts) < self.slots)
                if self._is_alone:
                    return
                # One that drains asks for no more, and until it has heard that nothing is on its way.
                seq, free = self._seq, 0 if self._draining else self.slots - len(self._attempts)
                if generation != self._generation:
                    continue
            body = json.dumps({"seq": seq, "slots": free, "wait": f"{int(self._wait_s * 1000)}ms"}).encode()
            is_current = lambda: generation == self._generation and not self._leaving and not self._is_alone
            try:
                answer = self._call(self._leasing, "POST", "/lease", body, self._wait_s + LEASE_GRACE_S, is_current)
            except _Unattached:
                self._register(generation, lambda: not (self._leaving or self._is_alone))
                continue
            except _Ended:
                if self._leaving or self._draining:
                    return
                continue
            self._adopt(answer, generation, seq)
            self._obey(answer)
            if answer.get("drain"):
                return

    def _adopt(self, answer, generation, seq):
        """Makes leased attempts the worker's own and runs them."""
        with self._changed:
            if generation != self._generation:
                return
            self._fruitless = 0
            self._seq = seq + 1
            for lease in answer.get("attempts", ()):
                attempt = lease["attempt"]
                if attempt in self._attempts or attempt in self._stopped_early:
                    continue
                self._attempts[attempt] = context = Context(self, lease)
                self._work.put(context)
            while self._threads < min(self.slots, len(self._attempts)):
                self._threads += 1
                self._start(self._run_loop, f"ergate-run-{self._threads}")

    def _obey(self, answer):
        """Does what an answer orders."""
        for order in answer.get("stop", ()):
            attempt = order["attempt"]
            with self._changed:
                context = self._attempts.get(attempt)
                if context is None:
                    # It ended, or is on its way; in either case it will not run here.
                    self._stopped_early[attempt] = None
                    if len(self._stopped_early) > STOPPED_EARLY_MAX:
                        self._stopped_early.pop(next(iter(self._stopped_early)))
            if context is None:
                self._said.put(attempt)
            else:
                context._stop, context._hard = True, context._hard or order.get("hard", False)
                context.cancelled.set()
        if answer.get("drain") and not self._draining:
            with self._changed:
                self._draining = True
                self._changed.notify_all()
            self._control.put("drain")

    # Running.

    def _run_loop(self):
        while True:
            context = self._work.get()
            self._end(context, self._outcome_of(context))
            # Else it, and the payload with it, would live as long as this thread has nothing to do.
            del context

    def _outcome_of(self, context):
        """Runs the function of an attempt; what to report of it, as an object or, for a result, as JSON text."""
        try:
            function = self._tasks.get(context.type)
            if function is None:
                return {"returned": True}
            result = function(self._payload_of(context), context)
        except Failure as failure:
            return _failure(failure.class_, failure.message, failure.retryable, failure.retry_after)
        except BaseException as error:  # also SystemExit, which would end the thread and not the attempt
            if isinstance(error, Stopped) and context.cancelled.is_set():
                # The engine wanted it ended, or else the worker has to leave and others shall do it.
                return {"stopped": True} if context._stop else {"returned": True}
            log.info("attempt %s failed", context.attempt, exc_info=True)
            return _failure(type(error).__name__, _text_of(error))
        try:
            return _success(context.attempt, result)
        except (TypeError, ValueError, RecursionError) as error:
            return _failure("result", f"the result cannot be sent: {error}", retryable=False)

    def _payload_of(self, context):
        lease, context._payload = context._payload, None
        if "payload_url" in lease:
            return self._fetch(lease["payload_url"], context)
        encoded = lease.get("payload_base64")
        return lease.get("payload") if encoded is None else base64.b64decode(encoded)

    def _fetch(self, path, context):
        """Gets a payload that is too big to come along: JSON where it is JSON, else bytes."""
        connection = _Connection(self)
        try:
            data = self._call(connection, "GET", path, None, 30.0, lambda: not context.cancelled.is_set(), raw=True)
        except (_Unattached, Refused) as error:
            raise Failure("payload", f"the payload could not be had from {path}: {error or 'there is none'}") from None
        except _Ended:
            raise Stopped from None
        finally:
            connection.close()
        try:
            return json.loads(data)
        except ValueError:
            return data

    def _hear(self, context, news):
        """Notes what a running attempt says."""
        # What is no text must fail here, where its author sees it.
        _json(news).encode()
        with self._listening:
            if context._outcome is not None:
                return
            is_first = context._news is None
            if is_first:
                context._news = {}
            if "checkpoint" in news or "checkpoint_base64" in news:
                context._news.pop("checkpoint", None)
                context._news.pop("checkpoint_base64", None)
            context._news.update(news)
        if is_first:
            self._said.put(context)

    def _end(self, context, outcome):
        """Notes how an attempt ended; only the first time counts."""
        text = outcome if isinstance(outcome, str) else _json({"attempt": context.attempt, **outcome})
        with self._listening:
            if context._outcome is not None:
                return
            context._outcome = text
        self._said.put(context)

    # Reporting.

    def _report_loop(self):
        connection = _Connection(self)
        last = time.monotonic()
        while True:
            said = self._gather(min(last + self._lease_s / 3, self._usage.due()))
            if said or self._attempts or time.monotonic() >= self._usage.due():
                for body, ended in _bodies(*self._take(said), self._usage.tell()):
                    self._report(connection, body, ended)
            last = time.monotonic()

    def _gather(self, until):
        """All that was said, as soon as there is anything and at the latest at that time. Outcomes do not wait; heartbeats a little."""
        said, get = [], self._said.get
        try:
            while True:
                said.append(item := get(timeout=max(0.0, until - time.monotonic())))
                if isinstance(item, str) or item._outcome is not None:
                    break
                if len(said) == 1:
                    until = min(until, time.monotonic() + HEARTBEATS_GATHER_S)
            while True:
                said.append(get(block=False))
        except queue.Empty:
            return said

    def _take(self, said):
        """What is to be sent: heartbeats and outcomes, each as (attempt, JSON text)."""
        (heartbeats, outcomes), self._astray = self._astray, ([], [])
        for item in said:
            if isinstance(item, str):
                outcomes.append((item, _json({"attempt": item, "stopped": True})))
                continue
            with self._listening:
                news, item._news = item._news, None
                outcome = item._outcome
                # An attempt that said something and then ended comes twice.
                item._outcome = outcome and ""
            if news is not None:
                heartbeats.append((item.attempt, _json({"attempt": item.attempt, **news})))
            if outcome:
                if item._hard:
                    outcome = _json({"attempt": item.attempt, "stopped": True})
                outcomes.append((item.attempt, outcome))
        return heartbeats, outcomes

    def _report(self, connection, body, ended):
        """Reports until the engine has answered, through restarts of it."""
        while True:
            with self._registering:
                generation = self._generation
            # Silence longer than the lease costs all attempts, so an answer that is late is asked for again before.
            timeout = min(max(2.0, self._lease_s / 2), 30.0)
            try:
                answer = self._call(connection, "POST", "/report", body, timeout, lambda: not self._leaving)
                break
            except _Unattached:
                self._register(generation, lambda: not self._leaving)
        elsewhere = {one["attempt"] for one in answer.get("elsewhere", ())}
        with self._changed:
            self._fruitless = 0
            for attempt in ended:
                if attempt not in elsewhere:
                    self._attempts.pop(attempt, None)
            if ended:
                self._changed.notify_all()
        self._keep(body, elsewhere)
        for refused in answer.get("refused", ()):
            context = self._attempts.get(refused["attempt"])
            log.info("attempt %s: %s: %s", refused["attempt"], refused.get("reason"), refused.get("detail"))
            if context is not None:
                # Its heartbeat was refused: it is over for the engine.
                context._stop = context._hard = True
                context.cancelled.set()
        self._obey(answer)

    def _keep(self, body, elsewhere):
        """Keeps what no engine could record at this moment; it goes along with the next report, which is due within a third of the lease."""
        if elsewhere:
            said = json.loads(body)
            for kept, kind in zip(self._astray, ("heartbeats", "outcomes")):
                kept += [(one["attempt"], _json(one)) for one in said.get(kind, ()) if one["attempt"] in elsewhere]

    # Calls.

    def _call(self, connection, method, path, body, timeout, is_wanted, registers=False, raw=False):
        """Makes a call until it is answered: its answer. Everything in the protocol may be repeated as it is.

        Raises Refused when repeating will not help, _Unattached when the worker has to register, and _Ended when nobody wants the call any more.
        """
        pause = PAUSE_MIN_S
        path = path if raw else self._path + path
        while is_wanted():
            was_open = connection.is_open()
            try:
                status, data = connection.exchange(method, path, body, timeout)
            except (OSError, http.client.HTTPException) as error:
                log.debug("%s %s: %r", method, path, error)
                # A connection that was open for a while may have been closed by the engine in the meantime: that says nothing about the engine.
                if not was_open:
                    if pause == PAUSE_MIN_S:
                        log.warning("%s %s got no answer (%s); it is repeated", method, path, error or type(error).__name__)
                    pause = self._pause(pause, is_wanted)
                continue
            if status == 200:
                return data if raw else json.loads(data)
            problem = _problem(data)
            if not registers and (status == 404 or _kind(problem) == "unattached"):
                raise _Unattached
            if status < 500 and status not in (408, 429):
                if not is_wanted():
                    break
                raise Refused(method, path, status, problem)
            log.warning("%s %s was answered with %s %s; it is repeated", method, path, status, _kind(problem))
            wait_ms = problem.get("retry_after_ms")
            pause = self._pause(pause, is_wanted, None if wait_ms is None else wait_ms / 1000)
        raise _Ended

    def _pause(self, pause, is_wanted, exactly=None):
        """Waits, a little more or less so that workers do not come all at once; the pause after this one."""
        until = time.monotonic() + (exactly if exactly is not None else pause * random.uniform(0.8, 1.2))
        while is_wanted() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
        return min(pause * 2, self._pause_max())

    def _pause_max(self):
        return min(PAUSE_MAX_S, max(self._lease_s / 3, PAUSE_MIN_S))


class _Connection:
    """A connection that is kept and opened again when it broke. Used by one thread; `sever` may be called by any."""

    def __init__(self, worker):
        self._worker, self._http = worker, None

    def is_open(self):
        return self._http is not None

    def exchange(self, method, path, body, timeout):
        """A request and its answer: status and bytes. OSError and HTTPException say that the answer is unknown."""
        try:
            if self._http is None:
                self._http = self._open(timeout)
            sock = self._http.sock
            sock.settimeout(timeout)
            # Head and body in one packet; HTTPConnection.request would send two.
            sock.sendall(self._head(method, path, body) + (body or b""))
            answer = http.client.HTTPResponse(sock, method=method)
            answer.begin()
            data = answer.read()
            answer.close()
            if answer.will_close:
                self.close()
            return answer.status, data
        except BaseException:
            self.close()
            raise

    def _head(self, method, path, body):
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._worker._address.netloc.rpartition('@')[2]}"]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        if self._worker._token:
            lines.append(f"Authorization: Bearer {self._worker._token}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _open(self, timeout):
        address, tls = self._worker._address, self._worker._tls
        if tls is None:
            connection = http.client.HTTPConnection(address.hostname, address.port, timeout=min(timeout, 5.0))
        else:
            connection = http.client.HTTPSConnection(address.hostname, address.port, timeout=min(timeout, 5.0), context=tls)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection

    def close(self):
        if self._http is not None:
            self._http.close()
            self._http = None

    def sever(self):
        """Ends the exchange that another thread waits for."""
        sock = getattr(self._http, "sock", None)
        if sock is not None:
            try:
                # Of the plain socket also under TLS, whose own shutdown may not be called while another thread reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                pass


class _Usage:
    """What this process and its descendants use of CPU and memory: from /proc; where that is not, CPU of this process and of children that have ended."""

    def __init__(self):
        self.every_s = None  # how often the engine wants to hear it; None where it does not
        self._at, self._cpu = time.monotonic(), _family()[0]

    def due(self):
        """When the engine is to hear it next."""
        return float("inf") if self.every_s is None else self._at + self.every_s

    def tell(self):
        """What is used since it was told last; None where that is too short a time, or nobody wants to hear it."""
        now = time.monotonic()
        over = now - self._at
        if self.every_s is None or over < USAGE_MEASURE_S:
            return None
        cpu, memory = _family()
        told = {"cpu_cores": max(0.0, cpu - self._cpu) / over, "over": f"{int(over * 1000)}ms"}
        self._at, self._cpu = now, cpu
        return told if memory is None else {**told, "memory_bytes": memory}


def _family():
    """Seconds of CPU since the beginning, that of ended children included, and bytes of memory or None."""
    try:
        ticks, pages, family = 0, 0, [os.getpid()]
        for pid in family:
            try:
                with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                    # The name of the program is in brackets and may have any letters.
                    fields = file.read().rpartition(")")[2].split()
                ticks, pages = ticks + sum(map(int, fields[11:15])), pages + int(fields[21])
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                        family += map(int, file.read().split())
            except FileNotFoundError:
                if pid == family[0] and not ticks:
                    raise
        return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return sum(os.times()[:4]), None


def _bodies(heartbeats, outcomes, usage=None):
    """Reports that an engine takes, and which attempts end with each. A heartbeat goes before the outcome of its attempt, in a report of its own."""
    parts, ended, spoke, size = ([], []), [], set(), 0
    for kind, (attempt, text) in [(0, each) for each in heartbeats] + [(1, each) for each in outcomes]:
        length = len(text.encode())
        if size and (size + length > BODY_BYTES_MAX or (kind == 1 and attempt in spoke)):
            yield _body(parts, usage), ended
            parts, ended, spoke, size, usage = ([], []), [], set(), 0, None
        parts[kind].append(text)
        size += length + 1
        if kind == 0:
            spoke.add(attempt)
        else:
            ended.append(attempt)
    yield _body(parts, usage), ended


def _body(parts, usage=None):
    fields = [f'"{name}":[{",".join(texts)}]' for name, texts in zip(("heartbeats", "outcomes"), parts) if texts]
    fields += [f'"usage":{_json(usage)}'] if usage else []
    return ("{" + ",".join(fields) + "}").encode()


def _success(attempt, result):
    """The object that reports a result, as JSON text."""
    more = ""
    if isinstance(result, Partial):
        more, result = f',"outcome":"{result.outcome}"', result.result
    key, value, size = _json_or_base64("result", result)
    if size > RESULT_BYTES_MAX:
        raise ValueError(f"a result has at most {RESULT_BYTES_MAX} bytes, and this one has {size}")
    return f'{{"attempt":{json.dumps(attempt)},"{key}":{value}{more}}}'


def _text_of(error):
    try:
        return str(error)
    except Exception as other:
        return f"the exception has no text: {type(other).__name__}"


def _failure(class_, message="", retryable=None, retry_after=None):
    class_, message = (text.encode(errors="replace").decode() for text in (class_, message[:MESSAGE_CHARS_MAX]))
    failure = {"class": class_, "message": message}
    if retryable is not None:
        failure["retryable"] = bool(retryable)
    if retry_after is not None:
        failure["retry_after"] = f"{round(retry_after * 1000)}ms"
    return {"failure": failure}


def _json_or_base64(key, value):
    """The key under which a value is sent, the value as JSON text, and how many bytes it counts."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{key}_base64", f'"{base64.b64encode(value).decode()}"', len(value)
    text = _json(value)
    # Raises UnicodeEncodeError, a ValueError, for half of a surrogate pair, which is no text.
    return key, text, len(text.encode())


def _json(value):
    # As UTF-8, and without NaN, which is no JSON.
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _problem(data):
    try:
        problem = json.loads(data)
    except ValueError:
        problem = None
    return problem if isinstance(problem, dict) else {"detail": data[:200].decode(errors="replace")}


def _kind(problem):
    """The last part of `urn:ergate:problem:KIND`."""
    return str(problem.get("type", "")).rpartition(":")[2]


def _seconds(span):
    """The seconds of a span such as "500ms", "30s", "5m" or "1h"."""
    for unit, seconds in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)):
        if span.endswith(unit) and span[: -len(unit)].replace(".", "", 1).isdigit():
            return float(span[: -len(unit)]) * seconds
    raise ValueError(f"{span!r} is not a span such as 30s")
