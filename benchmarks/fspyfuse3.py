"""`python -m benchmarks.fspyfuse3`: one tiny file system in memory through pyfuse3, and through our own layer of FUSE.

Neither side has metadata, caches or disks: what is measured is the binding alone, from the kernel's request to Python
and back. A file is written and read with calls of 1 MiB, files are made, asked for and listed; the kernel believes
nothing for longer than the call. Both take turns. Beside the rate stands the processor's time of the server for each
MiB, file or name, which a busy machine disturbs less.

pyfuse3 is the user's to install: `apt install libfuse3-dev pkg-config && pip install pyfuse3`.
"""

import argparse
import errno
import importlib
import importlib.util
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import PeerError, machine
from stoker.core.clock import utc_text
from stoker.core.units import MiB
from stoker.fs.fuse import mounting
from stoker.fs.fuse import protocol as p
from stoker.fs.fuse.answers import EMPTY, Reply, attribute_answer, dirent, entry, framed
from stoker.fs.fuse.dispatch import HANDLERS, Answer, Dispatcher
from stoker.fs.fuse.greeting import greet
from stoker.fs.fuse.options import MountOptions
from stoker.fs.fuse.requests import FORMS, Head, read_body
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.records import Attr

PIECE_BYTES = 1 * MiB
SIDES = ("pyfuse3", "ours")
WANTED_HOOKS = (
    "lookup", "getattr", "setattr", "readlink", "symlink", "mknod", "mkdir", "unlink", "rmdir", "rename", "link",
    "open", "read", "write", "flush", "release", "fsync", "opendir", "readdir", "releasedir", "fsyncdir", "statfs",
    "setxattr", "getxattr", "listxattr", "removexattr", "access", "create", "getlk", "setlk", "setlkw", "flock",
    "fallocate", "lseek", "copy_file_range", "statx", "interrupt",
)  # fmt: skip
"""What a mount of ours answers, under the names that a library has for it."""
_START_SECONDS = 20.0
_NEVER = (0, 0)


class Tiny:
    """One directory of files in memory."""

    def __init__(self) -> None:
        self.names: dict[bytes, int] = {}
        self.data: dict[int, bytearray] = {}
        self.attrs = {1: self._attr(0o40755, 2)}
        self._next = 2

    def _attr(self, mode: int, links: int) -> Attr:
        now = time.time_ns()
        return Attr(mode, os.getuid(), os.getgid(), links, 0, 0, 1, now, now, now, now)

    def lookup(self, name: bytes) -> int:
        """Return the inode of a name. Raises Refused (ENOENT)."""
        ino = self.names.get(name)
        if ino is None:
            raise Refused(errno.ENOENT)
        return ino

    def create(self, name: bytes, mode: int) -> int:
        """Return a new file."""
        ino, self._next = self._next, self._next + 1
        self.names[name], self.data[ino] = ino, bytearray()
        self.attrs[ino] = self._attr(0o100000 | mode & 0o7777, 1)
        return ino

    def write(self, ino: int, offset: int, data: bytes | memoryview) -> int:
        """Write, and return how much."""
        held = self.data[ino]
        held[offset : offset + len(data)] = data
        self.attrs[ino].size_bytes = len(held)
        return len(data)

    def read(self, ino: int, offset: int, size: int) -> bytes:
        """Return bytes."""
        return bytes(memoryview(self.data[ino])[offset : offset + size])

    def truncate(self, ino: int, size: int) -> None:
        """Cut a file short, or lengthen it."""
        held = self.data[ino]
        held[size:] = bytes(max(size - len(held), 0))
        self.attrs[ino].size_bytes = size

    def unlink(self, name: bytes) -> None:
        """Remove a file."""
        ino = self.names.pop(name)
        del self.data[ino], self.attrs[ino]


# -- through our layer


