"""Whether the native kernels are there, and why not.

The environment variable STOKER_KERNELS decides: `auto` (default) takes them when they are there, `native` insists,
`plain` takes the plain twins. STOKER_CPU_LEVEL (`scalar`, `sse42`, `avx2`, `avx512`) lowers what the native ones may
use of the processor.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Final

import msgspec

from stoker.core.errors import UnavailableError, UsageError

CHOICE_VARIABLE: Final = "STOKER_KERNELS"
LEVEL_VARIABLE: Final = "STOKER_CPU_LEVEL"
CPU_LEVELS: Final = ("scalar", "sse42", "avx2", "avx512")
REMEDY: Final = "install a C++20 compiler (apt install g++), then: pip install --force-reinstall --no-deps stoker"


class KernelStatus(msgspec.Struct, frozen=True):
    """What runs: `kind` is `native` or `plain`; `cpu_level` of the native ones; `reason` why they are not used.

    remedy  how to get the native ones
    """

    kind: str
    cpu_level: str = ""
    reason: str = ""
    remedy: str = ""


@cache
def native_kernels() -> ModuleType | None:
    """Return the native module when it is to be used, else None.

    Raises UsageError for a variable with an unknown value, UnavailableError when they are insisted upon but missing.
    """
    return _load()[0]


def kernel_status() -> KernelStatus:
    """Return what runs here, and why. Raises as `native_kernels` does."""
    module, reason = _load()
    if module is None:
        chosen = os.environ.get(CHOICE_VARIABLE) == "plain"
        return KernelStatus("plain", reason=reason, remedy=f"unset {CHOICE_VARIABLE}" if chosen else REMEDY)
    return KernelStatus("native", cpu_level=CPU_LEVELS[module.cpu_level()])


@cache
def _load() -> tuple[ModuleType | None, str]:
    choice = _chosen(CHOICE_VARIABLE, ("auto", "native", "plain"))
    level = _chosen(LEVEL_VARIABLE, ("", *CPU_LEVELS))
    if choice == "plain":
        return None, f"{CHOICE_VARIABLE}=plain"
    try:
        from stoker.kernels import _native
    except ImportError as error:
        if choice == "native":
            raise UnavailableError("native kernels are not installed", got=str(error), remedy=REMEDY) from error
        missing = find_spec(f"{__package__}._native") is None
        return None, "stoker was installed without a C++ compiler" if missing else f"cannot be loaded: {error}"
    if level:
        _native.force_cpu_level(CPU_LEVELS.index(level))
    return _native, ""


def _chosen(variable: str, choices: tuple[str, ...]) -> str:
    value = os.environ.get(variable, choices[0])
    if value not in choices:
        raise UsageError(
            "environment variable has an unknown value", where=variable, expected=" or ".join(choices[1:]), got=value
        )
    return value


@contextmanager
def forced_cpu_level(level: str) -> Iterator[str]:
    """Lower the native kernels' CPU level for the length of a `with` block, for tests; yields the level in use."""
    module = native_kernels()
    if module is None:
        yield "plain"
        return
    before = module.cpu_level()
    try:
        yield CPU_LEVELS[module.force_cpu_level(CPU_LEVELS.index(level))]
    finally:
        module.force_cpu_level(before)
