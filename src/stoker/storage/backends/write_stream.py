"""Writing a stream of parts into one open file, through the page cache or past it."""

import os
from collections.abc import Iterable
from typing import Final

import numpy as np

from stoker.core.units import MiB
from stoker.kernels.writing import FSYNC_START, PIECE_COLUMNS_OPEN, Int64s, WriteEngine
from stoker.storage.api import Buffer
from stoker.storage.base import byte_view
from stoker.storage.buffers import address_of

STAGE_BYTES: Final = 8 * MiB
"""What a stream past the page cache stages in: two halves, one being filled while the other is written."""
# From here on a part that is aligned by itself is written from where it lies.
_STRAIGHT_BYTES: Final = MiB
# The device gets to work while more is coming, when it has to be waited for anyway.
_START_BYTES: Final = 8 * MiB


def _piece(view: memoryview, position: int) -> Int64s:
    pieces = np.zeros((1, PIECE_COLUMNS_OPEN), np.int64)
    if view.nbytes:
        pieces[0] = (position, view.nbytes, address_of(view))
    return pieces


def _check(status: int) -> None:
    if status:
        raise OSError(status, os.strerror(status))


class CachedStream:
    """Writes through the page cache. `synced`: the file will be synced, so the device may as well begin."""

    def __init__(self, engine: WriteEngine, file: int, *, synced: bool) -> None:
        self._engine = engine
        self._file = file
        self._synced = synced

    def write(self, parts: Iterable[Buffer]) -> None:
        """Write every part before the next one is asked for."""
        position = pending_bytes = 0
        for part in parts:
            view = byte_view(part)
            pending_bytes += view.nbytes
            start = self._synced and pending_bytes >= _START_BYTES
            how = FSYNC_START if start else "none"
            _check(self._engine.write_open(self._file, _piece(view, position), fsync=how))
            position += view.nbytes
            if start:
                pending_bytes = 0


class AlignedStream:
    """Writes any bytes in aligned blocks past the page cache; the last block is padded, then cut off.

    `stage` is page-aligned memory of at least two blocks, ours until `write` returns. What fills a half is written
    behind our back while the next parts fill the other.
    """

    def __init__(self, engine: WriteEngine, file: int, stage: memoryview, *, alignment_bytes: int) -> None:
        half_bytes = stage.nbytes // 2
        self._alignment_bytes = alignment_bytes
        self._halves = [stage[:half_bytes], stage[half_bytes : 2 * half_bytes]]
        self._staged_bytes = 0
        self._position = 0
        self._engine = engine
        self._file = file

    def write(self, parts: Iterable[Buffer]) -> None:
        """Write every part, and the end; a part is done with before the next one is asked for."""
        try:
            for part in parts:
                self._add(byte_view(part))
            self._finish()
        finally:
            self._engine.finish_open()  # whatever happened, nothing may still be moving when the file is closed

    def _add(self, view: memoryview) -> None:
        while view.nbytes:
            straight_bytes = self._straight_bytes(view)
            if straight_bytes:
                self._write_now(view[:straight_bytes])
                self._position += straight_bytes
                view = view[straight_bytes:]
            else:
                view = self._stage_some(view)

    def _straight_bytes(self, view: memoryview) -> int:
        """Return how many bytes of `view` can go from where they lie."""
        if self._staged_bytes or view.nbytes < _STRAIGHT_BYTES or address_of(view) % self._alignment_bytes:
            return 0
        return view.nbytes - view.nbytes % self._alignment_bytes

    def _stage_some(self, view: memoryview) -> memoryview:
        half = self._halves[0]
        taken_bytes = min(view.nbytes, half.nbytes - self._staged_bytes)
        half[self._staged_bytes : self._staged_bytes + taken_bytes] = view[:taken_bytes]
        self._staged_bytes += taken_bytes
        if self._staged_bytes == half.nbytes:
            _check(self._engine.finish_open())
            self._engine.begin_open(self._file, _piece(half, self._position))
            self._halves.reverse()
            self._position += self._staged_bytes
            self._staged_bytes = 0
        return view[taken_bytes:]

    def _finish(self) -> None:
        """Write the padded rest and cut the file to its exact length."""
        size_bytes = self._position + self._staged_bytes
        padded_bytes = -(-self._staged_bytes // self._alignment_bytes) * self._alignment_bytes
        half = self._halves[0]
        half[self._staged_bytes : padded_bytes] = bytes(padded_bytes - self._staged_bytes)
        self._write_now(half[:padded_bytes])
        if padded_bytes != self._staged_bytes:
            os.ftruncate(self._file, size_bytes)

    def _write_now(self, view: memoryview) -> None:
        _check(self._engine.finish_open())
        _check(self._engine.write_open(self._file, _piece(view, self._position)))
