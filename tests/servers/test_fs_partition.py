"""A client in a network namespace of its own, cut off from masters and chunk servers, and let in again."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from demo_place import NEEDS_ETCD, SMALL, cluster_in, read_all

from stoker.fs.demo.cluster import LoopbackCluster
from stoker.fs.wire.keys import TOKEN_VARIABLE

# In hexadecimal of two digits each: names and addresses that no other run on this machine has.
MARK = os.getpid() % 65_536
NAME, OUTER, INNER = f"stk{MARK:x}", f"sto{MARK:x}", f"sti{MARK:x}"
NET = f"10.{128 + MARK // 256 % 64}.{MARK % 256}"
MASTERS = (f"{NET}.1", f"{NET}.2")
DISKS = (f"{NET}.11", f"{NET}.12", f"{NET}.13")
CLIENT = f"{NET}.200"
PROGRAM = """
import json, sys
from stoker.core.errors import StokerError
from stoker.fs.client import FileTree
from stoker.fs.demo.checks import content
from stoker.fs.doors.places import opened_place
with opened_place(sys.argv[1]) as place:
    tree = FileTree(place.client)
    print("{}", flush=True)
    for line in sys.stdin:
        what, path, size = json.loads(line)
        try:
            if what == "write":
                tree.write_bytes(path, content(path, size))
                good = True
            else:
                good = bytes(tree.read_bytes(path)) == content(path, size)
            told = {"good": good}
        except StokerError as error:
            told = {"good": False, "error": str(error)}
        print(json.dumps(told), flush=True)
"""


def run(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, check=check, capture_output=True, text=True)


def why_not() -> str:
    if os.geteuid() != 0:
        return "network namespaces are made by root"
    try:
        tried = run("ip", "netns", "add", NAME, check=False)
    except FileNotFoundError:
        return "there is no `ip` (apt install iproute2)"
    if tried.returncode:
        return f"no network namespace can be made here: {tried.stderr.strip()}"
    run("ip", "netns", "del", NAME)
    return ""


@contextmanager
def network() -> Iterator[None]:
    """Give a network of this machine and a namespace; nothing of it is left."""
    run("ip", "netns", "add", NAME)
    try:
        run("ip", "link", "add", OUTER, "type", "veth", "peer", "name", INNER)
        run("ip", "link", "set", INNER, "netns", NAME)
        for address in (*MASTERS, *DISKS):
            run("ip", "addr", "add", f"{address}/24", "dev", OUTER)
        run("ip", "link", "set", OUTER, "up")
        inside("ip", "addr", "add", f"{CLIENT}/24", "dev", INNER)
        inside("ip", "link", "set", INNER, "up")
        yield
    finally:
        run("ip", "link", "del", OUTER, check=False)
        run("ip", "netns", "del", NAME)


def inside(*words: str) -> None:
    run("ip", "netns", "exec", NAME, *words)


@contextmanager
def cut_from(*addresses: str) -> Iterator[None]:
    """Let nothing that the client sends arrive at these addresses, while the block runs."""
    for address in addresses:
        inside("ip", "route", "add", "blackhole", f"{address}/32")
    try:
        yield
    finally:
        for address in addresses:
            inside("ip", "route", "del", "blackhole", f"{address}/32")


class Remote:
    """A client in the namespace."""

    def __init__(self, cluster: LoopbackCluster, log: Path) -> None:
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", NAME, sys.executable, "-c", PROGRAM, cluster.url],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**os.environ, TOKEN_VARIABLE: cluster.token},
            )  # fmt: skip
        self.answer()

    def ask(self, what: str, path: str, size: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([what, path, size]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def does(self, what: str, path: str, size: int) -> dict[str, Any]:
        self.ask(what, path, size)
        return self.answer()

    def close(self) -> None:
        self.process.communicate(timeout=60)


@contextmanager
def partitioned(folder: Path) -> Iterator[tuple[LoopbackCluster, Remote]]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    here = {"master_hosts": MASTERS, "disk_hosts": DISKS}
    with network(), cluster_in(folder / "c", msgspec.structs.replace(SMALL, **here)) as cluster:
        remote = Remote(cluster, folder / "remote.log")
        try:
            yield cluster, remote
        finally:
            remote.close()


@pytest.mark.server
@pytest.mark.slow
@NEEDS_ETCD
def test_a_client_cut_off_from_a_part_goes_on_and_from_the_leader_waits(tmp_path: Path) -> None:
    with partitioned(tmp_path) as (cluster, remote):
        assert remote.does("write", "/before", 300_000) == {"good": True}
        leader = cluster.leader()
        standby = next(address for address in cluster.masters if address != leader)
        with cut_from(standby.rpartition(":")[0]):
            assert remote.does("write", "/without-the-standby", 300_000) == {"good": True}
        with cut_from(DISKS[0]):  # of three disks: each slice still has one of its two, or another takes it
            assert remote.does("read", "/before", 300_000) == {"good": True}
            assert remote.does("write", "/without-a-disk", 300_000) == {"good": True}
            assert remote.does("read", "/without-a-disk", 300_000) == {"good": True}
        with cut_from(leader.rpartition(":")[0]):
            remote.ask("write", "/late", 300_000)
            told: list[dict[str, Any]] = []
            waiting = threading.Thread(target=lambda: told.append(remote.answer()))
            waiting.start()
            waiting.join(2.0)
            assert told == []  # who leads cannot be reached: nothing is answered that was not done
        waiting.join(60.0)
        assert told == [{"good": True}]
        files = dict.fromkeys(("/before", "/without-the-standby", "/without-a-disk", "/late"), 300_000)
        for path, size in files.items():
            assert remote.does("read", path, size) == {"good": True}
        with cluster.tree() as tree:
            read_all(tree, files)
