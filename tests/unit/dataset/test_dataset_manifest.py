"""Manifests survive the trip, stay small, and believe nothing that is not so."""

import struct
import zlib
from typing import Any

import msgspec
import numpy as np
import pytest
import xxhash

from stoker.core.errors import CorruptError, NotFoundError
from stoker.core.plan import DatasetSpec
from stoker.core.seed import run_id
from stoker.loader.dataset.columns import MAGIC, pack, unpack
from stoker.loader.dataset.manifest_file import decode_manifest, encode_manifest, load_manifest, save_manifest
from stoker.loader.dataset.naming import FileKeys, manifest_key
from stoker.loader.manifest import Manifest
from stoker.storage.opening import open_store

SPEC = DatasetSpec("npz", 1000, options={"compression": "none"}, record_dims=(4, 5), split="valid")


def ruled(files: int = 1000) -> Manifest:
    rng = np.random.Generator(np.random.SFC64(3))
    keys = FileKeys(SPEC)[:files]
    manifest = Manifest(
        "npz",
        keys,
        rng.integers(1, 1 << 40, len(keys)),
        np.broadcast_to(np.int64(7), (len(keys),)),
        rng.integers(0, 1 << 64, len(keys), dtype=np.uint64),
        spec=SPEC,
        options=SPEC.options,
    )
    manifest.files_before, manifest.side_suffixes = 12, (".idx",)
    return manifest


def listed(keys: list[str]) -> Manifest:
    return Manifest("raw", keys, np.arange(len(keys)), np.full(len(keys), 2), options={"shape": [3]})


def encoded(manifest: Manifest) -> bytes:
    return b"".join(encode_manifest(manifest))


def decoded(data: bytes) -> Manifest:
    return decode_manifest(memoryview(data))


def same(one: Manifest, two: Manifest) -> bool:
    return [one[index] for index in range(len(one))] == [two[index] for index in range(len(two))] and (
        one.format,
        one.spec,
        one.options,
        one.files_before,
        one.side_suffixes,
    ) == (two.format, two.spec, two.options, two.files_before, two.side_suffixes)


@pytest.mark.parametrize(
    "manifest",
    [ruled(), ruled(1), ruled(0), ruled().part(slice(3, 900, 7)), listed(["a/b.raw", "ä/ö.raw"]), listed([])],
    ids=["ruled", "one", "none", "share", "listed", "empty"],
)
def test_a_manifest_survives_the_trip(manifest: Manifest) -> None:
    assert same(decoded(encoded(manifest)), manifest)


def test_names_that_follow_a_rule_take_no_room() -> None:
    manifest = ruled()
    assert len(encoded(manifest)) < 16 * 1000 + 1500
    alike = Manifest("npz", FileKeys(SPEC), np.full(1000, 5), np.full(1000, 7), spec=SPEC)
    assert len(encoded(alike)) < 1500
    assert decoded(encoded(alike)).total_bytes == 5000


def test_totals_and_parts() -> None:
    manifest = ruled()
    part = manifest.part(slice(10, 20))
    assert part.total_samples == 70
    assert part.total_bytes == int(manifest.sizes_bytes[10:20].sum())
    assert part[3] == manifest[13]
    assert part.files_before == 12


def test_every_flipped_byte_is_noticed() -> None:
    data = encoded(ruled(20))
    for place in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(CorruptError):
            decoded(bytes(damaged))


def test_every_cut_is_noticed() -> None:
    data = encoded(ruled(20))
    for length in range(len(data)):
        with pytest.raises(CorruptError):
            decoded(data[:length])


def forged(header: dict[str, Any], body: bytes = b"") -> bytes:
    """Return a table with a right checksum, whatever it says."""
    text = msgspec.json.encode(header)
    data = MAGIC + struct.pack("<I", len(text)) + text + body
    return data + struct.pack("<Q", xxhash.xxh3_64_intdigest(data))


GOOD = {"format": "raw", "indices": None}
SIZES = {"name": "size_bytes", "dtype": "<i8", "codec": "constant", "count": 2, "stored_bytes": 8}
SAMPLES = SIZES | {"name": "samples"}
KEYS = {"name": "keys", "dtype": "|u1", "codec": "raw", "count": 3, "stored_bytes": 8}
ONE = struct.pack("<q", 1)


def table(*columns: dict[str, Any], facts: dict[str, Any] | None = None, rows: int = 2) -> dict[str, Any]:
    return {"kind": "manifest", "version": 1, "rows": rows, "facts": facts or GOOD, "columns": list(columns)}


def test_a_forgery_in_good_order_is_read() -> None:
    manifest = decoded(forged(table(SIZES, SAMPLES, KEYS), ONE + ONE + b"a\0b" + bytes(5)))
    assert list(manifest.keys) == ["a", "b"]


def bomb() -> bytes:
    packed = zlib.compress(bytes(10_000_000))
    return packed + bytes(-len(packed) % 8)


