"""A target as the benchmark sees it: its URL, its store, what lies there and how fast it takes bytes."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from stoker.core import clock, seed
from stoker.core.errors import NotFoundError, UsageError
from stoker.core.plan import DatasetSpec
from stoker.core.units import TiB
from stoker.formats.api import FORMATS
from stoker.loader.dataset.content import content_source
from stoker.loader.dataset.discover import open_manifest
from stoker.loader.dataset.shapes import sample_spec
from stoker.loader.dataset.survey import free_bytes
from stoker.loader.manifest import Manifest
from stoker.storage.api import Store, SupportsMultipart
from stoker.storage.opening import open_store

PROBE_SECONDS = 2.0
PROBE_FILES_MAX = 8
ASSUMED_WRITE_BYTES_PER_SECOND = 500e6


class TargetFacts(msgspec.Struct, frozen=True):
    """What was seen of a target. `write_bytes_per_second` is measured, or assumed when nothing may be written."""

    url: str
    free_bytes: float
    write_bytes_per_second: float
    measured: bool


def child_url(target: str, name: str) -> str:
    """Return the URL of the folder or prefix `name` under `target`, its query kept; `target` itself for no name."""
    if not name:
        return target
    base, mark, query = target.partition("?")
    return f"{base.rstrip('/')}/{name}{mark}{query}"


@contextmanager
def opened(url: str, *, create: bool = False) -> Iterator[Store]:
    """Open a store for a while."""
    store = open_store(url, create=create)
    try:
        yield store
    finally:
        store.close()


def existing_manifest(url: str, split: str = "train") -> Manifest | None:
    """Return the manifest of a dataset that we made at `url`, None when there is none."""
    try:
        with opened(url) as store:
            manifest = open_manifest(store, split)
    except (NotFoundError, UsageError):
        return None
    return manifest if manifest.spec is not None else None


def look_at(target: str, dataset: DatasetSpec, *, write: bool) -> TargetFacts:
    """Return the target's free space and, when `write`, how fast it takes files like those of `dataset`.

    Everything written is removed again. Raises what the store raises when it cannot be written.
    """
    with opened(target) as store:
        free = free_bytes(store)
        space_bytes = 1024.0 * TiB if free is None else float(free)
        if not write:
            return TargetFacts(store.url, space_bytes, ASSUMED_WRITE_BYTES_PER_SECOND, measured=False)
        return TargetFacts(store.url, space_bytes, _write_rate(store, dataset), measured=True)


def _write_rate(store: Store, dataset: DatasetSpec) -> float:
    """Write files of the dataset for about two seconds and return the bytes per second."""
    written_bytes = 0
    start_ns = clock.monotonic_ns()
    keys: list[str] = []
    try:
        for index in range(min(PROBE_FILES_MAX, dataset.files)):
            keys.append(f"stoker-probe-{seed.run_id()}")
            written_bytes += _write_one(store, keys[-1], dataset, index)
            if clock.monotonic_ns() - start_ns > PROBE_SECONDS * 1e9:
                break
        return written_bytes / ((clock.monotonic_ns() - start_ns) / 1e9)
    finally:
        for key in keys:
            store.delete(key)


def _write_one(store: Store, key: str, dataset: DatasetSpec, index: int) -> int:
    file_format = FORMATS.load(dataset.format)
    spec = file_format.check_spec(sample_spec(dataset, index))
    parts = file_format.encode(spec, content_source(dataset, index, spec))
    if isinstance(store, SupportsMultipart):
        return store.put_parts(key, parts).size_bytes
    return store.put(key, b"".join(parts)).size_bytes
