"""Whole clusters of real processes that are killed: what was promised reads, what was fsync'd is there.

STOKER_FS_KILL_ROUNDS says how often all but etcd is killed at once; `pytest -s` shows how many processes that were, and
how many files had been promised.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from demo_place import NEEDS_ETCD, SMALL, cluster_in, read_all, write_all

from stoker.fs.demo.cluster import EIGHT_AND_FOUR, ClusterOptions
from stoker.fs.demo.show import mounted, why_no_mount
from stoker.fs.fuse.mounting import unmount
from stoker.fs.fuse.table import mount_at
from stoker.fs.meta.calls import ListClasses, SetClass
from stoker.fs.meta.storage_class import coded

pytestmark = [pytest.mark.server, NEEDS_ETCD]
SIZES = (0, 1, 5000, 40_000, 400_000, 2_000_000)
ROUNDS_OF_FOUR = 6
ROUNDS_OF_ALL = int(os.environ.get("STOKER_FS_KILL_ROUNDS", "20"))
# Writes files one after the other, fsyncs each, and tells each that is safe.
WRITER = """
import os, random, sys
folder, start = sys.argv[1], int(sys.argv[2])
number = start
while True:
    size = (17, 4096, 70_000, 600_000)[number % 4]
    path = f"/{number}"
    data = random.Random(f"{path} {size}").randbytes(size)
    with open(f"{folder}{path}", "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    print(number, size, flush=True)
    number += 1
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_any_four_of_twelve_killed_and_every_byte_reads(tmp_path: Path) -> None:
    options = ClusterOptions(classes=(coded(EIGHT_AND_FOUR, 8, 4),), metalogger=False)
    chosen = random.Random(6)
    with cluster_in(tmp_path, options) as cluster:
        with cluster.tree() as tree:
            tree.mkdir("/f")
            number = next(one.id for one in tree.volume.run(ListClasses()).classes if one.name == EIGHT_AND_FOUR)
            tree.volume.run(SetClass(tree.stat("/f").ino, number))
            files = write_all(tree, "/f", SIZES)
        for _ in range(ROUNDS_OF_FOUR):
            victims = chosen.sample(range(12), 4)
            for victim in victims:
                cluster.kill_disk(victim)
            with cluster.tree() as tree:
                read_all(tree, files)
            cluster.start_disks(victims)


@pytest.mark.slow
@pytest.mark.timeout(60 + 45 * ROUNDS_OF_ALL)
def test_what_was_fsynced_survives_that_everything_is_killed_at_once(tmp_path: Path) -> None:
    if why_no_mount():
        pytest.skip(why_no_mount())
    chosen, kills, safe = random.Random(9), 0, dict[str, int]()
    with cluster_in(tmp_path / "c", SMALL) as cluster:
        for turn in range(ROUNDS_OF_ALL):
            point = tmp_path / f"mount{turn}"
            with mounted(cluster, point, lambda: False) as mount:
                writer = subprocess.Popen(
                    [sys.executable, "-c", WRITER, str(point), str(turn * 100_000)],
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                )  # fmt: skip
                assert writer.stdout is not None
                first = writer.stdout.readline()
                time.sleep(chosen.uniform(0.05, 1.0))
                mount.process.kill()
                cluster.kill_everything()
                kills += 1 + len(cluster.children())
                while mount_at(point) is not None:
                    unmount(point, lazy=True, force=True)
                out, _ = writer.communicate(timeout=60)
                for line in (first + out).splitlines():
                    name, size = line.split()
                    safe[f"/{name}"] = int(size)
            cluster.start_everything()
        with cluster.tree() as tree:
            read_all(tree, safe)
    sys.stdout.write(f"{kills} processes killed in {ROUNDS_OF_ALL} rounds, {len(safe)} files read as promised\n")
    assert kills >= 5 * ROUNDS_OF_ALL, (kills, len(safe))
    assert len(safe) >= ROUNDS_OF_ALL, (kills, len(safe))


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_one_master_and_one_chunk_server_killed_and_writing_goes_on(tmp_path: Path) -> None:
    with cluster_in(tmp_path) as cluster, cluster.tree() as tree:
        files = write_all(tree, "", SIZES)
        leader = cluster.leader()
        cluster.kill_master(leader)
        cluster.kill_disk(0)
        tree.mkdir("/later")
        files |= write_all(tree, "/later", SIZES)
        with cluster.tree() as other:
            read_all(other, files)
