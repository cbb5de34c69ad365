"""The parent of the disks' processes: starts one for each, starts it anew when it dies, and ends them all.

One process a disk: a disk that hangs or a crash takes no other with it, and no interpreter's lock is shared. Each has
the end of a pipe that this process holds; when this process ends, however it does, the pipe ends and so do they.
"""

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from stoker.core.errors import StokerError
from stoker.fs.chunk.disk_process import GRACE_SECONDS, Beat, DiskTask, Ready, Told
from stoker.fs.wire.keys import TOKEN_VARIABLE
from stoker.fs.wire.streams import Clock

START_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.1
_PAUSE_SECONDS_MIN: Final = 0.5
_PAUSE_SECONDS_MAX: Final = 30.0
_SOUND_AFTER_SECONDS: Final = 60.0
_LINE_BYTES_MAX: Final = 1 << 20
_FRESH_SECONDS: Final = 5.0


class Restarts:
    """When a process that died is started again: after a pause that doubles, from the least when it had lived long.

    A pure value of the times it is given.
    """

    def __init__(self) -> None:
        self.count = 0
        self._pause_seconds = _PAUSE_SECONDS_MIN
        self._started = 0.0

    def started(self, now: float) -> None:
        """Note a start."""
        self._started = now

    def died(self, now: float) -> float:
        """Note a death; return when to start again."""
        if now - self._started >= _SOUND_AFTER_SECONDS:
            self._pause_seconds = _PAUSE_SECONDS_MIN
        self.count += 1
        pause_seconds, self._pause_seconds = self._pause_seconds, min(_PAUSE_SECONDS_MAX, 2 * self._pause_seconds)
        return now + pause_seconds


class DiskView(msgspec.Struct, frozen=True):
    """How one disk's process fares, for people and monitors."""

    folder: str
    address: str
    disk: str
    healthy: bool
    restarts: int
    trouble: str
    beat: Beat | None


class _Child:
    """The process of one disk, now and as it comes and goes."""

    def __init__(self, task: DiskTask) -> None:
        self.task = task
        self.process: subprocess.Popen[bytes] | None = None
        self.incoming = b""
        self.ready: Ready | None = None
        self.beat: Beat | None = None
        self.heard = 0.0
        self.trouble = ""
        self.restarts = Restarts()
        self.start_at = 0.0

    def view(self, now: float) -> DiskView:
        fresh = self.process is not None and now - self.heard < _FRESH_SECONDS
        healthy = fresh and self.beat is not None and not self.beat.fenced and not self.beat.status.read_only
        ready = self.ready
        return DiskView(
            folder=self.task.folder,
            address=ready.address if ready else "",
            disk=ready.disk if ready else "",
            healthy=healthy,
            restarts=self.restarts.count,
            trouble=self.trouble,
            beat=self.beat,
        )


class Supervisor:
    """Runs a process for each task until it is told to stop. For one thread, but for `views`."""

    def __init__(self, tasks: Sequence[DiskTask], warn: Callable[[str], None], clock: Clock = time.monotonic) -> None:
        self._children = [_Child(task) for task in tasks]
        self._warn, self._clock = warn, clock
        self._selector = selectors.DefaultSelector()

    def views(self) -> list[DiskView]:
        """Return how each disk fares."""
        now = self._clock()
        return [child.view(now) for child in self._children]

    def start(self, stop_wanted: Callable[[], bool]) -> list[Ready]:
        """Start all; return where they are served. Raises StokerError when one cannot be, and none is left then."""
        for child in self._children:
            self._spawn(child)
        until = self._clock() + START_SECONDS
        while not all(child.ready for child in self._children):
            self._listen()
            for child in self._children:
                if child.process is not None and child.process.poll() is not None and child.ready is None:
                    self._listen()
                    raise StokerError(
                        "disk cannot be served", where=child.task.folder, got=child.trouble or _ending(child.process)
                    )
            if self._clock() > until:
                raise StokerError("disks were not ready in time", expected=f"within {START_SECONDS:g} s")
            if stop_wanted():
                break
        return [child.ready for child in self._children if child.ready]

    def watch(self, stop_wanted: Callable[[], bool]) -> None:
        """Keep them running until it is wished that they stop."""
        while not stop_wanted():
            self._listen()
            now = self._clock()
            for child in self._children:
                if child.process is None:
                    if now >= child.start_at:
                        self._spawn(child)
                elif child.process.poll() is not None:
                    self._bury(child)

    def _spawn(self, child: _Child) -> None:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "stoker.fs.chunk.disk_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
            env={name: text for name, text in os.environ.items() if name != TOKEN_VARIABLE},
        )
        assert process.stdin is not None and process.stdout is not None
        child.process, child.incoming = process, b""
        child.restarts.started(self._clock())
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, child)
        # The port that the first process was given stays the disk's address.
        port = int(child.ready.address.rpartition(":")[2]) if child.ready else child.task.port
        task = msgspec.structs.replace(child.task, port=port)
        with suppress(OSError):  # it died already: watching tells of what
            process.stdin.write(msgspec.json.encode(task) + b"\n")
            process.stdin.flush()

    def _listen(self) -> None:
        for key, _ in self._selector.select(_POLL_SECONDS):
            child: _Child = key.data
            try:
                data = os.read(key.fd, 1 << 16)
            except BlockingIOError:
                continue
            if not data:
                self._selector.unregister(key.fileobj)
                continue
            *lines, child.incoming = (child.incoming + data)[-_LINE_BYTES_MAX:].split(b"\n")
            for line in lines:
                self._heard(child, line)

    def _heard(self, child: _Child, line: bytes) -> None:
        try:
            told: Told = msgspec.json.decode(line, type=Told)
        except msgspec.MsgspecError:
            return  # something that a library printed
        child.heard = self._clock()
        if isinstance(told, Ready):
            child.ready, child.trouble = told, ""
        elif isinstance(told, Beat):
            child.beat = told
        else:
            child.trouble = told.sentence

    def _bury(self, child: _Child) -> None:
        assert child.process is not None
        self._listen()
        ending = child.trouble or _ending(child.process)
        self._close(child)
        child.start_at = child.restarts.died(self._clock())
        child.trouble = ending
        self._warn(
            f"the process of {child.task.folder} ended ({ending}); "
            f"it is started again in {child.start_at - self._clock():.1f} s"
        )

    def _close(self, child: _Child) -> None:
        process, child.process = child.process, None
        assert process is not None and process.stdin is not None and process.stdout is not None
        with suppress(KeyError, ValueError):
            self._selector.unregister(process.stdout)
        with suppress(OSError):
            process.stdin.close()
        process.stdout.close()

    def stop(self) -> list[str]:
        """End all processes: what runs is finished within the grace. Returns the folders whose did not end well."""
        running = [child for child in self._children if child.process is not None]
        for child in running:
            assert child.process is not None and child.process.stdin is not None
            with suppress(OSError):
                child.process.stdin.close()
        until = self._clock() + 2 * GRACE_SECONDS
        unwell = []
        for child in running:
            process = child.process
            assert process is not None
            try:
                ended = process.wait(max(0.1, until - self._clock()))
            except subprocess.TimeoutExpired:
                process.kill()
                ended = process.wait()
            if ended != 0:
                unwell.append(child.task.folder)
            self._close(child)
        self._selector.close()
        return unwell


def _ending(process: subprocess.Popen[bytes]) -> str:
    code = process.poll()
    return "it still runs" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"
