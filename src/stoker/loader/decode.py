"""Decoding: from bytes to samples, the time each is held in `transform`, and their way into the batches."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from stoker.core import clock
from stoker.core.errors import CorruptError
from stoker.core.plan import Spread
from stoker.core.seed import derive
from stoker.formats.api import Array, Block, CorruptExtentError, DecodedMany, DecodesInto, DecodesMany, Format
from stoker.formats.many import decode_one_of, extents_in
from stoker.loader.batch import BlockColumns, Part, Slot, picked_bytes, run_of
from stoker.loader.fetch import Loaded, LoadedBundle
from stoker.loader.layouts import Piece
from stoker.loader.lending import Lender
from stoker.loader.located import located
from stoker.loader.manifest import Manifest
from stoker.loader.order import Int64s
from stoker.loader.spread import draw_seconds
from stoker.loader.stalls import DECODE, TRANSFORM
from stoker.loader.tally import Tally
from stoker.loader.tasks import Task


class Preprocessing:
    """How long each sample is held. The draws depend on seed, epoch, rank and step alone, not on threads."""

    def __init__(self, spread: Spread, seed: int, rank: int) -> None:
        self._spread = spread
        self._words = (seed, rank)
        self.wanted = spread != Spread()

    def seconds(self, slot: Slot, places: Iterable[int]) -> float:
        """Return how long the samples at these places of a batch are held together."""
        if slot.held_seconds is None:
            seed, rank = self._words
            batch = slot.batch
            slot.held_seconds = draw_seconds(
                self._spread, derive(seed, "preprocess", batch.epoch, rank, batch.step), len(batch)
            )
        return float(sum(slot.held_seconds[place] for place in places))


class ManyColumns:
    """The columns of many extents of one sample each."""

    def __init__(self, many: DecodedMany) -> None:
        self._many = many

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the columns that every extent has."""
        return self._many.names

    def rows(self, name: str) -> list[Array]:
        """Return a column's values of all samples."""
        return self._many.column(name)

    def row_bytes(self, wanted: Sequence[int] | Int64s) -> int:
        """Return the bytes of all columns; bundles are always taken whole."""
        assert len(wanted) == len(self._many.samples)
        return self._many.row_bytes


