"""The host's page cache before an epoch: emptied of the dataset, and asked whether it is."""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np

from stoker.core import clock
from stoker.formats.api import FORMATS
from stoker.loader.manifest import Manifest
from stoker.storage.api import Store, SupportsCache

PROBED_FILES_MAX = 4096
LIMIT_VARIABLE: Final = "DLIO_DROP_CACHES_TIMEOUT"
_NO_LIMIT_NS: Final = 1 << 62


def share(manifest: Manifest, *, host_rank: int, host_size: int) -> range:
    """Return the indices of the files one rank of a host looks after; the ranks of each host cover all files."""
    return range(host_rank, len(manifest), host_size)


def evict(store: Store, manifest: Manifest, files: range, *, stopped: Callable[[], bool]) -> bool:
    """Drop the files' clean pages from this host's page cache; return False where the store cannot.

    Ends early when `stopped` tells so: the epoch will not be run then. Ends early, too, after the seconds that
    DLIO_DROP_CACHES_TIMEOUT allows, where it is set: what stayed in the cache is measured, and told.
    """
    if not (isinstance(store, SupportsCache) and store.capabilities.cache_evictable):
        return False
    until_ns = clock.monotonic_ns() + _limit_ns(os.environ)
    for index in files:
        if stopped() or clock.monotonic_ns() > until_ns:
            break
        for key in _keys(manifest, index):
            store.evict(key)
    return True


def _limit_ns(environment: Mapping[str, str]) -> int:
    """Return how long emptying may take; without the variable, or with one that is no number, there is no limit."""
    told = environment.get(LIMIT_VARIABLE, "")
    return int(told) * 1_000_000_000 if told.isdecimal() and len(told) < 10 and int(told) else _NO_LIMIT_NS


def _keys(manifest: Manifest, index: int) -> Iterator[str]:
    """Yield the key of a file and those of its companions."""
    key = manifest.keys[index]
    yield key
    for suffix in manifest.side_suffixes:
        yield FORMATS.load(manifest.format).side_key(key, suffix)


def residency(store: Store, manifest: Manifest, files: range) -> tuple[int, int] | None:
    """Return the bytes of the files that are in the page cache, and the bytes that were asked about.

    At most PROBED_FILES_MAX files, evenly spread, are asked about. None where that cannot be told.
    """
    if not isinstance(store, SupportsCache):
        return None
    resident_bytes = probed_bytes = 0
    chosen = np.unique(np.linspace(0, max(len(files) - 1, 0), min(len(files), PROBED_FILES_MAX)).astype(np.int64))
    for place in chosen.tolist():
        index = files[place]
        cached = store.cached_bytes(manifest.keys[index])
        if cached is None:
            return None
        resident_bytes += cached
        probed_bytes += int(manifest.sizes_bytes[index])
    return resident_bytes, probed_bytes
