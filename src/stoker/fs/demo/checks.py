"""What a demonstration shows: a master is killed, chunk servers are killed, and every byte of two classes reads."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.errors import InterruptedRunError, StokerError
from stoker.core.units import KiB, MiB, format_bytes
from stoker.fs.client import FileTree
from stoker.fs.demo.cluster import EIGHT_AND_FOUR, TWO_COPIES, LoopbackCluster
from stoker.fs.meta.calls import ListClasses, SetClass
from stoker.fs.meta.faults import MetaError

SIZES: Final = (0, 1, 4 * KiB, 40_000, 300_000, 1 * MiB, 3_000_000, 9_000_001)
_KILLED_AT_ONCE: Final = 4
_FOLDERS: Final = {TWO_COPIES: "copies", EIGHT_AND_FOUR: "coded"}
_GAP_SECONDS: Final = 30.0
_RECOVERY_SECONDS: Final = 60.0


class Step(msgspec.Struct, frozen=True):
    """One thing that was shown: whether it held, in a sentence, and how many seconds it took."""

    name: str
    holds: bool
    told: str
    seconds: float


def content(name: str, size: int) -> bytes:
    """Return the bytes that a file of a name and size has."""
    return random.Random(f"{name} {size}").randbytes(size)  # noqa: S311 - content, no secret


class Heartbeats:
    """A thread that changes names one after the other, durably, and notes the longest time without an answer."""

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self._stop = threading.Event()
        self.count = 0
        self.longest_seconds = 0.0
        self.error: Exception | None = None
        tree.makedirs("/beats")
        self._thread = threading.Thread(target=self._run, name="stoker-demo-beats", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last = time.monotonic()
        try:
            while not self._stop.is_set():
                self._tree.mkdir(f"/beats/{self.count}")
                now = time.monotonic()
                self.longest_seconds = max(self.longest_seconds, now - last)
                last = now
                self.count += 1
        except (StokerError, MetaError) as error:
            self.error = error

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()


class SelfCheck:
    """The steps over a cluster, one by one; `mounted` is where its volume is mounted, None where it is not."""

    def __init__(self, cluster: LoopbackCluster, mounted: Path | None, stop_wanted: Callable[[], bool]) -> None:
        self._cluster, self._mounted, self._stop_wanted = cluster, mounted, stop_wanted
        self._written: dict[str, dict[str, int]] = {}
        self._chosen = random.Random()  # noqa: S311 - whom to kill

    def steps(self) -> Iterator[Step]:
        """Do the steps, each told as it is done. Raises InterruptedRunError between two of them."""
        for name, step in (
            ("write", self._write),
            ("read by another client", self._read_again),
            ("master killed", self._kill_master),
            ("1 chunk server killed", self._kill_one),
            (f"{_KILLED_AT_ONCE} chunk servers killed", self._kill_more),
            ("all started again", self._recover),
        ):
            if self._stop_wanted():
                raise InterruptedRunError("demo was stopped", where=name)
            began = time.monotonic()
            try:
                holds, told = step()
            except InterruptedRunError:
                raise
            except (StokerError, OSError) as error:
                holds, told = False, str(error)
            yield Step(name, holds, told, time.monotonic() - began)

    # -- writing and reading

    def _write(self) -> tuple[bool, str]:
        with self._cluster.tree() as tree:
            numbers = {one.name: one.id for one in tree.volume.run(ListClasses()).classes}
            for name, folder in _FOLDERS.items():
                tree.makedirs(f"/{folder}")
                tree.volume.run(SetClass(tree.stat(f"/{folder}").ino, numbers[name]))
            for folder in _FOLDERS.values():
                self._written[folder] = {f"/{folder}/{size}": size for size in SIZES}
                for path, size in self._written[folder].items():
                    self._write_one(tree, path, content(path, size))
        count = sum(len(files) for files in self._written.values())
        through = "the mount" if self._mounted is not None else "the client, for nothing can be mounted here"
        return True, f"{count} files, {format_bytes(2 * sum(SIZES))}, in 2 copies and in 8+4, through {through}"

    def _write_one(self, tree: FileTree, path: str, data: bytes) -> None:
        if self._mounted is None:
            tree.write_bytes(path, data)
            return
        with (self._mounted / path.lstrip("/")).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _wrong(self, folder: str) -> list[str]:
        """Read all files of a folder through a client that knows nothing yet; return those that are not as written."""
        wrong = []
        with self._cluster.tree() as tree:
            for path, size in self._written[folder].items():
                try:
                    if bytes(tree.read_bytes(path)) != content(path, size):
                        wrong.append(f"{path} is other than written")
                except (StokerError, MetaError) as error:
                    wrong.append(f"{path}: {error}")
        return wrong

    def _all_read(self) -> tuple[bool, str]:
        wrong = [path for folder in self._written for path in self._wrong(folder)]
        return not wrong, "every byte reads" if not wrong else "; ".join(wrong[:3])

    def _read_again(self) -> tuple[bool, str]:
        return self._all_read()

    # -- bad days

    def _kill_master(self) -> tuple[bool, str]:
        """Kill the leading master amid changes; the gap is the longest time that a change waited."""
        cluster = self._cluster
        with cluster.tree() as tree:
            beats = Heartbeats(tree)
            try:
                leader = cluster.leader()
                if not leader:
                    return False, "nobody leads"
                cluster.wait_until(lambda: beats.count >= 3 or beats.error is not None, _GAP_SECONDS, "nothing changes")
                usual, beats.longest_seconds = beats.longest_seconds, 0.0
                cluster.kill_master(leader)
                at = beats.count
                cluster.wait_until(
                    lambda: beats.count > at + 3 or beats.error is not None, _GAP_SECONDS, "changes do not go on"
                )  # fmt: skip
            finally:
                beats.close()
            missing = beats.count - len(tree.listdir("/beats"))
        cluster.start_master(leader)
        holds = beats.error is None and missing == 0
        told = (
            f"changes waited {beats.longest_seconds * 1000:.0f} ms at most (before: {usual * 1000:.0f} ms), none lost"
        )
        return holds, told if holds else str(beats.error or f"{missing} changes are lost")

    def _kill_one(self) -> tuple[bool, str]:
        self._victims = self._chosen.sample(range(self._cluster.options.disks), _KILLED_AT_ONCE)
        self._cluster.kill_disk(self._victims[0])
        holds, told = self._all_read()
        return holds, f"disk of host{self._victims[0]}: {told}"

    def _kill_more(self) -> tuple[bool, str]:
        """Kill as many as 8+4 can lose. Two copies promise one loss alone: how many read is told."""
        for number in self._victims[1:]:
            self._cluster.kill_disk(number)
        wrong = self._wrong(_FOLDERS[EIGHT_AND_FOUR])
        copies = _FOLDERS[TWO_COPIES]
        read = len(self._written[copies]) - len(self._wrong(copies))
        hosts = ", ".join(f"host{number}" for number in sorted(self._victims))
        told = f"{hosts}: every byte of 8+4 reads" if not wrong else "; ".join(wrong[:3])
        return not wrong, f"{told}; of 2 copies, which promise one loss, {read} of {len(self._written[copies])} files"

    def _recover(self) -> tuple[bool, str]:
        self._cluster.start_disks(self._victims)
        return self._all_read()


def verdict(steps: list[Step]) -> str:
    """Return the last line: whether all held, else what did not."""
    failed = [step.name for step in steps if not step.holds]
    if failed:
        return f"does not hold: {', '.join(failed)}"
    return f"holds: all {len(steps)} steps, every byte that was promised reads"
