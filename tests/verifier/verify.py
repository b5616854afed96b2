#!/usr/bin/env python3
"""Verifies a log of Ergate by docs/log-format.md alone.

    verify.py DIR                                       a data directory of the engine `file`
    ergate log export --format blocks | verify.py -     any log, through its export
    verify.py BLOCKS.jsonl                              the same from a file
    verify.py kafka://HOST:PORT/NAMESPACE[?option=value&...]    every partition of NAMESPACE.events

It does the steps of "What a verifier checks" but the seventh, which needs the rules, and says for each shard what it found.
Python 3.9 or newer with the packages of requirements.txt.
"""

import argparse
import json
import os
import sys

try:
    import sources
    from schema import Damaged, check
except ImportError as error:
    print(f"verify.py: {error}; run `pip install -r {os.path.join(os.path.dirname(__file__), 'requirements.txt')}`", file=sys.stderr)
    sys.exit(2)


def verify(log):
    """Chains by shard, and the bytes of a torn block at the end."""
    if log.startswith("kafka://"):
        return sources.messages(sources.kafka(log)), 0
    if log == "-":
        return sources.lines(sys.stdin.buffer), 0
    if os.path.isdir(log):
        return sources.directory(log)
    with open(log, "rb") as file:
        return sources.lines(file), 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", metavar="LOG", help="directory, file, - or kafka:// address")
    parser.add_argument("--json", action="store_true", help="report as one JSON object")
    parser.add_argument("--expect", metavar="HASH", action="append", default=[], help="refuse a log that has no block with this hash")
    args = parser.parse_args()
    try:
        chains, torn = verify(args.log)
        known = {chain.hash.hex() for chain in chains.values()} | {seen.hex() for chain in chains.values() for seen in chain.seen.values()}
        for expected in args.expect:
            check(expected in known, f"no block has the hash {expected}: the log was cut or replaced")
    except (Damaged, OSError) as error:
        print(f"verify.py: {error}", file=sys.stderr)
        sys.exit(1)
    shards = [chain.report() for _, chain in sorted(chains.items())]
    if args.json:
        print(json.dumps({"shards": shards, "torn_bytes": torn}))
        return
    for shard in shards:
        print("\n".join(f"{name} {value}" for name, value in shard.items()))
    if torn:
        print(f"torn tail of {torn} bytes")


if __name__ == "__main__":
    main()
