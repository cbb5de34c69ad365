"""Reading: from a task to bytes in an aligned buffer, each range opened, asked for residency, and read, all timed.

`storage.submit.read_many` is not used here: between opening and reading the loader asks where the bytes will come
from, small reads go to a thread several at a time, and how far reading may run ahead depends on the batches that were
handed over, which a pool of independent reads cannot know.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import xxhash

from stoker.core.errors import CorruptError, ShortReadError
from stoker.core.units import MiB
from stoker.loader.layouts import Layouts, Piece
from stoker.loader.lending import Lender
from stoker.loader.located import located
from stoker.loader.manifest import Manifest
from stoker.loader.stalls import OPEN, READ, VERIFY
from stoker.loader.tally import Tally
from stoker.loader.tasks import Task
from stoker.storage.api import KnowsResidency, Reader, Store
from stoker.storage.buffers import PAGE_BYTES

_VERIFY_BYTES: Final = 4 * MiB


class Loaded(msgspec.Struct, gc=False):
    """A task's bytes: each piece with its own, which are views of one read buffer."""

    task: Task
    parts: list[tuple[Piece, memoryview]]
    requested_bytes: int


class Read(msgspec.Struct, frozen=True):
    """One range of a file, and where in the task's buffer it goes."""

    offset_bytes: int
    length_bytes: int
    at: int