class Decoder:
    """Decodes what was read. Safe from many threads, each with its own `worker` number."""

    def __init__(
        self,
        data_format: Format,
        manifest: Manifest,
        tally: Tally,
        preprocessing: Preprocessing,
        batch_size: int,
        lender: Lender,
        context: Any = None,
    ) -> None:
        """`context` belongs to the layouts of files that are bundled."""
        self._context = context
        self._lender = lender
        self._format = data_format
        self._into = data_format if isinstance(data_format, DecodesInto) else None
        self._manifest = manifest
        self._tally = tally
        self._preprocessing = preprocessing
        self._batch_size = batch_size

    def decode(self, loaded: Loaded, worker: int) -> list[tuple[int, list[Part]]]:
        """Return the task's samples as parts of each step's batch, in the order of the steps.

        Raises CorruptError for malformed bytes, naming the file.
        """
        task = loaded.task
        ledger = self._tally.ledgers[worker]
        begun_ns = self._tally.begin(worker, DECODE, task.step)
        blocks = []
        try:
            for piece, data in loaded.parts:
                block = self._block(piece, data)
                ledger.copied_bytes += block.copied_bytes
                blocks.append((piece, block))
        except Exception as error:
            raise located(error, self._manifest.keys[task.file]) from error
        if task.step == task.last_step:
            first = task.step * self._batch_size
            found = [(task.step, [_part(block, piece.wanted, piece.places, first) for piece, block in blocks])]
        else:
            found = list(self._by_step(task, blocks))
        self._tally.end(worker, DECODE, task.step, begun_ns)
        return found

    def decode_bundle(self, loaded: LoadedBundle, worker: int) -> Part:
        """Return a bundle's samples as one part of its batch. Raises CorruptError as `decode` does."""
        bundle = loaded.bundle
        tally = self._tally
        begun_ns = tally.begin(worker, DECODE, bundle.step)
        many = self._decode_many(loaded)
        tally.ledgers[worker].copied_bytes += many.copied_bytes
        first = bundle.first_place - bundle.step * self._batch_size
        wanted = range(len(bundle.files))
        places = range(first, first + len(wanted))
        part = Part(many.samples, places, wanted, ManyColumns(many), many.payload_bytes)
        tally.end(worker, DECODE, bundle.step, begun_ns)
        return part

    def _decode_many(self, loaded: LoadedBundle) -> DecodedMany:
        data_format, files = self._format, loaded.bundle.files
        assert isinstance(data_format, DecodesMany)
        try:
            return data_format.decode_many(loaded.data, loaded.starts, loaded.lengths, 1, self._context)
        except CorruptExtentError as error:
            raise located(error, self._manifest.keys[int(files[error.number])]) from error
        except Exception:
            self._find_culprit(loaded)
            raise

    def _find_culprit(self, loaded: LoadedBundle) -> None:
        """Decode file by file, and raise what the first strange one raises, with its name."""
        extents = extents_in(loaded.data, loaded.starts, loaded.lengths, 1, self._context)
        for number, file in enumerate(loaded.bundle.files.tolist()):
            try:
                decode_one_of(self._format, extents, number)
            except Exception as error:
                raise located(error, self._manifest.keys[file]) from error

    def _block(self, piece: Piece, data: memoryview) -> Block:
        if self._into is not None:
            block = self._into.decode_into(data, piece.extent, piece.layout, self._lender.lend)
        else:
            block = self._format.decode(data, piece.extent, piece.layout)
        if block.samples != piece.extent.samples:
            raise CorruptError(
                "decoding gave another number of samples", expected=str(piece.extent.samples), got=str(block.samples)
            )
        return block

    def _by_step(self, task: Task, blocks: list[tuple[Piece, Block]]) -> Iterator[tuple[int, list[Part]]]:
        for step in range(task.step, task.last_step + 1):
            first, parts = step * self._batch_size, []
            for piece, block in blocks:
                low, high = _between(piece.places, first, first + self._batch_size)
                if low < high:
                    parts.append(_part(block, piece.wanted[low:high], piece.places[low:high], first))
            yield step, parts

    @property
    def shares(self) -> bool:
        """Tell whether decoding takes so long that several decoders should share what was read at once."""
        return self.holds or not isinstance(self._format, DecodesMany)

    @property
    def holds(self) -> bool:
        """Tell whether samples are held at all."""
        return self._preprocessing.wanted

    def hold(self, step: int, slot: Slot, parts: list[Part], worker: int) -> None:
        """Hold these samples as long as the preprocessing option says."""
        seconds = self._preprocessing.seconds(slot, (place for part in parts for place in part.places))
        begun_ns = self._tally.begin(worker, TRANSFORM, step)
        if seconds > 0:
            clock.sleep(seconds)
        self._tally.end(worker, TRANSFORM, step, begun_ns)


def _between(places: Sequence[int] | Int64s, first: int, end: int) -> tuple[int, int]:
    """Return which of ascending places lie from `first` to `end`: as a slice's borders."""
    if isinstance(places, range):
        return min(max(first - places.start, 0), len(places)), min(max(end - places.start, 0), len(places))
    low, high = np.searchsorted(places, (first, end)).tolist()
    return low, high


def _part(block: Block, wanted: Sequence[int] | Int64s, places: Sequence[int] | Int64s, first: int) -> Part:
    """Return some samples of a block as a part of the batch whose first place is `first`."""
    primary = block.columns[block.primary]
    run = run_of(places)
    return Part(
        rows=primary,
        places=[int(place) - first for place in places] if run is None else range(run.start - first, run.stop - first),
        wanted=wanted,
        columns=BlockColumns(block),
        payload_bytes=picked_bytes(primary, wanted),
    )
