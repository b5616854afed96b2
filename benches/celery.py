#!/usr/bin/env python3
"""Python workers of Ergate beside those of Celery with Redis: benches/celery.py target/release/ergate [TASKS [ROUNDS]].

Needs `redis-server` and a network, for Celery is installed into a temporary environment. No-op tasks that wait already, 20,000 unless told otherwise, go through
one worker; each side keeps the result of every task as it does by default: Celery in Redis, which writes to disk now and then; Ergate in its log, synced
before anybody hears of it. All of them take turns. On a busy machine Celery, which asks Redis for each task, suffers more than Ergate, which asks for many.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ERGATE = os.path.abspath(sys.argv[1])
TASKS = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 3
ROOT = pathlib.Path(__file__).resolve().parents[1]
# How long anything may take on a busy machine before it is given up.
PATIENCE_S = 180
APP = """
import os
from celery import Celery
app = Celery("app", broker=os.environ["BROKER"], backend=os.environ.get("BACKEND"))
app.conf.update(worker_prefetch_multiplier=10_000, task_ignore_result=False, broker_connection_retry_on_startup=True)
@app.task(name="noop")
def noop():
    return None
"""
# Without a backend of its own: it would subscribe to every result.
FILL = "import sys, app\nfor _ in range(int(sys.argv[1])): app.noop.apply_async()"
PYTHON = """
import sys
sys.path.insert(0, sys.argv[3])
from ergate_worker import Worker
worker = Worker(sys.argv[1], slots=int(sys.argv[2]))
worker.task("noop")(lambda payload, context: None)
worker.run()
"""


@contextlib.contextmanager
def running(command, **options):
    """A process group that is ended in any case."""
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        for name in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, name)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


def rate(done, process):
    """Tasks a second, from the first that are seen to be done to the last; starting a worker is no part of it."""
    given_up = time.monotonic() + PATIENCE_S
    first = None
    while (count := done()) < TASKS:
        if first is None and count:
            first = (time.monotonic(), count)
        if time.monotonic() > given_up or process.poll() is not None:
            raise SystemExit(f"{count} of {TASKS} were done, and then no more")
        time.sleep(0.005)
    began, count = first or (0, TASKS)
    if count == TASKS:
        raise SystemExit("all of it was done at once: take more tasks")
    return (TASKS - count) / (time.monotonic() - began)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Redis:
    """A connection for what is looked at while others are measured."""

    def __init__(self, port):
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.file = socket.create_connection(("127.0.0.1", port), 10).makefile("rwb")
                return
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def ask(self, command):
        self.file.write(command.encode() + b"\r\n")
        self.file.flush()
        return self.file.readline().decode().strip()


def celery(venv, pool):
    with tempfile.TemporaryDirectory() as home:
        pathlib.Path(home, "app.py").write_text(APP)
        port = free_port()
        url = f"redis://127.0.0.1:{port}"
        env = dict(os.environ, BROKER=f"{url}/0", PYTHONPATH=home)
        with running(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", home]):
            redis = Redis(port)
            subprocess.run([venv / "bin/python", "-c", FILL, str(TASKS)], env=env, check=True, timeout=PATIENCE_S)
            assert redis.ask("LLEN celery") == f":{TASKS}", "not all tasks wait"
            # Results are alone in this one.
            assert redis.ask("SELECT 1") == "+OK"
            command = [venv / "bin/celery", "-A", "app", "worker", f"--pool={pool}", "--concurrency=2", "--loglevel=ERROR"]
            command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
            env["BACKEND"] = f"{url}/1"
            with running(command, env=env, cwd=home, stderr=subprocess.DEVNULL) as worker:
                return rate(lambda: int(redis.ask("DBSIZE")[1:]), worker)


def ergate(slots):
    with tempfile.TemporaryDirectory() as home:
        config = pathlib.Path(home, "ergate.toml")
        config.write_text('[pool.default]\nfleet = "external"\n')
        command = [ERGATE, "up", "--data", f"{home}/data", "--config", config, "--listen", "127.0.0.1:0"]
        env = dict(os.environ, ERGATE_LOG_FORMAT="pretty")
        with running(command, stderr=subprocess.PIPE, text=True, env=env) as engine:
            url = engine.stderr.readline().split(";")[0].split()[-1]
            lines = urllib.request.Request(f"{url}/v1/tasks", b'{"type":"noop"}\n' * TASKS, {"content-type": "application/x-ndjson"})
            assert json.load(urllib.request.urlopen(lines, timeout=PATIENCE_S))["accepted"] == TASKS
            command = [sys.executable, "-c", PYTHON, url, str(slots), ROOT / "examples/workers/python"]
            with running(command) as worker:
                return rate(lambda: TASKS - json.load(urllib.request.urlopen(f"{url}/v1/state", timeout=PATIENCE_S))["live"], worker)


def main():
    # Whoever ends this ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    with tempfile.TemporaryDirectory() as home:
        venv = pathlib.Path(home, "venv")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=PATIENCE_S)
        subprocess.run([venv / "bin/pip", "install", "--quiet", "celery[redis]"], check=True, timeout=PATIENCE_S)
        version = subprocess.run([venv / "bin/celery", "--version"], capture_output=True, text=True, timeout=PATIENCE_S).stdout.split()[0]
        redis = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, timeout=PATIENCE_S).stdout.split()[2][2:]
        sides = {
            "celery, prefork, 2 processes": lambda: celery(venv, "prefork"),
            "celery, 2 threads": lambda: celery(venv, "threads"),
            "ergate, 64 threads": lambda: ergate(64),
            "ergate, 512 threads": lambda: ergate(512),
        }
        rates = {name: [] for name in sides}
        for number in range(ROUNDS):
            for name, side in sides.items():
                rates[name].append(side())
                load = os.getloadavg()[0]
                print(f"round {number + 1}: {name}: {rates[name][-1]:.0f} tasks/s, load {load:.1f}", file=sys.stderr, flush=True)
    medians = {name: statistics.median(all) for name, all in rates.items()}
    best = max(median for name, median in medians.items() if name.startswith("celery"))
    print(f"{TASKS} no-op tasks, Python {sys.version.split()[0]}, celery {version}, redis {redis}, {os.cpu_count()} cores, medians of {ROUNDS}")
    for name, median in medians.items():
        low, high = min(rates[name]), max(rates[name])
        print(f"{name:30} {median:8.0f} tasks/s ({low:.0f} to {high:.0f})   {median / best:5.1f} x the faster celery")


main()
