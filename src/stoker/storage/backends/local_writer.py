"""Putting objects into a folder: many small ones in one call of an engine, large ones as a stream."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np

from stoker.core.errors import StokerError, UsageError
from stoker.core.units import MiB
from stoker.kernels.writing import PIECE_COLUMNS, WRITTEN_COLUMNS, WriteEngine, WritePolicy
from stoker.storage.api import Buffer, ObjectInfo
from stoker.storage.backends.beneath import Root
from stoker.storage.backends.engine_pool import EnginePool
from stoker.storage.backends.listing import object_info, written_info
from stoker.storage.backends.new_file import WriteMode, temporary_name, write_new_file
from stoker.storage.backends.posix_errors import store_error
from stoker.storage.backends.write_stream import STAGE_BYTES, AlignedStream, CachedStream
from stoker.storage.base import byte_view, check_object_key
from stoker.storage.buffers import BufferPool, address_of

# A call of the engine cannot be interrupted, so it moves no more than this; larger objects are streamed.
_CALL_BYTES: Final = STAGE_BYTES
_CALL_FILES: Final = 256
# A stream of one large buffer is handed over in slices of this size, for the same reason.
_SLICE_BYTES: Final = 32 * MiB
_STAGES_BYTES: Final = 32 * STAGE_BYTES


@dataclass(frozen=True, slots=True)
class LocalWriting:
    """How a local store writes.

    fsync   `full` (the file and its folder), `data` (only the file's bytes) or `none`
    io      the kind of write engine
    flags   added to the flags of open(2), such as O_DIRECT
    alignment_bytes     what O_DIRECT asks of memory, offsets and lengths, else 1
    """

    fsync: str
    io: str
    flags: int = 0
    alignment_bytes: int = 1

    @property
    def staged(self) -> bool:
        """Tell whether bytes must lie aligned before they can be written."""
        return self.alignment_bytes > 1


@dataclass(frozen=True, slots=True)
class _Item:
    """One object of a batch: where it stands there, its name in its folder, its bytes."""

    index: int
    key: str
    name: str
    view: memoryview


class LocalWriter:
    """Writes below one root. Safe from many threads."""

    def __init__(self, root: Root, location: str, how: LocalWriting) -> None:
        """Raises UnavailableError for an engine that cannot be had here."""
        self._root = root
        self._location = location
        self._how = how
        self._engines = EnginePool(how.io)
        self._stages = BufferPool(_STAGES_BYTES)

    @property
    def synced(self) -> bool:
        """Tell whether changes of folders are made durable."""
        return self._how.fsync == "full"

    def put(self, key: str, data: Buffer, *, if_absent: bool) -> ObjectInfo:
        """Write one object whole or not at all."""
        view = byte_view(data)
        if view.nbytes > _CALL_BYTES:
            slices = (view[start : start + _SLICE_BYTES] for start in range(0, view.nbytes, _SLICE_BYTES))
            return self.put_parts(key, slices, if_absent=if_absent)
        (result,) = self.put_many([(key, view)], if_absent=if_absent)
        if isinstance(result, StokerError):
            raise result
        return result

    def put_parts(self, key: str, parts: Iterable[Buffer], *, if_absent: bool) -> ObjectInfo:
        """Write the parts as they come; each is done with before the next one is asked for."""
        where = self._where(key)
        given = _GivenParts(parts)
        folder_path, _, name = key.rpartition("/")
        mode = WriteMode(self._how.fsync, self._how.flags, self._stream)
        try:
            with self._root.opened_folder(folder_path, make=True, sync=self.synced) as folder:
                status = write_new_file(folder, name, given, mode, if_absent=if_absent)
        except OSError as error:
            if error is given.error:
                raise
            raise store_error(error, where, reading=False) from error
        return object_info(key, status)

    def put_many(self, items: Sequence[tuple[str, Buffer]], *, if_absent: bool) -> list[ObjectInfo | StokerError]:
        """Write many objects; what came of each stands in its place. Objects of one folder share its sync."""
        results: list[ObjectInfo | StokerError | None] = [None] * len(items)
        folders: dict[str, list[_Item]] = {}
        for index, (key, data) in enumerate(items):
            try:
                self._where(key)
                os.fsencode(key)
            except (StokerError, UnicodeEncodeError) as error:
                results[index] = _key_error(key, error)
                continue
            folder, _, name = key.rpartition("/")
            folders.setdefault(folder, []).append(_Item(index, key, name, byte_view(data)))
        for path, group in folders.items():
            self._put_folder(path, group, results, if_absent=if_absent)
        return [result for result in results if result is not None]

    def _put_folder(
        self, path: str, group: list[_Item], results: list[ObjectInfo | StokerError | None], *, if_absent: bool
    ) -> None:
        policy = WritePolicy(self._how.flags, self._how.fsync, if_absent)
        try:
            with (
                self._root.opened_folder(path, make=True, sync=self.synced) as folder,
                self._engines.borrowed() as engine,
            ):
                for items in _calls(group):
                    if items[0].view.nbytes > _CALL_BYTES:
                        results[items[0].index] = self._put_large(items[0], if_absent=if_absent)
                        continue
                    for item, result in zip(items, self._put_files(engine, folder, items, policy), strict=True):
                        results[item.index] = result
        except (OSError, StokerError) as error:
            for item in group:
                if results[item.index] is None:
                    results[item.index] = error if isinstance(error, StokerError) else self._error(item.key, error)

    def _put_large(self, item: _Item, *, if_absent: bool) -> ObjectInfo | StokerError:
        try:
            return self.put(item.key, item.view, if_absent=if_absent)
        except StokerError as error:
            return error

    def _put_files(
        self, engine: WriteEngine, folder: int, items: list[_Item], policy: WritePolicy
    ) -> list[ObjectInfo | StokerError]:
        sizes = np.array([item.view.nbytes for item in items], np.int64)
        done = np.zeros((len(items), WRITTEN_COLUMNS), np.int64)
        names = [(item.name, temporary_name()) for item in items]
        with self._pieces([item.view for item in items]) as pieces:
            engine.write_files(folder, names, pieces, sizes, policy=policy, files_done=done)
        results: list[ObjectInfo | StokerError] = []
        for item, (status, size_bytes, mtime_ns) in zip(items, done.tolist(), strict=True):
            if status:
                results.append(self._error(item.key, OSError(status, os.strerror(status))))
            else:
                results.append(written_info(item.key, size_bytes, mtime_ns))
        return results

    @contextmanager
    def _pieces(self, views: list[memoryview]) -> Iterator["np.ndarray[tuple[int, int], np.dtype[np.int64]]"]:
        """Lend the columns of the files' content, staged in whole blocks where that is asked for."""
        pieces = np.zeros((len(views), PIECE_COLUMNS), np.int64)
        pieces[:, 3] = range(len(views))
        if not self._how.staged:
            for row, view in zip(pieces, views, strict=True):
                row[1:3] = view.nbytes, address_of(view) if view.nbytes else 0
            yield pieces
            return
        block_bytes = self._how.alignment_bytes
        padded = [-(-view.nbytes // block_bytes) * block_bytes for view in views]
        with self._stages.acquire(max(sum(padded), 1)) as lease:
            start = 0
            base = address_of(lease.view)
            for row, view, padded_bytes in zip(pieces, views, padded, strict=True):
                if padded_bytes and padded_bytes == view.nbytes and address_of(view) % block_bytes == 0:
                    row[1:3] = padded_bytes, address_of(view)
                    continue
                row[1:3] = padded_bytes, base + start
                lease.view[start : start + view.nbytes] = view
                lease.view[start + view.nbytes : start + padded_bytes] = bytes(padded_bytes - view.nbytes)
                start += padded_bytes
            yield pieces

    def _stream(self, file: int, parts: Iterable[Buffer]) -> None:
        with self._engines.borrowed() as engine:
            if not self._how.staged:
                CachedStream(engine, file, synced=self._how.fsync != "none").write(parts)
                return
            with self._stages.acquire(STAGE_BYTES) as lease:
                AlignedStream(engine, file, lease.view, alignment_bytes=self._how.alignment_bytes).write(parts)

    def _where(self, key: str) -> str:
        return f"{self._location}/{check_object_key(key)}"

    def _error(self, key: str, error: OSError) -> StokerError:
        told = store_error(error, self._where(key), reading=False)
        told.__cause__ = error
        return told

    def close(self) -> None:
        """Release the engines."""
        self._engines.close()


def _key_error(key: str, error: Exception) -> StokerError:
    if isinstance(error, StokerError):
        return error
    told = UsageError("key cannot be a file name", where=ascii(key), expected="letters that the system can encode")
    told.__cause__ = error
    return told


def _calls(group: list[_Item]) -> Iterator[list[_Item]]:
    """Yield the objects of one folder in portions that one call may take."""
    portion: list[_Item] = []
    portion_bytes = 0
    for item in group:
        if portion and (portion_bytes + item.view.nbytes > _CALL_BYTES or len(portion) == _CALL_FILES):
            yield portion
            portion, portion_bytes = [], 0
        portion.append(item)
        portion_bytes += item.view.nbytes
    if portion:
        yield portion


class _GivenParts:
    """Iterates over a caller's parts, remembering the caller's own OSError so that it is not taken for ours."""

    def __init__(self, parts: Iterable[Buffer]) -> None:
        self._parts = parts
        self.error: OSError | None = None

    def __iter__(self) -> Iterator[Buffer]:
        try:
            yield from self._parts
        except OSError as error:
            self.error = error
            raise
