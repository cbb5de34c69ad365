"""Disks behind real sockets, in this process: what the tests of chunk servers share."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from stoker.fs.chunk import Target
from stoker.fs.chunk.fencing import Fence
from stoker.fs.chunk.service import ChunkService
from stoker.fs.disk import Disk, ShardHeader, ShardId
from stoker.fs.disk.checksums import cell_crcs
from stoker.fs.disk.state import DiskOptions
from stoker.fs.wire import RpcServer
from stoker.testing.shard_holder_contract import VOLUME

__all__ = ["VOLUME", "Served", "cut_short", "damage", "header_of"]


class Served:
    """One disk, its server and a client of it."""

    def __init__(self, folder: Path, *, fence: Fence | None = None, **options: Any) -> None:
        self.folder = folder
        self.paces: list[int] = []
        sources: dict[str, Target] = {}
        with ExitStack() as held:
            self.disk = Disk.make(folder, VOLUME, DiskOptions(reserve_bytes=0, reserve_ratio=0.0, **options))
            held.callback(self.disk.close)
            service = ChunkService(
                self.disk,
                fence or Fence(lambda: 0.0, active=False),
                lambda address: sources.setdefault(address, Target(address, within_seconds=0.5)),
                self.paces.append,
            )
            self.server = RpcServer(service.handlers(), volume=VOLUME)
            held.callback(self.server.close)
            held.callback(lambda: [source.close() for source in sources.values()])
            self.address = f"127.0.0.1:{self.server.address[1]}"
            self.target = held.enter_context(Target(self.address, volume=VOLUME, within_seconds=10))
            self._held = held.pop_all()

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()


def header_of(shard: ShardId, data: bytes, cell_bytes: int = 4096) -> ShardHeader:
    crcs = cell_crcs([data], cell_bytes)
    return ShardHeader(VOLUME, shard, 0, 1, 0, cell_bytes, len(data), len(data), crcs)


def files_with(folder: Path, data: bytes) -> Iterator[tuple[Path, int]]:
    """The files of a disk that hold these bytes, and where."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            at = path.read_bytes().find(data)
            if at >= 0:
                yield path, at


def change(folder: Path, data: bytes, how: Callable[[Path, int], None]) -> None:
    """Change the bytes of a shard where they lie."""
    found = list(files_with(folder, data))
    assert len(found) == 1, found
    how(*found[0])


def damage(folder: Path, data: bytes, at: int) -> None:
    """Flip a bit of a shard's byte `at` on the disk."""

    def flip(path: Path, start: int) -> None:
        with path.open("r+b") as file:
            file.seek(start + at)
            file.write(bytes([data[at] ^ 16]))

    change(folder, data, flip)


def cut_short(folder: Path, data: bytes, kept: int) -> None:
    """Let a shard's file end within its bytes."""

    def cut(path: Path, start: int) -> None:
        with path.open("r+b") as file:
            file.truncate(start + kept)

    change(folder, data, cut)
