"""A manifest as bytes, and where it lies in a store."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from stoker.core.errors import CorruptError, StokerError
from stoker.core.plan import DatasetSpec
from stoker.loader.dataset.columns import Table, pack, unpack
from stoker.loader.dataset.naming import FILES_MAX, FileKeys, manifest_key
from stoker.loader.dataset.retry import repeat
from stoker.loader.manifest import Manifest
from stoker.storage.api import ObjectInfo, Store, SupportsMultipart

MANIFEST_VERSION: Final = 1
_KIND: Final = "manifest"
_BAD_KEY: Final = re.compile(r"(?:^|[\0/])\.{0,2}(?:[\0/]|$)")
"""Finds, in keys joined by NUL, one that is empty, absolute, or has an empty, `.` or `..` part."""


class _Facts(msgspec.Struct, frozen=True):
    """What the columns do not say. `indices` (start, stop, step) is the key rule: None when the keys are listed."""

    format: str
    options: dict[str, Any] = {}
    spec: DatasetSpec | None = None
    files_before: int = 0
    side_suffixes: tuple[str, ...] = ()
    indices: tuple[int, int, int] | None = None


def encode_manifest(manifest: Manifest) -> Iterator[bytes]:
    """Yield the manifest's bytes: names are a rule when the files are named by one, else they are listed."""
    keys = manifest.keys
    ruled = isinstance(keys, FileKeys) and keys.spec == manifest.spec
    facts = _Facts(
        manifest.format,
        manifest.options,
        manifest.spec,
        manifest.files_before,
        manifest.side_suffixes,
        (keys.indices.start, keys.indices.stop, keys.indices.step) if isinstance(keys, FileKeys) and ruled else None,
    )
    columns: dict[str, Any] = {"size_bytes": manifest.sizes_bytes, "samples": manifest.samples}
    if manifest.checksums is not None:
        columns["checksum"] = manifest.checksums
    if not ruled:
        columns["keys"] = np.frombuffer("\0".join(keys).encode(), np.uint8)
    return pack(_KIND, MANIFEST_VERSION, facts, columns, rows=len(manifest))


def decode_manifest(data: memoryview, *, where: str = "manifest") -> Manifest:
    """Return the manifest in `data`; big columns are views of it.

    Raises CorruptError, naming `where`, for anything damaged, inconsistent or hostile: sizes below 0, keys that
    leave the root, counts that do not match.
    """
    table = unpack(data, _KIND, MANIFEST_VERSION, where=where)
    try:
        return _manifest(table)
    except (KeyError, ValueError, msgspec.ValidationError, StokerError) as error:
        raise CorruptError("manifest makes no sense", where=where, got=str(error)) from error


def _manifest(table: Table) -> Manifest:
    facts = msgspec.json.decode(table.facts, type=_Facts)
    sizes, samples = table.columns["size_bytes"], table.columns["samples"]
    checksums = table.columns.get("checksum")
    kinds = [(sizes, "<i8"), (samples, "<i8")] + ([(checksums, "<u8")] if checksums is not None else [])
    if any(column.dtype.str != kind for column, kind in kinds):
        raise ValueError("a column of another type")
    if table.rows and (sizes.min() < 0 or samples.min() < 1 or sizes.sum(dtype=np.float64) >= 2.0**62):
        raise ValueError("sizes or samples out of range")
    keys = _keys(table, facts)
    manifest = Manifest(facts.format, keys, sizes, samples, checksums, spec=facts.spec, options=facts.options)
    manifest.files_before, manifest.side_suffixes = facts.files_before, facts.side_suffixes
    return manifest


def _keys(table: Table, facts: _Facts) -> Sequence[str]:
    if facts.indices is None:
        text = table.columns["keys"].tobytes().decode()
        keys = text.split("\0") if text else []
        if len(keys) != table.rows or (keys and _BAD_KEY.search(text)):
            raise ValueError("keys that are not one good key a file")
        return keys
    start, stop, step = facts.indices
    spec = facts.spec
    if spec is None or not 1 <= spec.files <= FILES_MAX or not (0 <= start <= stop <= spec.files and step >= 1):
        raise ValueError("a key rule without the spec it needs")
    indices = range(start, stop, step)
    if len(indices) != table.rows:
        raise ValueError(f"{len(indices)} names for {table.rows} files")
    return FileKeys(spec, indices)


def save_manifest(store: Store, split: str, manifest: Manifest) -> ObjectInfo:
    """Put the manifest, whole or not at all: this completes the split."""
    key = manifest_key(split)
    if isinstance(store, SupportsMultipart):
        return repeat(lambda: store.put_parts(key, encode_manifest(manifest)))[0]
    return store.put(key, b"".join(encode_manifest(manifest)))


def load_manifest(store: Store, split: str) -> Manifest:
    """Return the split's manifest. Raises NotFoundError when there is none, CorruptError when it is damaged."""
    key = manifest_key(split)
    manifest = decode_manifest(store.get_range(key), where=f"{store.url} {key}")
    if manifest.spec is not None and manifest.spec.split != split:
        raise CorruptError(
            "manifest is of another split", where=f"{store.url} {key}", expected=split, got=manifest.spec.split
        )
    return manifest
