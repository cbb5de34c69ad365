"""Every native write engine leaves the same files and answers as the plain twin."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.core.errors import UnavailableError
from stoker.core.units import KiB
from stoker.kernels.write_engines import open_write_engine
from stoker.kernels.writing import WriteEngine, WritePolicy

NAMES = ("a", "b", "c", "there", "folder", "", "x/y", "..")
MEMORY = np.random.Generator(np.random.SFC64(0)).integers(0, 256, 1 << 16, np.uint8)

piece = st.tuples(st.integers(0, 40_000), st.integers(0, 20_000), st.integers(0, 40_000))
file = st.tuples(st.sampled_from(NAMES), st.lists(piece, max_size=3), st.integers(0, 70_000))


@pytest.fixture(scope="module", params=["auto", "io_uring", "threads"])
def native(request: pytest.FixtureRequest) -> WriteEngine:
    try:
        return open_write_engine(request.param, queue_depth=3, request_bytes=4 * KiB)
    except UnavailableError as error:
        pytest.skip(str(error))


@settings(deadline=None, max_examples=30)
@given(files=st.lists(file, max_size=6), fsync=st.sampled_from(["none", "data", "full"]), if_absent=st.booleans())
def test_native_engines_equal_the_plain_twin(
    native: WriteEngine, files: list[tuple[str, list[tuple[int, int, int]], int]], fsync: str, if_absent: bool
) -> None:
    outcomes = []
    for engine in (native, open_write_engine("plain")):
        with tempfile.TemporaryDirectory() as name:
            outcomes.append(outcome(engine, Path(name), files, fsync, if_absent))
    assert outcomes[0] == outcomes[1]


def outcome(
    engine: WriteEngine,
    path: Path,
    files: list[tuple[str, list[tuple[int, int, int]], int]],
    fsync: str,
    if_absent: bool,
) -> object:
    (path / "there").write_bytes(b"old")
    (path / "folder").mkdir()
    # Pieces of one file must not overlap: each begins where the one before it ended, after a gap.
    rows, sizes = [], []
    for number, (_, pieces, size) in enumerate(files):
        end = 0
        for gap, length, start in pieces:
            rows.append((end + gap, length, MEMORY.ctypes.data + start, number))
            end += gap + length
        sizes.append(size)
    done = np.full((len(files), 3), -1, np.int64)
    names = [(name, f".temporary-{number}") for number, (name, _, _) in enumerate(files)]
    folder = os.open(path, os.O_RDONLY)
    try:
        engine.write_files(
            folder,
            names,
            np.array(rows, np.int64).reshape(-1, 4),
            np.array(sizes, np.int64),
            policy=WritePolicy(fsync=fsync, if_absent=if_absent),
            files_done=done,
        )
    finally:
        os.close(folder)
    found = {one.name: one.read_bytes() for one in path.iterdir() if one.is_file()}
    statuses = done[:, 0].tolist()
    return statuses, [size for size, status in zip(done[:, 1].tolist(), statuses, strict=True) if not status], found
