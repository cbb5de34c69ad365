"""Durable creates a second through a master, beside what the same etcd appends: three etcd servers, two masters.

    python -m benchmarks.fscommits [--seconds 5] [--folder DIR]

Every create is acknowledged when its entry is in the logs of two etcd servers. Clients are threads of one process,
whose requests travel together; a batch is what one thread asks for at once.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.fsfailover import Cluster, quantile
from stoker.fs.journal.etcd import Etcd, Put, Txn
from stoker.fs.master.remote import RemoteMetadata, ask_status
from stoker.fs.meta.calls import BeginSession, Call, Create
from stoker.fs.meta.keys import ROOT


def repeated(work: Callable[[int, int], int], threads: int, seconds: float) -> tuple[float, list[float]]:
    """Let threads do a work for a while; return how much a second, and how long each piece took."""
    stop = time.monotonic() + seconds
    done: list[int] = []
    took: list[float] = []

    def run(thread: int) -> None:
        number = 0
        while time.monotonic() < stop:
            begin = time.monotonic()
            done.append(work(thread, number))
            took.append(time.monotonic() - begin)
            number += 1

    running = [threading.Thread(target=run, args=(n,)) for n in range(threads)]
    begin = time.monotonic()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sum(done) / (time.monotonic() - begin), took


def appends(etcd: Etcd, name: str, threads: int, size_bytes: int, seconds: float) -> None:
    """Print how many values etcd itself appends."""
    value = bytes(size_bytes)

    def put(thread: int, number: int) -> int:
        etcd.begin(Txn(then=(Put(b"bench/%s/%d/%d" % (name.encode(), thread, number), value),))).result()
        return 1

    rate, took = repeated(put, threads, seconds)
    middle_ms = quantile(took, 0.5) * 1e3
    print(f"etcd    appends of {size_bytes:6d} bytes, {threads:2d} at once: {rate:8.0f}/s  p50 {middle_ms:.1f} ms")


def creates(addresses: Sequence[str], name: str, threads: int, batch: int, seconds: float) -> None:
    """Print how many files are created through the master that leads."""
    entry = max(ask_status(address, token=None).entry for address in addresses)
    with RemoteMetadata(addresses) as metadata:
        session = metadata.run(BeginSession(600_000_000_000)).value

        def create(thread: int, number: int) -> int:
            calls = [
                Call(Create(ROOT, f"{name}-{thread}-{number}-{n}".encode(), 0o644, exclusive=True), session=session)
                for n in range(batch)
            ]
            answers = metadata.submit(calls)
            assert all(hasattr(answer, "ino") for answer in answers), answers[0]
            return batch

        rate, took = repeated(create, threads, seconds)
    made = rate * seconds
    entries = max(ask_status(address, token=None).entry for address in addresses) - entry
    print(
        f"master  {threads:3d} threads, batches of {batch:3d}: {rate:8.0f} durable creates/s"
        f"  p50 {quantile(took, 0.5) * 1e3:.1f} ms  {made / max(entries, 1):.0f} creates an entry"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--folder", type=Path, default=None)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=chosen.folder, prefix="stoker-commits-") as folder:
        cluster = Cluster(Path(folder))
        try:
            for threads, size_bytes in ((1, 200), (16, 200), (4, 65_536)):
                appends(cluster.client, f"{threads}-{size_bytes}", threads, size_bytes, chosen.seconds)
            for threads, batch in ((1, 1), (16, 1), (64, 1), (4, 64), (8, 128)):
                creates(cluster.addresses, f"t{threads}b{batch}", threads, batch, chosen.seconds)
        finally:
            cluster.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
