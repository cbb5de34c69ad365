"""What a split holds: by our manifest, or for other people's datasets by listing once."""

import numpy as np

from stoker.core.errors import CorruptError, NotFoundError, PreflightError, UsageError
from stoker.formats.api import FORMATS, Format
from stoker.formats.columns import LaysOutColumns
from stoker.formats.detect import HEAD_BYTES, detect
from stoker.loader.dataset.manifest_file import load_manifest
from stoker.loader.dataset.marker import read_marker
from stoker.loader.manifest import FOLDER, Manifest
from stoker.storage.api import ObjectInfo, Store


def open_manifest(
    store: Store,
    split: str = "train",
    *,
    format_name: str | None = None,
    samples_per_file: int | None = None,
    limit: int | None = None,
) -> Manifest:
    """Return the files of `split`: from our manifest when there is one, else from a listing of `<split>/`.

    A listing takes the files whose names end in the format's extension, in the order of their names (DLIO's order),
    and opens the first to learn what was not told: the format by its first bytes, the samples by its headers. A
    split of '' is the whole store. `limit` is how many files are needed: a surplus is left out.

    Raises NotFoundError when there are no such files; PreflightError when they are fewer than `limit`, or when the
    split was begun by us and not completed; UsageError when what was told disagrees with our manifest.
    """
    for name, number in (("limit", limit), ("samples_per_file", samples_per_file)):
        if number is not None and number < 1:
            raise UsageError(f"{name} is out of range", expected="at least 1", got=str(number))
    manifest = _ours(store, split) if split else None
    if manifest is None:
        manifest = _listed(store, split, format_name, samples_per_file)
    else:
        _check_told(store, manifest, format_name, samples_per_file)
    if limit is not None and len(manifest) < limit:
        raise PreflightError(
            "dataset has fewer files than are needed",
            where=f"{store.url} {split}",
            expected=f"{limit} files",
            got=f"{len(manifest)} files",
            remedy="generate more, or ask for fewer",
        )
    return manifest if limit is None or limit == len(manifest) else manifest.part(slice(limit))


def _ours(store: Store, split: str) -> Manifest | None:
    try:
        return load_manifest(store, split)
    except NotFoundError:
        if read_marker(store, split) is None:
            return None
    raise PreflightError(
        "generation of the dataset was not completed",
        where=f"{store.url} {split}",
        remedy="run the generation again with the same settings: it makes what is missing",
    )


def _check_told(store: Store, manifest: Manifest, format_name: str | None, samples_per_file: int | None) -> None:
    samples = int(manifest.samples[0]) if len(manifest) else samples_per_file
    told = [("format", format_name, manifest.format), ("samples_per_file", samples_per_file, samples)]
    for name, wanted, got in told:
        if wanted is not None and wanted != got:
            raise UsageError(
                f"dataset has another {name}",
                where=f"{store.url}",
                expected=str(wanted),
                got=str(got),
                remedy="leave it out, or generate the dataset anew",
            )


def _listed(store: Store, split: str, format_name: str | None, samples_per_file: int | None) -> Manifest:
    prefix = f"{split}/" if split else ""
    found = [info for info in store.list(prefix) if not info.key.startswith(f"{FOLDER}/")]
    name = format_name or _detect(store, found, prefix)
    file_format = FORMATS.load(name)
    found = [info for info in found if _fits(info.key, file_format)]
    if not found:
        raise NotFoundError(
            "no files of the dataset",
            where=f"{store.url} {prefix}",
            expected=f"names that end in {file_format.extension!r}",
        )
    found.sort(key=lambda info: (info.key.rpartition("/")[2], info.key))
    samples = samples_per_file or _count_samples(store, found[0], file_format)
    return Manifest(
        name,
        [info.key for info in found],
        np.array([info.size_bytes for info in found], np.int64),
        np.broadcast_to(np.int64(samples), (len(found),)),
    )


def _detect(store: Store, found: list[ObjectInfo], prefix: str) -> str:
    """Return the format of the first file that has one."""
    for info in found[:100]:
        head = bytes(store.get_range(info.key, 0, min(HEAD_BYTES, info.size_bytes)))
        name = detect(head, info.key)
        if name is not None:
            return name
    raise NotFoundError(
        "no files of a known format", where=f"{store.url} {prefix}", remedy="check the path, or tell the format"
    )


def _fits(key: str, file_format: Format) -> bool:
    """Tell whether a file's name is one of the format's: `.h5` and `.jpg` are as good as our own endings."""
    return key.endswith(f".{file_format.extension}") or detect(b"", key) == file_format.name


class StoreSource:
    """One object as a `RangeSource`; the side files are looked up by the format's rule."""

    def __init__(self, store: Store, key: str, size_bytes: int, file_format: Format) -> None:
        self.size_bytes = size_bytes
        self._store = store
        self._key = key
        self._format = file_format

    def read(self, offset_bytes: int, length_bytes: int) -> memoryview:
        """Return exactly the range."""
        return self._store.get_range(self._key, offset_bytes, length_bytes)

    def side_file(self, suffix: str) -> memoryview | None:
        """Return the whole companion, None when there is none."""
        try:
            return self._store.get_range(self._format.side_key(self._key, suffix))
        except NotFoundError:
            return None


def _count_samples(store: Store, info: ObjectInfo, file_format: Format) -> int:
    """Return the samples of one file; the others are taken to have as many."""
    if not file_format.multi_sample:
        return 1
    source = StoreSource(store, info.key, info.size_bytes, file_format)
    try:
        if isinstance(file_format, LaysOutColumns):
            return file_format.layout_columns(source, {}).samples
        return sum(extent.samples for extent in file_format.layout(source, {}).extents)
    except (CorruptError, UsageError) as error:
        raise UsageError(
            "cannot tell how many samples a file holds",
            where=f"{store.url} {info.key}",
            got=str(error),
            remedy="tell the samples per file",
        ) from error
