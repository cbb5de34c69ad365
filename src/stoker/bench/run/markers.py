"""Environment markers of requirements (`; python_full_version < '3.12'`): does a line of a lock concern this machine?

A small reader of the grammar that resolvers write: comparisons of the machine's names with texts, `and`, `or`,
brackets. Nothing is evaluated as code.
"""

import operator as operators
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

TEXT_MAX: Final = 2_000
_DEPTH_MAX: Final = 20
_TOKEN: Final = re.compile(r"\s*(<=|>=|==|!=|~=|<|>|\(|\)|'[^']*'|\"[^\"]*\"|[A-Za-z_.]+)")
_VERSIONS: Final = frozenset(("python_version", "python_full_version", "implementation_version"))


def surroundings() -> dict[str, str]:
    """Return the values of the marker names on this machine."""
    return {
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "python_full_version": platform.python_version(),
        "implementation_version": platform.python_version(),
        "implementation_name": sys.implementation.name,
        "platform_python_implementation": platform.python_implementation(),
        "sys_platform": sys.platform,
        "platform_system": platform.system(),
        "platform_machine": platform.machine(),
        "platform_release": platform.release(),
        "platform_version": platform.version(),
        "os_name": os.name,
        "extra": "",
    }


def applies(marker: str, names: Mapping[str, str] | None = None) -> bool:
    """Tell whether a marker holds here. Raises ValueError for a text that is none."""
    if not marker.strip():
        return True
    if len(marker) > TEXT_MAX:
        raise ValueError(f"a marker of more than {TEXT_MAX} characters")
    reader = _Reader(_tokens(marker), surroundings() if names is None else names)
    value = reader.either(0)
    if reader.left:
        raise ValueError(f"unexpected {reader.left[0]!r} in a marker")
    return value


def _tokens(text: str) -> list[str]:
    tokens, place = [], 0
    while text[place:].strip():
        found = _TOKEN.match(text, place)
        if found is None:
            raise ValueError(f"unexpected {text[place : place + 20]!r} in a marker")
        tokens.append(found[1])
        place = found.end()
    return tokens


class _Reader:
    """Reads `or` of `and` of comparisons, from the left."""

    def __init__(self, tokens: list[str], names: Mapping[str, str]) -> None:
        self.left = tokens
        self._names = names

    def _next(self) -> str:
        if not self.left:
            raise ValueError("a marker ends too early")
        return self.left.pop(0)

    def _chain(self, word: str, part: Callable[[int], bool], depth: int) -> list[bool]:
        values = [part(depth)]
        while self.left and self.left[0] == word:
            self.left.pop(0)
            values.append(part(depth))
        return values

    def either(self, depth: int) -> bool:
        """Read alternatives."""
        return any(self._chain("or", self._both, depth))

    def _both(self, depth: int) -> bool:
        return all(self._chain("and", self._one, depth))

    def _one(self, depth: int) -> bool:
        if depth > _DEPTH_MAX:
            raise ValueError(f"a marker nested deeper than {_DEPTH_MAX}")
        first = self._next()
        if first == "(":
            value = self.either(depth + 1)
            if self._next() != ")":
                raise ValueError("a bracket in a marker is not closed")
            return value
        operator = self._next()
        if operator == "not":
            operator += " " + self._next()
        second = self._next()
        name = second if first[0] in "'\"" else first
        return _compared(operator, self._value(first), self._value(second), versions=name in _VERSIONS)

    def _value(self, token: str) -> str:
        if token[0] in "'\"":
            return token[1:-1]
        if token not in self._names:
            raise ValueError(f"{token!r} is no name of a marker")
        return self._names[token]


def _compared(operator: str, first: str, second: str, *, versions: bool) -> bool:
    if operator in ("in", "not in"):
        return (first in second) is (operator == "in")
    if operator not in _ANSWERS:
        raise ValueError(f"{operator!r} is no comparison of a marker")
    if versions:
        return _ANSWERS[operator](release(first), release(second))
    return _ANSWERS[operator](first, second)


_ANSWERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operators.eq,
    "!=": operators.ne,
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}


def release(version: str) -> tuple[int, ...]:
    """Return the numbers a version begins with, without zeros at its end: `3.11.0rc1` gives (3, 11)."""
    found = re.match(r"\d{1,9}(?:\.\d{1,9}){0,9}", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
