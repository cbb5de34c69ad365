"""Publishing weights: what real steps of training change, in how many bytes it is told, and how long that takes."""

import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.pages import peer
from benchmarks.pages.deltas import encode_index_value
from benchmarks.pages.rows import Conditions, Row, clocks
from benchmarks.pages.training import steps
from stoker.kernels.checking import xxh3_64
from stoker.pages import Store, apply_weights, publish_weights
from stoker.pages.anchoring import AnchorPolicy
from stoker.pages.weights_chain import WeightChain, follow_chain
from stoker.pages.wire import encode_wire

Weights = dict[str, np.ndarray]
Encoder = Callable[[np.ndarray, np.ndarray], bytes | memoryview]
RATES = (1e-6, 3e-6)
WAYS: dict[str, tuple[int, Encoder]] = {
    "whole tensors": (peer.FULL, lambda _, new: new.data.cast("B")),
    "int32 index and value": (peer.INDEX, encode_index_value),
    "stoker wire codec": (peer.WIRE, lambda old, new: encode_wire(old, new, 2)),
}


def sizes(versions: list[Weights], rate: float) -> Row:
    """Measure bytes: of the whole, as index and value, in the wire codec; each step is a sample."""
    row = Row(f"weights/size {rate:g}", f"Bytes of a step of AdamW at {rate:g}: times smaller than whole", "times")
    densities = []
    for old, new in pairwise(versions):
        whole = sum(value.nbytes for value in new.values())
        changed = {name: int((old[name] != new[name]).sum()) for name in new}
        densities.append(sum(changed.values()) / sum(value.size for value in new.values()))
        wire = sum(len(encode_wire(old[name], new[name], 2)) for name in new if changed[name])
        plain = sum(len(encode_index_value(old[name], new[name])) for name in new)
        for name, size in (("int32 index and value", plain), ("stoker wire codec", wire)):
            row.samples.setdefault(name, []).append((whole / size, whole / size))
        row.samples.setdefault("wire codec against index and value", []).append((plain / wire, plain / wire))
    row.facts = {"weight bytes": whole, "elements that change, median share": statistics.median(densities)}
    return row


