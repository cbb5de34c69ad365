"""A store of slices over many disks keeps the contract: in copies, and coded."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from stoker.fs.cluster import ClusterStore
from stoker.fs.disk import Disk as RealDisk
from stoker.fs.meta.storage_class import StorageClass, coded
from stoker.fs.place import Disk, new_map
from stoker.testing.slice_store_contract import SliceStoreContract

VOLUME = "11111111-2222-4333-8444-555555555555"


class DiskStore(ClusterStore):
    """A cluster whose disks are folders of this process, and are closed with it."""

    def __init__(self, folder: Path, made: StorageClass, disks: int) -> None:
        folder.mkdir(exist_ok=True)
        self.disks = []
        for number in range(disks):
            here = folder / str(number)
            if here.exists():
                self.disks.append(RealDisk(here))
            else:
                here.mkdir()
                self.disks.append(RealDisk.make(here, VOLUME))
        cluster = new_map([Disk(number, 100, f"h{number}") for number in range(disks)], [made])

        def class_of(number: int) -> StorageClass:
            return msgspec.structs.replace(made, id=number)

        super().__init__(VOLUME, lambda: cluster, self.disks.__getitem__, class_of)

    def close(self) -> None:
        super().close()
        for disk in self.disks:
            disk.close()


class TestCopies(SliceStoreContract):
    def make_store(self, folder: Path) -> Any:
        return DiskStore(folder, StorageClass(0, "pair", 1, 1), 3)

    open_store = make_store  # type: ignore[assignment]


@pytest.mark.slow
class TestCoded(SliceStoreContract):
    def make_store(self, folder: Path) -> Any:
        return DiskStore(folder, coded("cold", 4, 2), 7)

    open_store = make_store  # type: ignore[assignment]
