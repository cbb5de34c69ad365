"""Followers see every commit once, in order: through shared memory, files and sockets."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stoker.core.errors import UsageError
from stoker.pages import Store
from stoker.pages.follow import FileFollower, FrameServer, Replica, RingFollower, SocketFollower
from stoker.pages.follow.messages import ConnectionLost
from stoker.pages.follow.tail import FellBehind
from stoker.pages.history import State

TOKEN = "a token of some length"


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(size_bytes=1 << 20, pages_max=128, log_bytes=1 << 16) as opened:
        yield opened


def work(store: Store, rounds: int = 60) -> None:
    pages = store.pages() or [store.allocate(512, name=f"p{index}") for index in range(4)]
    for index in range(rounds):
        pages[index % 4].write_at(index % 300, b"%d" % (index + store.lsn))
    extra = store.allocate(64)
    extra.write(b"x" * 64)
    extra.resize(80)
    extra.free()


def digest(store: Store) -> str:
    with store.snapshot() as snapshot:
        return State.of(snapshot.images(), snapshot.lsn).digest()


def test_a_ring_follower_keeps_up(store: Store) -> None:
    replica = Replica(RingFollower(store.arena, since=0))
    for _ in range(20):
        work(store, 30)
        assert replica.catch_up() == store.lsn
        assert replica.state.digest() == digest(store)


def test_who_falls_behind_is_told(store: Store) -> None:
    follower = RingFollower(store.arena)
    page = store.allocate(4096)
    for index in range(40):
        page.write(np.full(4096, index + 1, np.uint8))
    with pytest.raises(FellBehind):
        follower.poll()
    with pytest.raises(FellBehind):
        RingFollower(store.arena, since=0)


def test_a_file_follower_sees_what_was_flushed(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", size_bytes=1 << 20, pages_max=64, log_bytes=1 << 16, durability="os") as store:
        replica = Replica(FileFollower(tmp_path / "s" / "log"))
        for _ in range(5):
            work(store)
            assert replica.catch_up() == store.lsn
        assert replica.state.digest() == digest(store)


def test_a_socket_follower_gets_pages_then_frames(store: Store) -> None:
    work(store)
    with FrameServer(store, token=TOKEN) as server:
        follower = SocketFollower(*server.address, token=TOKEN)
        assert follower.fresh
        replica = Replica(follower, follower.images, follower.lsn)
        for _ in range(10):
            work(store)
            replica.wait(store.lsn, timeout_seconds=20)
            assert replica.state.digest() == digest(store)
        lsn, uuid = follower.lsn, follower.uuid
        replica.close()
        work(store, 5)
        again = SocketFollower(*server.address, token=TOKEN, since=lsn, uuid=uuid)
        assert not again.fresh
        replica = Replica(again, replica.state.pages.values(), lsn)
        replica.wait(store.lsn, timeout_seconds=20)
        assert replica.state.digest() == digest(store)
        replica.close()


def test_strangers_are_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="too short"):
        FrameServer(store, token="short")
    with FrameServer(store, token=TOKEN) as server:
        assert server.address[0] == "127.0.0.1"
        with pytest.raises(ConnectionLost, match="token is wrong"):
            SocketFollower(*server.address, token="another token of some length")
        with socket.create_connection(server.address) as rude:
            rude.sendall(b"\xff" * 64)
            rude.settimeout(5)
            assert rude.recv(1024) != b"", "it is told what was wrong, or at least not served"
        SocketFollower(*server.address, token=TOKEN).close()


def test_another_process_follows_through_shared_memory() -> None:
    with Store.open(name="follow-test", size_bytes=1 << 20, pages_max=64, log_bytes=1 << 16) as store:
        script = """
import sys
from stoker.pages import Store
from stoker.pages.follow import Replica, RingFollower
with Store.attach("follow-test") as store:
    replica = Replica(RingFollower(store.arena, since=0))
    print("ready", flush=True)
    replica.wait(int(sys.stdin.readline()), timeout_seconds=30)
    print(replica.state.digest())
"""
        child = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        work(store)
        told, _ = child.communicate(f"{store.lsn}\n", timeout=60)
        assert told.strip() == digest(store)