class TinyDispatcher(Dispatcher):
    """Answers the kernel out of a Tiny; decoding, framing and errors are those of a mount."""

    def __init__(self, tiny: Tiny) -> None:
        self._complain = lambda text: print(text, file=sys.stderr)
        self._tiny = tiny
        self._listed: list[tuple[bytes, int]] = []
        self._handlers: dict[int, Callable[..., Reply]] = {
            p.LOOKUP: lambda _head, name: self._entry(tiny.lookup(name)),
            p.GETATTR: lambda head: self._attr(head.node),
            p.SETATTR: self._setattr,
            p.CREATE: self._create,
            p.OPEN: lambda head, _flags: Reply(p.OPEN_OUT.pack(head.node, 0, 0)),
            p.READ: lambda head, _fh, offset, size: Reply(tiny.read(head.node, offset, size)),
            p.WRITE: lambda head, _fh, offset, _size, _flags, data: Reply(
                p.WRITE_OUT.pack(tiny.write(head.node, offset, data), 0)
            ),
            p.UNLINK: lambda _head, name: tiny.unlink(name) or EMPTY,
            p.OPENDIR: self._opendir,
            p.READDIR: lambda _head, _fh, offset, size: self._readdir(offset, size, plus=False),
            p.READDIRPLUS: lambda _head, _fh, offset, size: self._readdir(offset, size, plus=True),
        }
        for opcode in (p.FLUSH, p.RELEASE, p.FSYNC, p.RELEASEDIR, p.FORGET, p.BATCH_FORGET, p.DESTROY):
            self._handlers[opcode] = lambda *_: EMPTY
        self.greeting = None

    def _answered(self, head: Head, message: memoryview) -> Answer | None:
        if head.opcode == p.INIT:
            self.greeting, body = greet(message)
            return Answer(framed(head.unique, [body]))
        handler = self._handlers.get(head.opcode)
        if handler is None:
            raise Refused(errno.ENOSYS)
        reply = handler(head, *read_body(FORMS[head.opcode], message))
        return None if head.opcode in p.SILENT else Answer(framed(head.unique, reply.parts))

    def _entry(self, ino: int) -> Reply:
        return Reply(entry(ino, self._tiny.attrs[ino], _NEVER, _NEVER))

    def _attr(self, ino: int) -> Reply:
        return Reply(attribute_answer(ino, self._tiny.attrs[ino], _NEVER))

    def _setattr(self, head: Head, valid: int, size: int, *_: int) -> Reply:
        if valid & p.FATTR_SIZE:
            self._tiny.truncate(head.node, size)
        return self._attr(head.node)

    def _create(self, _head: Head, _flags: int, mode: int, _umask: int, name: bytes) -> Reply:
        ino = self._tiny.create(name, mode)
        return Reply(entry(ino, self._tiny.attrs[ino], _NEVER, _NEVER), p.OPEN_OUT.pack(ino, 0, 0))

    def _opendir(self, _head: Head) -> Reply:
        self._listed = list(self._tiny.names.items())
        return Reply(p.OPEN_OUT.pack(0, 0, 0))

    def _readdir(self, offset: int, size: int, *, plus: bool) -> Reply:
        parts: list[bytes] = []
        for place in range(offset, len(self._listed)):
            name, ino = self._listed[place]
            one = dirent(ino, place + 1, name, 8)
            if plus:
                one = entry(ino, self._tiny.attrs[ino], _NEVER, _NEVER) + one
            size -= len(one)
            if size < 0:
                break
            parts.append(one)
        return Reply(b"".join(parts))


def serve_ours(point: Path) -> None:
    """Serve until unmounted, by as many threads as a mount has."""
    options = MountOptions()
    device = mounting.mount(point, options, "tiny")
    dispatcher = TinyDispatcher(Tiny())

    def loop() -> None:
        buffer = bytearray(p.REQUEST_BYTES_MAX)
        whole = memoryview(buffer)
        while True:
            try:
                length = os.readv(device, [buffer])
                answer = dispatcher.answer(whole[:length])
                if answer is not None:
                    os.writev(device, answer.buffers)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                    return

    threads = [threading.Thread(target=loop) for _ in range(options.threads)]
    for thread in threads:
        thread.start()
    mounting.raise_readahead(point)
    for thread in threads:
        thread.join()


# -- through pyfuse3


