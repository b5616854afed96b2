"""A server that behaves as one with a model does: it loads for a while, does a few requests at a time, and may crash. For tests.

Whoever waits for a place waits as in a queue in front of a GPU. Each answer is noted in a file, a line with the task: who answers twice is found there.
"""

import argparse
import http.server
import os
import sys
import threading
import time

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--places", type=int, default=1, help="requests that are worked on at one time")
parser.add_argument("--latency", type=float, default=0.02, help="seconds that one takes")
parser.add_argument("--load", type=float, default=0.2, help="seconds until it is ready")
parser.add_argument("--crash-after", type=int, default=0, help="answers after which it crashes with a request in its hands")
parser.add_argument("--mute-after", type=int, default=0, help="answers after which it says nothing more, and lives")
parser.add_argument("--book", required=True, help="file in which answers are noted")
arguments = parser.parse_args()

ready_at = time.monotonic() + arguments.load
places = threading.Semaphore(arguments.places)
lock = threading.Lock()
answered = inside = most = 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def is_mute(self):
        return arguments.mute_after and answered >= arguments.mute_after

    def do_GET(self):
        if self.is_mute():
            time.sleep(3600)
        if self.path == "/gpu":
            return self.answer(200, b'"%s"' % os.environ.get("CUDA_VISIBLE_DEVICES", "none").encode())
        is_ready = time.monotonic() >= ready_at
        self.answer(200 if is_ready else 503, b'{"most":%d}' % most)

    def do_POST(self):
        global answered, inside, most
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with lock:
            inside += 1
            most = max(most, inside)
        try:
            with places:
                if self.is_mute():
                    time.sleep(3600)
                time.sleep(arguments.latency)
                with lock:
                    answered += 1
                    if arguments.crash_after and answered > arguments.crash_after:
                        print("out of memory, as models say", file=sys.stderr, flush=True)
                        os._exit(9)
                # One write of a line is whole.
                with open(arguments.book, "ab", 0) as book:
                    book.write(f"{self.headers['Ergate-Task']} {os.getpid()}\n".encode())
                self.answer(200, b'{"pid":%d,"gpu":"%s"}' % (os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", "").encode()))
        finally:
            with lock:
                inside -= 1


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


print("loading", flush=True)
Server(("127.0.0.1", arguments.port), Handler).serve_forever()
