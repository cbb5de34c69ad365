"""A target as the benchmark sees it: its URL, its store, what of ours lies there and how fast it takes bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote

import msgspec

from stoker.core import clock, seed
from stoker.core.errors import NotFoundError, UsageError
from stoker.core.plan import DatasetSpec
from stoker.core.units import TiB
from stoker.formats.api import FORMATS
from stoker.loader.dataset.content import content_source
from stoker.loader.dataset.manifest_file import load_manifest
from stoker.loader.dataset.marker import read_marker
from stoker.loader.dataset.shapes import sample_spec
from stoker.loader.dataset.survey import free_bytes
from stoker.storage.api import Store, SupportsMultipart
from stoker.storage.opening import open_store
from stoker.storage.url import parse_url

PROBE_SECONDS: Final = 2.0
PROBE_FILES_MAX: Final = 8
LOCAL_SCHEMES: Final = ("file", "direct")
UNKNOWN_SPACE_BYTES: Final = 1024.0 * TiB


class WriteRate(msgspec.Struct, frozen=True):
    """How fast a target takes files: measured, or assumed where nothing may be written."""

    bytes_per_second: float = 500e6
    measured: bool = False


ASSUMED: Final = WriteRate()


def child_url(target: str, name: str) -> str:
    """Return the URL of the folder or prefix `name` under `target`, its query kept; `target` itself for no name."""
    if not name:
        return target
    if "://" not in target:
        return f"{target.rstrip('/')}/{name}"
    base, mark, query = target.partition("?")
    return f"{base.rstrip('/')}/{name}{mark}{query}"


def unsynced_url(url: str) -> str:
    """Return the URL of the same place, where a local one need not be durable after each call: for tidying up."""
    scheme, mark, _ = url.partition("://")
    if not mark:
        return f"file://{quote(os.path.abspath(url))}?fsync=none"  # noqa: PTH100 - Path.absolute keeps `..`
    if scheme not in ("file", "direct") or "fsync=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}fsync=none"


def synced_url(target: str, fsync: str | None) -> str:
    """Return the target's URL with what `--fsync` says a finished write has made durable; as it is for None.

    Raises UsageError where that is told twice, or has no effect.
    """
    if fsync is None:
        return target
    parsed = parse_url(target)
    if parsed.scheme not in LOCAL_SCHEMES:
        raise UsageError("--fsync has no effect on this target", where=parsed.redacted, expected="a folder")
    if "fsync" in parsed.query:
        raise UsageError("fsync is told twice", where=parsed.redacted, remedy="leave --fsync or ?fsync= out")
    if "://" not in target:
        return f"file://{parsed.path}?fsync={fsync}"
    return f"{target}{'&' if '?' in target else '?'}fsync={fsync}"


@contextmanager
def opened(url: str, *, create: bool = False) -> Iterator[Store]:
    """Open a store for a while."""
    store = open_store(url, create=create)
    try:
        yield store
    finally:
        store.close()


def dataset_of_ours(url: str, split: str = "train") -> DatasetSpec | None:
    """Return the spec of the complete dataset that we made at `url`, None where we made none.

    Raises CorruptError when its marker or manifest is damaged, NotFoundError when it was begun but not completed.
    """
    try:
        store = open_store(url)
    except NotFoundError:
        return None
    try:
        return None if read_marker(store, split) is None else load_manifest(store, split).spec
    finally:
        store.close()


def free_space_bytes(target: str) -> float:
    """Return how much can still be written, a number beyond all need where that cannot be told."""
    with opened(target) as store:
        free = free_bytes(store)
    return UNKNOWN_SPACE_BYTES if free is None else float(free)


def measure_write_rate(target: str, dataset: DatasetSpec) -> WriteRate:
    """Write files of the dataset for about two seconds, remove them again, and return how fast that was.

    Raises what the store raises when it cannot be written.
    """
    written_bytes = 0
    start_ns = clock.monotonic_ns()
    keys: list[str] = []
    with opened(target) as store:
        try:
            for index in range(min(PROBE_FILES_MAX, dataset.files)):
                keys.append(f"stoker-probe-{seed.run_id()}")
                written_bytes += _write_one(store, keys[-1], dataset, index)
                if clock.monotonic_ns() - start_ns > PROBE_SECONDS * 1e9:
                    break
            return WriteRate(written_bytes / ((clock.monotonic_ns() - start_ns) / 1e9), measured=True)
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
