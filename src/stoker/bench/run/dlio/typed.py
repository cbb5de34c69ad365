"""Typed values: what a key's text or data must be, and one sentence when it is not."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from stoker.bench.run.dlio.schema import Key
from stoker.bench.run.dlio.tree import Leaf, Node, plain
from stoker.core.errors import UsageError
from stoker.core.plan import Spread
from stoker.core.registry import nearest

INTEGER_MAX: Final = 1 << 62
_PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    "normal": ("mean", "stdev"),
    "uniform": ("min", "max"),
    "gamma": ("shape", "scale"),
    "exponential": ("scale",),
    "poisson": ("lam",),
}


class _Mismatch(Exception):
    """The value is not of the type; the message is what was expected."""


def convert(key: Key, node: Node) -> Any:
    """Return the node's value as the key's type; null stands for the default.

    Raises UsageError: where it was written, the key, what was expected, what came.
    """
    if isinstance(node, Leaf) and node.value is None:
        return key.default
    try:
        value = _choice(node, key.choices) if key.kind == "choice" else _CONVERTERS[key.kind](node)
        numbers = value if isinstance(value, list) else [value]
        if key.low is not None and any(isinstance(x, (int, float)) and x < key.low for x in numbers):
            raise _Mismatch(f"at least {key.low:g}")
    except _Mismatch as mismatch:
        got = "a mapping" if isinstance(node, dict) else repr(node.text or node.value)[:80]
        raise UsageError(f"{key.path} at {place(node)} is no good", expected=str(mismatch), got=got) from None
    return value


def place(node: Node) -> str:
    """Return where a node was written, the first of its leaves for a mapping."""
    while isinstance(node, dict):
        node = next(iter(node.values()), Leaf(None))
    return node.origin.where or node.origin.kind


def _leaf(node: Node, expected: str) -> Leaf:
    if isinstance(node, dict):
        raise _Mismatch(expected)
    return node


def _int(node: Node) -> int:
    return _whole(_leaf(node, "a whole number").value)


def _whole(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > INTEGER_MAX:
        raise _Mismatch("a whole number")
    return value


def _float(node: Node) -> int | float:
    return _number(_leaf(node, "a number").value)


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < INTEGER_MAX:
        raise _Mismatch("a finite number")
    assert math.isfinite(value)
    return value


def _bool(node: Node) -> bool:
    value = _leaf(node, "true or false").value
    if not isinstance(value, bool):
        raise _Mismatch("true or false")
    return value


def _text(node: Node) -> str:
    leaf = _leaf(node, "text")
    if isinstance(leaf.value, (list, dict)):
        raise _Mismatch("text")
    text = leaf.value if isinstance(leaf.value, str) else leaf.text or str(leaf.value)
    if "\0" in text:
        raise _Mismatch("text without NUL")
    return text


def _choice(node: Node, choices: tuple[str, ...]) -> str:
    text = "off" if isinstance(node, Leaf) and node.value is False and "off" in choices else _text(node)
    if text not in choices:
        close = nearest(text, list(choices))
        raise _Mismatch((f"{close!r}? or " if close else "") + "one of " + " ".join(choices))
    return text


def _ints(node: Node) -> list[int]:
    value = _leaf(node, "a list of whole numbers").value
    if not isinstance(value, list):
        raise _Mismatch("a list of whole numbers")
    return [_whole(item) for item in value]


def _words(node: Node) -> list[str]:
    value = _leaf(node, "a name or a list of names").value
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _mapping(node: Node) -> dict[str, Any]:
    if not isinstance(node, dict):
        raise _Mismatch("a mapping")
    data = plain(node)
    assert isinstance(data, dict)
    return data


def _columns(node: Node) -> list[dict[str, Any]]:
    expected = "a list of {name, dtype, size, read}"
    value = _leaf(node, expected).value
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _Mismatch(expected)
    return value


def _duration(node: Node) -> Any:
    """Return a number or a mapping of numbers (and `type`), as written; `spread` makes sense of it."""
    if isinstance(node, Leaf):
        return _number(node.value)
    data = _mapping(node)
    for name, value in data.items():
        if name != "type":
            _number(value)
    return data


_CONVERTERS: Final[Mapping[str, Callable[[Node], Any]]] = {
    "int": _int,
    "float": _float,
    "bool": _bool,
    "text": _text,
    "ints": _ints,
    "words": _words,
    "mapping": _mapping,
    "columns": _columns,
    "duration": _duration,
}


def spread(value: float | Mapping[str, Any], stdev: float | None, path: str) -> Spread:
    """Return a duration: a number, {mean}, {mean, stdev}, or {type: normal | uniform | gamma | exponential | poisson}
    with its parameters. A sibling `*_stdev` counts as the mapping's `stdev`.

    Raises UsageError for an unknown type and for parameters that do not belong to it (DLIO would sleep 0).
    """
    given: dict[str, Any] = dict(value) if isinstance(value, Mapping) else {"mean": value}
    if stdev is not None:
        given["stdev"] = stdev
    kind = given.pop("type", "normal" if "stdev" in given else "constant" if given else "")
    if kind == "normal" and set(given) == {"mean"}:
        kind = "constant"
    if kind == "constant" and set(given) == {"mean"}:
        return _checked(Spread("constant", {"value": float(given["mean"])}), path)
    names = _PARAMETERS.get(str(kind))
    if names is None:
        raise UsageError(f"{path}: no such distribution", where=str(kind), expected=", ".join(_PARAMETERS))
    if set(given) != set(names):
        got = ", ".join(given) or "none"
        raise UsageError(f"{path}: wrong parameters for {kind}", expected=", ".join(names), got=got)
    if kind == "normal" and given["stdev"] == 0:
        return _checked(Spread("constant", {"value": float(given["mean"])}), path)
    return _checked(Spread(str(kind), {name: float(given[name]) for name in names}), path)


def _checked(duration: Spread, path: str) -> Spread:
    """Return the duration. Raises UsageError for parameters that the draw cannot take."""
    p = duration.parameters
    negative = [name for name in ("stdev", "shape", "scale", "lam") if p.get(name, 0.0) < 0]
    if negative:
        raise UsageError(f"{path}: {negative[0]} is negative", expected="at least 0", got=f"{p[negative[0]]:g}")
    if duration.kind == "uniform" and p["min"] > p["max"]:
        raise UsageError(f"{path}: min is above max", got=f"{p['min']:g} and {p['max']:g}")
    return duration
