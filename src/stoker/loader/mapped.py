"""Cached files lent instead of copied: which reads may be, and that none of them lost its file meanwhile."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import ShortReadError
from stoker.kernels.mapping import NONE_TORN, MappingWatch, mapping_watch
from stoker.loader.manifest import Manifest
from stoker.storage.api import Store, SupportsMapping

_ALIGNED_BYTES: Final = 64
"""Arrays are expected to begin where processors like it; a mapping begins where its file has it."""


class MappedFiles:
    """Maps what a loader reads. Safe from many threads."""

    def __init__(self, store: SupportsMapping, manifest: Manifest, watch: MappingWatch, least_bytes: int) -> None:
        self._store = store
        self._manifest = manifest
        self._watch = watch
        self._least_bytes = least_bytes

    def lend(self, file: int, offset_bytes: int, length_bytes: int) -> tuple[NDArray[np.uint8], int] | None:
        """Return a range of the manifest's file and the size of the file; None when it is to be read as usual."""
        if length_bytes < self._least_bytes or offset_bytes % _ALIGNED_BYTES:
            return None
        return self._store.map_cached(self._manifest.keys[file], offset_bytes, length_bytes, self._watch, file)

    def check(self) -> None:
        """Raise ShortReadError when a file that was lent is not whole any more: some of its bytes were read as 0."""
        file = self._watch.torn_tag
        if file != NONE_TORN:
            raise ShortReadError(
                "file shrank, or could not be read, while its samples were in use",
                where=self._manifest.keys[file],
                expected=f"{int(self._manifest.sizes_bytes[file])} bytes until the last sample is let go",
                remedy="do not change a dataset while it is read; map_bytes=0 copies every sample",
            )


def mapped_files(store: Store, manifest: Manifest, least_bytes: int) -> MappedFiles | None:
    """Return what maps reads of `least_bytes` and more; None where nothing is to be mapped, or can be."""
    if not least_bytes or not isinstance(store, SupportsMapping):
        return None
    watch = mapping_watch()
    return None if watch is None else MappedFiles(store, manifest, watch, least_bytes)
