"""`stoker fs mount` and `umount` as a user types them, the example of the page among it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuse_place import need_fuse, sound

from stoker.fs.fuse.mounting import unmount
from stoker.fs.fuse.table import mount_at, read_mounts

STOKER = str(Path(sys.executable).with_name("stoker"))
PAGE = Path(__file__).parents[2] / "docs" / "commands" / "fs.md"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    need_fuse()
    yield tmp_path
    for one in read_mounts(Path("/proc/self/mountinfo").read_text()):
        if one.point.startswith(str(tmp_path)):
            unmount(Path(one.point), lazy=True, force=True)


def run(folder: Path, *words: str, code: int = 0) -> str:
    """Run a command of `stoker fs`; return what it printed."""
    done = subprocess.run([STOKER, "fs", *words], cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_example_of_the_page(folder: Path) -> None:
    block = re.search(r"^```shell\n(\$ stoker fs format.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None
    path = f"{Path(STOKER).parent}:{os.environ['PATH']}"
    for step in re.split(r"^\$ ", block[1], flags=re.MULTILINE)[1:]:
        command, _, expected = step.partition("\n")
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True,
            timeout=100, check=True,
        )  # fmt: skip
        pattern = ".*".join(re.escape(part) for part in expected.split("...\n"))
        assert re.fullmatch(pattern, done.stdout, re.DOTALL), (command, done.stdout)


@pytest.mark.slow
def test_a_mount_in_the_foreground_ends_with_a_signal_and_keeps_what_was_written(folder: Path) -> None:
    run(folder, "format", "sqlite://v.db")
    (folder / "point").mkdir()
    words = [STOKER, "fs", "mount", "sqlite://v.db", "point", "--foreground", "--json"]
    server = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    told = json.loads(server.stdout.readline())
    assert (told["mountpoint"], told["pid"]) == ("point", server.pid)
    (folder / "point" / "f").write_bytes(b"x" * 100_000)
    assert "a volume is mounted there already" in run(folder, "mount", "sqlite://v.db", "point", code=2)
    (folder / "other").mkdir()
    assert "disk is open already" in run(folder, "mount", "sqlite://v.db", "other", code=2)
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 128 + signal.SIGTERM
    server.stdout.close()
    assert mount_at(folder / "point") is None
    sound(f"sqlite://{folder}/v.db")
    run(folder, "mount", "sqlite://v.db", "point", "--read-only")
    assert (folder / "point" / "f").read_bytes() == b"x" * 100_000
    with pytest.raises(OSError, match="Read-only"):
        (folder / "point" / "g").touch()
    assert json.loads(run(folder, "umount", "point", "--json"))["ended"] is True
    assert "no volume is mounted there" in run(folder, "umount", "point", code=2)
    assert "mount point is no directory" in run(folder, "mount", "sqlite://v.db", "nowhere", code=2)
    assert "mount would hide what it needs" in run(folder, "mount", "sqlite://v.db", ".", code=2)
    (folder / "link").symlink_to("point")
    run(folder, "mount", "sqlite://v.db", "link")
    assert mount_at(folder / "point") == mount_at(folder / "link") is not None
    run(folder, "umount", "link")
    assert (folder / "v.db.data").stat().st_mode & 0o777 == 0o700
    assert "bad option" in run(folder, "mount", "sqlite://v.db", "point", "--threads", "0", code=2)


def test_mounts_are_read_from_the_kernels_table() -> None:
    line = "36 35 0:41 / /mnt/a\\040b rw,noatime shared:1 - fuse.stoker sqlite:///v\\134.db rw,user_id=0\n"
    told = read_mounts("nonsense\n" + line + "1 2 3\n")
    assert [(one.point, one.kind, one.source, one.device) for one in told] == [
        ("/mnt/a b", "fuse.stoker", "sqlite:///v\\.db", "0:41")
    ]
