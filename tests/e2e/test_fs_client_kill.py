"""A process that writes to a volume on disk is killed, again and again: what it was told is durable is there."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stoker.core.clock import wall_ns
from stoker.fs.client import ClientOptions, FileTree
from stoker.fs.client.checking import check_data
from stoker.fs.client.garbage import collect_garbage
from stoker.fs.client.places import opened_place
from stoker.fs.meta import Volume, fsck

KEYS = 20
WRITER = """
import sys
from stoker.fs.client import ClientOptions, FileTree
from stoker.fs.client.places import open_place

url, start = sys.argv[1], int(sys.argv[2])
place = open_place(url, options=ClientOptions(session_seconds=1.0, buffer_bytes=1 << 20))
tree = FileTree(place.client)
big = tree.open("/big", "ab")
for number in range(start, 1 << 30):
    tree.write_bytes(f"/{number % 20}", number.to_bytes(8, "big") * (1 + number % 500))
    with tree.open("/log", "ab") as log:
        log.write(b"%d\\n" % number)
    big.write(number.to_bytes(8, "big") * 8192)
    if number % 5 == 0:
        big.fsync()
    print(number, flush=True)
"""


def killed_writer(url: str, start: int, seconds: float) -> int:
    """Let a process write until it is killed; return the last number that it was sure of."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, url, str(start)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    first = writer.stdout.readline()
    time.sleep(seconds)
    writer.send_signal(signal.SIGKILL)
    rest, _ = writer.communicate(timeout=60)
    told = [line for line in (first + rest).split("\n")[:-1] if line]
    assert told, "the writer wrote nothing"
    return int(told[-1])


@pytest.mark.slow
def test_nothing_that_a_killed_writer_was_told_is_lost(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/volume.db"
    Volume.format(url).close()
    rng = random.Random(4)
    start = 0
    for _ in range(8):
        last = killed_writer(url, start, rng.uniform(0.05, 0.6))
        with opened_place(url, options=ClientOptions(session_seconds=5)) as place:
            tree = FileTree(place.client)
            for key in range(min(KEYS, last + 1)):
                number = int.from_bytes(bytes(tree.read_bytes(f"/{key}"))[:8], "big")
                sure = last - (last - key) % KEYS
                assert number in (sure, sure + KEYS), f"file {key} after {last}"
                assert tree.read_bytes(f"/{key}") == number.to_bytes(8, "big") * (1 + number % 500)
            log = [int(line) for line in bytes(tree.read_bytes("/log")).split()]
            assert log[: last + 1] == list(range(last + 1))
            assert len(log) in (last + 1, last + 2)
            synced = last // 5 * 5
            big = bytes(tree.read_bytes("/big"))
            seen = {int.from_bytes(big[at : at + 8], "big") for at in range(0, len(big), 65536)}
            assert seen >= set(range(start, synced + 1))
            start = len(log)
            assert fsck(place.volume.engine) == []
            with place.volume.engine.snapshot() as snapshot:
                assert check_data(snapshot, place.store, deep=True) == []
    with opened_place(url) as place:
        time.sleep(1.1)  # the writers' sessions run out
        place.volume.tidy()
        collect_garbage(place.volume, place.store, 0, now_ns=wall_ns())
        with place.volume.engine.snapshot() as snapshot:
            assert check_data(snapshot, place.store, deep=True) == []
            used = [value for _, value in snapshot.scan(b"r")]
        assert len(list(place.store.inventory())) == len(used)
