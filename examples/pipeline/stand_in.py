"""Stands in for Ollama where there is none: the same calls, and sentences that nobody has thought about.

    python3 stand_in.py --port 11434 [--places 4] [--seconds 0.2] [--load 1]

Like a server with a model it needs a while to load, works on a few requests at a time while the others wait, and gets slower the more it works on.
"""

import argparse
import http.server
import json
import os
import threading
import time

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--places", type=int, default=4, help="requests that it works on at one time, as OLLAMA_NUM_PARALLEL")
parser.add_argument("--seconds", type=float, default=0.2, help="how long an answer takes when it is the only one")
parser.add_argument("--load", type=float, default=1.0, help="seconds until it is ready")
arguments = parser.parse_args()

ready_at = time.monotonic() + arguments.load
places = threading.Semaphore(arguments.places)
lock = threading.Lock()
working = 0


def answer_to(request):
    """What Ollama answers to /api/generate without streaming, as far as anybody looks at it."""
    global working
    with places:
        with lock:
            working += 1
            neighbours = working
        began = time.monotonic()
        # Each neighbour costs a little, as on a real GPU.
        time.sleep(arguments.seconds * (1 + 0.2 * (neighbours - 1)))
        with lock:
            working -= 1
    return {
        "model": request["model"],
        "response": f"I have no model, but if I had one: {request['prompt']}",
        "done": True,
        "total_duration": round((time.monotonic() - began) * 1e9),
        "server": os.getpid(),
    }


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, status, body):
        data = json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path != "/api/version":
            return self.answer(404, {"error": "not found"})
        if time.monotonic() < ready_at:
            return self.answer(503, {"error": "the model is still being loaded"})
        self.answer(200, {"version": "0.0.0-stand-in"})

    def do_POST(self):
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/api/generate":
            return self.answer(404, {"error": "not found"})
        try:
            request = json.loads(data)
            request["model"], request["prompt"]
        except (ValueError, KeyError, TypeError) as error:
            return self.answer(400, {"error": f"model and prompt are needed: {error!r}"})
        self.answer(200, answer_to(request))


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # Whoever must wait shall wait in line, not be turned away.
    request_queue_size = 256


Server(("127.0.0.1", arguments.port), Handler).serve_forever()
