"""The process of one disk: opens it, serves it, and ends when its parent wants it to, or is no more.

The parent writes one task as a line of JSON to standard input (so that no secret is in an argument) and holds that
pipe open: its end, for whatever reason, is the wish to stop. What happens goes to standard output, a line of JSON each.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Final

import msgspec

from stoker.core.errors import EXIT_FAILED, EXIT_GOOD, NotFoundError, StokerError
from stoker.core.units import GiB
from stoker.fs.chunk.fencing import FENCE_SECONDS, Fence
from stoker.fs.chunk.reporting import NOWHERE, Place, Reporter
from stoker.fs.chunk.service import ChunkService
from stoker.fs.chunk.target import Target
from stoker.fs.chunk.upkeep import Upkeep
from stoker.fs.disk import Disk
from stoker.fs.disk.interface import HolderStatus
from stoker.fs.disk.state import DiskOptions
from stoker.fs.wire import Peer, RpcServer, ServerOptions
from stoker.fs.wire.keys import TlsFiles, address_text

GRACE_SECONDS: Final = 5.0
_TASK_BYTES_MAX: Final = 1 << 20
_BEAT_SECONDS: Final = 1.0
_log: Final = logging.getLogger("stoker.fs.chunk")


class DiskTask(msgspec.Struct, frozen=True):
    """What the process of a disk is to do. With `volume` an empty folder is made a disk of it.

    `advertise` is the host under which others reach the disk, empty for the one it listens on.
    """

    folder: str
    host: str
    port: int
    volume: str = ""
    token: str | None = None
    tls: TlsFiles | None = None
    masters: tuple[str, ...] = ()
    advertise: str = ""
    fence_seconds: float = FENCE_SECONDS
    scrub_bytes_per_second: int | None = None
    reserve_bytes: int = 1 * GiB
    workers: int = 16
    place: Place = NOWHERE


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The disk is served at this address."""

    folder: str
    disk: str
    volume: str
    address: str
    pid: int


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """The disk lives; `fenced` tells whether it refuses writes because no master answers."""

    status: HolderStatus
    connections: int
    fenced: bool


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The disk cannot be served: one sentence."""

    sentence: str


Told = Ready | Beat | Failed


class _Voice:
    """Says things to the parent; whether it listens is told by the other pipe."""

    def __init__(self, output: IO[bytes]) -> None:
        self._output, self._lock = output, threading.Lock()

    def say(self, told: Told) -> None:
        with self._lock:
            try:
                self._output.write(msgspec.json.encode(told) + b"\n")
                self._output.flush()
            except OSError:
                return  # nobody is there any more


def open_disk(task: DiskTask) -> Disk:
    """Return the disk in the folder, made one if it is empty and the task names a volume. Raises StokerError."""
    folder, options = Path(task.folder), DiskOptions(reserve_bytes=task.reserve_bytes)
    try:
        return Disk(folder, options)
    except NotFoundError:
        if not task.volume:
            raise
        return Disk.make(folder, task.volume, options)


def serve(task: DiskTask, say: Callable[[Told], None], stop: threading.Event) -> None:
    """Serve a disk until `stop`. Raises StokerError when it cannot be done."""
    with ExitStack() as held:
        disk = open_disk(task)
        held.callback(disk.close)
        fence = Fence(time.monotonic, active=bool(task.masters), seconds=task.fence_seconds)
        upkeep = Upkeep(disk, task.scrub_bytes_per_second)
        sources = _Sources(task, disk.volume)
        held.callback(sources.close)
        service = ChunkService(disk, fence, sources.at, upkeep.set_pace)
        server = _server(task, service, disk.volume)
        held.callback(server.close, GRACE_SECONDS)
        upkeep.start()
        held.callback(upkeep.stop)
        address = address_text(task.advertise or server.address[0], server.address[1])
        masters = [_peer(task, master, disk.volume) for master in task.masters]
        reporter = Reporter(masters, address, disk.status, fence, time.monotonic, place=task.place)
        reporter.start()
        held.callback(reporter.stop)
        say(Ready(task.folder, disk.disk, disk.volume, address, os.getpid()))
        while not stop.wait(_BEAT_SECONDS):
            try:
                say(Beat(disk.status(), server.connections, fence.closed))
            except StokerError as error:  # what it holds may still be read; whoever watches misses the beat
                _log.warning("disk does not tell how it fares: %s", error)


def _server(task: DiskTask, service: ChunkService, volume: str) -> RpcServer:
    return RpcServer(
        service.handlers(),
        host=task.host,
        port=task.port,
        token=task.token,
        tls=task.tls.for_server() if task.tls is not None else None,
        volume=volume,
        options=ServerOptions(workers=task.workers),
    )


def _peer(task: DiskTask, address: str, volume: str) -> Peer:
    tls = task.tls.for_client() if task.tls is not None else None
    return Peer(address, token=task.token, tls=tls, volume=volume, role="chunk")


class _Sources:
    """Other chunk servers that shards are fetched from; their connections are kept."""

    _KEPT_MAX: Final = 256

    def __init__(self, task: DiskTask, volume: str) -> None:
        self._task, self._volume = task, volume
        self._targets: dict[str, Target] = {}
        self._lock = threading.Lock()

    def at(self, address: str) -> Target:
        """Return the chunk server at an address. Raises UsageError for text that is none."""
        with self._lock:
            found = self._targets.get(address)
            if found is None:
                found = Target(address, peer=_peer(self._task, address, self._volume))
                if len(self._targets) >= self._KEPT_MAX:
                    self._targets.pop(next(iter(self._targets))).close()
                self._targets[address] = found
            return found

    def close(self) -> None:
        """End the connections."""
        with self._lock:
            for target in self._targets.values():
                target.close()
            self._targets.clear()


def _read_task(source: int) -> DiskTask:
    """Return the task that the parent wrote. Raises MsgspecError for what is none."""
    line = b""
    while not line.endswith(b"\n") and len(line) < _TASK_BYTES_MAX:
        more = os.read(source, 1 << 16)
        if not more:
            break
        line += more
    return msgspec.json.decode(line, type=DiskTask)


def _watch(source: int, stop: threading.Event) -> None:
    """Set `stop` when the parent closes its end. Reads without a buffer, whose lock would keep this process here."""
    with suppress(OSError):
        while os.read(source, 4096):
            pass
    stop.set()


def main() -> int:
    """Serve the disk that standard input tells of; return the exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    voice, stop, source = _Voice(sys.stdout.buffer), threading.Event(), sys.stdin.fileno()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        task = _read_task(source)
        threading.Thread(target=_watch, args=(source, stop), daemon=True, name="stoker-chunk-parent").start()
        serve(task, voice.say, stop)
    except (StokerError, msgspec.MsgspecError) as error:
        voice.say(Failed(str(error)))
        return EXIT_FAILED
    return EXIT_GOOD


if __name__ == "__main__":
    sys.exit(main())