class TinyOperations:
    """The same as pyfuse3 wants it; handles are inodes."""

    def __init__(self, library: Any, tiny: Tiny) -> None:
        super().__init__()
        self._library = library
        self._tiny = tiny
        self._listed: list[tuple[bytes, int]] = []

    def _attributes(self, ino: int) -> Any:
        attr, told = self._tiny.attrs[ino], self._library.EntryAttributes()
        told.st_ino, told.generation, told.entry_timeout, told.attr_timeout = ino, 1, 0, 0
        told.st_mode, told.st_nlink, told.st_uid, told.st_gid = attr.mode, attr.nlink, attr.uid, attr.gid
        told.st_size, told.st_rdev, told.st_blksize, told.st_blocks = attr.size_bytes, 0, 4096, attr.size_bytes // 512
        told.st_atime_ns, told.st_mtime_ns, told.st_ctime_ns = attr.atime_ns, attr.mtime_ns, attr.ctime_ns
        return told

    async def lookup(self, parent: int, name: bytes, ctx: Any) -> Any:
        """LOOKUP."""
        try:
            return self._attributes(self._tiny.lookup(name))
        except Refused as error:
            raise self._library.FUSEError(error.errno) from error

    async def getattr(self, ino: int, ctx: Any) -> Any:
        """GETATTR."""
        return self._attributes(ino)

    async def setattr(self, ino: int, attr: Any, fields: Any, fh: Any, ctx: Any) -> Any:
        """SETATTR."""
        if fields.update_size:
            self._tiny.truncate(ino, attr.st_size)
        return self._attributes(ino)

    async def create(self, parent: int, name: bytes, mode: int, flags: int, ctx: Any) -> Any:
        """CREATE."""
        ino = self._tiny.create(name, mode)
        return self._library.FileInfo(fh=ino, keep_cache=False), self._attributes(ino)

    async def open(self, ino: int, flags: int, ctx: Any) -> Any:
        """OPEN."""
        return self._library.FileInfo(fh=ino, keep_cache=False)

    async def read(self, fh: int, offset: int, size: int) -> bytes:
        """READ."""
        return self._tiny.read(fh, offset, size)

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        """WRITE."""
        return self._tiny.write(fh, offset, data)

    async def unlink(self, parent: int, name: bytes, ctx: Any) -> None:
        """UNLINK."""
        self._tiny.unlink(name)

    async def opendir(self, ino: int, ctx: Any) -> int:
        """OPENDIR."""
        self._listed = list(self._tiny.names.items())
        return ino

    async def readdir(self, fh: int, start: int, token: Any) -> None:
        """READDIRPLUS."""
        for place in range(start, len(self._listed)):
            name, ino = self._listed[place]
            if not self._library.readdir_reply(token, name, self._attributes(ino), place + 1):
                return

    async def _nothing(self, *_: Any) -> None:
        """FLUSH, RELEASE and the like: there is nothing to do."""

    flush = release = fsync = releasedir = forget = _nothing


def serve_pyfuse3(point: Path) -> None:
    """Serve until unmounted."""
    library, trio = importlib.import_module("pyfuse3"), importlib.import_module("trio")
    made = type("Operations", (TinyOperations, library.Operations), {})(library, Tiny())
    library.init(made, str(point), {*library.default_options, "fsname=tiny"})
    mounting.raise_readahead(point)
    trio.run(library.main)
    library.close(unmount=False)


def missing_hooks() -> list[str]:
    """Return what our mounts answer and pyfuse3's operations have no method for."""
    library = importlib.import_module("pyfuse3")
    return [name for name in WANTED_HOOKS if not hasattr(library.Operations, name)]


# -- turns


@contextmanager
def mounted(side: str, point: Path) -> Iterator[int]:
    """Mount a side at a new directory, and give the number of the process that serves."""
    point.mkdir()
    command = [sys.executable, "-m", "benchmarks.fspyfuse3", "--serve", side, str(point)]
    server = subprocess.Popen(command)
    try:
        until = time.monotonic() + _START_SECONDS
        while not os.path.ismount(point):
            if server.poll() is not None or time.monotonic() > until:
                raise PeerError(f"{side} does not mount")
            time.sleep(0.02)
        yield server.pid
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=False, capture_output=True)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def cpu_seconds(pid: int) -> float:
    """Return the processor's time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(pid: int, count: float, work: Callable[[], object]) -> dict[str, float]:
    """Return how many of `count` things are done in a second, and the server's microseconds for each."""
    before, start = cpu_seconds(pid), time.perf_counter()
    work()
    wall = time.perf_counter() - start
    return {"per_second": count / wall, "server_cpu_us": (cpu_seconds(pid) - before) * 1e6 / count}


