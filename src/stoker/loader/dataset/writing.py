"""Making files: content, checksum and store in one stream, so that no more than a few chunks are in memory.

Small files of a store that takes many at once are made whole in memory, a group at a time.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import xxhash

from stoker.core.errors import NotFoundError, ShortReadError, StokerError, StoreError, TransientError
from stoker.core.units import MiB
from stoker.loader.dataset.journal import Made
from stoker.loader.dataset.naming import file_key
from stoker.loader.dataset.recipe import Recipe
from stoker.loader.dataset.retry import repeat
from stoker.storage.api import ObjectInfo, Store, SupportsMultipart
from stoker.storage.batch import SupportsBatchWrite
from stoker.storage.buffers import fresh_view

GROUP_FILES: Final = 64
_GROUP_BYTES: Final = 8 * MiB
_SMALL_BYTES: Final = MiB


class StoppedError(Exception):
    """The crew was told to stop while this file was under way; the store keeps nothing of it."""


class Tally:
    """Passes chunks through, counting and hashing them; stops the stream when told to."""

    def __init__(self, chunks: Iterator[memoryview], stop: threading.Event) -> None:
        self._chunks = chunks
        self._stop = stop
        self._digest = xxhash.xxh3_64()
        self.size_bytes = 0

    def __iter__(self) -> Iterator[memoryview]:
        for chunk in self._chunks:
            if self._stop.is_set():
                raise StoppedError
            self._digest.update(chunk)
            self.size_bytes += len(chunk)
            yield chunk

    @property
    def checksum(self) -> int:
        """Return XXH3-64 of all that passed."""
        return int(self._digest.intdigest())


class FileMaker:
    """Makes the files of a recipe in a store. Safe from many threads."""

    def __init__(self, store: Store, recipe: Recipe, stop: threading.Event) -> None:
        self._store = store
        self._parts = store if isinstance(store, SupportsMultipart) else None
        self._batch = store if isinstance(store, SupportsBatchWrite) else None
        self._recipe = recipe
        self._stop = stop

    def make(self, index: int) -> Made:
        """Write file `index` and its companions, companions first: where the file is, they are.

        Passing failures are repeated: the content can be made again, whatever a store has consumed of it. Raises
        StoreError for the rest, and when the store tells another size than was written.
        """
        made, retries = repeat(lambda: self._make_once(index))
        return msgspec.structs.replace(made, retries=retries)

    def groups(self, indices: Iterator[int], *, alone: Callable[[int], bool], files_max: int) -> Iterator[list[int]]:
        """Yield `indices` in their order, in groups of small files that are best made together.

        Those for which `alone` says so, and large ones, form a group of one.
        """
        group: list[int] = []
        group_bytes = 0
        for index in indices:
            size_bytes = self._recipe.payload_bytes(range(index, index + 1))
            single = self._batch is None or size_bytes > _SMALL_BYTES or alone(index)
            if group and (single or len(group) >= files_max or group_bytes + size_bytes > _GROUP_BYTES):
                yield group
                group, group_bytes = [], 0
            if single:
                yield [index]
                continue
            group.append(index)
            group_bytes += size_bytes
        if group:
            yield group

    def make_group(self, indices: Sequence[int]) -> list[Made | Exception]:
        """Write small files together, all companions first; return what came of each.

        What failed for a passing reason is made once more, by itself. When told to stop, nothing more is begun.
        """
        if self._batch is None or len(indices) == 1:
            return [self._made_or_error(index) for index in indices]
        tallies = {index: Tally(self._recipe.chunks(index), self._stop) for index in indices}
        files = {index: (file_key(self._recipe.spec, index), b"".join(tally)) for index, tally in tallies.items()}
        sides = [(index, side) for index in indices for side in self._recipe.side_files(index).items()]
        outcomes: dict[int, ObjectInfo | StokerError] = {}
        for (index, _), info in zip(sides, self._batch.put_many([side for _, side in sides]), strict=True):
            if isinstance(info, StokerError):
                outcomes.setdefault(index, info)
        ready = [index for index in indices if index not in outcomes]
        outcomes |= zip(ready, self._batch.put_many([files[index] for index in ready]), strict=True)
        return [self._outcome(index, tally, outcomes[index]) for index, tally in tallies.items()]

    def _outcome(self, index: int, tally: Tally, info: ObjectInfo | StokerError) -> Made | Exception:
        if isinstance(info, TransientError):
            again = self._made_or_error(index)
            return msgspec.structs.replace(again, retries=again.retries + 1) if isinstance(again, Made) else again
        if isinstance(info, StokerError):
            return info
        try:
            return self._counted(index, tally, info)
        except StoreError as error:
            return error

    def _made_or_error(self, index: int) -> Made | Exception:
        try:
            return self.make(index)
        except StokerError as error:
            return error

    def _make_once(self, index: int) -> Made:
        key = file_key(self._recipe.spec, index)
        for side_key, data in self._recipe.side_files(index).items():
            self._store.put(side_key, data)
        tally = Tally(self._recipe.chunks(index), self._stop)
        parts = self._parts
        info = self._store.put(key, b"".join(tally)) if parts is None else parts.put_parts(key, tally)
        return self._counted(index, tally, info)

    def _counted(self, index: int, tally: Tally, info: ObjectInfo) -> Made:
        if info.size_bytes != tally.size_bytes:
            raise StoreError(
                "store kept another number of bytes than were put",
                where=f"{self._store.url} {info.key}",
                expected=f"{tally.size_bytes} bytes",
                got=f"{info.size_bytes} bytes",
            )
        return Made(index, tally.size_bytes, tally.checksum)

    def adopt(self, index: int) -> Made:
        """Take over file `index` that is in the store, when its bytes are right; else make it anew."""
        key = file_key(self._recipe.spec, index)
        tally = Tally(self._recipe.chunks(index), self._stop)
        sides = self._recipe.side_files(index)
        try:
            right = all(bytes(self._store.get_range(side)) == data for side, data in sides.items())
            if right and self._same_bytes(key, tally):
                return Made(index, tally.size_bytes, tally.checksum, adopted=True)
        except (NotFoundError, ShortReadError):
            pass  # not there, or not whole: it is made anew below
        return self.make(index)

    def _same_bytes(self, key: str, tally: Tally) -> bool:
        found = xxhash.xxh3_64()
        with self._store.open_read(key) as reader:
            for chunk in tally:
                if tally.size_bytes > reader.range_bytes:
                    return False
                into = fresh_view(len(chunk))
                reader.read_into(into)
                found.update(into)
            return reader.range_bytes == tally.size_bytes and found.intdigest() == tally.checksum
