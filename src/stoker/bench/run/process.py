"""What a rank's process asks of the kernel for itself."""

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_TIMERSLACK: Final = 29
_TIMER_SLACK_NS: Final = 1000
_SWITCH_SECONDS: Final = 0.0005


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies, however that dies; end now if it is dead already.

    Source: prctl(2), PR_SET_PDEATHSIG.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def keep_time_sharply() -> None:
    """Let sleeps of this thread end within microseconds, and let it have the interpreter soon after.

    The kernel delays timers by 50 µs to save power, the interpreter passes itself on every 5 ms: both are long beside
    a step of 0.375 ms. Source: prctl(2), PR_SET_TIMERSLACK.
    """
    _prctl(_PR_SET_TIMERSLACK, _TIMER_SLACK_NS)
    sys.setswitchinterval(_SWITCH_SECONDS)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "prctl")
