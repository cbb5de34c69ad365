"""Holds a document against a JSON Schema and tells every fault of it, not only the first.

Of JSON Schema it knows what our schemas use: type, enum, const, pattern, minimum, properties, required,
additionalProperties, items, anyOf, $ref into $defs; `unknown_keywords` tells of any other. It is strict in one point
where JSON Schema is not: `2.0` is no integer.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

FAULTS_MAX: Final = 200
_KNOWN: Final = frozenset(
    (
        *("$schema", "$defs", "$ref", "title", "description", "default"),
        *("type", "enum", "const", "pattern", "minimum", "anyOf"),
        *("properties", "required", "additionalProperties", "items"),
    )
)
_TYPES: Final = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_NAMES: Final = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "nothing"}


def faults(document: Any, schema: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (path, what is wrong) for each fault, at most 200; paths look like `a.b[0].c`, the root's is empty."""
    found = []
    for fault in _faults(document, schema, schema.get("$defs", {}), ""):
        found.append(fault)
        if len(found) >= FAULTS_MAX:
            break
    return found


def unknown_keywords(schema: Any) -> set[str]:
    """Return the keywords in a schema that this validator would pass over."""
    if isinstance(schema, list):
        return set().union(*(unknown_keywords(item) for item in schema)) if schema else set()
    if not isinstance(schema, Mapping):
        return set()
    found = {key for key in schema if key not in _KNOWN}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            found |= set().union(*(unknown_keywords(each) for each in value.values())) if value else set()
        elif key not in ("enum", "const", "default", "required"):
            found |= unknown_keywords(value)
    return found


def _faults(value: Any, schema: Mapping[str, Any], defs: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    if "$ref" in schema:
        yield from _faults(value, defs[schema["$ref"].rpartition("/")[2]], defs, path)
        return
    if "anyOf" in schema:
        yield from _any_faults(value, schema["anyOf"], defs, path)
        return
    if "type" in schema and not _is(value, schema["type"]):
        yield path, f"{_told(value)}, where {_article(schema['type'])} is required"
        return
    yield from _scalar_faults(value, schema, path)
    if isinstance(value, dict):
        yield from _object_faults(value, schema, defs, path)
    elif isinstance(value, list) and "items" in schema:
        for at, item in enumerate(value):
            yield from _faults(item, schema["items"], defs, f"{path}[{at}]")


def _any_faults(value: Any, choices: list[Any], defs: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Tell the faults of the choice that fits best: the one whose faults lie deepest, or are fewest."""
    every = [list(_faults(value, choice, defs, path)) for choice in choices]
    if all(every):
        fitting = [each for each in every if any(where != path for where, _ in each)]
        yield from min(fitting or every, key=len)


def _scalar_faults(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    if "enum" in schema and not any(_equal(value, each) for each in schema["enum"]):
        yield path, f"{_told(value)}, where one of {', '.join(map(str, schema['enum']))} is required"
    if "const" in schema and not _equal(value, schema["const"]):
        yield path, f"{_told(value)}, where {schema['const']} is required"
    if "pattern" in schema and isinstance(value, str) and not _pattern(schema["pattern"]).search(value):
        yield path, f"{_told(value)} does not match {schema['pattern']}"
    if "minimum" in schema and isinstance(value, (int, float)) and not value >= schema["minimum"]:
        yield path, f"{_told(value)}, where at least {schema['minimum']} is required"


def _object_faults(
    value: dict[str, Any], schema: Mapping[str, Any], defs: Mapping[str, Any], path: str
) -> Iterator[tuple[str, str]]:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield _below(path, name), "missing"
    others = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in known:
            yield from _faults(item, known[name], defs, _below(path, name))
        elif others is False:
            yield _below(path, name), "not a key of the document"
        elif isinstance(others, Mapping):
            yield from _faults(item, others, defs, _below(path, name))


def _is(value: Any, kind: str | list[str]) -> bool:
    kinds = [kind] if isinstance(kind, str) else kind
    if isinstance(value, bool):
        return "boolean" in kinds
    return any(isinstance(value, _TYPES[each]) for each in kinds)


def _equal(value: Any, other: Any) -> bool:
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _article(kind: str | list[str]) -> str:
    kinds = [kind] if isinstance(kind, str) else kind
    names = {"object": "an object", "array": "a list", "string": "text", "boolean": "a truth value", "null": "nothing"}
    return " or ".join(names.get(each, f"a {each}" if each == "number" else "a whole number") for each in kinds)


def _told(value: Any) -> str:
    if isinstance(value, (dict, list, bool, type(None))):
        return _NAMES[type(value)]
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
