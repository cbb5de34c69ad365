"""Removing a split: exactly the files that we made, and nothing else."""

from array import array

import msgspec

from stoker.core.errors import UsageError
from stoker.formats.api import FORMATS
from stoker.loader.dataset.journal import delete_parts
from stoker.loader.dataset.marker import Marker, read_marker
from stoker.loader.dataset.naming import FileKeys, file_index, file_key, manifest_key, marker_key, parts_prefix
from stoker.loader.dataset.recipe import side_folder, side_owner
from stoker.storage.api import Store, SupportsSweep

FOREIGN_KEPT_MAX = 100


class RemoveReport(msgspec.Struct, frozen=True):
    """What was removed, side files included, and what was left: `foreign` names the first 100 files not ours."""

    files_removed: int
    bytes_removed: int
    foreign_count: int
    foreign: tuple[str, ...]


def remove(store: Store, split: str) -> RemoveReport:
    """Remove the files that the split's marker says are ours; the manifest goes first, the marker last.

    An interrupted removal can be repeated, and leaves nothing that passes as complete. Symbolic links are neither
    followed nor removed (stores do not list them). Raises UsageError, with nothing touched, without a marker.
    """
    marker = read_marker(store, split)
    if marker is None:
        raise UsageError(
            "no split of ours is here, so nothing is removed",
            where=f"{store.url} {split}",
            expected=f"the marker {marker_key(split)}",
            remedy="remove foreign files by other means",
        )
    FileKeys(marker.spec)
    store.delete(manifest_key(split))
    sweep = _Sweep(store, marker)
    sweep.run()
    delete_parts(store, split)
    store.delete(marker_key(split))
    if isinstance(store, SupportsSweep):
        for folder in sorted({*sweep.folders, parts_prefix(split)}):
            store.sweep(folder)
    return RemoveReport(sweep.removed, sweep.removed_bytes, sweep.foreign_count, tuple(sweep.foreign))


class _Sweep:
    """Deletes what is ours and counts what is not. Of each folder, listing ends before deleting begins."""

    def __init__(self, store: Store, marker: Marker) -> None:
        self._store = store
        self._spec = marker.spec
        self._suffixes = marker.side_suffixes
        self._format = FORMATS.load(marker.spec.format) if marker.side_suffixes else None
        self.removed = self.removed_bytes = self.foreign_count = 0
        self.foreign: list[str] = []

    def run(self) -> None:
        """Sweep the folder of the data and those of the companions."""
        for folder in sorted(self.folders):
            self._folder(folder)

    @property
    def folders(self) -> set[str]:
        """Return the folders of the data and of the companions, each with a trailing `/`."""
        folders = {f"{self._spec.split}/"}
        if self._format is not None:
            folders |= {side_folder(self._format, self._spec.split, suffix) for suffix in self._suffixes}
        return folders

    def _folder(self, folder: str) -> None:
        files = array("q")
        sides = {suffix: array("q") for suffix in self._suffixes}
        for info in self._store.list(folder):
            if self._sort(info.key, files, sides):
                self.removed_bytes += info.size_bytes
            else:
                self.foreign_count += 1
                if len(self.foreign) < FOREIGN_KEPT_MAX:
                    self.foreign.append(info.key)
        for index in files:
            self._delete(file_key(self._spec, index))
        for suffix, owners in sides.items():
            assert self._format is not None
            for index in owners:
                self._delete(self._format.side_key(file_key(self._spec, index), suffix))

    def _sort(self, key: str, files: "array[int]", sides: "dict[str, array[int]]") -> bool:
        """Put the file's index where it belongs; tell whether `key` is ours."""
        index = file_index(self._spec, key)
        if index is not None:
            files.append(index)
            return True
        for suffix, owners in sides.items():
            assert self._format is not None
            index = side_owner(self._spec, self._format, key, suffix)
            if index is not None:
                owners.append(index)
                return True
        return False

    def _delete(self, key: str) -> None:
        self._store.delete(key)
        self.removed += 1
