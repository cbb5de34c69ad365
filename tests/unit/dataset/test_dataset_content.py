"""Content is reproducible, reachable at any place, and as hard to pack or to deduplicate as asked."""

import zlib

import numpy as np
import pytest
import xxhash

from stoker.core.errors import UsageError
from stoker.core.plan import DatasetSpec
from stoker.core.units import KiB, MiB
from stoker.formats.api import SampleSpec
from stoker.loader.dataset.content import COMPRESS_RATIO_MAX, content_source, fill


def made(size_bytes: int, **asked: float) -> np.ndarray:
    out = np.empty(size_bytes, np.uint8)
    fill(out.data, **({"seed": 7, "stream": 3} | asked))
    return out


def unique_ratio(data: np.ndarray) -> float:
    pages = data.reshape(-1, 4 * KiB).view("V4096")
    return len(np.unique(pages)) / len(pages)


def packed_ratio(data: np.ndarray, level: int = 6) -> float:
    return len(data) / len(zlib.compress(data.tobytes(), level))


def test_the_bytes_of_this_version_never_change() -> None:
    plain = xxhash.xxh3_64_hexdigest(made(300_000))
    both = xxhash.xxh3_64_hexdigest(made(300_000, compress_ratio=2.0, duplicate_ratio=0.5, offset_bytes=12345))
    assert (plain, both) == ("fc2e155be1f22b6f", "cb8d19b46ebec95f"), "raise CONTENT_VERSION when this must change"


@pytest.mark.parametrize("offset", [0, 1, 8, 4095, 4096, 4097, 262_143, 262_144, 1_000_003])
def test_a_range_is_made_without_the_bytes_before_it(offset: int) -> None:
    whole = made(2 * MiB, duplicate_ratio=0.3)
    for length in (0, 1, 7, 4096, 5000, 300_001):
        piece = made(length, offset_bytes=offset, duplicate_ratio=0.3)
        assert np.array_equal(piece, whole[offset : offset + length])


def test_memory_that_is_not_aligned_gets_the_same_bytes() -> None:
    whole = made(1 * MiB)
    room = np.empty(1 * MiB + 3, np.uint8)
    fill(room[3:].data, seed=7, stream=3)
    assert np.array_equal(room[3:], whole)


def test_streams_and_seeds_have_nothing_in_common() -> None:
    pages = [made(1 * MiB, stream=stream, seed=seed) for stream in (1, 2) for seed in (1, 2)]
    assert unique_ratio(np.concatenate(pages)) == 1.0


def test_plain_content_cannot_be_packed_or_deduplicated() -> None:
    data = made(8 * MiB)
    assert packed_ratio(data, 1) < 1.001
    assert unique_ratio(data) == 1.0
    assert unique_ratio(data[1000 : 1000 + 4 * MiB]) == 1.0


