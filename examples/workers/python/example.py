"""A worker with three task types: python3 example.py [ADDRESS]"""

import sys
import time

from ergate_worker import Failure, Stopped, Worker

worker = Worker(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7420", pool="models", slots=8)


@worker.task("resize")
def resize(payload, context):
    return {"image": payload["image"], "width": payload.get("width", 320)}


@worker.task("count")
def count(payload, context):
    """Counts to `payload`, and goes on where the attempt before ended."""
    for number in range((context.checkpoint or 0) + 1, payload + 1):
        if context.cancelled.wait(0.1):
            raise Stopped
        context.keep(number)
        context.progress(100 * number // payload, "counting", f"{number} of {payload}")
    return payload


@worker.task("fetch")
def fetch(payload, context):
    if payload == "busy":
        raise Failure("rate-limited", "the service wants a pause", retryable=True, retry_after="10s")
    time.sleep(0.05)
    return f"what is at {payload}"


if __name__ == "__main__":
    worker.run()
