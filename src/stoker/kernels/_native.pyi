from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

from stoker.kernels.files import Int64s

def cpu_level() -> int: ...
def cpu_level_supported() -> int: ...
def force_cpu_level(level: int) -> int: ...

# unpack
def npz_locate(
    data: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64], found: NDArray[np.int64]
) -> None: ...
def npy_locate(
    data: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64], found: NDArray[np.int64]
) -> None: ...
def examples_locate(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    counts: NDArray[np.int64],
    statuses: NDArray[np.int64],
    records: NDArray[np.int64],
) -> None: ...
def records_scan(
    window: NDArray[np.uint8], left_bytes: int, offsets: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[int, int, int]: ...
def fill_pages(
    into: Buffer,
    tile: Buffer,
    pool_keys: Buffer,
    knobs: tuple[int, int, float, float],
    offset_bytes: int,
    mask: int,
) -> None: ...

class WriteEngine:
    queue_depth: int
    request_bytes: int
    def __init__(self, ring: bool, buffered_in_turn: bool) -> None: ...
    def write_open(self, file: int, rows: NDArray[np.int64], fsync: int) -> int: ...
    def begin_open(self, file: int, rows: NDArray[np.int64]) -> int: ...
    def finish_open(self) -> int: ...
    def write_files(
        self,
        folder: int,
        names: list[bytes],
        temporaries: list[bytes],
        rows: NDArray[np.int64],
        sizes: NDArray[np.int64],
        policy: tuple[int, int, bool],
        done: NDArray[np.int64],
    ) -> int: ...
    def close(self) -> None: ...

def write_ring_error() -> int: ...

class ReadEngine:
    kind: str
    queue_depth: int
    request_bytes: int
    def __init__(self, kind: str, queue_depth: int, request_bytes: int) -> None: ...
    def read_files(
        self,
        folder: int,
        keys: Sequence[str],
        flags: int,
        ranges: Int64s,
        residency: bool,
        files_done: Int64s,
        ranges_done: Int64s,
    ) -> int: ...
    def read_open(self, files: Sequence[int], ranges: Int64s, residency: bool, ranges_done: Int64s) -> int: ...
    def register(self, address: int, size_bytes: int) -> bool: ...
    def unregister(self, address: int) -> bool: ...
    def close(self) -> bool: ...

def crc32c(data: Buffer, value: int) -> int: ...
def copy_crc32c(source: Buffer, target: Buffer, value: int) -> int | None: ...
def copy_xxh3(source: Buffer, target: Buffer) -> int | None: ...
def crc32c_many(buffer: Buffer, ranges: Buffer, values: Buffer) -> int: ...