@pytest.mark.parametrize("ratio", [1.25, 1.5, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("level", [1, 6])
def test_compress_ratio_holds_and_makes_no_duplicates(ratio: float, level: int) -> None:
    data = made(4 * MiB, compress_ratio=ratio)
    assert packed_ratio(data, level) == pytest.approx(ratio, rel=0.05)
    assert unique_ratio(data) == 1.0
    assert unique_ratio(data[300 : 300 + 1 * MiB]) == 1.0


@pytest.mark.parametrize("ratio", [1.5, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("size_bytes", [4 * KiB, 8 * KiB, 32 * KiB, 128 * KiB, 1 * MiB])
def test_a_piece_of_any_size_packs_as_the_whole_does(ratio: float, size_bytes: int) -> None:
    piece = made(size_bytes, compress_ratio=ratio, offset_bytes=3 * MiB)
    # What zlib spends on a stream and its tables, some 60 bytes, is 6 % of a page packed to a quarter.
    assert packed_ratio(piece) == pytest.approx(ratio, rel=0.05 if size_bytes > 4 * KiB else 0.06)


@pytest.mark.parametrize("duplicates", [0.0, 0.125, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("stream", [1, 2, 3])
@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_the_share_of_duplicates_is_exact_over_whole_runs(duplicates: float, stream: int, ratio: float) -> None:
    size_bytes = 64 * 64 * KiB
    pool = made(size_bytes, stream=stream, duplicate_ratio=1.0, compress_ratio=ratio).reshape(-1, 4 * KiB)
    data = made(size_bytes, stream=stream, duplicate_ratio=duplicates, compress_ratio=ratio).reshape(-1, 4 * KiB)
    own = made(size_bytes, stream=stream, compress_ratio=ratio).reshape(-1, 4 * KiB)
    pooled = (data == pool).all(axis=1)
    assert pooled.mean() == duplicates
    assert np.array_equal(data[~pooled], own[~pooled])


@pytest.mark.parametrize("duplicates", [0.1, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_duplicate_ratio_holds_and_leaves_the_compress_ratio_alone(duplicates: float, ratio: float) -> None:
    data = made(16 * MiB, duplicate_ratio=duplicates, compress_ratio=ratio)
    assert unique_ratio(data) == pytest.approx(1 - duplicates, abs=0.025)
    assert packed_ratio(data[: 4 * MiB], 6) == pytest.approx(ratio, rel=0.05)


def test_duplicates_are_found_across_files_and_out_of_step() -> None:
    files = [made(64 * KiB + 300, stream=stream, duplicate_ratio=0.5) for stream in range(200)]
    blocks = np.concatenate([data[300:] for data in files])
    assert unique_ratio(blocks) == pytest.approx(0.5, abs=0.12)


def test_all_duplicates_are_one_pool() -> None:
    assert unique_ratio(made(8 * MiB, duplicate_ratio=1.0)) == 64 / 2048


@pytest.mark.parametrize("asked", [{"compress_ratio": 0.9}, {"compress_ratio": COMPRESS_RATIO_MAX + 1}])
def test_a_compress_ratio_out_of_range_is_refused(asked: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="compress ratio"):
        made(10, **asked)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_duplicate_ratio_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(UsageError, match="duplicate ratio"):
        made(10, duplicate_ratio=value)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128", ">f4"])
def test_floats_are_finite_and_small(dtype: str) -> None:
    sample = SampleSpec((512, 64), dtype)
    values = content_source(DatasetSpec("raw", 1), 0, sample)(0)
    assert (values.shape, values.dtype) == ((512, 64), np.dtype(dtype))
    assert np.isfinite(values).all()
    assert float(max(np.abs(values.real).max(), np.abs(values.imag).max())) < 2


def test_booleans_are_zero_or_one() -> None:
    values = content_source(DatasetSpec("raw", 1), 0, SampleSpec((4096,), "bool"))(0)
    assert set(np.unique(values.view(np.uint8))) == {0, 1}


@pytest.mark.parametrize("shape", [(50, 50), (1000, 1000)])
def test_samples_come_in_any_order_and_differ(shape: tuple[int, ...]) -> None:
    spec, sample = DatasetSpec("raw", 9), SampleSpec(shape, "uint8", 9)
    forward = [content_source(spec, 4, sample)(index).copy() for index in range(9)]
    source = content_source(spec, 4, sample)
    for index in (8, 0, 3, 7, 0):
        assert np.array_equal(source(index), forward[index])
    assert len({array.tobytes() for array in forward}) == 9


def test_an_earlier_sample_keeps_its_bytes_when_the_next_is_made() -> None:
    source = content_source(DatasetSpec("raw", 1), 0, SampleSpec((700, 700), "uint8", 3))
    first = source(0)
    before = first.copy()
    source(1)
    assert np.array_equal(first, before)


def test_the_splits_differ() -> None:
    sample = SampleSpec((64, 64))
    train = content_source(DatasetSpec("raw", 1), 0, sample)(0)
    valid = content_source(DatasetSpec("raw", 1, split="valid"), 0, sample)(0)
    assert not np.array_equal(train, valid)
