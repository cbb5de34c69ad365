"""Is every file there, as long as it should be, and unchanged to the last byte?"""

import math
import threading
from typing import Final

import msgspec
import numpy as np
import xxhash

from stoker.core.clock import monotonic_ns
from stoker.core.errors import NotFoundError, ShortReadError, UsageError
from stoker.core.seed import fresh
from stoker.core.units import MiB
from stoker.loader.dataset.crew import Crew
from stoker.loader.dataset.naming import FileKeys
from stoker.loader.dataset.progress import Meter, OnProgress
from stoker.loader.dataset.recipe import Recipe
from stoker.loader.manifest import FileEntry, Manifest
from stoker.storage.api import Reader, Store, SupportsCache
from stoker.storage.buffers import fresh_view

DAMAGES_KEPT_MAX: Final = 1000
_PIECE_BYTES: Final = 4 * MiB


class FileDamage(msgspec.Struct, frozen=True):
    """What is wrong with one file. `kind` is missing, size, changed or side (a companion is missing or changed).

    `offset_bytes` is the first byte that differs, where that is known.
    """

    key: str
    kind: str
    expected: str
    got: str
    offset_bytes: int | None = None

    @property
    def sentence(self) -> str:
        """Return the damage in words."""
        place = "" if self.offset_bytes is None else f" at byte {self.offset_bytes}"
        return f"{self.key}{place}: expected {self.expected}, got {self.got}"


class VerifyReport(msgspec.Struct, frozen=True):
    """What a verification found. `damages` holds the first 1000 in key order; the counts tell them all.

    `checksums` is false when the manifest has none: then only presence and sizes were compared. `seed` chose the
    files when not all were checked.
    """

    files: int
    files_checked: int
    bytes_checked: int
    seconds: float
    missing: int
    wrong_size: int
    changed: int
    damages: tuple[FileDamage, ...]
    checksums: bool
    seed: int

    @property
    def good(self) -> bool:
        """Tell whether nothing is wrong with what was checked."""
        return not (self.missing or self.wrong_size or self.changed)


class _Checked(msgspec.Struct, frozen=True):
    index: int
    read_bytes: int
    damage: FileDamage | None


def verify(
    store: Store,
    manifest: Manifest,
    *,
    threads: int = 4,
    sample_ratio: float = 1.0,
    seed: int | None = None,
    evict: bool = True,
    progress: OnProgress | None = None,
) -> VerifyReport:
    """Hold the files in `store` against `manifest`, or a random `sample_ratio` of them.

    With `evict`, each file is dropped from this host's page cache first where the store can, so that the device is
    asked. Damage is reported, not raised. Raises UsageError for a ratio or thread count out of range, StoreError
    when the store itself fails.
    """
    if not 0 < sample_ratio <= 1 or threads < 1:
        raise UsageError(
            "verification cannot be done so",
            expected="a ratio above 0 up to 1, at least 1 thread",
            got=f"ratio {sample_ratio:g}, {threads} threads",
        )
    start_ns = monotonic_ns()
    seed = fresh() if seed is None else seed
    chosen = _choose(len(manifest), sample_ratio, seed)
    stop = threading.Event()
    checker = _Checker(store, manifest, stop, evict=evict)
    found: list[_Checked] = []
    counts = {"missing": 0, "size": 0, "changed": 0, "side": 0}
    expected = int(manifest.sizes_bytes[chosen].sum()) if sample_ratio < 1 else manifest.total_bytes
    meter = Meter("verify", len(chosen), expected, progress)
    meter.exact = True

    def on_result(checked: _Checked) -> None:
        meter.add(checked.read_bytes)
        if checked.damage is not None:
            counts[checked.damage.kind] += 1
            found.append(checked)
            if len(found) > 2 * DAMAGES_KEPT_MAX:
                found.sort(key=lambda item: item.index)
                del found[DAMAGES_KEPT_MAX:]

    crew = Crew(checker.check, threads=threads, stop=stop)
    crew.run((int(index) for index in chosen), on_result=on_result, on_tick=meter.tick)
    meter.tick(now=True)
    found.sort(key=lambda item: item.index)
    return VerifyReport(
        files=len(manifest),
        files_checked=len(chosen),
        bytes_checked=meter.worked_bytes,
        seconds=(monotonic_ns() - start_ns) / 1e9,
        missing=counts["missing"],
        wrong_size=counts["size"],
        changed=counts["changed"] + counts["side"],
        damages=tuple(item.damage for item in found[:DAMAGES_KEPT_MAX] if item.damage is not None),
        checksums=manifest.checksums is not None,
        seed=seed,
    )


def _choose(files: int, sample_ratio: float, seed: int) -> "range | np.ndarray[tuple[int], np.dtype[np.int64]]":
    if sample_ratio == 1:
        return range(files)
    count = math.ceil(files * sample_ratio)
    picked = np.random.Generator(np.random.SFC64(seed)).choice(files, count, replace=False, shuffle=False)
    return np.sort(picked.astype(np.int64))


