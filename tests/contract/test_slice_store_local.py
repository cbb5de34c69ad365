"""The local store of slices keeps the contract."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.core.units import MiB
from stoker.fs.disk import DiskOptions
from stoker.fs.meta.slices import Slice
from stoker.fs.store.local import LocalStore
from stoker.testing.slice_store_contract import SliceStoreContract, content


def flip(folder: Path, wanted: bytes) -> None:
    """Change a byte of `wanted` in whichever file below a folder holds it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (place := path.read_bytes().find(wanted)) >= 0:
            with path.open("r+b") as file:
                file.seek(place + len(wanted) // 2)
                byte = file.read(1)[0] ^ 0x10
                file.seek(place + len(wanted) // 2)
                file.write(bytes([byte]))
            return
    raise AssertionError("the bytes are nowhere")


class TestLocal(SliceStoreContract):
    opener = "stoker.fs.store.local:LocalStore"

    def make_store(self, folder: Path) -> LocalStore:
        return LocalStore.make(folder, DiskOptions(reserve_bytes=MiB, reserve_ratio=0.0))

    def open_store(self, folder: Path) -> LocalStore:  # type: ignore[override]
        return LocalStore(folder)

    def spoil(self, store: LocalStore, data: Slice) -> None:  # type: ignore[override]
        flip(store.disk.folder, content(data)[-3000:])

    @pytest.fixture(autouse=True)
    def small_file_system(self, tmp_path: Path) -> Iterator[None]:
        self.mounted: list[Path] = []
        yield
        for folder in self.mounted:
            subprocess.run(["umount", str(folder)], check=True)

    def make_small_store(self, folder: Path) -> LocalStore:  # type: ignore[override]
        if os.geteuid() != 0:
            pytest.skip("only root can mount a small file system")
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=12M", "tmpfs", str(folder)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        self.mounted.append(folder)
        return LocalStore.make(folder / "disk", DiskOptions(reserve_bytes=MiB, reserve_ratio=0.0))
