"""Snapshots of a copy in any store: parts of compressed pairs, and a manifest that is written last.

    NUMBER/part-00000 …      zstd of msgpack: pairs in order, about 8 MiB of them
    NUMBER/manifest.json     what the snapshot is of, and length and checksum of each part

They are made from a snapshot of the copy, so nobody waits for them, and hold pairs rather than an engine's file: they
fill an engine of any kind, and every byte is checked on the way.
"""

from collections.abc import Iterator
from typing import Annotated, Final

import crc32c
import msgspec
import zstandard

from stoker.core.errors import CorruptError, NotFoundError, StokerError
from stoker.fs.journal.entries import SnapshotNote
from stoker.fs.journal.state import Position, unpack_position
from stoker.fs.meta.kv import Copy, Pair, Snapshot
from stoker.storage.api import Store

_VERSION: Final = 1
_PART_BYTES: Final = 8 << 20
_PART_BYTES_MAX: Final = 64 << 20
_PAIRS_A_SCAN: Final = 2000
_MANIFEST: Final = "manifest.json"


class Part(msgspec.Struct, frozen=True):
    """One part: its bytes as they are stored and unpacked, and the CRC32C of the stored ones."""

    name: str
    stored_bytes: Annotated[int, msgspec.Meta(ge=0, le=_PART_BYTES_MAX)]
    bytes: Annotated[int, msgspec.Meta(ge=0, le=_PART_BYTES_MAX)]
    crc: int


class Manifest(msgspec.Struct, frozen=True):
    """What a snapshot is."""

    volume: str
    position: Position
    revision: int
    pairs: int
    parts: tuple[Part, ...]
    version: int = _VERSION


def write_snapshot(copy: Copy, store: Store, volume: str) -> SnapshotNote:
    """Write what a copy holds now, and return the note of it. Raises StoreError."""
    mark, snapshot = copy.marked_snapshot()
    with snapshot:
        position = unpack_position(mark)
        name = f"{position.number:016x}"
        parts: list[Part] = []
        count = 0
        for pairs in _parted(snapshot):
            count += len(pairs)
            parts.append(_put_part(store, f"{name}/part-{len(parts):05d}", pairs))
        manifest = Manifest(volume, position, snapshot.revision, count, tuple(parts))
    store.put(f"{name}/{_MANIFEST}", msgspec.json.encode(manifest))
    return SnapshotNote(position.number, manifest.revision, name)


def _parted(snapshot: Snapshot) -> Iterator[list[Pair]]:
    after, held, size_bytes = b"", list[Pair](), 0
    while pairs := snapshot.scan(b"", after, _PAIRS_A_SCAN):
        after = pairs[-1][0]
        for key, value in pairs:
            if held and size_bytes + len(value) > _PART_BYTES:
                yield held
                held, size_bytes = [], 0
            held.append((key, value))
            size_bytes += len(key) + len(value) + 8
    if held:
        yield held


def _put_part(store: Store, key: str, pairs: list[Pair]) -> Part:
    data = msgspec.msgpack.encode(pairs)
    stored = zstandard.ZstdCompressor(level=1).compress(data)
    store.put(key, stored)
    return Part(key.rpartition("/")[2], len(stored), len(data), crc32c.crc32c(stored))


def read_manifest(store: Store, name: str) -> Manifest:
    """Return what a snapshot is. Raises CorruptError, NotFoundError, StoreError."""
    data = bytes(store.get_range(f"{name}/{_MANIFEST}"))
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError(
            "manifest of a snapshot is not readable", where=f"{store.url}/{name}", got=str(error)
        ) from error


def read_pairs(store: Store, name: str, manifest: Manifest) -> Iterator[Pair]:
    """Return the pairs of a snapshot, in order. Raises CorruptError for bytes that are not those written."""
    count = 0
    for part in manifest.parts:
        where = f"{store.url}/{name}/{part.name}"
        stored = bytes(store.get_range(f"{name}/{part.name}"))
        if len(stored) != part.stored_bytes or crc32c.crc32c(stored) != part.crc:
            raise CorruptError("part of a snapshot is damaged", where=where, expected="the checksum of the manifest")
        try:
            if zstandard.frame_content_size(stored) != part.bytes:
                raise CorruptError("part of a snapshot has another length", where=where, expected=str(part.bytes))
            data = zstandard.ZstdDecompressor().decompress(stored, max_output_size=part.bytes)
            pairs = msgspec.msgpack.decode(data, type=list[tuple[bytes, bytes]])
        except (zstandard.ZstdError, msgspec.DecodeError) as error:
            raise CorruptError("part of a snapshot is not readable", where=where, got=str(error)) from error
        count += len(pairs)
        yield from pairs
    if count != manifest.pairs:
        raise CorruptError("snapshot is not whole", where=name, expected=f"{manifest.pairs} pairs", got=str(count))


def snapshots_in(store: Store) -> list[str]:
    """Return the names of whole snapshots, oldest first."""
    keys = [info.key for info in store.list("")]
    return sorted(key.partition("/")[0] for key in keys if key.endswith(f"/{_MANIFEST}"))


def forget_snapshots(store: Store, keep: int) -> None:
    """Delete all snapshots but the newest `keep`; the manifest first, so that none is there in part."""
    for name in snapshots_in(store)[:-keep]:
        keys = sorted((info.key for info in store.list(f"{name}/")), key=lambda key: not key.endswith(_MANIFEST))
        for key in keys:
            try:
                store.delete(key)
            except NotFoundError:
                continue


def newest_snapshot(store: Store, volume: str, floor: int) -> tuple[str, Manifest]:
    """Return the newest snapshot of a volume that the log, which begins at `floor`, goes on from.

    Raises StokerError when there is none.
    """
    for name in reversed(snapshots_in(store)):
        manifest = read_manifest(store, name)
        if manifest.volume == volume and manifest.position.number + 1 >= floor:
            return name, manifest
    raise StokerError(
        "no snapshot reaches the log",
        where=store.url,
        expected=f"one of entry {floor - 1} or later",
        remedy="point --snapshots to where the other masters write theirs",
    )
