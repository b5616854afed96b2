"""Runs the workers of examples/workers/ as child processes against a fake engine that loses, refuses and forgets.

    python3 tests/workers_clients/test_clients.py           both, at the same time
    python3 tests/workers_clients/test_clients.py Python    one of them
"""

import collections
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from fake_engine import FakeEngine, Problem

HERE = pathlib.Path(__file__).parent


class Clients:
    """What holds for every client; `program` runs it."""

    program = None

    def setUp(self):
        self.engine = FakeEngine()
        self.directory = tempfile.TemporaryDirectory()
        self.runs = pathlib.Path(self.directory.name, "runs")
        self.runs.touch()
        self.child = None

    def tearDown(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.communicate()
        self.engine.close()
        self.directory.cleanup()
        self.assertEqual(self.engine.strange, [])

    def start(self, env=(), **options):
        options = {"pool": "models", "slots": 8, "lease": "600ms", **options}
        self.child = subprocess.Popen([*self.program, self.engine.url, json.dumps(options)], stderr=subprocess.PIPE, text=True,
                                      env={**os.environ, "RUNS": str(self.runs), **dict(env)})

    def until(self, what, timeout=8.0):
        if not self.engine.until(what, timeout):
            self.child.kill()
            calls = [(call, body) for _, call, body in self.engine.calls][-10:]
            self.fail(f"it did not come to that; the worker said: {self.child.stderr.read()}; strange: {self.engine.strange}; last calls: {calls}")

    def until_ended(self, *tasks):
        self.until(lambda: all(task.ends for task in tasks))
        return [task.ends[0] for task in tasks]

    def until_running(self, *tasks):
        """Until their functions have begun."""
        self.until(lambda: all(task.owner for task in tasks))
        began = time.monotonic()
        while not {task.id() for task in tasks} <= set(self.runs.read_text().split()):
            self.assertLess(time.monotonic(), began + 5, "the function did not begin")
            time.sleep(0.01)

    def leave(self):
        """Asks the worker to leave, and waits until it has: its status and what it said."""
        self.child.send_signal(signal.SIGTERM)
        return self.left()

    def left(self):
        said = self.child.communicate(timeout=8)[1]
        return self.child.returncode, said

    def ends_of(self, type_, *payloads):
        tasks = [self.engine.submit(type_, payload) for payload in payloads]
        return self.until_ended(*tasks)

    # Tests.

    def test_what_nobody_records_is_reported_again(self):
        self.engine.moving = 40
        self.start()
        numbers = list(range(60))
        self.assertEqual([end["result"] for end in self.ends_of("echo", *numbers)], numbers)
        self.assertEqual(self.engine.moving, 0)
        status, said = self.leave()
        self.assertEqual((status, self.engine.refused), (0, []), said)

    def test_every_task_ends_once_under_lost_answers(self):
        busy = Problem(503, "busy", "come again", retry_after_ms=20)
        for call, faults in {"PUT": ["drop", "lose", busy], "lease": [None, "lose", busy, "drop", "lose", "lose"],
                             "report": ["lose", "drop", None, busy, "lose", None, Problem(429, "busy"), "lose"], "DELETE": ["lose"]}.items():
            self.engine.faults[call].extend(faults)
        self.engine.faults["report"].extend(itertools.repeat("lose", 2))
        tasks = [self.engine.submit("echo", number) for number in range(300)]
        self.start()
        results = [end["result"] for end in self.until_ended(*tasks)]
        self.assertEqual(results, list(range(300)))
        self.assertEqual(self.leave()[0], 0)
        runs = collections.Counter(self.runs.read_text().split())
        self.assertEqual(runs, collections.Counter(f"0-{number}.1" for number in range(300)))
        self.assertTrue(all(len(task.ends) == 1 for task in tasks))

    def test_a_busy_engine_is_asked_again_when_it_said(self):
        self.engine.faults["lease"].append(Problem(503, "busy", "come again", retry_after_ms=700))
        self.start()
        self.until(lambda: len(self.engine.bodies("lease")) >= 2)
        first, second = [at for at, call, _ in self.engine.calls if call == "lease"][:2]
        self.assertGreater(second - first, 0.68)
        self.assertLess(second - first, 1.2)

    def test_signs_of_life_come_every_third_of_the_lease(self):
        task = self.engine.submit("sleep", 2.0)
        self.start(slots=1)
        self.until_running(task)
        self.until_ended(task)
        times = [at for at, call, _ in self.engine.calls if call == "report"]
        self.assertEqual(task.attempt, 1)
        self.assertIn(len(times), range(8, 13))
        self.assertLess(max(later - earlier for earlier, later in zip(times, times[1:])), 0.4)

    def test_an_idle_worker_says_nothing(self):
        self.start()
        self.until(lambda: self.engine.bodies("lease"))
        time.sleep(0.8)
        self.assertEqual(self.engine.bodies("report"), [])

    def test_heartbeats_are_those_of_the_function(self):
        lively = self.engine.submit("beat", 10, heartbeat_ms=400)
        silent = self.engine.submit("sleep", 1.0, heartbeat_ms=400)
        self.start()
        self.until_ended(lively)
        self.until(lambda: silent.owner is None)
        self.assertEqual((lively.attempt, silent.ends), (1, []))
        said = [beat for body in self.engine.bodies("report") for beat in body.get("heartbeats", ())]
        self.assertEqual({beat["attempt"] for beat in said}, {lively.id()})
        self.assertIn({"percent": 30, "stage": "beating", "message": "3"}, [beat.get("progress") for beat in said])
        self.assertIn({"attempt": silent.id(), "stopped": True}, [end for body in self.engine.bodies("report") for end in body.get("outcomes", ())])

    def test_an_engine_that_forgot_is_told_what_runs(self):
        for number, fault in enumerate(("unattach", "forget")):
            with self.subTest(fault):
                tasks = [self.engine.submit("sleep", 0.7) for _ in range(2)]
                if not number:
                    self.start(slots=2)
                self.until_running(*tasks)
                self.engine.faults["report"].append(fault)
                self.until(lambda: len(self.engine.bodies("PUT")) == number + 2)
                self.assertEqual(set(self.engine.bodies("PUT")[-1]["running"]), {task.id() for task in tasks})
                self.until_ended(*tasks)
                self.assertEqual([task.attempt for task in tasks], [1, 1])
                self.assertEqual(self.ends_of("echo", number)[0]["result"], number)

    def test_an_outcome_outlives_the_engine_that_did_not_take_it(self):
        self.engine.faults["report"].append("forget")
        task = self.engine.submit("echo", 1)
        self.start()
        self.until_ended(task)
        self.assertEqual(task.attempt, 1)
        self.assertEqual(self.engine.bodies("PUT")[1]["running"], [task.id()])

    def test_a_forgotten_question_begins_again_with_one(self):
        self.start()
        self.ends_of("echo", 1, 2)
        self.engine.faults["lease"].extend(["unattach", "forget"])
        self.ends_of("echo", 3, 4, 5)
        self.until(lambda: len(self.engine.bodies("PUT")) >= 3)
        self.ends_of("echo", 6)

    def test_who_was_silent_too_long_begins_again(self):
        task = self.engine.submit("sleep", 0.4)
        self.start()
        self.until_running(task)
        self.child.send_signal(signal.SIGSTOP)
        self.until(lambda: task.owner is None)
        self.child.send_signal(signal.SIGCONT)
        self.until_ended(task)
        self.assertEqual((task.attempt, len(task.ends)), (2, 1))

    def test_a_soft_stop_asks_the_function(self):
        tasks = [self.engine.submit("wait", "stop"), self.engine.submit("wait", "tidy")]
        self.start()
        self.until_running(*tasks)
        for task in tasks:
            self.engine.stop(task, hard=False)
        stopped, tidied = self.until_ended(*tasks)
        self.assertEqual(stopped, {"attempt": tasks[0].id(), "stopped": True})
        self.assertEqual(tidied["result"], "tidied")

    def test_a_hard_stop_drops_the_outcome(self):
        task = self.engine.submit("wait", "tidy")
        self.start(slots=1)
        self.until_running(task)
        self.engine.stop(task, hard=True)
        self.until(lambda: task.owner is None)
        ends = [end for body in self.engine.bodies("report") for end in body.get("outcomes", ())]
        self.assertEqual(ends, [{"attempt": task.id(), "stopped": True}])
        # The slot is free again.
        self.assertEqual(self.ends_of("echo", 1)[0]["result"], 1)

    def test_what_is_stopped_and_does_not_run_is_said_to_have_stopped(self):
        self.start()
        self.ends_of("echo", 1)
        with self.engine.lock:
            next(iter(self.engine.sessions.values())).orders.append({"attempt": "0-0.9", "hard": True})
            self.engine.lock.notify_all()
        self.until(lambda: {"outcomes": [{"attempt": "0-0.9", "stopped": True}]} in self.engine.bodies("report"))
        self.assertEqual(self.ends_of("echo", 2)[0]["result"], 2)

    def test_sigterm_drains_and_returns_the_rest(self):
        short, long = self.engine.submit("sleep", 0.5), self.engine.submit("sleep", 60)
        self.start(drain=1.0)
        self.until_running(short, long)
        self.assertEqual(self.leave()[0], 0)
        self.assertEqual((short.ends[0]["result"], long.ends), ("slept", []))
        calls = [call for _, call, _ in self.engine.calls]
        after = [body for _, call, body in self.engine.calls[calls.index("drain"):] if call == "lease"]
        self.assertEqual({body["slots"] for body in after} - {0}, set(), "it asks for nothing more")
        self.assertEqual(self.engine.bodies("report")[-1], {"outcomes": [{"attempt": long.id(), "returned": True}]})
        self.assertEqual(calls[-1], "DELETE")

    def test_a_second_sigterm_does_not_wait(self):
        task = self.engine.submit("sleep", 60)
        self.start(drain=30)
        self.until_running(task)
        self.child.send_signal(signal.SIGTERM)
        self.until(lambda: self.engine.bodies("drain"))
        self.assertEqual(self.leave()[0], 0)
        self.assertEqual(self.engine.bodies("report")[-1], {"outcomes": [{"attempt": task.id(), "returned": True}]})
        self.assertEqual(len(self.engine.gone), 1)

    def test_a_drained_worker_ends_what_runs_and_leaves(self):
        task = self.engine.submit("sleep", 1.6)
        self.start(drain=0.1)
        self.until_running(task)
        self.engine.drain()
        self.assertEqual(self.left()[0], 0)
        self.assertEqual(task.ends[0]["result"], "slept")
        self.assertEqual(len(self.engine.gone), 1)
        self.assertLess(len(self.engine.calls), 20)

    def test_what_is_on_its_way_when_a_worker_is_drained_is_done(self):
        first, late = self.engine.submit("sleep", 0.9), [self.engine.submit("sleep", 0.1, is_ready=False) for _ in range(2)]
        self.start(slots=1)
        self.until_running(first)
        self.engine.drain(coming=late)
        self.assertEqual(self.left()[0], 0)
        self.assertEqual([task.ends[0]["result"] for task in (first, *late)], ["slept"] * 3)
        self.assertEqual([task.attempt for task in late], [1, 1])

    def test_what_functions_throw_becomes_failures(self):
        self.start()
        raised, failed, unsendable, long, partial, skipped = self.ends_of("end", "raise", "fail", "unsendable", "long", "partial", "skipped")
        self.assertEqual(raised["failure"], {"class": "KeyError", "message": "'nothing here'"})
        self.assertEqual(failed["failure"], {"class": "rate-limited", "message": "come later", "retryable": True, "retry_after": "10000ms"})
        for end in (unsendable, long):
            self.assertEqual((end["failure"]["class"], end["failure"]["retryable"]), ("result", False))
        self.assertEqual((partial["outcome"], partial["result"]), ("PARTIAL", [1]))
        self.assertEqual((skipped["outcome"], skipped["result"]), ("SKIPPED", None))

    def test_payloads_and_results_of_every_form(self):
        text = {"text": "größer 😀", "list": [1, 2.5, None]}
        self.start()
        echoed, raw = self.ends_of("echo", text, b"\xff\xfe")
        self.assertEqual(echoed["result"], text)
        self.assertEqual(raw["result_base64"], "//4=")
        large = b"\xff" * 300_000, json.dumps("ä" * 200_000).encode()
        self.assertEqual([end["result"] for end in self.ends_of("size", *large)], [[True, 300_000], [False, 200_000]])

    def test_large_results_are_split_over_reports(self):
        self.start(slots=12)
        self.ends_of("echo", *["x" * 700_000] * 12)

    def test_a_checkpoint_reaches_the_next_attempt(self):
        tasks = [self.engine.submit("resume", form, retries=1) for form in ("json", "bytes")]
        self.start()
        json_, bytes_ = self.until_ended(*tasks)
        self.assertEqual((json_["result"], bytes_["result_base64"]), ({"done": 3}, "/wA="))
        self.assertEqual([task.attempt for task in tasks], [2, 2])

    def test_a_worker_without_permission_says_so(self):
        self.engine.forbidden = True
        self.start()
        status, said = self.left()
        self.assertEqual(status, 1)
        self.assertIn("403 forbidden: the token has no scope `work`", said)
        self.assertEqual(len(self.engine.calls), 1)

    def test_permission_that_is_withdrawn_ends_the_worker(self):
        self.start()
        self.ends_of("echo", 1)
        self.engine.forbidden = True
        self.engine.faults["lease"].append(Problem(403, "forbidden", "not any more"))
        self.engine.submit("echo", 2)
        status, said = self.left()
        self.assertEqual(status, 1)
        self.assertIn("403 forbidden", said)

    def test_the_token_comes_from_a_file(self):
        token = pathlib.Path(self.directory.name, "token")
        token.write_text("s3cret\n")
        self.engine.tokens = {"Bearer s3cret"}
        self.start(env={"ERGATE_TOKEN_FILE": str(token)})
        self.ends_of("echo", 1)


class Python(Clients, unittest.TestCase):
    program = [sys.executable, str(HERE / "worker.py")]


class Node(Clients, unittest.TestCase):
    program = ["node", str(HERE / "worker.mjs")]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        unittest.main()
    # They wait more than they compute.
    sys.exit(any([run.wait() for run in [subprocess.Popen([sys.executable, __file__, name]) for name in ("Python", "Node")]]))
