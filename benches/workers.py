#!/usr/bin/env python3
"""What workers cost: benches/workers.py target/release/ergate [rate|latency|death|idle|python]... (all of them without a name).

Engine, workers and client share this machine. `rate`: 1,000,000 no-op tasks that wait already, through one `ergate worker` with 8,192 slots. `latency`:
1,000 requests a second over HTTP, from `requested` to `succeeded` as the log has them. `death`: 100 running attempts whose worker is killed. `idle`: 5,000
workers that wait. `python`: 100,000 no-op tasks through `examples/workers/python`.
"""

import asyncio
import http.client
import json
import os
import pathlib
import resource
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request

ERGATE = os.path.abspath(sys.argv[1])
ROOT = pathlib.Path(__file__).parents[1]
PYTHON = """
import sys
sys.path.insert(0, sys.argv[3])
from ergate_worker import Worker
worker = Worker(sys.argv[1], slots=int(sys.argv[2]))
worker.task("noop")(lambda payload, context: None)
worker.run()
"""


class Engine:
    def __init__(self, connections=1024):
        self.home = tempfile.TemporaryDirectory()
        config = pathlib.Path(self.home.name, "ergate.toml")
        config.write_text(f'[pool.default]\nfleet = "external"\n[http]\nconnections_max = {connections}\n')
        self.data = f"{self.home.name}/data"
        command = [ERGATE, "up", "--data", self.data, "--config", str(config), "--listen", "127.0.0.1:0"]
        env = dict(os.environ, ERGATE_LOG_FORMAT="pretty")
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
        self.url = self.process.stderr.readline().split(";")[0].split()[-1]

    def ask(self, path, body=None):
        request = urllib.request.Request(self.url + path, data=body, headers={"content-type": "application/x-ndjson"})
        return json.load(urllib.request.urlopen(request))

    def live(self):
        return self.ask("/v1/state")["live"]

    def worker(self, *args):
        command = [ERGATE, "worker", "--engine", self.url, "--config", "/dev/null", *args]
        worker = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        worker.stderr.readline()
        return worker

    def stat(self):
        """Megabytes and seconds of CPU of the engine."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text().split("VmRSS:")[1].split()[0]
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(status) / 1024, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        """Ends it and gives the events of its log."""
        self.process.terminate()
        self.process.wait()
        export = subprocess.run([ERGATE, "log", "export", "--data", self.data], capture_output=True, text=True, check=True)
        return map(json.loads, export.stdout.splitlines())


def drained(engine, tasks):
    while engine.live() == tasks:
        time.sleep(0.001)
    began, left = time.time(), engine.live()
    while engine.live():
        time.sleep(0.02)
    return round(left / (time.time() - began))


def rate():
    engine = Engine()
    engine.ask("/v1/tasks", b'{"type":"noop"}\n' * 1_000_000)
    worker = engine.worker("--type", "noop", "--slots", "8192")
    print(f"rate: {drained(engine, 1_000_000)} tasks/s")
    worker.terminate(), worker.wait(), engine.process.terminate()


def python():
    for slots in ("64", "512"):
        engine = Engine()
        engine.ask("/v1/tasks", b'{"type":"noop"}\n' * 100_000)
        worker = subprocess.Popen([sys.executable, "-c", PYTHON, engine.url, slots, str(ROOT / "examples/workers/python")])
        print(f"python, {slots} slots: {drained(engine, 100_000)} tasks/s")
        worker.terminate(), worker.wait(), engine.process.terminate()


def latency():
    engine = Engine()
    worker = engine.worker("--type", "noop", "--slots", "64")
    client = http.client.HTTPConnection(engine.url.split("//")[1])
    began = time.time()
    for number in range(15_000):
        while time.time() < began + number / 1_000:
            time.sleep(0.0001)
        client.request("POST", "/v1/tasks", b'{"type":"noop"}', {"content-type": "application/json"})
        client.getresponse().read()
    worker.terminate(), worker.wait()
    requested, waits = {}, []
    for event in engine.end():
        if event["event"] == "requested":
            requested[event["task"]] = event["recorded_at"]
        elif event["event"] == "succeeded":
            waits.append((event["recorded_at"] - requested[event["task"]]) / 1_000)
    waits.sort()
    print(f"latency: p50 {waits[len(waits) // 2]} ms, p99 {waits[len(waits) * 99 // 100]} ms of {len(waits)}")


def death():
    engine = Engine()
    first = engine.worker("--type", "sleep", "--slots", "100")
    engine.ask("/v1/tasks", b'{"type":"sleep","payload":{"ms":600000}}\n' * 100)
    time.sleep(1)
    second = engine.worker("--type", "sleep", "--slots", "100")
    time.sleep(1)
    killed = time.time()
    first.kill(), first.wait()
    time.sleep(8)
    second.kill(), second.wait()
    starts = [event["recorded_at"] / 1e6 for event in engine.end() if event["event"] == "started"]
    assert len(starts) == 200, starts
    print(f"death: all run elsewhere {max(starts) - killed:.2f} s after the kill")


async def call(reader, writer, method, path, body):
    body = json.dumps(body).encode()
    writer.write(f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert b" 200 " in head[:15], head
    return await reader.readexactly(int(head.split(b"content-length:")[1].split()[0]))


async def wait_for_work(engine, limit, joined):
    async with limit:
        reader, writer = await asyncio.open_connection(*engine.url.split("//")[1].split(":"))
        path = f"/v1/workers/{secrets.token_hex(16)}"
        await call(reader, writer, "PUT", path, {"protocol": 1, "types": ["noop"]})
    joined.append(path)
    for seq in range(1, 1_000):
        await call(reader, writer, "POST", path + "/lease", {"seq": seq, "slots": 1, "wait": "60s"})


async def idle_workers(engine):
    limit, joined = asyncio.Semaphore(50), []
    workers = [asyncio.create_task(wait_for_work(engine, limit, joined)) for _ in range(5_000)]
    while len(joined) < len(workers):
        await asyncio.sleep(0.2)
    before = engine.stat()[1]
    await asyncio.sleep(60)
    megabytes, seconds = engine.stat()
    assert not any(worker.done() for worker in workers)
    print(f"idle: {megabytes:.0f} MB, {(seconds - before) / 0.6:.2f} % of a core with {len(workers)} workers")
    for worker in workers:
        worker.cancel()


def idle():
    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, 20_000))
    engine = Engine(connections=6_000)
    asyncio.run(idle_workers(engine))
    engine.process.terminate()


for name in sys.argv[2:] or ["rate", "latency", "death", "python", "idle"]:
    {"rate": rate, "latency": latency, "death": death, "python": python, "idle": idle}[name]()
