"""What of a split is there already, as seen by one rank."""

import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import CorruptError, NotFoundError, PreflightError
from stoker.core.units import format_bytes
from stoker.loader.dataset.journal import read_parts
from stoker.loader.dataset.manifest_file import load_manifest
from stoker.loader.dataset.marker import Marker
from stoker.loader.dataset.naming import FileKeys, file_index
from stoker.loader.dataset.recipe import Recipe, side_folder, side_owner, spec_facts
from stoker.storage.api import Store, SupportsLocalPath

_ABSENT = -1


class Survey:
    """The files `share` (every world-th, from the rank on) of a split, as columns by position in the share.

    `sizes_bytes` is -1 for a file that is not known to be finished; `present_bytes` likewise for one that is not
    there. Only files that are finished in the journal, and there with that size, need nothing. `committed` tells that
    the split's manifest is there and whole.
    """

    def __init__(self, share: range) -> None:
        self.share = share
        self.sizes_bytes = np.full(len(share), _ABSENT, np.int64)
        self.checksums = np.zeros(len(share), np.uint64)
        self.present_bytes = np.full(len(share), _ABSENT, np.int64)
        self.committed = False
        self.notes: list[str] = []

    @property
    def done(self) -> NDArray[np.bool_]:
        """Tell for each position whether its file is finished."""
        return self.sizes_bytes >= 0

    def missing(self) -> Iterator[int]:
        """Yield the files to make, in order."""
        return (self.share[int(position)] for position in np.flatnonzero(~self.done))

    def present(self, index: int) -> bool:
        """Tell whether something lies in the place of a file of the share."""
        return bool(self.present_bytes[self.share.index(index)] >= 0)

    @property
    def there_bytes(self) -> int:
        """Return the bytes that are there already, finished or not."""
        return int(np.maximum(self.present_bytes, self.sizes_bytes).clip(0).sum())

    def record(self, indices: NDArray[np.int64], sizes_bytes: NDArray[np.int64], checksums: NDArray[np.uint64]) -> None:
        """Take finished files into the columns; those of other shares are passed over."""
        mine = (indices >= self.share.start) & ((indices - self.share.start) % self.share.step == 0)
        positions = (indices[mine] - self.share.start) // self.share.step
        self.sizes_bytes[positions] = sizes_bytes[mine]
        self.checksums[positions] = checksums[mine]

    def read_journal(self, store: Store, recipe: Recipe, marker: Marker) -> None:
        """Take in the manifest, when there is one, and every part."""
        split = recipe.spec.split
        try:
            manifest = load_manifest(store, split)
            ours = manifest.spec is not None and spec_facts(manifest.spec) == spec_facts(recipe.spec)
            if ours and manifest.checksums is not None and isinstance(manifest.keys, FileKeys):
                named = manifest.keys.indices
                indices = np.arange(named.start, named.stop, named.step, dtype=np.int64)
                self.record(indices, manifest.sizes_bytes, manifest.checksums)
                self.committed = len(manifest) == recipe.spec.files
        except NotFoundError:
            pass  # the split was never complete
        except CorruptError as error:
            self.notes.append(f"the manifest was not used: {error}")
        for part in read_parts(store, marker):
            if isinstance(part, str):
                self.notes.append(part)
            else:
                self.record(part.indices, part.sizes_bytes, part.checksums)

    def look(self, store: Store, recipe: Recipe) -> None:
        """List the split: what is finished but gone, or of another size, is to be made again."""
        for info in store.list(f"{recipe.spec.split}/"):
            index = file_index(recipe.spec, info.key)
            if index is not None and index in self.share:
                self.present_bytes[self.share.index(index)] = info.size_bytes
        self.sizes_bytes[self.present_bytes != self.sizes_bytes] = _ABSENT
        for suffix in recipe.side_suffixes:
            self._look_at_sides(store, recipe, suffix)

    def _look_at_sides(self, store: Store, recipe: Recipe, suffix: str) -> None:
        found = np.zeros(len(self.share), np.bool_)
        for info in store.list(side_folder(recipe.format, recipe.spec.split, suffix)):
            index = side_owner(recipe.spec, recipe.format, info.key, suffix)
            if index is not None and index in self.share:
                found[self.share.index(index)] = True
        self.sizes_bytes[~found] = _ABSENT


def free_bytes(store: Store) -> int | None:
    """Return how much can still be written to a local store, None when nobody can tell."""
    if not isinstance(store, SupportsLocalPath):
        return None
    facts = os.statvfs(store.root)
    return facts.f_bavail * facts.f_frsize


def check_space(store: Store, recipe: Recipe, share: range, there_bytes: int = 0) -> None:
    """Raise PreflightError unless what is still to be made, of all ranks, fits on a local store.

    `there_bytes` of the share is there already; the other ranks are taken to be as far.
    """
    free = free_bytes(store)
    if free is None:
        return
    needed = max(0, recipe.predict(share).file_bytes - there_bytes) * share.step
    if needed > free:
        raise PreflightError(
            "dataset does not fit",
            where=store.url,
            expected=f"{needed} bytes ({format_bytes(needed)}) free",
            got=f"{free} bytes ({format_bytes(free)})",
            remedy="free space, generate fewer or smaller files, or use another folder",
        )
