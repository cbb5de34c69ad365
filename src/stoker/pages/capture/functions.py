"""Python functions, classes and code objects as plain descriptions: what they do, not where they stand in a file.

From Python 3.13 on the code of a class body holds the number of its first line: a function that defines a class inside
changes when it is moved.
"""

import dis
import enum
import functools
import hashlib
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import UsageError
from stoker.pages.capture.tagged import Record, pack

Others = Callable[[Any, Callable[[Any], Any]], Any]
"""Describes what only an optional package knows; returns None for what it does not know either."""
NEST_MAX: Final = 30
_SINGLE: Final = (str, bytes, int, float, complex, bool, type(None), type(Ellipsis))
_LIBRARIES: Final = frozenset(sys.stdlib_module_names) | {"numpy", "torch", "triton"}
_CLASS_NOISE: Final = frozenset(
    (
        "__module__",
        "__doc__",
        "__dict__",
        "__weakref__",
        "__firstlineno__",
        "__static_attributes__",
        "__annotations__",
        "__qualname__",
        "__abstractmethods__",
        "_abc_impl",
        "__annotate_func__",
        "__annotations_cache__",
    )
)


class Describer:
    """Turns values into plain ones; what is not plain becomes a Record of its kind.

    Functions (and classes that are reached into) are described once, in `parts`; elsewhere a `part` Record tells their
    number, so that functions may call each other in circles. `reach` holds the top packages whose functions bring along
    the globals that their code loads, and whose classes bring their members; what lives elsewhere is named.
    """

    def __init__(self, *, reach: frozenset[str] = frozenset(), others: Others | None = None) -> None:
        self._reach = reach - _LIBRARIES
        self._others = others
        self._open: list[int] = []
        self._numbers: dict[int, int] = {}
        self._queue: list[Any] = []

    def whole(self, value: Any) -> Any:
        """Return the description of a value with all its parts; a plain one is itself."""
        described = self(value)
        parts: list[Any] = []
        for part in self._queue:  # grows meanwhile
            parts.append(self._function(part) if isinstance(part, types.FunctionType) else self._members(part))
        return Record("whole", {"value": described, "parts": parts}) if parts else described

    def __call__(self, value: Any) -> Any:
        """Return the description of a value; raises UsageError for one that holds itself, or is nested too deep."""
        if type(value) in _SINGLE or isinstance(value, Record):
            return value
        if id(value) in self._open or len(self._open) > NEST_MAX:
            raise UsageError("a value that holds itself, or is nested too deep, cannot be described")
        self._open.append(id(value))
        try:
            return self._described(value)
        finally:
            self._open.pop()

    def _described(self, value: Any) -> Any:
        if type(value) in (tuple, list):
            return type(value)(self(item) for item in value)
        if type(value) is dict:
            return self._map(value)
        if isinstance(value, set | frozenset):
            return Record("unordered", {"items": _sorted(self(item) for item in value)})
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, types.FunctionType):
            return self._part(value)
        if isinstance(value, type):
            return self._part(value) if top_package(value) in self._reach else _named("class", value)
        return self._callable(value) or self._data(value)

    def _callable(self, value: Any) -> Record | None:
        if isinstance(value, types.MethodType):
            return Record("method", {"function": self(value.__func__), "owner": self(type(value.__self__))})
        if isinstance(value, functools.partial):
            parts = {"function": value.func, "args": value.args, "keywords": value.keywords}
            return Record("partial", {name: self(part) for name, part in parts.items()})
        if isinstance(value, property):
            return Record("property", {"parts": tuple(self(part) for part in (value.fget, value.fset, value.fdel))})
        if isinstance(value, staticmethod | classmethod):
            return Record(type(value).__name__, {"function": self(value.__func__)})
        if isinstance(value, types.BuiltinFunctionType):
            return _named("builtin", value)
        inner = getattr(value, "__wrapped__", None) if callable(value) else None
        if isinstance(inner, types.FunctionType):
            return Record("wrapper", {"type": qualified(type(value)), "function": self(inner)})
        return None

    def _data(self, value: Any) -> Any:
        if isinstance(value, types.ModuleType):
            return Record("module", {"name": value.__name__})
        if isinstance(value, enum.Enum):
            return Record("enum", {"class": qualified(type(value)), "name": value.name})
        if isinstance(value, np.generic | np.ndarray) and not value.dtype.hasobject:
            return describe_array(np.asarray(value))
        if isinstance(value, np.dtype):
            return Record("dtype", {"name": str(value)})
        if isinstance(value, slice):
            return Record("slice", {"parts": (self(value.start), self(value.stop), self(value.step))})
        other = self._others(value, self) if self._others is not None else None
        return Record("opaque", {"type": qualified(type(value))}) if other is None else other

    def _map(self, value: dict[Any, Any]) -> Any:
        if all(type(key) is str for key in value):
            return {key: self(item) for key, item in value.items()}
        return Record("map", {"items": _sorted((self(key), self(item)) for key, item in value.items())})

    def _part(self, value: Any) -> Record:
        if self._reach and top_package(value) not in self._reach:
            return _named("function", value)
        number = self._numbers.setdefault(id(value), len(self._queue))
        if number == len(self._queue):
            self._queue.append(value)
        return Record("part", {"number": number})

    def _code(self, code: types.CodeType) -> Record:
        """Return a code object without its file, its lines and the interpreter's caches."""
        fields: dict[str, Any] = {
            "name": code.co_name,
            "code": code.co_code,
            "constants": tuple(self(constant) for constant in code.co_consts),
            "names": code.co_names,
            "variables": code.co_varnames,
            "free": code.co_freevars,
            "cells": code.co_cellvars,
            "flags": code.co_flags,
            "arguments": (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
            "stack": code.co_stacksize,
            "exceptions": code.co_exceptiontable,
        }
        return Record("code", fields)

    def _function(self, function: types.FunctionType) -> Record:
        names = function.__code__.co_freevars
        fields: dict[str, Any] = {
            "name": function.__name__,
            "code": self(function.__code__),
            "defaults": self(function.__defaults__),
            "keyword_defaults": self(function.__kwdefaults__),
            "closure": {name: self._cell(cell) for name, cell in zip(names, function.__closure__ or (), strict=True)},
        }
        if self._reach:
            held = function.__globals__
            loaded = sorted(set(global_names(function.__code__)))
            fields["globals"] = {name: self(held[name]) for name in loaded if name in held}
        return Record("function", fields)

    def _cell(self, cell: types.CellType) -> Any:
        try:
            content = cell.cell_contents
        except ValueError:  # filled later, or never
            return Record("empty", {})
        return self(content)

    def _members(self, value: type) -> Record:
        members = {name: self(part) for name, part in vars(value).items() if name not in _CLASS_NOISE}
        bases = tuple(self(base) for base in value.__bases__)
        return Record("class", {"name": qualified(value), "bases": bases, "members": members})


def describe_array(array: NDArray[Any]) -> Record:
    """Return dtype, shape and SHA-256 of the elements in C order."""
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return Record("array", {"dtype": array.dtype.str, "shape": tuple(array.shape), "sha256": digest})


def global_names(code: types.CodeType) -> Iterator[str]:
    """Yield the global names that a code object and those inside it load."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from global_names(constant)


def qualified(value: Any) -> str:
    """Return the module and qualified name of a class or function."""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or type(value).__qualname__
    return f"{getattr(value, '__module__', None) or 'builtins'}.{name}"


def top_package(value: Any) -> str:
    """Return the first word of the module that a class or function lives in."""
    return str(getattr(value, "__module__", None) or "builtins").partition(".")[0]


def _named(kind: str, value: Any) -> Record:
    return Record(kind, {"name": qualified(value)})


def _sorted(items: Iterable[Any]) -> list[Any]:
    """Return descriptions in the order of their bytes."""
    return sorted(items, key=pack)
