"""Mounting and unmounting: by mount(2) as the superuser, else through the setuid helper fusermount3.

The helper opens the device, mounts, and hands the descriptor over a socket, whose number it is told by the environment.
"""

import array
import ctypes
import errno
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Final

from stoker.core.errors import DeniedError, PreflightError, StokerError, UsageError
from stoker.fs.fuse.options import MOUNT_TYPE, MountOptions
from stoker.fs.fuse.table import Mounted, mount_at, resolved

DEVICE: Final = Path("/dev/fuse")
_HELPER: Final = "fusermount3"
_HELPER_SECONDS: Final = 30
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOATIME = 1, 2, 4, 1024
_MNT_FORCE, _MNT_DETACH = 1, 2
_READ_AHEAD_KB: Final = 4096
_SOURCE_CHARACTERS_MAX: Final = 200
_libc: Final = ctypes.CDLL(None, use_errno=True)


def mount(point: Path, options: MountOptions, source: str) -> int:
    """Mount, and return the descriptor on which the kernel's requests come. Raises StokerError."""
    source = "".join(c if c.isalnum() or c in ":/._-?=&%#@+" else "_" for c in source)[:_SOURCE_CHARACTERS_MAX]
    if not DEVICE.exists():
        remedy = "load the module with `modprobe fuse`; in a container allow the device"
        raise PreflightError("this machine has no FUSE", where=str(DEVICE), remedy=remedy)
    return _mount_directly(point, options, source) if os.geteuid() == 0 else _mount_by_helper(point, options, source)


def _mount_directly(point: Path, options: MountOptions, source: str) -> int:
    try:
        device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise DeniedError("FUSE cannot be opened", where=str(DEVICE), got=error.strerror or "") from error
    told = f"fd={device},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()},default_permissions"
    told += ",allow_other" if options.allow_other else ""
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOATIME | (_MS_RDONLY if options.read_only else 0)
    arguments = (source.encode(), os.fsencode(resolved(point)), MOUNT_TYPE.encode(), flags, told.encode())
    if _libc.mount(*(ctypes.c_ulong(one) if isinstance(one, int) else one for one in arguments)):
        number = ctypes.get_errno()
        os.close(device)
        remedy = "mounting needs CAP_SYS_ADMIN here" if number == errno.EPERM else ""
        raise StokerError("mount was refused", where=str(point), got=os.strerror(number), remedy=remedy)
    return device


def _mount_by_helper(point: Path, options: MountOptions, source: str) -> int:
    helper = shutil.which(_HELPER)
    if helper is None:
        raise PreflightError("mounting needs a helper", expected=_HELPER, remedy="install the package fuse3")
    told = f"fsname={source.replace(',', '_')},subtype=stoker,default_permissions,nosuid,nodev,noatime"
    told += ",allow_other" if options.allow_other else ""
    told += ",ro" if options.read_only else ""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        done = subprocess.run(  # noqa: S603 - the helper, the caller's mount point and options made here
            [helper, "-o", told, "--", str(resolved(point))],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()], capture_output=True, timeout=_HELPER_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            got = done.stderr.decode(errors="replace").strip()
            raise StokerError("mount was refused", where=str(point), got=got or f"exit code {done.returncode}")
        return _received(ours)


def _received(channel: socket.socket) -> int:
    """Return the descriptor that the helper sent."""
    channel.settimeout(_HELPER_SECONDS)
    numbers = array.array("i")
    _, parts, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(numbers.itemsize))
    for level, kind, data in parts:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: numbers.itemsize])
    if not numbers:
        raise StokerError("mount was refused", where=_HELPER, got="no descriptor came")
    os.set_inheritable(numbers[0], False)
    return numbers[0]


def raise_readahead(point: Path) -> bool:
    """Let the kernel read 4 MiB ahead instead of 128 KiB: buffered reads double. Tell whether it could be set."""
    found = mount_at(point)
    try:
        Path(f"/sys/class/bdi/{found.device if found else ''}/read_ahead_kb").write_text(str(_READ_AHEAD_KB))
    except OSError:  # not the superuser, or no sysfs: reads are right all the same
        return False
    return True


# -- unmounting


def unmount(point: Path, *, lazy: bool = False, force: bool = False) -> Mounted:
    """Unmount a volume and return what was mounted; with `lazy` although it is in use, with `force` cut off who waits.

    Raises UsageError where none of ours is mounted, StokerError when it is in use.
    """
    found = mount_at(point)
    if found is None or found.kind != MOUNT_TYPE:
        raise UsageError("no volume is mounted there", where=str(point), got=found.kind if found else "")
    if os.geteuid() == 0:
        flags = (_MNT_DETACH if lazy else 0) | (_MNT_FORCE if force else 0)
        if _libc.umount2(os.fsencode(found.point), flags):
            _refuse_unmount(point, os.strerror(ctypes.get_errno()))
        return found
    helper = shutil.which(_HELPER) or _HELPER
    words = [helper, "-u", *(["-z"] if lazy or force else []), "--", found.point]
    done = subprocess.run(words, capture_output=True, timeout=_HELPER_SECONDS, check=False)  # noqa: S603 - the helper
    if done.returncode:
        _refuse_unmount(point, done.stderr.decode(errors="replace").strip())
    return found


def _refuse_unmount(point: Path, got: str) -> None:
    remedy = "close what uses it (`fuser -m` tells), or give --lazy"
    raise StokerError("unmounting was refused", where=str(point), got=got, remedy=remedy)


def syncfs(point: Path) -> None:
    """Have the kernel write what programs have changed in mapped pages."""
    try:
        descriptor = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # the mount is gone or answers no longer: there is nothing left to save
    try:
        _libc.syncfs(descriptor)
    finally:
        os.close(descriptor)