class Peer:
    """A process that takes weights over a socket of this host, one for each way to tell them."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
            self._process = subprocess.Popen([sys.executable, "-m", "benchmarks.pages.peer", port])
            self._connection, _ = server.accept()
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, kind: int, old: Weights, new: Weights, encode: Encoder) -> int:
        """Tell one version, wait until it is taken, and return its bytes."""
        sent = 0
        for number, name in enumerate(new):
            body = encode(old[name], new[name])
            if len(body):
                self._connection.sendall(peer.HEAD.pack(kind, number, len(body)))
                self._connection.sendall(body)
                sent += len(body)
        self._ask(0)
        return sent

    def _ask(self, digest: int) -> int:
        self._connection.sendall(peer.HEAD.pack(peer.END, 0, digest))
        return int.from_bytes(peer.receive(self._connection, 8), "little")

    def digest(self) -> int:
        """Return the XXH3-64 of all that the process has."""
        return self._ask(1)

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.wait()


def over_a_socket(versions: list[Weights]) -> Row:
    """Measure a version told to another process over a socket, by each way."""
    row = Row("weights/socket", "A step of AdamW at 1e-6 published to another process over a socket", "ms")
    peers = {name: Peer() for name in WAYS}
    try:
        for one in peers.values():
            one.send(peer.NEW, versions[0], versions[0], WAYS["whole tensors"][1])
        for old, new in pairwise(versions):
            for name, (kind, encode) in WAYS.items():
                wall, cpu = clocks()
                row.facts[f"{name}, bytes"] = peers[name].send(kind, old, new, encode)
                wall_end, cpu_end = clocks()
                row.samples.setdefault(name, []).append(((wall_end - wall) / 1e6, (cpu_end - cpu) / 1e6))
        wanted = 0
        for value in versions[-1].values():
            wanted ^= xxh3_64(value.data)
        for name, one in peers.items():
            assert one.digest() == wanted, name
    finally:
        for one in peers.values():
            one.close()
    return row


def through_memory(versions: list[Weights]) -> Row:
    """Measure publish_weights and apply_weights through a store in shared memory, beside a plain copy."""
    row = Row(
        "weights/memory", "A step of AdamW at 1e-6 through shared memory, the trainer's and the worker's part", "ms"
    )
    model = {name: np.zeros_like(value) for name, value in versions[0].items()}
    plain = {name: np.zeros_like(value) for name, value in versions[0].items()}
    with Store.open(log_bytes=64 << 20) as store:
        publish_weights(versions[0], store)
        lsn = apply_weights(model, store)
        for new in versions[1:]:
            times = [clocks()]
            told = publish_weights(new, store)
            times.append(clocks())
            lsn = apply_weights(model, store, since=lsn)
            times.append(clocks())
            for name, value in new.items():
                plain[name][:] = value
            times.append(clocks())
            for name, (start, end) in zip(
                ("stoker publish_weights", "stoker apply_weights", "plain copy"),
                pairwise(times),
                strict=True,
            ):
                row.samples.setdefault(name, []).append(((end[0] - start[0]) / 1e6, (end[1] - start[1]) / 1e6))
            assert all(np.array_equal(model[name], new[name]) for name in new)
        row.facts["bytes in the log"] = told.logged_bytes
    return row


def anchors(versions: dict[float, list[Weights]], folder: Path) -> list[Row]:
    """Measure chains in files, whole versions by cost or every tenth: bytes in all, and time for a new worker."""
    rows = []
    for rate, path in versions.items():
        row = Row(f"weights/anchors {rate:g}", f"A chain of versions at {rate:g}: a worker that begins anew", "ms")
        for name, policy in (
            ("by cost", AnchorPolicy()),
            ("every 10th", AnchorPolicy(stored_ratio_max=1e9, seconds_max=1e9, length_max=9)),
        ):
            own = folder / f"{rate:g} {name}"
            own.mkdir()
            chain = WeightChain(own, policy)
            heads = [chain.publish(version) for version in path]
            row.facts[f"{name}: bytes"] = sum(file.stat().st_size for file in own.iterdir())
            row.facts[f"{name}: whole versions"] = sum(head.whole for head in heads)
            for _ in range(5):
                model = {key: np.zeros_like(value) for key, value in path[0].items()}
                wall, cpu = clocks()
                follow_chain(own, model, 0)
                wall_end, cpu_end = clocks()
                row.samples.setdefault(name, []).append(((wall_end - wall) / 1e6, (cpu_end - cpu) / 1e6))
            assert all(np.array_equal(model[key], path[-1][key]) for key in model)
        rows.append(row)
    return rows


def follower_lag(conditions: Conditions) -> Row:
    """Measure from a commit in one process until a follower's replica in this one has it, both polling."""
    from stoker.pages.follow.replica import Replica
    from stoker.pages.follow.tail import RingFollower

    row = Row("follow/lag", "A page of 4 KiB committed and taken by a follower of the ring, same process", "us")
    with Store.open() as store:
        page = store.allocate(4096).id
        with store.snapshot() as snapshot:
            images = list(snapshot.images())
            replica = Replica(RingFollower(store.arena, snapshot.lsn), images, snapshot.lsn)
        data = np.random.default_rng(3).integers(0, 256, (2, 4096), np.uint8)
        for turn in range(conditions.choose(200, 1000)):
            start = time.perf_counter_ns(), time.process_time_ns()
            lsn = store.write(page, data[turn & 1])
            while replica.catch_up() < lsn:
                pass
            end = time.perf_counter_ns(), time.process_time_ns()
            row.samples.setdefault("stoker write and catch_up", []).append(
                ((end[0] - start[0]) / 1e3, (end[1] - start[1]) / 1e3)
            )
        replica.close()
    return row


def rows(conditions: Conditions) -> list[Row]:
    """Measure all of them."""
    made = [follower_lag(conditions)]
    try:
        import torch  # noqa: F401
    except ImportError:
        why = "torch is not installed: pip install 'stoker[torch]'"
        return [*made, Row("weights/size 1e-06", "Real steps of training", "times", missing={"stoker wire codec": why})]
    warm, count = conditions.choose(6, 20), conditions.choose(6, 31)
    versions = {rate: list(steps(rate, warm=warm, count=count)) for rate in RATES}
    made += [sizes(path, rate) for rate, path in versions.items()]
    made += [over_a_socket(versions[RATES[0]]), through_memory(versions[RATES[0]])]
    with conditions.folder() as folder:
        return made + anchors(versions, folder)
