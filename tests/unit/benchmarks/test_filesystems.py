"""File systems side by side: the works do what they say on a real folder, and the tables tell who is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from benchmarks.filesystems import __main__ as table
from benchmarks.filesystems.daemons import daemon, program, told, wait_for_mount
from benchmarks.filesystems.peers import local_disk
from benchmarks.filesystems.works import CLIENTS, SAMPLE_BYTES, SMALL_BYTES, WORKS, Sizes
from benchmarks.harness import PeerError

from stoker.core.units import MiB

TINY = Sizes(large_bytes=2 * MiB, creates=2 * CLIENTS, stats=20, samples=50)


@pytest.fixture(autouse=True)
def _no_dropping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the caches of the machine that runs the tests alone."""
    monkeypatch.setattr("benchmarks.filesystems.works.drop_caches", lambda: None)


def test_the_works_move_what_they_say(tmp_path: Path) -> None:
    moved = {name: work(tmp_path, TINY).payload_bytes for name, work in WORKS.items()}
    assert list(moved.values()) == [2 * MiB, 2 * MiB, 2 * CLIENTS * SMALL_BYTES, 20, 50 * SAMPLE_BYTES]
    assert len(list((tmp_path / "small").iterdir())) == 2 * CLIENTS
    assert (tmp_path / "large").stat().st_size == 2 * MiB


def test_who_does_not_come_up_or_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def absent(scratch: Path) -> Iterator[Path]:
        raise PeerError("it is not installed")
        yield scratch

    @contextmanager
    def broken(scratch: Path) -> Iterator[Path]:
        yield scratch / "nowhere"

    monkeypatch.setattr(table, "PLACES", {"absent": absent, "broken": broken, table.CEILING: local_disk})
    options = table.parsed(["--rounds", "1", "--work", "sequential write"])
    (contest,) = table.contests(options, TINY, tmp_path)
    document = contest.document()
    assert document["missing"]["absent"] == "it is not installed"
    assert "FileNotFoundError" in document["missing"]["broken"]
    assert [entry["name"] for entry in document["contenders"]] == [table.CEILING]


def test_programs_daemons_and_mounts_that_fail_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.filesystems.daemons.READY_SECONDS", 0.1)
    with pytest.raises(PeerError, match="pip install it"):
        program("no-such-program", "pip install it")
    with pytest.raises(PeerError, match="ended with 1"):
        told(["false"])
    with daemon(["sleep", "600"], tmp_path / "log") as process:
        assert process.poll() is None
    assert process.poll() is not None
    with pytest.raises(PeerError, match="mount of mfs"):
        wait_for_mount(tmp_path, "mfs")
