"""The host's page cache before an epoch: emptied of the dataset, and asked whether it is."""

from collections.abc import Callable, Iterator

import numpy as np

from stoker.formats.api import FORMATS
from stoker.loader.manifest import Manifest
from stoker.storage.api import Store, SupportsCache

PROBED_FILES_MAX = 4096


def share(manifest: Manifest, *, host_rank: int, host_size: int) -> range:
    """Return the indices of the files one rank of a host looks after; the ranks of each host cover all files."""
    return range(host_rank, len(manifest), host_size)


def evict(store: Store, manifest: Manifest, files: range, *, stopped: Callable[[], bool]) -> bool:
    """Drop the files' clean pages from this host's page cache; return False where the store cannot.

    Ends early when `stopped` tells so: the epoch will not be run then.
    """
    if not (isinstance(store, SupportsCache) and store.capabilities.cache_evictable):
        return False
    for index in files:
        if stopped():
            break
        for key in _keys(manifest, index):
            store.evict(key)
    return True


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
