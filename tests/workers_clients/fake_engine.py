"""The engine's side of the worker protocol (docs/worker-protocol.md), in memory, with faults on demand.

As a program it is something to try a worker with: it submits what it is told and prints how everything ends.

    python3 fake_engine.py --port 7420 resize='{"image":"a.png"}' count=20
    python3 fake_engine.py --port 7420 --many 20000 noop=1
"""

import argparse
import base64
import collections
import http.server
import json
import socket
import sys
import threading
import time

PAYLOAD_INLINE_MAX = 256 << 10
BODY_BYTES_MAX = 2 << 20
# How each call may look: its fields, and whether they have to be there.
FIELDS = {
    "PUT": {"protocol", "pool", "slots", "types", "name", "labels", "lease", "running"},
    "lease": {"seq", "slots", "wait"},
    "report": {"outcomes", "heartbeats"},
    "drain": set(),
    "DELETE": set(),
}
ENDS = ("result", "result_base64", "failure", "returned", "stopped")


class Problem(Exception):
    """An answer that is not 200."""

    def __init__(self, status, kind, detail="", **more):
        super().__init__(detail)
        self.status = status
        self.document = {"type": f"urn:ergate:problem:{kind}", "title": kind, "status": status, "detail": detail, **more}


class Lost(Exception):
    """The connection breaks instead of an answer."""


class Task:
    def __init__(self, number, type_, payload, options):
        self.number, self.type, self.payload, self.options = number, type_, payload, options
        self.attempt, self.owner, self.heard = 0, None, 0.0
        self.is_hard_stopped = False  # over for the engine, though the worker still has it
        self.checkpoint = {}  # as the field that carries it
        self.retries = options.pop("retries", 0)
        self.ends = []  # what was taken of reports: more than one is a fault of the engine

    def id(self):
        return f"0-{self.number}.{self.attempt}"


class Session:
    def __init__(self, facts):
        self.facts, self.slots, self.lease_s = facts, facts.get("slots", 1), seconds(facts.get("lease", "5s"))
        self.attached, self.draining, self.seen, self.wait = False, False, time.monotonic(), 0
        self.answered, self.orders = (0, None), []
        self.coming = []  # tasks that were on their way when it was drained


