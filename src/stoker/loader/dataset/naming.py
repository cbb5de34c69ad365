"""Where the files of a split lie: DLIO's names by arithmetic, and our own bookkeeping beside them.

No list of names is ever held: file 49 999 999 of 50 million is named as cheaply as the first.
"""

from collections.abc import Iterator, Sequence
from typing import Final, overload

from stoker.core.files import check_key
from stoker.core.plan import DatasetSpec
from stoker.loader.manifest import FOLDER

FILES_MAX: Final = 1 << 40
"""More files than any file system holds; what claims more is an error or hostile."""


def marker_key(split: str) -> str:
    """Return the key of the object that says: this split was begun by us, with this spec."""
    return f"{FOLDER}/{split}.marker"


def manifest_key(split: str) -> str:
    """Return the key of the split's manifest; its put is what completes the split."""
    return f"{FOLDER}/{split}.manifest"


def parts_prefix(split: str) -> str:
    """Return what the keys of the split's journal parts begin with."""
    return f"{FOLDER}/{split}.parts/"


def file_key(spec: DatasetSpec, index: int) -> str:
    """Return the key of file `index`, `train/img_00_of_16.npz`, as DLIO names it.

    With more than one subfolder, file i lies in subfolder i mod n. Numbers are zero-padded to the digits of the
    count, so that names sort in the order of the index. Raises IndexError outside 0..files-1.
    """
    if not 0 <= index < spec.files:
        raise IndexError(f"file {index} of {spec.files}")
    return _key(spec, index)


def _key(spec: DatasetSpec, index: int) -> str:
    folder = spec.split
    if spec.subfolders > 1:
        folder += f"/{index % spec.subfolders:0{len(str(spec.subfolders))}d}"
    return f"{folder}/{spec.prefix}_{index:0{len(str(spec.files))}d}_of_{spec.files}.{spec.format}"


class FileKeys(Sequence[str]):
    """The keys of a split, or of every n-th file of it, computed when asked for. Slices are `FileKeys` too."""

    __slots__ = ("_indices", "spec")

    def __init__(self, spec: DatasetSpec, indices: range | None = None) -> None:
        check_key(_key(spec, 0))
        self.spec = spec
        self._indices = range(spec.files) if indices is None else indices
        # The ends alone: min() and max() would walk the range.
        assert all(0 <= end < spec.files for end in (*self._indices[:1], *self._indices[-1:]))

    @property
    def indices(self) -> range:
        """Return the file indices these keys stand for, in order."""
        return self._indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> "FileKeys": ...

    def __getitem__(self, index: int | slice) -> "str | FileKeys":
        if isinstance(index, slice):
            return FileKeys(self.spec, self._indices[index])
        return _key(self.spec, self._indices[index])

    def __iter__(self) -> Iterator[str]:
        return (_key(self.spec, index) for index in self._indices)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.position(key) is not None

    def position(self, key: str) -> int | None:
        """Return where `key` stands in this sequence, None when it does not; arithmetic, no search."""
        index = file_index(self.spec, key)
        if index is None or index not in self._indices:
            return None
        return self._indices.index(index)


def file_index(spec: DatasetSpec, key: str) -> int | None:
    """Return the index of the file that `key` names, None when it names none of this spec."""
    head = f"{spec.prefix}_"
    name = key.rpartition("/")[2]
    digits = name[len(head) : len(head) + len(str(spec.files))]
    if not name.startswith(head) or not (digits.isascii() and digits.isdigit()):
        return None
    index = int(digits)
    return index if index < spec.files and _key(spec, index) == key else None
