"""Reading: from a task to bytes in an aligned buffer, each range opened, asked for residency, and read, all timed.

Where the store reads many ranges in one call, a whole chunk is one call; elsewhere each range is opened and read by
itself. `storage.submit.read_many` is not used: how far reading may run ahead depends on the batches that were handed
over, which a pool of independent reads cannot know.
"""

from typing import Final

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from stoker.core import clock
from stoker.core.errors import CorruptError, ShortReadError, StokerError
from stoker.core.units import MiB
from stoker.kernels.files import (
    DONE_CACHED_BYTES,
    DONE_ENDED_NS,
    DONE_STARTED_NS,
    DONE_STATUS,
    FILE_OPENED_NS,
    FILE_SIZE_BYTES,
    FILE_STARTED_NS,
    RANGE_ADDRESS,
    RANGE_COLUMNS,
    RANGE_FILE,
    RANGE_OFFSET_BYTES,
    RANGE_ROOM_BYTES,
    RANGE_WANTED_BYTES,
)
from stoker.loader.layouts import Layouts, Piece
from stoker.loader.lending import Lender
from stoker.loader.located import located
from stoker.loader.manifest import Manifest
from stoker.loader.mapped import MappedFiles
from stoker.loader.order import Int64s
from stoker.loader.pacing import Pace
from stoker.loader.reads import bytes_of, plan_reads, reads_of
from stoker.loader.stalls import OPEN, READ, VERIFY
from stoker.loader.tally import Tally
from stoker.loader.tasks import Bundle, Task
from stoker.loader.tuning_bounds import Settings
from stoker.storage.api import KnowsResidency, Reader, Store
from stoker.storage.batch import BatchRead, BatchReader, whole_block_reader
from stoker.storage.buffers import PAGE_BYTES

_VERIFY_BYTES: Final = 4 * MiB


class Loaded(msgspec.Struct, gc=False):
    """A task's bytes: each piece with its own, which are views of one read buffer."""

    task: Task
    parts: list[tuple[Piece, memoryview]]
    requested_bytes: int


class LoadedBundle(msgspec.Struct, gc=False):
    """A bundle's files in one buffer: file i at `starts[i]`, `lengths[i]` bytes long."""

    bundle: Bundle
    data: NDArray[np.uint8]
    starts: Int64s
    lengths: Int64s
    requested_bytes: int


class Source(msgspec.Struct, frozen=True):
    """What is read: a store, the files in it, and where their samples lie."""

    store: Store
    manifest: Manifest
    layouts: Layouts


