"""A kill -9 loses nothing that was finished: the next call makes the missing files and no other."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stoker.core.errors import StokerError, UsageError
from stoker.core.plan import DatasetSpec
from stoker.loader.dataset.discover import open_manifest
from stoker.loader.dataset.generate import GenerateOptions, generate
from stoker.loader.dataset.parallel import generate_parallel
from stoker.loader.dataset.progress import Progress
from stoker.loader.dataset.verify import verify
from stoker.storage.opening import open_store

SPEC = DatasetSpec("npz", 16000, record_dims=(64, 64), subfolders=4)
SCRIPT = """
import sys
from stoker.core.plan import DatasetSpec
from stoker.loader.dataset.generate import GenerateOptions, generate
from stoker.storage.opening import open_store
spec = DatasetSpec("npz", 16000, record_dims=(64, 64), subfolders=4)
generate(open_store(sys.argv[1], create=True), spec, GenerateOptions(threads=2))
"""


def wait_for(condition: object, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def count(folder: Path) -> int:
    return sum(1 for _ in folder.glob("train/*/*.npz"))


@pytest.mark.parametrize("moment", ["first files", "after a journal part"])
def test_after_a_kill_only_the_missing_files_are_made(tmp_path: Path, moment: str) -> None:
    folder = tmp_path / "data"
    # Synced writes are slow enough that the kill comes in the middle.
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, f"file://{folder}?fsync=full"])
    parts = folder / ".stoker" / "train.parts"
    # The glob passes over the hidden name a part has before it is whole.
    wait_for(lambda: count(folder) >= 20 if moment == "first files" else any(parts.glob("[0-9a-f]*")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = open_store(f"file://{folder}?fsync=none")
    there = {info.key: info.version for info in store.list("train/")}
    assert 0 < len(there) < 16000
    report = generate(store, SPEC)
    after = {info.key: info.version for info in store.list("train/")}
    assert report.files_made == 16000 - len(there)
    assert report.files_kept + report.files_adopted == len(there)
    assert report.files_kept > 0 or moment == "first files"
    assert len(after) == 16000
    assert there.items() <= after.items()
    assert verify(store, open_manifest(store), evict=False).good
    store.close()


PARALLEL = DatasetSpec("npz", 30, record_length_bytes=3000, record_length_stdev_bytes=500)


def test_processes_make_the_same_split_as_one(tmp_path: Path) -> None:
    seen: list[Progress] = []
    report = generate_parallel(
        f"file://{tmp_path}/two?fsync=none",
        PARALLEL,
        GenerateOptions(threads=2, verify_after=True),
        processes=2,
        progress=seen.append,
    )
    assert (report.files_made, report.files_total, report.complete) == (30, 30, True)
    assert report.verification is not None
    assert report.verification.files_checked == 30
    assert all(one.files_total == 30 for one in seen)
    two, one = open_store(f"{tmp_path}/two"), open_store(f"{tmp_path}/one", create=True)
    generate(one, PARALLEL)
    assert [(info.key, bytes(two.get_range(info.key))) for info in two.list("train/")] == [
        (info.key, bytes(one.get_range(info.key))) for info in one.list("train/")
    ]
    assert list(two.list(".stoker/train.parts/")) == []


def test_more_processes_than_files_start_no_more_than_needed(tmp_path: Path) -> None:
    report = generate_parallel(f"{tmp_path}/data", DatasetSpec("raw", 2, record_dims=(9,)), processes=3)
    assert (report.files_made, report.complete) == (2, True)


def children() -> list[int]:
    path = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return [int(pid) for pid in path.read_text().split()]


SLOW = DatasetSpec("npz", 20_000, record_dims=(64, 64))


class Interrupter:
    """Does something to the workers the first time that files are done."""

    def __init__(self, act: object) -> None:
        self.act = act
        self.workers: list[int] = []

    def __call__(self, progress: Progress) -> None:
        if progress.files_done and not self.workers:
            self.workers = [pid for pid in children() if b"dataset.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
            self.act(self.workers)  # type: ignore[operator]


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_dead_worker_is_named_and_the_others_end(tmp_path: Path) -> None:
    killer = Interrupter(lambda pids: os.kill(pids[-1], signal.SIGKILL))
    with pytest.raises(StokerError, match=r"generation worker 1 died: expected a report, got signal 9 \(SIGKILL\)"):
        generate_parallel(f"file://{tmp_path}/data", SLOW, processes=2, progress=killer)
    assert len(killer.workers) == 2
    assert gone(killer.workers)


def interrupt(_: list[int]) -> None:
    raise KeyboardInterrupt


def test_an_interrupt_leaves_no_worker_and_a_resumable_split(tmp_path: Path) -> None:
    stopper = Interrupter(interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate_parallel(f"file://{tmp_path}/data", SLOW, processes=2, progress=stopper)
    assert gone(stopper.workers)
    store = open_store(f"file://{tmp_path}/data?fsync=none")
    there = sum(1 for _ in store.list("train/"))
    assert 0 < there < 20_000
    # What the workers finished is in their journals: they were stopped, not killed.
    report = generate(store, SLOW, GenerateOptions(rank=0, world=100))
    assert report.files_adopted == 0
    store.close()


def test_workers_end_when_their_starter_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from stoker.core.plan import DatasetSpec\n"
        "from stoker.loader.dataset.parallel import generate_parallel\n"
        "generate_parallel(sys.argv[1], DatasetSpec('npz', 20000, record_dims=(64, 64)), processes=2)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, f"file://{tmp_path}/data"])
    wait_for(lambda: sum(1 for _ in tmp_path.glob("data/train/*.npz")) > 10)
    workers = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.kill()
    process.wait()
    assert len(workers) == 2
    wait_for(lambda: gone(workers))


def test_an_error_of_a_worker_is_raised_as_itself(tmp_path: Path) -> None:
    limited = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "from stoker.core.errors import NoSpaceError\n"
        "from stoker.core.plan import DatasetSpec\n"
        "from stoker.loader.dataset.parallel import generate_parallel\n"
        "try:\n"
        "    generate_parallel(sys.argv[1], DatasetSpec('npz', 6, record_dims=(300, 300)), processes=2)\n"
        "except NoSpaceError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", limited, f"{tmp_path}/data"], capture_output=True, text=True)
    assert "finished files are kept" in done.stdout, done.stderr
    assert "for the files still to be made" in done.stdout
    assert list(tmp_path.glob("data/train/*")) == []


def test_processes_do_not_share_memory() -> None:
    with pytest.raises(UsageError, match="processes do not share this store"):
        generate_parallel("mem://nobody", PARALLEL, processes=2)
    with pytest.raises(UsageError, match="number of processes"):
        generate_parallel("mem://nobody", PARALLEL, processes=0)


def test_a_bad_place_is_refused_before_a_worker_starts(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="files that we did not make"):
        generate_parallel(str(tmp_path), PARALLEL, processes=2)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]
