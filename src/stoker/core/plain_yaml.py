"""YAML from strangers as plain data: dicts, lists and scalars, nothing else.

Events are turned into data by hand, so that tags, keys that are not text, repeated keys, more than one document, deep
nesting and aliases that multiply are refused before they cost anything. Plain scalars follow YAML 1.1 with
OmegaConf's two changes: `1e-3` is a number, dates are text. libyaml is used where PyYAML was built with it; what
both parsers take gives the same events (libyaml takes a comment right behind `|`, too).
"""

import re
from collections.abc import Iterator
from typing import Any, Final, Protocol

import yaml
from yaml.constructor import SafeConstructor
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from stoker.core.errors import CorruptError

DEPTH_MAX: Final = 24
NODES_MAX: Final = 100_000
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL: Final = re.compile(r"~|null|Null|NULL|")
_BOOLEAN: Final = re.compile(r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF")
_INTEGER: Final = re.compile(
    r"[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+"
)
_NUMBER: Final = re.compile(
    r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.[0-9_]+(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)


def plain_scalar(text: str) -> Any:
    """Return an unquoted scalar's value. Raises ValueError for a number too long to be one."""
    if _NULL.fullmatch(text):
        return None
    if _BOOLEAN.fullmatch(text):
        return text.lower() in ("yes", "true", "on")
    for tag, pattern in (("int", _INTEGER), ("float", _NUMBER)):
        if pattern.fullmatch(text):
            node = yaml.ScalarNode(f"tag:yaml.org,2002:{tag}", text)
            constructor: Any = SafeConstructor()
            build = constructor.construct_yaml_int if tag == "int" else constructor.construct_yaml_float
            return build(node)
    return text


class YamlRefusedError(CorruptError):
    """A text that is refused; `line` counts from 1 and is 0 where none is known."""

    line: int = 0


class Making(Protocol):
    """What the values of a document become; mappings are dicts of them."""

    def scalar(self, value: Any, text: str, line: int) -> Any:
        """Return what stands for a scalar that was written as `text`."""

    def sequence(self, items: list[Any], line: int) -> Any:
        """Return what stands for a list of what was made before."""

    def again(self, made: Any) -> Any:
        """Return what stands where an alias repeats what was made before."""


class PlainMaking:
    """Values as they are; what an alias repeats is shared."""

    def scalar(self, value: Any, text: str, line: int) -> Any:
        """Return the value."""
        return value

    def sequence(self, items: list[Any], line: int) -> Any:
        """Return the list."""
        return items

    def again(self, made: Any) -> Any:
        """Return the very same."""
        return made


def load_plain(text: str) -> Any:
    """Return the data of the one YAML document in `text`; None for an empty one.

    Raises CorruptError, with the line, for anything that is not plain data.
    """
    return read_yaml(text, PlainMaking())


def read_yaml(text: str, making: Making) -> Any:
    """Return what `making` makes of the one YAML document in `text`; None for an empty text.

    Raises YamlRefusedError for anything that is not plain data.
    """
    try:
        return _Reader(text, making).document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        got = str(getattr(error, "problem", "") or error)
        raise _refused("not YAML", mark.line + 1 if mark else 0, got=got) from error


_Made = tuple[Any, int]
"""What was made, and the levels below it: 0 for a scalar."""


class _Reader:
    """Turns the events of one text into data, counting nodes."""

    def __init__(self, text: str, making: Making) -> None:
        self._events: Iterator[Event] = yaml.parse(text, Loader=_LOADER)
        self._making = making
        self._nodes = 0
        self._anchors: dict[str, tuple[Any, int, int]] = {}

    def document(self) -> Any:
        """Return the only document."""
        found: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _refusal(event, "YAML holds more than one document")
                found, _ = self._node(next(self._events), 1)
        return found

    def _node(self, event: Event, depth: int) -> _Made:
        if depth > DEPTH_MAX:
            raise _refusal(event, "YAML is nested too deeply", f"at most {DEPTH_MAX} levels")
        self._count(event, 1)
        if isinstance(event, AliasEvent):
            return self._alias(event, depth)
        assert isinstance(event, (ScalarEvent, CollectionStartEvent))
        if event.tag is not None:
            raise _refusal(event, "YAML tags are not allowed", got=str(event.tag))
        before = self._nodes
        if isinstance(event, MappingStartEvent):
            node, height = self._mapping(depth)
        elif isinstance(event, SequenceStartEvent):
            items, height = self._sequence(depth)
            node = self._making.sequence(items, _line(event))
        else:
            assert isinstance(event, ScalarEvent)
            node, height = self._making.scalar(_scalar(event), event.value, _line(event)), 0
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, self._nodes - before + 1, height)
        return node, height

    def _mapping(self, depth: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        below = 0
        while not isinstance(event := next(self._events), MappingEndEvent):
            if not isinstance(event, ScalarEvent) or event.tag is not None:
                raise _refusal(event, "YAML key is not plain text")
            if event.value == "<<":
                raise _refusal(event, "YAML merge keys are not supported", remedy="write the keys out")
            if event.value in found:
                raise _refusal(event, f"YAML key {event.value!r} is given twice")
            found[event.value], height = self._node(next(self._events), depth + 1)
            below = max(below, height)
        return found, below + 1

    def _sequence(self, depth: int) -> tuple[list[Any], int]:
        items = []
        below = 0
        while not isinstance(event := next(self._events), SequenceEndEvent):
            item, height = self._node(event, depth + 1)
            items.append(item)
            below = max(below, height)
        return items, below + 1

    def _alias(self, event: AliasEvent, depth: int) -> _Made:
        if event.anchor not in self._anchors:
            raise _refusal(event, f"YAML alias {event.anchor!r} names nothing before it")
        node, nodes, height = self._anchors[event.anchor]
        self._count(event, nodes)
        if depth + height > DEPTH_MAX:
            raise _refusal(event, "YAML is nested too deeply", f"at most {DEPTH_MAX} levels, aliases counted")
        return self._making.again(node), height

    def _count(self, event: Event, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > NODES_MAX:
            raise _refusal(event, "YAML is out of proportion", f"at most {NODES_MAX} values, aliases counted")


def _scalar(event: ScalarEvent) -> Any:
    if not event.implicit[0]:
        return event.value
    try:
        return plain_scalar(event.value)
    except ValueError as error:
        raise _refusal(event, "YAML value is not a number", got=str(error)) from error


def _line(event: Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def _refusal(event: Event, what: str, expected: str = "", *, got: str = "", remedy: str = "") -> YamlRefusedError:
    return _refused(what, _line(event), expected, got=got, remedy=remedy)


def _refused(what: str, line: int, expected: str = "", *, got: str = "", remedy: str = "") -> YamlRefusedError:
    where = f"line {line}" if line else ""
    refused = YamlRefusedError(what, where=where, expected=expected, got=got, remedy=remedy)
    refused.line = line
    return refused
