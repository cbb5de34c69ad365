"""The comparison of bindings: both sides are the same tiny file system; who lacks pyfuse3 is told what to install."""

import importlib.util
import os
from pathlib import Path

import pytest
from benchmarks import fspyfuse3

from stoker.fs.fuse.dispatch import HANDLERS
from stoker.fs.fuse.mounting import DEVICE

SIDES = [
    "ours",
    pytest.param(
        "pyfuse3",
        marks=pytest.mark.skipif(importlib.util.find_spec("pyfuse3") is None, reason="pyfuse3 is not installed"),
    ),
]


@pytest.mark.skipif(not DEVICE.exists() or os.geteuid() != 0, reason="mounting needs the superuser and /dev/fuse")
@pytest.mark.parametrize("side", SIDES)
def test_a_side_keeps_files(side: str, tmp_path: Path) -> None:
    with fspyfuse3.mounted(side, tmp_path / "point") as pid:
        point = tmp_path / "point"
        data = os.urandom(3_000_001)
        (point / "a").write_bytes(data)
        assert (point / "a").read_bytes() == data
        os.truncate(point / "a", 1000)
        assert (point / "a").stat().st_size == 1000
        for number in range(300):
            (point / f"f{number}").touch()
        assert sorted(path.name for path in point.iterdir()) == sorted(["a", *(f"f{number}" for number in range(300))])
        (point / "a").unlink()
        with pytest.raises(FileNotFoundError):
            (point / "a").stat()
        found = fspyfuse3.one_turn(pid, point, fspyfuse3.parsed(["--mebibytes", "2", "--files", "20"]))
        assert all(row["per_second"] > 0 for row in found.values())
    assert not os.path.ismount(tmp_path / "point")


def test_who_lacks_pyfuse3_is_told_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert fspyfuse3.main(["--out", str(tmp_path)]) == 1
    assert "pip install pyfuse3" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_medians_are_taken_by_measure_and_side() -> None:
    turns = [{"stat": {"per_second": rate, "server_cpu_us": rate * 2}} for rate in (1.0, 9.0, 3.0)]
    rows = fspyfuse3.rows_of({"ours": turns, "pyfuse3": turns[:1]})
    assert rows["stat"]["ours"] == {"per_second": 3.0, "server_cpu_us": 6.0}
    assert rows["stat"]["pyfuse3"] == {"per_second": 1.0, "server_cpu_us": 2.0}


def test_what_is_wanted_of_a_library_is_what_a_mount_answers() -> None:
    from stoker.fs.fuse import protocol as p

    names = {
        name.lower()
        for name, number in vars(p).items()
        if name.isupper() and isinstance(number, int) and number in HANDLERS
    }
    wanted = {name for name in fspyfuse3.WANTED_HOOKS if name != "flock"}  # one request for both kinds of lock
    assert wanted <= names
