#!/usr/bin/env python3
"""Holds values against a JSON Schema (2020-12): `schema.py SCHEMA < values`, a value a line; prints `true` or `false` for each.

Also checks the schema itself and its own examples. Needs the package jsonschema."""

import json
import sys

import jsonschema

schema = json.load(open(sys.argv[1], encoding="utf-8"))
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)


def described(part, path):
    """Every field has a description and examples that are valid."""
    for name, field in part.get("properties", {}).items():
        assert field.get("description"), f"{path}{name} has no description"
        for example in field["examples"]:
            validator.evolve(schema={**field, "$defs": schema["$defs"]}).validate(example)
        described(field, f"{path}{name}.")


described(schema, "")
for example in schema["examples"]:
    validator.validate(example)
for line in sys.stdin:
    print("true" if validator.is_valid(json.loads(line)) else "false")
