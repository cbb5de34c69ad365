"""Chunk servers as they are run: the command, its processes, and that none of them is left."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stoker.fs.chunk import Target
from stoker.testing.shard_holder_contract import VOLUME

READY_SECONDS = 60.0


class Running:
    """A chunk server that is up: its process, and where it said it is."""

    def __init__(self, process: "subprocess.Popen[str]", announced: dict[str, Any]) -> None:
        self.process, self.announced = process, announced

    @property
    def addresses(self) -> list[str]:
        return [disk["address"] for disk in self.announced["disks"]]

    @property
    def pids(self) -> list[int]:
        return [disk["pid"] for disk in self.announced["disks"]]

    def target(self, number: int = 0, **options: Any) -> Target:
        return Target(self.addresses[number], volume=VOLUME, **options)


def start(folders: list[Path], *arguments: str, **variables: str) -> "subprocess.Popen[str]":
    """Start the command; its output is a line of JSON once it is up."""
    command = [
        str(Path(sys.executable).parent / "stoker"),
        "fs",
        "chunkserver",
        *map(str, folders),
        *("--volume", VOLUME, "--reserve", "1MiB", "--json", *arguments),
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | variables
    )


@contextmanager
def chunk_server(folders: list[Path], *arguments: str, **variables: str) -> Iterator[Running]:
    """Run a chunk server until the block ends, unless it ended before; none of its processes is left then."""
    process = start(folders, *arguments, **variables)
    pids: list[int] = []
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()
        running = Running(process, json.loads(line))
        pids = running.pids
        yield running
        if process.poll() is None:
            process.terminate()
    finally:
        with suppress(ProcessLookupError):
            if process.poll() is None and sys.exc_info()[0] is not None:
                process.kill()
        process.communicate(timeout=60)
    assert gone(pids), pids


def gone(pids: list[int], within_seconds: float = 30.0) -> bool:
    """Whether none of these processes is there any more, within the time."""
    until = time.monotonic() + within_seconds
    while time.monotonic() < until:
        if not [pid for pid in pids if alive(pid)]:
            return True
        time.sleep(0.02)
    return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
