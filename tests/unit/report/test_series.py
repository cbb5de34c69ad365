"""Series are read safely and boiled down truthfully."""

import contextlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import runs
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.bench.report import series
from stoker.bench.report.series import load_timeline, rank_columns
from stoker.core.errors import CorruptError
from stoker.core.result import STEP_COLUMNS


def save(path: Path, **changes: np.ndarray) -> Path:
    columns = {**runs.rank_columns(0, steps=20), **changes}
    runs.save_series(path, {0: columns})
    return path


def even_columns(steps: int, origin_ns: int = 0, step_ns: int = 10**9) -> dict[str, np.ndarray]:
    """Steps of one second without gaps: 0.2 s wait, 0.8 s compute, 1000 bytes each."""
    begin = origin_ns + np.arange(steps) * step_ns
    columns = {name: np.zeros(steps, np.int64) for name in STEP_COLUMNS}
    columns["request_ns"] = begin
    columns["ready_ns"] = columns["compute_start_ns"] = begin + step_ns // 5
    columns["compute_end_ns"] = columns["end_ns"] = begin + step_ns
    columns["delivered_bytes"] = np.full(steps, 1000)
    return columns


def test_even_steps_give_even_curves(tmp_path: Path) -> None:
    runs.save_series(tmp_path / "s.npz", {0: even_columns(10), 1: even_columns(10, origin_ns=7 * 10**15)})
    line = load_timeline(tmp_path / "s.npz")
    assert line is not None
    assert (line.ranks, line.steps, line.seconds.size) == (2, 20, 10)
    np.testing.assert_allclose(line.au.mean, 0.8)
    np.testing.assert_allclose(line.wait.mean, 0.2)
    np.testing.assert_allclose(line.bytes_per_second, 2000.0)
    np.testing.assert_allclose(line.seconds, np.arange(10) + 0.5)


def test_bytes_are_kept_when_steps_fall_across_buckets(tmp_path: Path) -> None:
    runs.save_series(tmp_path / "s.npz", {0: even_columns(100)})
    line = load_timeline(tmp_path / "s.npz", points_max=7)
    assert line is not None and line.seconds.size == 7
    np.testing.assert_allclose(line.bytes_per_second.sum() * 100 / 7, 100 * 1000)


def test_ranks_of_hosts_with_other_clocks_are_aligned_at_the_first_barrier(tmp_path: Path) -> None:
    late = even_columns(10, origin_ns=5 * 10**12)
    late["request_ns"][0] += 5 * 10**8
    runs.save_series(tmp_path / "s.npz", {0: even_columns(10), 1: late})
    line = load_timeline(tmp_path / "s.npz")
    assert line is not None
    assert line.seconds[-1] == pytest.approx(9.5)


def test_evaluation_counts_for_bytes_but_not_for_utilisation(tmp_path: Path) -> None:
    columns = even_columns(10)
    columns["phase"][5:] = 1
    runs.save_series(tmp_path / "s.npz", {0: columns})
    line = load_timeline(tmp_path / "s.npz")
    assert line is not None
    assert np.isfinite(line.au.mean[:5]).all() and np.isnan(line.au.mean[5:]).all()
    np.testing.assert_allclose(line.bytes_per_second, 1000.0)
    assert [label for _, label in line.epochs] == ["epoch 0", "evaluation 0"]


def test_extremes_survive_downsampling(tmp_path: Path) -> None:
    columns = even_columns(1000)
    columns["ready_ns"][500] += 7 * 10**8
    runs.save_series(tmp_path / "s.npz", {0: columns})
    line = load_timeline(tmp_path / "s.npz", points_max=20)
    assert line is not None
    assert np.nanmax(line.wait.high) == pytest.approx(0.9)


def test_compressed_series_are_read(tmp_path: Path) -> None:
    arrays = {f"rank0000/{name}": values for name, values in even_columns(5).items()}
    np.savez_compressed(tmp_path / "s.npz", allow_pickle=False, **arrays)
    assert load_timeline(tmp_path / "s.npz") is not None