class Fetcher:
    """Reads tasks. Safe from many threads, each with its own `worker` number."""

    def __init__(
        self, store: Store, manifest: Manifest, layouts: Layouts, lender: Lender, tally: Tally, *, whole_file: bool
    ) -> None:
        self._store = store
        self._manifest = manifest
        self._layouts = layouts
        self._lender = lender
        self._tally = tally
        self._whole_file = whole_file
        facts = store.capabilities
        # Bytes move in whole blocks past the page cache; the ledger says what really moved.
        self._block_bytes = max(facts.alignment_bytes, 1) if facts.io_mode == "direct" else 1
        self._knows_residency: dict[type[Reader], bool] = {}

    def read(self, chunk: list[Task], worker: int) -> list[Loaded]:
        """Return the bytes of every task of a chunk, all in one buffer: a kept sample keeps its chunk's buffer.

        Raises what the store or the format's layout raises, with key and range; ShortReadError or CorruptError for an
        object that is not as long as its manifest says; CorruptError for a wrong checksum.
        """
        found = [self._pieces(task, worker) for task in chunk]
        sizes = [-(-bytes_of(pieces) // PAGE_BYTES) * PAGE_BYTES for pieces in found]
        buffer = self._lender.lend(sum(sizes)).data
        loaded = []
        start = 0
        for task, pieces, size_bytes in zip(chunk, found, sizes, strict=True):
            loaded.append(self._read_task(task, pieces, buffer[start : start + size_bytes], worker))
            start += size_bytes
        return loaded

    def _pieces(self, task: Task, worker: int) -> list[Piece]:
        """Return what to read; looking up a file's layout for the first time counts as opening it."""
        news = not self._layouts.knows(task.file)
        begun_ns = self._tally.begin(worker, OPEN, task.step) if news else 0
        try:
            return self._layouts.pieces(task.file, task.samples, task.first_place)
        finally:
            if news:
                self._tally.end(worker, OPEN, task.step, begun_ns)

    def _read_task(self, task: Task, pieces: list[Piece], buffer: memoryview, worker: int) -> Loaded:
        parts = []
        start = 0
        for piece in pieces:
            length = bytes_of((piece,))
            parts.append((piece, buffer[start : start + length]))
            start += length
        key = self._manifest.keys[task.file]
        requested_bytes = 0
        for read in reads_of(pieces):
            into = buffer[read.at : read.at + read.length_bytes]
            requested_bytes += self._read_range(task, key, read.offset_bytes, into, worker)
        if task.verify:
            requested_bytes += self._verify(task, key, buffer[:start], worker)
        return Loaded(task, parts, requested_bytes)

    def _read_range(self, task: Task, key: str, offset_bytes: int, into: memoryview, worker: int) -> int:
        """Fill `into` and return the bytes asked of the store for it."""
        tally = self._tally
        length = into.nbytes
        try:
            begun_ns = tally.begin(worker, OPEN, task.step)
            reader = self._store.open_read(key, offset_bytes=offset_bytes, length_bytes=length)
            with reader:
                tally.end(worker, OPEN, task.step, begun_ns)
                requested_bytes = self._enter(task, reader, key, offset_bytes, worker)
                begun_ns = tally.begin(worker, READ, task.step)
                reader.read_into(into)
                tally.end(worker, READ, task.step, begun_ns)
        except Exception as error:
            raise located(error, key, (offset_bytes, offset_bytes + length)) from error
        return requested_bytes

    def _enter(self, task: Task, reader: Reader, key: str, offset_bytes: int, worker: int) -> int:
        """Check an opened object's size, enter the read into the worker's ledger, return the bytes asked for."""
        expected_bytes = int(self._manifest.sizes_bytes[task.file])
        if reader.object_bytes != expected_bytes:
            kind = ShortReadError if reader.object_bytes < expected_bytes else CorruptError
            raise kind(
                "object is not as long as its manifest says",
                where=key,
                expected=f"{expected_bytes} bytes",
                got=f"{reader.object_bytes} bytes",
                remedy="something changed the dataset; generate it again",
            )
        block = self._block_bytes
        end = -(-(offset_bytes + reader.range_bytes) // block) * block
        requested_bytes = end - offset_bytes // block * block
        kind_of_reader = type(reader)
        knows = self._knows_residency.get(kind_of_reader)
        if knows is None:
            knows = self._knows_residency[kind_of_reader] = isinstance(reader, KnowsResidency)
        cached_bytes = min(_cached(reader), requested_bytes) if knows else 0
        ledger = self._tally.ledgers[worker]
        ledger.files_opened += 1
        ledger.requested_bytes += requested_bytes
        ledger.from_cache_bytes += cached_bytes
        ledger.from_store_bytes += requested_bytes - cached_bytes
        return requested_bytes

    def _verify(self, task: Task, key: str, data: memoryview, worker: int) -> int:
        """Compare the file's checksum with the manifest's; return the bytes asked of the store for that.

        Where only parts of files are read, the file is read again, whole, for its first sample.
        """
        entry = self._manifest[task.file]
        if self._whole_file:
            begun_ns = self._tally.begin(worker, VERIFY, task.step)
            got = xxhash.xxh3_64_intdigest(data)
            self._tally.end(worker, VERIFY, task.step, begun_ns)
            requested_bytes = 0
        elif 0 in task.samples:
            got, requested_bytes = self._streamed(task, key, entry.size_bytes, worker)
        else:
            return 0
        if entry.checksum is not None and got != entry.checksum:
            raise CorruptError(
                "file fails its checksum",
                where=key,
                expected=f"{entry.checksum:016x}",
                got=f"{got:016x}",
                remedy="check the storage, then generate the dataset again",
            )
        return requested_bytes

    def _streamed(self, task: Task, key: str, size_bytes: int, worker: int) -> tuple[int, int]:
        digest = xxhash.xxh3_64()
        requested_bytes = 0
        buffer = self._lender.lend(min(size_bytes, _VERIFY_BYTES)).data
        for offset_bytes in range(0, size_bytes, _VERIFY_BYTES):
            into = buffer[: min(_VERIFY_BYTES, size_bytes - offset_bytes)]
            requested_bytes += self._read_range(task, key, offset_bytes, into, worker)
            begun_ns = self._tally.begin(worker, VERIFY, task.step)
            digest.update(into)
            self._tally.end(worker, VERIFY, task.step, begun_ns)
        return digest.intdigest(), requested_bytes


def _cached(reader: Reader) -> int:
    return (reader.cached_bytes() or 0) if isinstance(reader, KnowsResidency) else 0


def bytes_of(pieces: Sequence[Piece]) -> int:
    """Return the bytes to read for all pieces."""
    if len(pieces) == 1 and len(pieces[0].extent.ranges) == 1:  # nearly always, and this runs for every sample
        return pieces[0].extent.ranges[0][1]
    return sum(piece.extent.length_bytes for piece in pieces)


def reads_of(pieces: list[Piece]) -> Iterator[Read]:
    """Yield the reads that fill a task's buffer, its pieces end to end; ranges that touch are read as one."""
    start = stop = at = filled = 0
    for piece in pieces:
        for offset_bytes, length_bytes in piece.extent.ranges:
            if offset_bytes != stop or stop == start:
                if stop > start:
                    yield Read(start, stop - start, at)
                start, at = offset_bytes, filled
                stop = start
            stop += length_bytes
            filled += length_bytes
    if stop > start:
        yield Read(start, stop - start, at)
