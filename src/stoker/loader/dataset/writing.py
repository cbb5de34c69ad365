"""Making one file: content, checksum and store in one stream, so that no more than a few chunks are in memory."""

import threading
from collections.abc import Iterator

import msgspec
import xxhash

from stoker.core.errors import NotFoundError, ShortReadError, StoreError
from stoker.loader.dataset.journal import Made
from stoker.loader.dataset.naming import file_key
from stoker.loader.dataset.recipe import Recipe
from stoker.loader.dataset.retry import repeat
from stoker.storage.api import Store, SupportsMultipart
from stoker.storage.buffers import fresh_view


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
        self._recipe = recipe
        self._stop = stop

    def make(self, index: int) -> Made:
        """Write file `index` and its companions, companions first: where the file is, they are.

        Passing failures are repeated: the content can be made again, whatever a store has consumed of it. Raises
        StoreError for the rest, and when the store tells another size than was written.
        """
        made, retries = repeat(lambda: self._make_once(index))
        return msgspec.structs.replace(made, retries=retries)

    def _make_once(self, index: int) -> Made:
        key = file_key(self._recipe.spec, index)
        for side_key, data in self._recipe.side_files(index).items():
            self._store.put(side_key, data)
        tally = Tally(self._recipe.chunks(index), self._stop)
        parts = self._parts
        info = self._store.put(key, b"".join(tally)) if parts is None else parts.put_parts(key, tally)
        if info.size_bytes != tally.size_bytes:
            raise StoreError(
                "store kept another number of bytes than were put",
                where=f"{self._store.url} {key}",
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
