"""Writes a request for each city, a line each: python3 requests.py MODEL < cities.txt"""

import json
import sys

model = sys.argv[1]
for city in filter(None, map(str.strip, sys.stdin)):
    prompt = f"Describe {city} in one sentence."
    request = {
        "type": "generate",
        "key": f"{model}/{city}",
        "labels": {"city": city},
        "payload": {"model": model, "prompt": prompt, "stream": False},
    }
    print(json.dumps(request))