SPEC_2 = {"format": "npz", "files": 2}


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (table(SIZES, SAMPLES, KEYS), ONE + ONE + b"a\0" + bytes(6)),
        (table(SIZES, SAMPLES, KEYS | {"count": 4, "codec": "raw"}), ONE + ONE + b"a\0/b" + bytes(4)),
        (table(SIZES, SAMPLES, KEYS | {"count": 6}), ONE + ONE + b"a\0../b" + bytes(2)),
        (table(SIZES, SAMPLES, KEYS | {"count": 6}), ONE + ONE + b"a\0b/.." + bytes(2)),
        (table(SIZES, SAMPLES, KEYS | {"count": 6}), ONE + ONE + b"a\0b//c" + bytes(2)),
        (table(SIZES, SAMPLES, KEYS), ONE + ONE + b"a\0\xff" + bytes(5)),
        (table(SIZES, SAMPLES, KEYS), struct.pack("<q", -1) + ONE + b"a\0b" + bytes(5)),
        (table(SIZES, SAMPLES, KEYS), struct.pack("<q", 1 << 62) + ONE + b"a\0b" + bytes(5)),
        (table(SIZES, SAMPLES, KEYS), ONE + bytes(8) + b"a\0b" + bytes(5)),
        (table(SIZES, KEYS), ONE + b"a\0b" + bytes(5)),
        (table(SIZES | {"dtype": "<u8"}, SAMPLES, KEYS), ONE + ONE + b"a\0b" + bytes(5)),
        (table(SIZES | {"dtype": "|O"}, SAMPLES, KEYS), ONE + ONE + b"a\0b" + bytes(5)),
        (table(SIZES | {"count": 3}, SAMPLES, KEYS), ONE + ONE + b"a\0b" + bytes(5)),
        (table(SIZES | {"codec": "pickle"}, SAMPLES, KEYS), ONE + ONE + b"a\0b" + bytes(5)),
        (table(SIZES | {"stored_bytes": 1 << 40}, SAMPLES, KEYS), ONE + ONE + b"a\0b" + bytes(5)),
        (table(SIZES | {"stored_bytes": -8}, SAMPLES, KEYS), ONE + ONE + b"a\0b" + bytes(5)),
        (table(SIZES, SAMPLES, KEYS), ONE + ONE + b"a\0b" + bytes(13)),
        (table(SIZES | {"codec": "zlib", "count": 1 << 39}, rows=1 << 39), ONE),
        (table(SIZES | {"codec": "raw", "count": 1 << 39}, rows=1 << 39), ONE),
        (table(SIZES | {"codec": "zlib", "stored_bytes": len(bomb())}, SAMPLES), bomb() + ONE),
        (table(rows=1 << 50), b""),
        (table(rows=-1), b""),
        (table() | {"version": 2}, b""),
        (table() | {"kind": "part"}, b""),
        (table() | {"surprise": 1}, b""),
        (table(SIZES, SAMPLES, facts={"format": "npz", "indices": [0, 2, 1]}), ONE + ONE),
        (table(SIZES, SAMPLES, facts={"format": "npz", "indices": [0, 3, 1], "spec": SPEC_2}), ONE + ONE),
        (table(SIZES, SAMPLES, facts={"format": "npz", "indices": [0, 2, 0], "spec": SPEC_2}), ONE + ONE),
        (table(SIZES, SAMPLES, facts={"format": "npz", "indices": [0, 1, 1], "spec": SPEC_2}), ONE + ONE),
        (
            table(SIZES, SAMPLES, facts={"format": "n", "indices": [0, 2, 1], "spec": SPEC_2 | {"prefix": "../x"}}),
            ONE + ONE,
        ),
        (table(SIZES, SAMPLES, KEYS, facts={"format": 5}), ONE + ONE + b"a\0b" + bytes(5)),
    ],
)
def test_a_hostile_manifest_is_refused(header: dict[str, Any], body: bytes) -> None:
    with pytest.raises(CorruptError):
        decoded(forged(header, body))


def test_a_header_that_claims_more_than_there_is_is_refused() -> None:
    data = MAGIC + struct.pack("<I", 0xFFFFFFF0) + b"{}"
    with pytest.raises(CorruptError, match="impossible length"):
        decoded(data + struct.pack("<Q", xxhash.xxh3_64_intdigest(data)))


def test_the_error_names_the_object() -> None:
    store = open_store(f"mem://{run_id()}")
    with pytest.raises(NotFoundError):
        load_manifest(store, "valid")
    save_manifest(store, "valid", ruled())
    assert same(load_manifest(store, "valid"), ruled())
    store.put(manifest_key("train"), store.get_range(manifest_key("valid")))
    with pytest.raises(CorruptError, match="of another split"):
        load_manifest(store, "train")
    store.put(manifest_key("valid"), b"STOKER")
    with pytest.raises(CorruptError, match=r"valid\.manifest"):
        load_manifest(store, "valid")


def test_columns_are_views_where_they_are_not_packed() -> None:
    column = np.random.Generator(np.random.SFC64(1)).integers(0, 1 << 64, 5000, dtype=np.uint64)
    data = memoryview(b"".join(pack("x", 1, {}, {"column": column, "few": np.arange(5000) % 3}, rows=5000)))
    back = unpack(data, "x", 1, where="here").columns
    assert np.shares_memory(back["column"], np.frombuffer(data, np.uint8))
    assert np.array_equal(back["column"], column)
    assert np.array_equal(back["few"], np.arange(5000) % 3)
    assert len(data) < 5000 * 10
