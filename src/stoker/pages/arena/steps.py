"""Failpoints: named steps of a commit at which a test may kill the process."""

import os
import signal
from contextlib import suppress
from typing import Final

from stoker.kernels import arenas

_VARIABLE: Final = "STOKER_PAGES_KILL_AT"
_countdown: list[int] = [int(os.environ.get(_VARIABLE, "0"))]


def step(name: str) -> None:
    """Die by SIGKILL here if a test counted down to this step; else nothing."""
    if _countdown[0]:
        _countdown[0] -= 1
        if not _countdown[0]:
            with suppress(OSError):
                os.write(2, f"killed at {name}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)


def kill_at(count: int, *, native: int | None = None) -> None:
    """Have this process killed at the `count`-th step from now; 0 for never.

    native  steps of native commits are counted apart, to this number; by default to the same
    """
    _countdown[0] = count
    arenas.kill_at(count if native is None else native)
