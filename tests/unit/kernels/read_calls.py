"""A folder of files, and calls of the read engines on it, for the tests of this folder and the properties."""

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from stoker.core.errors import UnavailableError
from stoker.kernels.files import DONE_COLUMNS, FILE_COLUMNS, RANGE_COLUMNS, Int64s, ReadEngine
from stoker.kernels.reading import KINDS, open_read_engine


@contextmanager
def engine(kind: str, queue_depth: int = 8, request_bytes: int = 1 << 20) -> Iterator[ReadEngine]:
    """Open an engine for a test, which is skipped where there is none."""
    try:
        opened = open_read_engine(kind, queue_depth=queue_depth, request_bytes=request_bytes)
    except UnavailableError as error:
        pytest.skip(str(error))
    try:
        yield opened
    finally:
        opened.close()


def available_kinds() -> Sequence[str]:
    """Return all kinds: what is missing is skipped by `engine`."""
    return KINDS


class Room:
    """Page-aligned memory, filled with a mark that no test's file holds."""

    def __init__(self, size_bytes: int) -> None:
        self._map = mmap.mmap(-1, max(size_bytes, 1))
        self.bytes = np.frombuffer(self._map, np.uint8)
        self.bytes[:] = 0xEE
        self.address = self.address_of(self._map)

    @staticmethod
    def address_of(mapping: mmap.mmap) -> int:
        """Return where a mapping lies."""
        return int(np.frombuffer(mapping, np.uint8).ctypes.data)


@dataclass
class Answer:
    """What came of a call."""

    files: Int64s
    ranges: Int64s
    room: Room
    spans: list[tuple[int, int]]

    def data(self, index: int) -> bytes:
        """Return all of the room of range `index`."""
        start, room_bytes = self.spans[index]
        return self.room.bytes[start : start + room_bytes].tobytes()


def laid_out(asked: Sequence[tuple[int, int, int, int]]) -> tuple[Int64s, Room, list[tuple[int, int]]]:
    """Lay ranges (file, offset, wanted, room) out in memory, each at a page of its own, a page between them."""
    spans = []
    start = 0
    for _, _, _, room_bytes in asked:
        spans.append((start, room_bytes))
        start += (room_bytes // mmap.PAGESIZE + 2) * mmap.PAGESIZE
    room = Room(start)
    ranges = np.zeros((len(asked), RANGE_COLUMNS), np.int64)
    for index, (file, offset, wanted, room_bytes) in enumerate(asked):
        ranges[index] = (file, offset, wanted, room_bytes, room.address + spans[index][0])
    return ranges, room, spans


def read_files(
    reader: ReadEngine,
    folder: Path,
    keys: Sequence[str],
    asked: Sequence[tuple[int, int, int, int]],
    *,
    flags: int = 0,
    residency: bool = False,
) -> Answer:
    """Call `read_files`; columns begin with a mark, so that a forgotten one is seen."""
    ranges, room, spans = laid_out(asked)
    files_done = np.full((len(keys), FILE_COLUMNS), -77, np.int64)
    ranges_done = np.full((len(asked), DONE_COLUMNS), -77, np.int64)
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        reader.read_files(
            opened, keys, flags, ranges, residency=residency, files_done=files_done, ranges_done=ranges_done
        )
    finally:
        os.close(opened)
    return Answer(files_done, ranges_done, room, spans)


def read_open(
    reader: ReadEngine, files: Sequence[int], asked: Sequence[tuple[int, int, int, int]], *, residency: bool = False
) -> Answer:
    """Call `read_open` likewise."""
    ranges, room, spans = laid_out(asked)
    ranges_done = np.full((len(asked), DONE_COLUMNS), -77, np.int64)
    reader.read_open(files, ranges, residency=residency, ranges_done=ranges_done)
    return Answer(np.zeros((0, FILE_COLUMNS), np.int64), ranges_done, room, spans)
