"""Canonical bytes of programs: equal programs give equal bytes in every process, and reading them runs nothing.

What can be encoded: Python functions and code objects, FX graphs and exported programs, tensors and arrays (as dtype,
shape and digest), text such as Triton and PTX, and plain values. Line numbers, file names and addresses are left out.
"""

import hashlib
import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from stoker.core.errors import UsageError
from stoker.pages.capture.extras import loaded_torch
from stoker.pages.capture.functions import Describer, top_package
from stoker.pages.capture.tagged import Record, pack, unpack
from stoker.pages.capture.torch_forms import describe_torch
from stoker.pages.errors import FormatError

MAGIC: Final = b"STKCAN01"


def encode(value: Any) -> bytes:
    """Return the canonical bytes of a program or a value, or of a description that `decode` gave.

    An object of which nothing is known is told by its type alone. Raises UsageError for values that hold themselves.
    """
    return MAGIC + pack(Describer(others=describe_torch).whole(value))


def encode_text(text: str, language: str) -> bytes:
    """Return the canonical bytes of source text, unchanged; `language` names it (`triton`, `ptx`, `python`)."""
    return MAGIC + pack(Record("text", {"language": language, "text": text}))


def decode(data: bytes | memoryview) -> Any:
    """Return the neutral description: plain values and `Record`s; `encode` of it gives `data` again.

    Raises FormatError for bytes that are not canonical.
    """
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise FormatError("bytes are no canonical program", expected=repr(MAGIC), got=repr(bytes(data[: len(MAGIC)])))
    return unpack(memoryview(data)[len(MAGIC) :])


def code_digest(source: Any) -> str:
    """Return the SHA-256, in hexadecimal digits, of what a function, class or model does.

    It covers code, defaults, closures, the globals that the code loads, and the functions and classes it reaches in its
    own top package. Not covered: what is reached through attributes of modules or objects, and other packages (the
    environment tells their versions).
    """
    describer = Describer(reach=frozenset(_packages(source)), others=describe_torch)
    return hashlib.sha256(pack(describer.whole(source))).hexdigest()


def environment_digest(*packages: str) -> str:
    """Return the SHA-256 of what runs code here: Python, NumPy, torch (where installed), and further packages.

    Raises UsageError for a further package that is not installed.
    """
    versions = {"python": platform.python_version(), "implementation": sys.implementation.cache_tag or ""}
    versions |= {name: _version(name) for name in ("numpy", "torch")}
    versions |= {name: _version(name) for name in packages}
    absent = [name for name in packages if not versions[name]]
    if absent:
        raise UsageError("package of the environment is not installed", where=absent[0])
    return hashlib.sha256(pack(versions)).hexdigest()


@cache
def _version(package: str) -> str:
    """Return the version, empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _packages(source: Any) -> set[str]:
    torch = loaded_torch()
    if torch is not None and isinstance(source, torch.nn.Module):
        return {top_package(type(part)) for part in source.modules()}
    named = source if hasattr(source, "__module__") and hasattr(source, "__qualname__") else type(source)
    function = getattr(source, "func", None)
    return {top_package(named)} | (_packages(function) if callable(function) else set())
