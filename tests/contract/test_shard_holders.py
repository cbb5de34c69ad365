"""A disk in this process and the same behind a network hold shards alike."""

from pathlib import Path

from stoker.fs.chunk import Target
from stoker.fs.chunk.fencing import Fence
from stoker.fs.chunk.service import ChunkService
from stoker.fs.disk import Disk
from stoker.fs.disk.interface import ShardHolder
from stoker.fs.disk.state import DiskOptions
from stoker.fs.wire import RpcServer
from stoker.testing.shard_holder_contract import VOLUME, ShardHolderContract

OPTIONS = DiskOptions(reserve_bytes=0, reserve_ratio=0.0)


class ServedTarget(Target):
    """A target whose server ends with it."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        fence = Fence(lambda: 0.0, active=False)
        service = ChunkService(disk, fence, Target, lambda pace: None)
        self._server = RpcServer(service.handlers(), volume=disk.volume)
        super().__init__(f"127.0.0.1:{self._server.address[1]}", volume=disk.volume)

    def close(self) -> None:
        super().close()
        self._server.close()
        self._disk.close()


class TestDisk(ShardHolderContract):
    """In this process."""

    def make_holder(self, folder: Path) -> ShardHolder:
        return Disk.make(folder, VOLUME, OPTIONS)


class TestTarget(ShardHolderContract):
    """Behind a real socket."""

    def make_holder(self, folder: Path) -> ShardHolder:
        return ServedTarget(Disk.make(folder, VOLUME, OPTIONS))