class Fetcher:
    """Reads tasks. Safe from many threads, each with its own `worker` number."""

    def __init__(
        self,
        source: Source,
        lender: Lender,
        tally: Tally,
        pace: Pace,
        *,
        whole_file: bool,
        mapped: MappedFiles | None = None,
    ) -> None:
        store, manifest, layouts = source.store, source.manifest, source.layouts
        self._store = store
        self._manifest = manifest
        self._layouts = layouts
        self._lender = lender
        self._tally = tally
        self._whole_file = whole_file
        self._mapped = mapped
        facts = store.capabilities
        # Bytes move in whole blocks past the page cache; the ledger says what really moved.
        self._block_bytes = max(facts.alignment_bytes, 1) if facts.io_mode == "direct" else 1
        self._knows_residency: dict[type[Reader], bool] = {}
        self._pace = pace
        self._batch_readers: dict[int, BatchReader] = {}
        self._used: dict[int, Settings] = {}

    def open_worker(self, worker: int) -> None:
        """Make ready what a reading thread needs of its own; called in that thread, and `close_worker` too."""
        reader = whole_block_reader(self._store)
        if reader is not None:
            self._batch_readers[worker] = reader

    def close_worker(self, worker: int) -> None:
        """Release it."""
        reader = self._batch_readers.pop(worker, None)
        self._used.pop(worker, None)
        if reader is not None:
            self._pace.note(reader.chosen)
            reader.close()

    def read(self, chunk: list[Task], worker: int) -> list[Loaded]:
        """Return the bytes of every task of a chunk, all in one buffer: a kept sample keeps its chunk's buffer.

        Raises what the store or the format's layout raises, with key and range; ShortReadError or CorruptError for an
        object that is not as long as its manifest says; CorruptError for a wrong checksum.
        """
        found = [self._pieces(task, worker) for task in chunk]
        if self._mapped is not None:
            lent = [
                self._lend_task(self._mapped, task, pieces, worker) for task, pieces in zip(chunk, found, strict=True)
            ]
            if any(loaded is not None for loaded in lent):
                return self._read_rest(chunk, found, lent, worker)
        return self._read_chunk(chunk, found, worker)

    def _read_rest(
        self, chunk: list[Task], found: list[list[Piece]], lent: list[Loaded | None], worker: int
    ) -> list[Loaded]:
        """Read the tasks of a chunk that were not lent; return all in order."""
        rest = [place for place, loaded in enumerate(lent) if loaded is None]
        read = (
            self._read_chunk([chunk[place] for place in rest], [found[place] for place in rest], worker) if rest else []
        )
        by_place = dict(zip(rest, read, strict=True))
        return [by_place[place] if loaded is None else loaded for place, loaded in enumerate(lent)]

    def _lend_task(self, mapped: MappedFiles, task: Task, pieces: list[Piece], worker: int) -> Loaded | None:
        """Return a task whose bytes are mapped; None where they are to be read."""
        reads = list(reads_of(pieces))
        if len(reads) != 1:
            return None
        data = self._lend(mapped, task.file, reads[0].offset_bytes, reads[0].length_bytes, (task.step, worker))
        if data is None:
            return None
        view, start, parts = data.data, 0, []
        for piece in pieces:
            end = start + bytes_of((piece,))
            parts.append((piece, view[start:end]))
            start = end
        requested_bytes = view.nbytes
        if task.verify:
            key = self._manifest.keys[task.file]
            requested_bytes += self._verify(task, key, [part for _, part in parts], worker)
        return Loaded(task, parts, requested_bytes)

    def _lend(
        self, mapped: MappedFiles, file: int, offset_bytes: int, length_bytes: int, place: tuple[int, int]
    ) -> NDArray[np.uint8] | None:
        """Return a mapped range, entered as read from the cache; `place` is the step and the worker."""
        step, worker = place
        tally = self._tally
        begun_ns = tally.begin(worker, OPEN, step)
        key, span = self._manifest.keys[file], (offset_bytes, offset_bytes + length_bytes)
        try:
            lent = mapped.lend(file, offset_bytes, length_bytes)
        except Exception as error:
            raise located(error, key, span) from error
        if lent is None:
            tally.done(worker)
            return None
        tally.read(worker, tally.end(worker, OPEN, step, begun_ns) - begun_ns, 1)
        data, size_bytes = lent
        if size_bytes != int(self._manifest.sizes_bytes[file]):
            raise located(_other_size(key, int(self._manifest.sizes_bytes[file]), size_bytes), key, span)
        ledger = tally.ledgers[worker]
        ledger.files_opened += 1
        ledger.requested_bytes += length_bytes
        ledger.from_cache_bytes += length_bytes
        ledger.mapped_bytes += length_bytes
        return data

    def _read_chunk(self, chunk: list[Task], found: list[list[Piece]], worker: int) -> list[Loaded]:
        reader = self._batch_readers.get(worker)
        plan = plan_reads([task.file for task in chunk], found, reader.block_bytes) if reader else None
        if reader is None or plan is None:
            return self._read_singly(chunk, found, worker)
        buffer = self._lender.lend(plan.size_bytes)
        requested_bytes = self._read_batch(
            reader, np.array(plan.files), plan.ranges(buffer.ctypes.data), chunk[0].step, worker
        )
        loaded = []
        view = buffer.data
        for task, pieces, spans in zip(chunk, found, plan.spans, strict=True):
            parts = [(piece, view[start:end]) for piece, (start, end) in zip(pieces, spans, strict=True)]
            if task.verify:
                requested_bytes += self._verify(
                    task, self._manifest.keys[task.file], [data for _, data in parts], worker
                )
            loaded.append(Loaded(task, parts, requested_bytes))
            requested_bytes = 0  # told once, with the first
        return loaded

    def read_bundle(self, bundle: Bundle, worker: int) -> LoadedBundle:
        """Return the bytes of a bundle's files, all in one buffer. Raises as `read` does."""
        reader = self._batch_readers[worker]
        lengths = self._manifest.sizes_bytes[bundle.files]
        if self._mapped is not None and len(lengths) == 1:
            file, size_bytes = int(bundle.files[0]), int(lengths[0])
            lent = self._lend(self._mapped, file, 0, size_bytes, (bundle.step, worker))
            if lent is not None:
                return LoadedBundle(bundle, lent, np.zeros(1, np.int64), lengths, size_bytes)
        block = reader.block_bytes
        rooms = -(-lengths // block) * block
        spaces = -(-rooms // PAGE_BYTES) * PAGE_BYTES
        starts = np.cumsum(spaces) - spaces
        data = self._lender.lend(int(spaces.sum()))
        ranges = np.zeros((len(lengths), RANGE_COLUMNS), np.int64)
        ranges[:, RANGE_FILE] = np.arange(len(lengths))
        ranges[:, RANGE_WANTED_BYTES] = lengths
        ranges[:, RANGE_ROOM_BYTES] = rooms
        ranges[:, RANGE_ADDRESS] = starts + data.ctypes.data
        requested_bytes = self._read_batch(reader, bundle.files, ranges, bundle.step, worker)
        return LoadedBundle(bundle, data, starts, lengths, requested_bytes)

    def _read_batch(self, reader: BatchReader, files: Int64s, ranges: Int64s, step: int, worker: int) -> int:
        """Read `ranges` of `files`, check and enter what came of them, return the bytes asked of the store."""
        keys = self._manifest.keys
        batch = BatchRead([keys[file] for file in files.tolist()], ranges)
        tally = self._tally
        settings = self._pace.settings
        if self._used.get(worker) is not settings:
            reader.tune(queue_depth=settings.queue_depth, request_bytes=settings.request_bytes)
            self._used[worker] = settings
        begun_ns = tally.begin(worker, READ, step)
        try:
            reader.read(batch)
        finally:
            tally.done(worker)
        tally.read(worker, clock.monotonic_ns() - begun_ns, _requests(ranges, settings.request_bytes))
        objects, done = batch.objects_done, batch.ranges_done
        tally.end_many(OPEN, step, objects[:, FILE_STARTED_NS], objects[:, FILE_OPENED_NS])
        tally.end_many(READ, step, done[:, DONE_STARTED_NS], done[:, DONE_ENDED_NS])
        self._check_batch(reader, batch, self._manifest.sizes_bytes[files])
        rooms = ranges[:, RANGE_ROOM_BYTES]
        requested_bytes = int(rooms.sum())
        cached_bytes = int(np.minimum(np.maximum(done[:, DONE_CACHED_BYTES], 0), rooms).sum())
        ledger = tally.ledgers[worker]
        ledger.files_opened += len(files)
        ledger.requested_bytes += requested_bytes
        ledger.from_cache_bytes += cached_bytes
        ledger.from_store_bytes += requested_bytes - cached_bytes
        return requested_bytes

    def _check_batch(self, reader: BatchReader, batch: BatchRead, expected_bytes: Int64s) -> None:
        """Raise for the first object that is not as long as expected, else for the first range that failed."""
        sizes_bytes = batch.objects_done[:, FILE_SIZE_BYTES]
        wrong = sizes_bytes != expected_bytes
        if wrong.any() and (wrong := wrong & (sizes_bytes >= 0)).any():
            number = int(wrong.argmax())
            key = batch.keys[number]
            error = _other_size(key, int(expected_bytes[number]), int(sizes_bytes[number]))
            raise located(error, key, _span(batch, int((batch.ranges[:, RANGE_FILE] == number).argmax())))
        statuses = batch.ranges_done[:, DONE_STATUS]
        if statuses.any():
            index = int((statuses != 0).argmax())
            key = batch.keys[int(batch.ranges[index, RANGE_FILE])]
            raise located(reader.error(batch, index), key, _span(batch, index))

    def _read_singly(self, chunk: list[Task], found: list[list[Piece]], worker: int) -> list[Loaded]:
        """Open and read range by range: what every store offers."""
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
            requested_bytes += self._verify(task, key, [data for _, data in parts], worker)
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
                tally.read(worker, tally.end(worker, READ, task.step, begun_ns) - begun_ns, 1)
        except Exception as error:
            raise located(error, key, (offset_bytes, offset_bytes + length)) from error
        return requested_bytes

    def _enter(self, task: Task, reader: Reader, key: str, offset_bytes: int, worker: int) -> int:
        """Check an opened object's size, enter the read into the worker's ledger, return the bytes asked for."""
        expected_bytes = int(self._manifest.sizes_bytes[task.file])
        if reader.object_bytes != expected_bytes:
            raise _other_size(key, expected_bytes, reader.object_bytes)
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

    def _verify(self, task: Task, key: str, parts: list[memoryview], worker: int) -> int:
        """Compare the file's checksum with the manifest's; return the bytes asked of the store for that.

        Where only parts of files are read, the file is read again, whole, for its first sample.
        """
        entry = self._manifest[task.file]
        if self._whole_file:
            begun_ns = self._tally.begin(worker, VERIFY, task.step)
            digest = xxhash.xxh3_64()
            for data in parts:
                digest.update(data)
            got = digest.intdigest()
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


def _other_size(key: str, expected_bytes: int, got_bytes: int) -> StokerError:
    kind = ShortReadError if got_bytes < expected_bytes else CorruptError
    return kind(
        "object is not as long as its manifest says",
        where=key,
        expected=f"{expected_bytes} bytes",
        got=f"{got_bytes} bytes",
        remedy="something changed the dataset; generate it again",
    )


def _requests(ranges: Int64s, request_bytes: int) -> int:
    return int((-(-ranges[:, RANGE_ROOM_BYTES] // request_bytes)).sum())


def _span(batch: BatchRead, index: int) -> tuple[int, int]:
    offset_bytes = int(batch.ranges[index, RANGE_OFFSET_BYTES])
    return offset_bytes, offset_bytes + int(batch.ranges[index, RANGE_WANTED_BYTES])