def test_missing_file_and_empty_columns_are_no_series(tmp_path: Path) -> None:
    assert load_timeline(tmp_path / "none.npz") is None
    runs.save_series(tmp_path / "empty.npz", {0: runs.rank_columns(0, steps=20) | even_columns(0)})
    assert load_timeline(tmp_path / "empty.npz") is None
    np.savez(tmp_path / "other.npz", allow_pickle=False, other=np.arange(3))
    assert load_timeline(tmp_path / "other.npz") is None


def test_rank_without_steps_beside_one_with_steps(tmp_path: Path) -> None:
    runs.save_series(tmp_path / "s.npz", {0: even_columns(0), 1: even_columns(4)})
    line = load_timeline(tmp_path / "s.npz")
    assert line is not None and line.ranks == 1


def test_single_step_of_no_length(tmp_path: Path) -> None:
    runs.save_series(tmp_path / "s.npz", {0: {name: np.zeros(1, np.int64) for name in STEP_COLUMNS}})
    line = load_timeline(tmp_path / "s.npz")
    assert line is not None and line.seconds.size == 1


def member(header: bytes, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an array",
        member(b"{'descr': '|O', 'fortran_order': False, 'shape': (20,), }", b"\x80\x04."),
        member(b"{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999999,), }", b"\0" * 160),
        member(b"{'descr': '<i8', 'fortran_order': False, 'shape': (4, 5), }", b"\0" * 160),
        member(b"{'descr': '<f8', 'fortran_order': False, 'shape': (20,), }", b"\0" * 160),
        member(b"__import__('os').system('true')"),
        member(b"(" * 5000),
    ],
)
def test_hostile_member_is_refused(tmp_path: Path, data: bytes) -> None:
    path = save(tmp_path / "good.npz")
    with zipfile.ZipFile(path) as good, zipfile.ZipFile(tmp_path / "bad.npz", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, data if name == "rank0000/epoch.npy" else good.read(name))
    with pytest.raises(CorruptError, match="not a series"):
        load_timeline(tmp_path / "bad.npz")


@pytest.mark.parametrize("read", [load_timeline, lambda path: list(rank_columns(path))], ids=["timeline", "columns"])
def test_encrypted_members_are_refused(tmp_path: Path, read) -> None:  # type: ignore[no-untyped-def]
    data = bytearray(save(tmp_path / "s.npz").read_bytes())
    for signature, flags_at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + flags_at] |= 1
            at = data.find(signature, at + 4)
    (tmp_path / "locked.npz").write_bytes(data)
    with pytest.raises(CorruptError, match="not a series"):
        read(tmp_path / "locked.npz")


def test_oversized_member_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "MEMBER_BYTES_MAX", 64)
    with pytest.raises(CorruptError, match="over 64 bytes"):
        load_timeline(save(tmp_path / "s.npz"))


def test_columns_of_unequal_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="differ in length"):
        load_timeline(save(tmp_path / "s.npz", epoch=np.zeros(3, np.int64)))


def test_missing_column_is_named(tmp_path: Path) -> None:
    columns = runs.rank_columns(0, steps=5)
    del columns["compute_end_ns"]
    runs.save_series(tmp_path / "s.npz", {0: columns})
    with pytest.raises(CorruptError, match="compute_end_ns"):
        load_timeline(tmp_path / "s.npz")


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 4000), value=st.integers(0, 255), cut=st.integers(0, 8000))
def test_damaged_file_never_does_more_than_raise_corrupt(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int, cut: int
) -> None:
    buffer = io.BytesIO()
    arrays = {f"rank0000/{name}": values for name, values in even_columns(5).items()}
    np.savez(buffer, allow_pickle=False, **arrays)
    data = bytearray(buffer.getvalue())
    data[place % len(data)] = value
    path = tmp_path_factory.mktemp("damaged") / "s.npz"
    path.write_bytes(bytes(data[: len(data) - cut % len(data)]))
    with contextlib.suppress(CorruptError):
        load_timeline(path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nonsense_times_give_finite_or_absent_figures(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    numbers = st.integers(-(2**62), 2**62)
    columns = {name: np.array(data.draw(st.lists(numbers, min_size=3, max_size=3)), np.int64) for name in STEP_COLUMNS}
    path = tmp_path_factory.mktemp("nonsense") / "s.npz"
    runs.save_series(path, {0: columns})
    line = load_timeline(path)
    assert line is not None
    assert not np.isinf(line.au.mean).any() and not np.isinf(line.bytes_per_second).any()
