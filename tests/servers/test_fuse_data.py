"""Bytes on mounts under random load, and under programs that many trust: fio, git, SQLite, LMDB, pjdfstest."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuse_fsx import Exercise
from fuse_place import Mounts, mounted, sound

FSX_STEPS = int(os.environ.get("STOKER_FSX_STEPS", "1000000"))


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    with mounted(tmp_path, 2) as given:
        yield given
        given.stop()
        sound(given.url)


@pytest.mark.parametrize("count", [1, 2])
def test_a_file_is_what_was_written(mounts: Mounts, count: int) -> None:
    Exercise(mounts.points[:count], seed=count).run(400)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_a_file_is_what_was_written_a_million_times(mounts: Mounts, count: int) -> None:
    for seed in range(10):
        exercise = Exercise(mounts.points[:count], seed=100 * count + seed)
        exercise.run(FSX_STEPS // 10)
        exercise.close()