class _Checker:
    """Checks one file at a time, on many threads."""

    def __init__(self, store: Store, manifest: Manifest, stop: threading.Event, *, evict: bool) -> None:
        self._store = store
        self._manifest = manifest
        self._stop = stop
        self._cache = store if evict and isinstance(store, SupportsCache) else None
        self._recipe = recipe_of(manifest) if manifest.side_suffixes and manifest.spec is not None else None

    def check(self, index: int) -> _Checked:
        """Return what is wrong with file `index`."""
        entry = self._manifest[index]
        try:
            read_bytes, damage = self._check_file(entry)
        except NotFoundError:
            return _Checked(index, 0, FileDamage(entry.key, "missing", f"{entry.size_bytes} bytes", "no file"))
        except ShortReadError as error:
            return _Checked(index, 0, FileDamage(entry.key, "size", f"{entry.size_bytes} bytes", error.got))
        return _Checked(index, read_bytes, damage or self._check_sides(index))

    def _check_file(self, entry: FileEntry) -> tuple[int, FileDamage | None]:
        if entry.checksum is None:
            return 0, _size_damage(entry, self._store.stat(entry.key).size_bytes)
        if self._cache is not None:
            self._cache.evict(entry.key)
        with self._store.open_read(entry.key) as reader:
            damage = _size_damage(entry, reader.object_bytes)
            if damage is not None:
                return 0, damage
            checksum = self._checksum(reader)
        if checksum != entry.checksum:
            damage = FileDamage(
                entry.key, "changed", f"checksum xxh3 {entry.checksum:016x}", f"checksum xxh3 {checksum:016x}"
            )
        return entry.size_bytes, damage

    def _checksum(self, reader: Reader) -> int:
        digest = xxhash.xxh3_64()
        buffer = fresh_view(min(_PIECE_BYTES, reader.range_bytes))
        left_bytes = reader.range_bytes
        while left_bytes and not self._stop.is_set():
            piece = buffer[: min(left_bytes, len(buffer))]
            reader.read_into(piece)
            digest.update(piece)
            left_bytes -= len(piece)
        return int(digest.intdigest())

    def _check_sides(self, index: int) -> FileDamage | None:
        if self._recipe is None:
            return None
        assert isinstance(self._manifest.keys, FileKeys)
        for key, data in self._recipe.side_files(self._manifest.keys.indices[index]).items():
            try:
                found = self._store.get_range(key)
            except (NotFoundError, ShortReadError):
                return FileDamage(key, "side", f"{len(data)} bytes", "no whole file")
            if bytes(found) != data:
                return FileDamage(key, "side", f"{len(data)} known bytes", f"{len(found)} other bytes")
        return None


def _size_damage(entry: FileEntry, got_bytes: int) -> FileDamage | None:
    if got_bytes == entry.size_bytes:
        return None
    return FileDamage(entry.key, "size", f"{entry.size_bytes} bytes", f"{got_bytes} bytes")


def recipe_of(manifest: Manifest) -> Recipe:
    """Return how the manifest's files are made. Raises UsageError for a dataset that we did not write."""
    if manifest.spec is None:
        raise UsageError(
            "content of this dataset is not known", expected="a dataset generated here", got="a foreign one"
        )
    return Recipe(manifest.spec, files_before=manifest.files_before)


def find_damage(store: Store, manifest: Manifest, index: int) -> FileDamage | None:
    """Return the first byte of file `index` that differs from what was generated, None when none does.

    The content is made again and compared, so this works without a checksum. Raises UsageError for a dataset that
    we did not write.
    """
    recipe = recipe_of(manifest)
    assert isinstance(manifest.keys, FileKeys)
    key = manifest.keys[index]
    try:
        with store.open_read(key) as reader:
            return _first_difference(reader, recipe, manifest.keys.indices[index], key)
    except NotFoundError:
        return FileDamage(key, "missing", f"{int(manifest.sizes_bytes[index])} bytes", "no file")


def _first_difference(reader: Reader, recipe: Recipe, number: int, key: str) -> FileDamage | None:
    offset_bytes = 0
    for chunk in recipe.chunks(number):
        wanted = np.frombuffer(chunk, np.uint8)
        found = np.empty(min(len(wanted), reader.range_bytes - offset_bytes), np.uint8)
        reader.read_into(found.data)
        differing = np.flatnonzero(found != wanted[: len(found)])
        if differing.size:
            place = int(differing[0])
            expected, got = f"byte 0x{wanted[place]:02x}", f"byte 0x{found[place]:02x}"
            return FileDamage(key, "changed", expected, got, offset_bytes + place)
        offset_bytes += len(found)
        if len(found) < len(wanted):
            return FileDamage(key, "size", "more bytes", f"{reader.range_bytes} bytes", offset_bytes)
    if offset_bytes < reader.range_bytes:
        return FileDamage(key, "size", f"{offset_bytes} bytes", f"{reader.range_bytes} bytes", offset_bytes)
    return None