class FakeEngine:
    """`faults` has, by call (PUT, lease, report, drain, DELETE), what shall happen to the next ones: None, "lose" (processed, not answered), "drop"
    (neither), "forget" (404 from here on), "unattach" (409), or a Problem. `strange` collects what no worker should do."""

    def __init__(self, port=0):
        self.lock = threading.Condition()
        self.tasks, self.ready, self.sessions = [], collections.deque(), {}
        self.running = {}  # the tasks that have an owner, by their numbers
        self.faults = collections.defaultdict(collections.deque)
        self.calls, self.strange, self.refused, self.gone, self.ended = [], [], [], [], 0
        self.moving = 0  # how many pieces of news nobody records, as their tasks move from one engine to another
        self.forbidden, self.epoch, self.tokens = False, 1, set()
        handler = type("Handler", (_Handler,), {"engine": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.server.handle_error = self._handle_error
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        for loop in (lambda: self.server.serve_forever(poll_interval=0.02), self._expire):
            threading.Thread(target=loop, daemon=True).start()

    def _handle_error(self, *_):
        """A connection may break; everything else is a worker that sends what cannot be understood."""
        if not isinstance(error := sys.exc_info()[1], ConnectionError):
            self.strange.append(repr(error))

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    # What a test does.

    def submit(self, type_, payload=None, is_ready=True, **options):
        with self.lock:
            self.tasks.append(task := Task(len(self.tasks), type_, payload, options))
            if is_ready:
                self.ready.append(task)
            self.lock.notify_all()
        return task

    def stop(self, task, hard):
        """Cancels a task that runs, or ends it as one whose time is over."""
        with self.lock:
            task.is_hard_stopped = hard
            self.sessions[task.owner].orders.append({"attempt": task.id(), "hard": hard})
            self.lock.notify_all()

    def drain(self, coming=()):
        """Gives workers nothing more, but for tasks that are on their way: one in each answer."""
        with self.lock:
            for session in self.sessions.values():
                session.draining, session.coming = True, list(coming)
            self.lock.notify_all()

    def until(self, what, timeout=10.0):
        """Waits until that holds; whether it came to that."""
        with self.lock:
            return self.lock.wait_for(what, timeout)

    def bodies(self, call):
        with self.lock:
            return [body for _, name, body in self.calls if name == call]

    # The protocol.

    def answer(self, method, path, data, authorization):
        parts = path.strip("/").split("/")
        if parts[0] == "payloads":
            return self.tasks[int(parts[1])].payload
        call = parts[3] if len(parts) > 3 else method
        body = json.loads(data) if data else {}
        with self.lock:
            self.calls.append((time.monotonic(), call, body))
            if len(data) > BODY_BYTES_MAX:
                raise Problem(413, "too-large", f"a body has at most {BODY_BYTES_MAX} bytes")
            fault = self.faults[call].popleft() if self.faults[call] else None
            if fault == "drop":
                raise Lost
            if isinstance(fault, Problem):
                raise fault
            if self.forbidden or (self.tokens and authorization not in self.tokens):
                raise Problem(403, "forbidden", "the token has no scope `work`")
            for unknown in set(body) - FIELDS[call]:
                self._strange(f"{call} has a field `{unknown}`")
            if fault == "forget":
                self.sessions.pop(parts[2], None)
                self.epoch += 1
            elif fault == "unattach" and parts[2] in self.sessions:
                self.sessions[parts[2]].attached = False
            answer = {"PUT": self._put, "lease": self._lease, "report": self._report, "drain": self._drain, "DELETE": self._delete}[call](parts[2], body)
            self.lock.notify_all()
            if fault == "lose":
                raise Lost
            return answer

    def _strange(self, what):
        self.strange.append(what)
        raise Problem(422, "invalid", what)

    def _session(self, id_):
        session = self.sessions.get(id_)
        if session is None:
            raise Problem(404, "not-found", "no worker has this id")
        if not session.attached:
            raise Problem(409, "unattached", "register again, with all that is running")
        session.seen = time.monotonic()
        return session

    def _own(self, id_):
        return [task for task in self.running.values() if task.owner == id_]

    def _put(self, id_, body):
        if body.get("protocol") != 1:
            raise Problem(422, "invalid", "this engine speaks protocol 1")
        facts = {key: value for key, value in body.items() if key not in ("running", "name")}
        session = self.sessions.setdefault(id_, Session(facts))
        if session.facts != facts:
            raise Problem(409, "conflict", "a worker of this id is known with other facts")
        running, own = body.get("running", []), self._own(id_)
        for task in own:
            if task.id() not in running:
                self._again(task)
        session.attached, session.answered, session.orders, session.seen = True, (0, None), [], time.monotonic()
        session.wait += 1
        known = {task.id() for task in own if not task.is_hard_stopped}
        stop = [{"attempt": attempt, "hard": True} for attempt in running if attempt not in known]
        return {"protocol": 1, "lease": session.facts.get("lease", "5s"), "wait_max": "1m", "stop": stop, "drain": session.draining}

    def _lease(self, id_, body):
        session = self._session(id_)
        seq, last = body["seq"], session.answered[0]
        if seq == last and session.answered[1] is not None:
            return session.answered[1]
        if seq != last + 1:
            # Not strange: a question that was on its way when the worker registered may come after that.
            raise Problem(409, "out-of-order", f"question {seq} is out of order, {last + 1} is next")
        free = session.slots - len(self._own(id_))
        if body["slots"] > max(free, 0):
            self._strange(f"{body['slots']} slots were asked for, {free} are free")
        session.wait += 1
        wait, session.answered = session.wait, (last, None)
        self.lock.notify_all()
        until = time.monotonic() + seconds(body.get("wait", "0s"))
        while True:
            if self.sessions.get(id_) is not session or not session.attached:
                raise Problem(409, "unattached", "register again, with all that is running")
            if session.wait != wait:
                raise Problem(409, "superseded", "the same worker has asked again since")
            attempts = self._give(id_, session, body["slots"])
            if session.coming:
                self.ready.appendleft(session.coming.pop(0))
                attempts = self._give(id_, session, 1, is_late=True)
            if attempts or session.orders or session.draining or not self.lock.wait(max(0.0, until - time.monotonic())):
                break
        answer = {"seq": seq, "attempts": attempts, **self._news(session)}
        answer["drain"] &= not session.coming
        session.answered = (seq, answer)
        return answer

    def _news(self, session):
        stop, session.orders = session.orders, []
        return {"stop": stop, "drain": session.draining}

    def _give(self, id_, session, slots, is_late=False):
        attempts, others = [], []
        while self.ready and len(attempts) < slots and (is_late or not session.draining):
            task = self.ready.popleft()
            if task.type not in session.facts.get("types", [task.type]):
                others.append(task)
                continue
            task.attempt, task.owner, task.heard, task.is_hard_stopped = task.attempt + 1, id_, time.monotonic(), False
            self.running[task.number] = task
            attempts.append({"attempt": task.id(), "task": f"0-{task.number}", "number": task.attempt, "fence": f"{self.epoch}.{task.attempt}",
                             "type": task.type, "deadline": "2099-03-01T12:00:30Z", "timeout_ms": 30000,
                             **payload_field(task), **task.options, **task.checkpoint})
        self.ready.extend(others)
        return attempts

    def _report(self, id_, body):
        session, taken, refused, elsewhere = self._session(id_), 0, [], []
        for kind in ("heartbeats", "outcomes") if self.moving else ():
            news = body.get(kind, [])
            moving, body[kind] = news[:self.moving], news[self.moving:]
            self.moving -= len(moving)
            elsewhere += [{"attempt": one["attempt"]} for one in moving]
        for outcome in body.get("outcomes", []):
            if sum(end in outcome for end in ENDS) != 1:
                self._strange(f"an outcome has not one end: {outcome}")
            task = self._current(id_, outcome["attempt"], refused)
            if task is None:
                continue
            taken += 1
            if outcome.get("returned") or ("failure" in outcome and task.retries):
                task.retries -= "failure" in outcome
                self._again(task)
            else:
                self._release(task)
                self.ended += 1
                task.ends.append(outcome)
        # After the outcomes, which is the harder order for a worker: nothing says which it is.
        for heartbeat in body.get("heartbeats", []):
            task = self._current(id_, heartbeat["attempt"], refused)
            if task:
                task.heard, taken = time.monotonic(), taken + 1
                kept = {key: value for key, value in heartbeat.items() if key.startswith("checkpoint")}
                task.checkpoint = kept or task.checkpoint
        self.refused += refused
        return {"taken": taken, "refused": refused, **({"elsewhere": elsewhere} if elsewhere else {}), **self._news(session)}

    def _current(self, id_, attempt, refused):
        """The task whose current attempt this is, unless it is refused."""
        number = int(attempt.split("-")[1].split(".")[0])
        task = self.tasks[number]
        if task.id() == attempt and task.owner == id_:
            if not task.is_hard_stopped:
                return task
            # What does not count any more gives its slot back.
            self._release(task)
        refused.append({"attempt": attempt, "reason": "stale-attempt", "detail": f"{attempt} is not the current attempt; its report was refused"})
        return None

    def _release(self, task):
        task.owner = None
        del self.running[task.number]

    def _again(self, task):
        self._release(task)
        if not task.is_hard_stopped:
            self.ready.append(task)

    def _drain(self, id_, _):
        self._session(id_).draining = True
        return {"stop": [], "drain": True}

    def _delete(self, id_, _):
        if self.sessions.pop(id_, None):
            self.gone.append(id_)
        for task in self._own(id_):
            self._again(task)
        return {"stop": [], "drain": True}

    def _expire(self):
        """Takes attempts from workers that are silent, and ends those whose heartbeat is late."""
        while True:
            time.sleep(0.02)
            with self.lock:
                now = time.monotonic()
                for id_, session in self.sessions.items():
                    own = self._own(id_) if session.attached else []
                    if own and now - max(session.seen, *(task.heard for task in own)) > session.lease_s:
                        session.attached = False
                        for task in own:
                            self._again(task)
                        self.lock.notify_all()
                for task in self.running.values():
                    late = task.options.get("heartbeat_ms", 1e12) / 1000
                    if task.owner in self.sessions and not task.is_hard_stopped and now - task.heard > late:
                        task.is_hard_stopped = True
                        self.sessions[task.owner].orders.append({"attempt": task.id(), "hard": True})
                        self.lock.notify_all()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine = None

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle_any(self):
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if len(data) < int(self.headers.get("Content-Length", 0)):
            raise ConnectionError("the worker was killed in the middle of a request")
        status, kind = 200, "application/json"
        try:
            answer = self.engine.answer(self.command, self.path, data, self.headers.get("Authorization"))
        except Problem as problem:
            answer, status, kind = problem.document, problem.status, "application/problem+json"
        except Lost:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)

    do_GET = do_PUT = do_POST = do_DELETE = handle_any

    def log_message(self, *_):
        pass


def payload_field(task):
    if isinstance(task.payload, bytes):
        if len(task.payload) > PAYLOAD_INLINE_MAX:
            return {"payload_url": f"/payloads/{task.number}"}
        return {"payload_base64": base64.b64encode(task.payload).decode()}
    return {"payload": task.payload}


def seconds(span):
    return float(span[:-2]) / 1000 if span.endswith("ms") else float(span[:-1]) * {"s": 1, "m": 60, "h": 3600}[span[-1]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=7420)
    parser.add_argument("--many", type=int, default=1, help="how often each task is submitted")
    parser.add_argument("tasks", nargs="+", metavar="TYPE=JSON")
    arguments = parser.parse_args()
    engine = FakeEngine(arguments.port)
    for text in arguments.tasks * arguments.many:
        type_, _, payload = text.partition("=")
        engine.submit(type_, json.loads(payload))
    print(f"listening on {engine.url}", flush=True)
    engine.until(lambda: any(task.attempt for task in engine.tasks), None)
    begun = time.monotonic()
    engine.until(lambda: engine.ended == len(engine.tasks), None)
    took = time.monotonic() - begun
    for task in engine.tasks[:20]:
        print(f"0-{task.number} {task.type}: {json.dumps(task.ends[0])}")
    print(f"{len(engine.tasks)} ended in {took:.2f} s, {len(engine.tasks) / took:.0f}/s, {len(engine.calls)} calls", flush=True)
    engine.until(lambda: engine.gone, None)


if __name__ == "__main__":
    main()
