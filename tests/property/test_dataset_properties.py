"""What holds for every range of content, every name, and every damaged table."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.core.errors import CorruptError
from stoker.core.plan import DatasetSpec
from stoker.loader.dataset.columns import pack, unpack
from stoker.loader.dataset.content import fill
from stoker.loader.dataset.manifest_file import decode_manifest, encode_manifest
from stoker.loader.dataset.naming import FileKeys, file_index
from stoker.loader.dataset.shapes import payload_bytes, sample_spec
from stoker.loader.manifest import Manifest

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0\\\n"), min_size=1, max_size=8)
WHOLE_BYTES = 1 << 20


def made(size_bytes: int, offset_bytes: int, knobs: dict[str, float]) -> np.ndarray:
    out = np.empty(size_bytes, np.uint8)
    fill(out.data, seed=1, stream=2, offset_bytes=offset_bytes, **knobs)
    return out


@settings(max_examples=80)
@given(
    offset=st.integers(0, WHOLE_BYTES),
    length=st.integers(0, 100_000),
    compress=st.sampled_from([1.0, 1.3, 2.0, 64.0]),
    duplicate=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_any_range_equals_the_same_range_of_the_whole(
    offset: int, length: int, compress: float, duplicate: float
) -> None:
    knobs = {"compress_ratio": compress, "duplicate_ratio": duplicate}
    end = min(offset + length, WHOLE_BYTES)
    whole = made(WHOLE_BYTES, 0, knobs)
    assert np.array_equal(made(end - offset, offset, knobs), whole[offset:end])


@given(st.integers(0, 2**60), st.integers(1, 10_000))
def test_far_places_are_as_good_as_near_ones(offset: int, length: int) -> None:
    knobs = {"duplicate_ratio": 0.5}
    cut = length // 2
    whole = made(length, offset, knobs)
    assert np.array_equal(whole[cut:], made(length - cut, offset + cut, knobs))


@given(
    files=st.integers(1, 10**12),
    subfolders=st.integers(0, 1000),
    prefix=NAMES,
    where=st.floats(0, 1, exclude_max=True),
)
def test_a_name_and_its_index_are_one(files: int, subfolders: int, prefix: str, where: float) -> None:
    spec = DatasetSpec("npz", files, subfolders=subfolders, prefix=prefix)
    index = int(files * where)
    key = FileKeys(spec)[index]
    assert file_index(spec, key) == index
    assert key.startswith("train/")


@given(st.integers(1, 300), st.integers(0, 20))
def test_names_sort_in_the_order_of_their_index(files: int, subfolders: int) -> None:
    keys = list(FileKeys(DatasetSpec("npz", files, subfolders=subfolders)))
    assert sorted(keys, key=lambda key: key.rpartition("/")[2]) == keys
    assert len(set(keys)) == files


@settings(max_examples=50)
@given(st.integers(0, 200_000), st.integers(0, 300), st.integers(1, 20))
def test_the_payload_of_a_share_is_the_sum_of_its_files(before: int, files: int, step: int) -> None:
    spec = DatasetSpec("npz", 300, record_length_bytes=5000, record_length_stdev_bytes=2000)
    share = range(0, files, step)
    one_by_one = sum(sample_spec(spec, index, files_before=before).payload_bytes for index in share)
    assert payload_bytes(spec, share, files_before=before) == one_by_one


COLUMN = st.lists(st.integers(0, 2**63 - 1), max_size=50).map(lambda values: np.array(values, np.int64))


@given(COLUMN)
def test_any_column_survives_the_trip(column: np.ndarray) -> None:
    data = memoryview(b"".join(pack("x", 1, {"a": 1}, {"c": column}, rows=len(column))))
    table = unpack(data, "x", 1, where="here")
    assert np.array_equal(table.columns["c"], column)
    assert table.rows == len(column)


DATA = b"".join(
    encode_manifest(
        Manifest("raw", ["a/b", "c", "d.e"], np.array([5, 6, 7]), np.array([1, 1, 1]), np.arange(3, dtype=np.uint64))
    )
)


@settings(max_examples=300)
@given(st.integers(0, len(DATA) - 1), st.binary(max_size=20), st.integers(0, 20))
def test_damage_is_told_as_damage(place: int, put: bytes, cut: int) -> None:
    damaged = DATA[:place] + put + DATA[place + cut :]
    try:
        manifest = decode_manifest(memoryview(damaged))
    except CorruptError:
        return
    assert damaged == DATA
    assert len(manifest) == 3
