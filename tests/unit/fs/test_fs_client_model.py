"""Open files against a plain array of bytes: several handles, two clients, crashes at any step."""

import os
import random
from collections.abc import Callable
from contextlib import suppress

import pytest
from client_place import Clients

from stoker.core.errors import NoSpaceError, StokerError, StoreError, TransientError
from stoker.fs.client import Client, OpenFile
from stoker.fs.client.options import PIECE_BYTES
from stoker.fs.meta import MetaError
from stoker.fs.meta.calls import KEEP_SIZE, PUNCH_HOLE, READ, WRITE, Fallocate, SetAttr

HEAVY = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(100, 140)]
_EDGES = (0, PIECE_BYTES, 2 * PIECE_BYTES)


def place(rng: random.Random) -> int:
    return max(0, rng.choice(_EDGES) + rng.randrange(-3000, 3000))


class Oracle:
    """What a file should hold."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, offset: int, data: bytes) -> None:
        if len(self.data) < offset + len(data):
            self.data.extend(bytes(offset + len(data) - len(self.data)))
        self.data[offset : offset + len(data)] = data

    def resize(self, size: int) -> None:
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))

    def hole(self, offset: int, length: int) -> None:
        end = min(offset + length, len(self.data))
        if offset < end:
            self.data[offset:end] = bytes(end - offset)


def step(rng: random.Random, client: Client, handle: OpenFile, oracle: Oracle) -> None:
    """Do one thing to a file and to the oracle; what is read must agree."""
    what = rng.random()
    if what < 0.45:
        data = rng.randbytes(rng.choice((1, 100, 2000, 9000)))
        if rng.random() < 0.25:
            assert handle.write(0, data, append=True) == len(oracle.data)
            oracle.write(len(oracle.data), data)
        else:
            offset = place(rng)
            handle.write(offset, data)
            oracle.write(offset, data)
    elif what < 0.8:
        offset, size = place(rng), rng.choice((1, 500, 20_000))
        assert bytes(handle.read(offset, size)) == oracle.data[offset : offset + size]
    elif what < 0.88:
        rng.choice((handle.fsync, handle.flush))()
    elif what < 0.92:
        size = place(rng)
        client.ask(SetAttr(handle.ino, size_bytes=size))
        oracle.resize(size)
    elif what < 0.96:
        offset, length = place(rng), rng.randrange(1, 5000)
        client.ask(Fallocate(handle.ino, PUNCH_HOLE | KEEP_SIZE, offset, length))
        oracle.hole(offset, length)
    else:
        assert handle.attributes().size_bytes == len(oracle.data)
        data_at = next_data(handle, 0)
        assert data_at is None or oracle.data[:data_at] == bytes(data_at)


def next_data(handle: OpenFile, offset: int) -> int | None:
    try:
        return handle.seek(offset, os.SEEK_DATA)
    except MetaError:
        return None


def same(handle: OpenFile, oracle: Oracle) -> None:
    assert handle.read(0, 1 << 30) == oracle.data


@pytest.mark.parametrize("seed", [*range(6), *HEAVY])
@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_handles_of_one_client(seed: int, cache_bytes: int) -> None:
    rng = random.Random(seed)
    clients = Clients()
    client = clients.client(cache_bytes=cache_bytes, block_bytes=4096, buffer_bytes=rng.choice((20_000, 1 << 24)))
    oracle = Oracle()
    handles = [clients.file(client)]
    for _ in range(120):
        if rng.random() < 0.1 and len(handles) < 4:
            handles.append(client.open(handles[0].ino, READ | WRITE))
        elif rng.random() < 0.1 and len(handles) > 1:
            handles.pop(rng.randrange(len(handles))).close()
        step(rng, client, rng.choice(handles), oracle)
    same(handles[0], oracle)
    for handle in handles:
        handle.close()
    assert clients.shown(handles[0].ino) == oracle.data
    assert client.counters()["waiting_bytes"] == 0
    clients.close()


@pytest.mark.parametrize("seed", [*range(4), *HEAVY])
@pytest.mark.parametrize("strict", [False, True])
def test_two_clients_who_open_after_closing_or_are_strict(seed: int, strict: bool) -> None:
    rng = random.Random(seed)
    clients = Clients()
    both = [clients.client(strict=strict, block_bytes=4096), clients.client(strict=strict, block_bytes=4096)]
    oracle = Oracle()
    kept = clients.file(both[0])  # open all the while, at the first
    second = both[1].open(kept.ino, READ | WRITE)
    for _ in range(12):
        client = rng.choice(both)
        same_handle = kept if client is both[0] else second
        handle = same_handle if strict else client.open(kept.ino, READ | WRITE)
        for _ in range(rng.randrange(1, 9)):
            step(rng, client, handle, oracle)
        if not strict:
            handle.close()
    if not strict:
        clients.wait(2)
    same(kept, oracle)
    same(second, oracle)
    kept.close()
    second.close()
    clients.close()


@pytest.mark.parametrize("seed", [*range(6), *HEAVY])
def test_a_client_that_dies_loses_nothing_that_was_acknowledged(seed: int) -> None:
    """Its session runs out, what it stored and did not show is garbage, and the file is as at a moment since fsync."""
    rng = random.Random(seed)
    clients = Clients()
    client = clients.client(buffer_bytes=rng.choice((20_000, 1 << 24)))
    oracle = Oracle()
    handle = clients.file(client)
    possible = [b""]
    for _ in range(rng.randrange(1, 80)):
        data, offset = rng.randbytes(rng.choice((1, 300, 9000))), rng.randrange(0, 20_000)
        handle.write(offset, data)
        oracle.write(offset, data)
        possible.append(bytes(oracle.data))
        if rng.random() < 0.2:
            handle.fsync()
            possible = [bytes(oracle.data)]
    clients.slices.lose_power()
    clients.made.remove(client)  # it is never heard of again
    clients.wait(61)
    clients.place.volume.tidy()
    assert clients.shown(handle.ino) in possible
    clients.close()


@pytest.mark.parametrize("seed", [*range(6), *HEAVY])
def test_a_store_that_fails_now_and_then_makes_no_false_promise(seed: int) -> None:
    rng = random.Random(seed)
    clients = Clients()
    kinds: list[Callable[[], StokerError]] = [
        lambda: NoSpaceError("full"),
        lambda: TransientError("not now"),
        lambda: StoreError("broken"),
    ]
    clients.store.fault = lambda verb: rng.choice(kinds)() if rng.random() < 0.15 else None
    client = clients.client(attempts=2, buffer_bytes=rng.choice((20_000, 1 << 24)), block_bytes=4096)
    oracle = Oracle()
    handle = clients.file(client)
    synced = b""
    for _ in range(60):
        offset, data = rng.randrange(0, 20_000), rng.randbytes(rng.choice((1, 300, 9000)))
        try:
            handle.write(offset, data)
        except MetaError:
            continue  # it was not taken
        oracle.write(offset, data)
        with suppress(MetaError):
            assert handle.read(0, 1 << 20) == oracle.data
        if rng.random() < 0.3:
            try:
                handle.fsync()
            except MetaError:
                continue
            synced = bytes(oracle.data)
            clients.slices.lose_power()
            fault, clients.store.fault = clients.store.fault, lambda verb: None
            assert clients.shown(handle.ino) == synced
            clients.store.fault = fault
    clients.store.fault = lambda verb: None
    handle.close()
    assert clients.shown(handle.ino) == oracle.data
    clients.close()