def write_pieces(path: Path, count: int) -> None:
    """Write a file with calls of 1 MiB."""
    data = bytes(PIECE_BYTES)
    with path.open("wb", buffering=0) as file:
        for _ in range(count):
            file.write(data)


def read_pieces(path: Path) -> None:
    """Read a file with calls of 1 MiB."""
    buffer = bytearray(PIECE_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def one_turn(pid: int, point: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return what a side does."""
    names = [point / f"{number:06}" for number in range(options.files)]
    large, lists = point / "large", 20
    found = {}
    write_pieces(large, options.mebibytes)  # memory is touched for the first time here
    found["write_MiB"] = measured(pid, options.mebibytes, lambda: write_pieces(large, options.mebibytes))
    found["read_MiB"] = measured(pid, options.mebibytes, lambda: read_pieces(large))
    large.unlink()
    found["create"] = measured(pid, options.files, lambda: [name.touch() for name in names])
    found["stat"] = measured(pid, options.files * 5, lambda: [name.stat() for name in names for _ in range(5)])
    found["readdir_name"] = measured(
        pid, options.files * lists, lambda: [list(point.iterdir()) for _ in range(lists)]
    )  # fmt: skip
    return found


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fspyfuse3", description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=128, help="size of the large file")
    parser.add_argument("--files", type=int, default=2000, help="how many files are made, asked for and listed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--serve", nargs=2, metavar=("SIDE", "POINT"), help=argparse.SUPPRESS)
    return parser.parse_args(words)


def check_pyfuse3() -> None:
    """Raise PeerError with the remedy where pyfuse3 is not installed."""
    if importlib.util.find_spec("pyfuse3") is None:
        raise PeerError(
            "pyfuse3 is not installed: apt install libfuse3-dev pkg-config gcc && pip install pyfuse3 (measured: 3.5)"
        )


def main(words: list[str] | None = None) -> int:
    """Measure, print, and save."""
    options = parsed(words)
    if options.serve:
        {"ours": serve_ours, "pyfuse3": serve_pyfuse3}[options.serve[0]](Path(options.serve[1]))
        return 0
    try:
        check_pyfuse3()
        rounds = measured_rounds(options)
    except PeerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    document: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.fspyfuse3", *sys.argv[1:]]), "made": utc_text(),
        "machine": machine(), "missing_in_pyfuse3": missing_hooks(), "opcodes_of_ours": len(HANDLERS) + 1,
        "rounds": rounds, "rows": rows_of(rounds),
    }  # fmt: skip
    for what, row in document["rows"].items():
        told = "  ".join(
            f"{side} {row[side]['per_second']:9.0f}/s {row[side]['server_cpu_us']:8.1f} us" for side in SIDES
        )
        sys.stdout.write(f"{what:14} {told}\n")
    sys.stdout.write(f"pyfuse3 has no hook for: {', '.join(document['missing_in_pyfuse3'])}\n")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fspyfuse3.json").write_text(json.dumps(document, indent=1) + "\n")
    return 0


def measured_rounds(options: argparse.Namespace) -> dict[str, list[dict[str, dict[str, float]]]]:
    """Return what both sides did, in turns."""
    rounds: dict[str, list[dict[str, dict[str, float]]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for side in SIDES if number % 2 else SIDES[::-1]:
                point = Path(folder) / f"{side}-{number}"
                with mounted(side, point) as pid:
                    rounds[side].append(one_turn(pid, point, options))
    return rounds


def rows_of(rounds: dict[str, list[dict[str, dict[str, float]]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return medians of each measure by side."""
    measures = ("per_second", "server_cpu_us")
    return {
        what: {
            side: {name: statistics.median(one[what][name] for one in turns) for name in measures}
            for side, turns in rounds.items()
        }
        for what in rounds[SIDES[0]][0]
    }


if __name__ == "__main__":
    sys.exit(main())
