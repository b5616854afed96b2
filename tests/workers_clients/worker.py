"""What test_clients.py runs as a child: worker.py ADDRESS OPTIONS, with options as JSON. Writes every attempt that it begins to the file RUNS."""

import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples/workers/python"))
from ergate_worker import Failure, Partial, Skipped, Stopped, Worker

worker = Worker(sys.argv[1], **json.loads(sys.argv[2]))
runs = os.open(os.environ["RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def task(name):
    def decorate(function):
        def run(payload, context):
            os.write(runs, f"{context.attempt}\n".encode())
            return function(payload, context)
        return worker.task(name)(run)
    return decorate


@task("echo")
def echo(payload, context):
    return payload


@task("size")
def size(payload, context):
    return [isinstance(payload, bytes), len(payload)]


@task("sleep")
def sleep(payload, context):
    """Sleeps, whatever others want."""
    time.sleep(payload)
    return "slept"


@task("wait")
def wait(payload, context):
    """Waits to be cancelled, and then stops or tidies up."""
    context.cancelled.wait(20)
    if payload == "stop":
        raise Stopped
    return "tidied"


@task("beat")
def beat(payload, context):
    for step in range(payload):
        context.heartbeat()
        context.progress(10 * step, "beating", f"{step}")
        time.sleep(0.1)
    return "beaten"


@task("resume")
def resume(payload, context):
    if context.checkpoint is None:
        context.keep(b"\xff\x00" if payload == "bytes" else {"done": 3})
        raise Failure("halfway", retryable=True)
    return context.checkpoint


@task("end")
def end(payload, context):
    if payload == "raise":
        raise KeyError("nothing here")
    if payload == "fail":
        raise Failure("rate-limited", "come later", retryable=True, retry_after=10)
    if payload == "unsendable":
        return object()
    if payload == "long":
        return "x" * (1 << 20)
    return Partial([1]) if payload == "partial" else Skipped()


worker.run()
