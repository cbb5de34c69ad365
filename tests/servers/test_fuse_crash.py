"""A server is killed while programs write: what was synced or closed is there, whole, when it is mounted again."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuse_place import need_fuse, sound

from stoker.fs.fuse.mounting import unmount
from stoker.fs.fuse.table import mount_at

STOKER = str(Path(sys.executable).with_name("stoker"))
KILLS = int(os.environ.get("STOKER_FUSE_KILLS", "25"))
WRITER = """
import os, random, sys
folder, log, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
chance = random.Random(seed)
with open(log, "a", buffering=1) as told:
    for index in range(10**9):
        name = f"{seed}-{index}"
        size = chance.choice((0, 10, 4096, 70_000, 5_000_000))
        data = (name.encode() + b".") * (size // (len(name) + 1) + 1)
        handle = os.open(f"{folder}/{name}.part", os.O_CREAT | os.O_WRONLY)
        place = 0
        while place < size:
            place += os.write(handle, data[place : min(place + 130_000, size)])
        if chance.random() < 0.5:
            os.fsync(handle)
            told.write(f"{name}.part {size}\\n")
        os.close(handle)
        if chance.random() < 0.5:
            os.rename(f"{folder}/{name}.part", f"{folder}/{name}")
            told.write(f"{name} {size}\\n")
"""


def mount(folder: Path) -> int:
    """Mount the volume; return the process that serves it."""
    done = subprocess.run(
        [STOKER, "fs", "mount", "sqlite://v.db", "point", "--json"], cwd=folder, capture_output=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    pid: int = json.loads(done.stdout)["pid"]
    return pid


def check(folder: Path, log: Path) -> int:
    """Assert that all files in a log are there and whole, under the last name that was told; return how many."""
    last: dict[str, tuple[str, int]] = {}
    for line in log.read_text().splitlines():
        name, size = line.split(" ")
        last[name.removesuffix(".part")] = (name, int(size))
    for stem, (name, size) in last.items():
        path = folder / "point" / name
        if not path.exists() and name.endswith(".part"):
            path = folder / "point" / stem  # it was renamed, and nobody was told any more
        expected = ((stem + ".").encode() * (size // (len(stem) + 1) + 1))[:size]
        got = path.read_bytes()
        assert hashlib.sha256(got).digest() == hashlib.sha256(expected).digest(), (name, len(got), size)
    return len(last)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_nothing_that_was_synced_or_closed_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    need_fuse()
    chance = random.Random(5)
    (tmp_path / "point").mkdir()
    subprocess.run([STOKER, "fs", "format", "sqlite://v.db"], cwd=tmp_path, check=True, capture_output=True)
    pid, checked = mount(tmp_path), 0
    try:
        for kill in range(KILLS):
            logs = [tmp_path / f"{kill}-{index}.log" for index in range(2)]
            writers = [
                subprocess.Popen(
                    [sys.executable, "-c", WRITER, str(tmp_path / "point"), str(log), str(2 * kill + index)],
                    stderr=subprocess.DEVNULL,
                )
                for index, log in enumerate(logs)
            ]
            time.sleep(chance.uniform(0.3, 1.5))
            os.kill(pid, signal.SIGKILL)
            for writer in writers:
                writer.wait(60)
            unmount(tmp_path / "point")
            pid = mount(tmp_path)
            checked += sum(check(tmp_path, log) for log in logs if log.exists())
            for path in (tmp_path / "point").iterdir():
                path.unlink()
        subprocess.run([STOKER, "fs", "umount", "point"], cwd=tmp_path, check=True, timeout=100)
    finally:
        while mount_at(tmp_path / "point") is not None:
            unmount(tmp_path / "point", lazy=True, force=True)
    assert checked > KILLS
    assert sound_but_for_sessions(f"sqlite://{tmp_path}/v.db")


def sound_but_for_sessions(url: str) -> bool:
    """Tell whether a volume is sound once the sessions of killed servers are over."""
    from stoker.core.clock import wall_ns
    from stoker.fs.meta import Volume

    with Volume.open(url, clock=lambda: wall_ns() + 3600 * 10**9) as volume:
        volume.tidy()
    sound(url)
    return True
