"""Waits until so many requests have ended, and prints their answers: python3 answers.py COUNT"""

import json
import os
import sys
import time
import urllib.request

count = int(sys.argv[1])
address = os.environ.get("ERGATE_URL", "http://127.0.0.1:7420")


def ask(path):
    with urllib.request.urlopen(address + path) as answer:
        return json.load(answer)


def tasks():
    """All of them, a page at a time."""
    cursor = ""
    while cursor is not None:
        page = ask(f"/v1/tasks?type=generate&limit=500{cursor and '&cursor=' + cursor}")
        yield from page["tasks"]
        cursor = page.get("cursor")


while len(ended := [task for task in tasks() if task["state"] == "ended"]) < count:
    time.sleep(0.2)
ended.sort(key=lambda task: int(task["task"].split("-")[1]))
answers = [ask(f"/v1/tasks/{task['task']}/result") for task in ended if task["outcome"] == "SUCCEEDED"]
for answer in answers:
    print(answer["response"].strip())
servers = {answer.get("server") for answer in answers}
print(f"{len(answers)} answers and {len(ended) - len(answers)} failures, from {len(servers)} servers")
