"""Runs a program under a seccomp filter that denies io_uring, as container runtimes do.

python seccomp_denial.py ERRNO COMMAND…
"""

import ctypes
import os
import platform
import struct
import sys

SETUP = 425
"""io_uring_setup has this number on every architecture."""
LOAD_WORD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000
NO_NEW_PRIVILEGES, SET_SECCOMP, MODE_FILTER = 38, 22, 2


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("count", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def deny_io_uring(number: int) -> None:
    """Have io_uring_setup fail with this errno in this process and all that it starts."""
    steps = [
        (LOAD_WORD, 0, 0, 0),  # the number of the system call is the first word
        (JUMP_EQUAL, 0, 1, SETUP),
        (RETURN, 0, 0, FAIL | number),
        (RETURN, 0, 0, ALLOW),
    ]
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (NO_NEW_PRIVILEGES, 1, 0, 0, 0),
        (SET_SECCOMP, MODE_FILTER, ctypes.byref(Program(len(steps), code))),
    ):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "seccomp filter is refused", platform.machine())


if __name__ == "__main__":
    deny_io_uring(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
