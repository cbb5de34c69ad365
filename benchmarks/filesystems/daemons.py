"""Processes that a contender needs, ended with it; and how long a thing may take to be there."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.harness import PeerError

READY_SECONDS = 60.0


def program(name: str, remedy: str, places: Sequence[str] = ()) -> str:
    """Return where a program is. Raises PeerError with the remedy where it is not."""
    path = os.pathsep.join([*places, str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise PeerError(f"{name} is not installed: {remedy}")
    return found


def told(command: Sequence[str], *, seconds: float = READY_SECONDS) -> str:
    """Run a command to its end and return what it said. Raises PeerError with its last words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"{Path(command[0]).name} took more than {seconds:.0f} s") from error
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise PeerError(f"{Path(command[0]).name} ended with {done.returncode}: {words[-1]}")
    return done.stdout


@contextmanager
def daemon(
    command: Sequence[str], log: Path, *, variables: Mapping[str, str] | None = None, kill: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in the background until the block ends; `kill` for those that do not end politely."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            cwd=log.parent, env={**os.environ, **(variables or {})},
        )  # fmt: skip
    try:
        yield process
    finally:
        _end(process, kill=kill)


def _end(process: subprocess.Popen[bytes], *, kill: bool) -> None:
    if not kill:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(ready: Callable[[], bool], what: str) -> None:
    """Return when something is there. Raises PeerError when it does not come."""
    deadline = time.monotonic() + READY_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise PeerError(f"{what} was not there after {READY_SECONDS:.0f} s")
        time.sleep(0.05)


def wait_for_mount(folder: Path, kind: str) -> None:
    """Return when `folder` is a mount of this kind: a failed mount would measure the local disk."""
    wait_until(lambda: mounted(folder, kind), f"the mount of {kind}")


def mounted(folder: Path, kind: str) -> bool:
    """Tell whether a folder is a mount whose type or source has `kind` in it."""
    rows = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return any(row[1] == str(folder) and (kind in row[0].lower() or kind in row[2].lower()) for row in rows)


def unmount(folder: Path) -> None:
    """Take a mount away, lazily where it is busy."""
    for command in (["umount", str(folder)], ["umount", "-l", str(folder)]):
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return
