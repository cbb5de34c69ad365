"""`python -m benchmarks.fswire`: requests and payloads of the file system's wire over loopback, beside bare sockets.

The server is a process of its own, as in use. Small requests go one after the other, and from 16 threads over one
connection. Payloads of 4 MiB go to a server that looks at none of them and come from a file in memory by sendfile;
the ceiling is a loop of `sendall`/`recv_into`, and one of `sendfile`, over a bare socket between the same processes.
Each figure is the median of rounds in which all take turns.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from stoker.core.units import GiB, MiB
from stoker.fs.wire import Asker, Connection, FileSpan, FileSpans, Operation, RpcServer

PAYLOAD_BYTES = 4 * MiB
THREADS = 16
REQUESTS = 1600
PAYLOADS = 128


class Number(msgspec.Struct, frozen=True):
    """A request of one number."""

    number: int


SMALL = Operation(1, "small", Number, Number)
QUICK = Operation(2, "quick", Number, Number, quick=True)
PUT = Operation(3, "put", Number, Number, payload_bytes_max=PAYLOAD_BYTES, own_checksums=True)
GET = Operation(4, "get", Number, Number, own_checksums=True)


def serve() -> None:
    """Serve both, the wire and bare sockets, until standard input ends."""
    descriptor = os.memfd_create("payload")
    os.truncate(descriptor, PAYLOAD_BYTES)

    def take(asked: Number, _payload: memoryview, _asker: Asker) -> tuple[Number, tuple[()]]:
        return asked, ()

    def send(asked: Number, _payload: memoryview, _asker: Asker) -> tuple[Number, FileSpans]:
        return asked, FileSpans([FileSpan(descriptor, 0, PAYLOAD_BYTES)], lambda: None)

    handlers = {SMALL: take, QUICK: take, PUT: take, GET: send}
    with RpcServer(handlers) as server, socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=bare, args=(listener, descriptor), daemon=True).start()
        print(server.address[1], listener.getsockname()[1], flush=True)
        sys.stdin.read()


def bare(listener: socket.socket, descriptor: int) -> None:
    """Take payloads ('p') and send them ('g') over bare sockets, one client after the other."""
    buffer = memoryview(bytearray(PAYLOAD_BYTES))
    while True:
        with listener.accept()[0] as peer:
            while asked := peer.recv(1):
                if asked == b"p":
                    fill(peer, buffer)
                    peer.sendall(b"k")
                else:
                    offset = 0
                    while offset < PAYLOAD_BYTES:
                        offset += os.sendfile(peer.fileno(), descriptor, offset, PAYLOAD_BYTES - offset)


def fill(peer: socket.socket, buffer: memoryview) -> None:
    """Receive a whole buffer."""
    filled = 0
    while filled < len(buffer):
        filled += peer.recv_into(buffer[filled:])


def per_second(count: int, work: Callable[[], object]) -> float:
    """Return how often `work` is done in a second."""
    began = time.perf_counter()
    for _ in range(count):
        work()
    return count / (time.perf_counter() - began)


def threaded(count: int, work: Callable[[], object]) -> float:
    """Return how often `THREADS` threads together do `work` in a second."""

    def run() -> None:
        for _ in range(count // THREADS):
            work()

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count / (time.perf_counter() - began)


def rows(connection: Connection, peer: socket.socket) -> dict[str, Callable[[], float]]:
    """What is measured, by name: requests or GiB a second."""
    data = bytes(PAYLOAD_BYTES)
    buffer = memoryview(bytearray(PAYLOAD_BYTES))
    gib = PAYLOAD_BYTES / GiB

    def bare_put() -> None:
        peer.sendall(b"p")
        peer.sendall(data)
        peer.recv(1)

    def bare_get() -> None:
        peer.sendall(b"g")
        fill(peer, buffer)

    def get() -> None:
        connection.call(GET, Number(1), answer_bytes_max=PAYLOAD_BYTES)

    return {
        "small_requests_per_second": lambda: per_second(REQUESTS, lambda: connection.call(SMALL, Number(1))),
        "quick_requests_per_second": lambda: per_second(REQUESTS, lambda: connection.call(QUICK, Number(1))),
        "small_requests_16_threads_per_second": lambda: threaded(REQUESTS, lambda: connection.call(SMALL, Number(1))),
        "put_gib_per_second": lambda: gib * per_second(PAYLOADS, lambda: connection.call(PUT, Number(1), [data])),
        "bare_put_gib_per_second": lambda: gib * per_second(PAYLOADS, bare_put),
        "get_gib_per_second": lambda: gib * per_second(PAYLOADS, get),
        "get_16_threads_gib_per_second": lambda: gib * threaded(PAYLOADS, get),
        "bare_get_gib_per_second": lambda: gib * per_second(PAYLOADS, bare_get),
    }


def measure(rounds: int) -> dict[str, float]:
    """Return the median of each figure, and the ratios to the ceilings."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fswire", "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout
        wire_port, bare_port = map(int, server.stdout.readline().split())
        with (
            Connection(f"127.0.0.1:{wire_port}") as connection,
            socket.create_connection(("127.0.0.1", bare_port)) as peer,
        ):
            works = rows(connection, peer)
            samples: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
            for _ in range(rounds):
                for name, work in works.items():
                    before = cpu_seconds(server.pid)
                    figure = work()
                    samples[name].append((figure, cpu_seconds(server.pid) - before))
    finally:
        server.communicate()
    found = {name: statistics.median(figure for figure, _ in values) for name, values in samples.items()}
    found["put_of_ceiling_ratio"] = found["put_gib_per_second"] / found["bare_put_gib_per_second"]
    found["get_of_ceiling_ratio"] = found["get_gib_per_second"] / found["bare_get_gib_per_second"]
    for name, values in samples.items():
        seconds = statistics.median(seconds for _, seconds in values)
        what, unit = name.partition("_per_second")[0], "gib" if "gib" in name else "request"
        count = PAYLOADS * PAYLOAD_BYTES / GiB if "gib" in name else REQUESTS
        found[f"{what.removesuffix('_gib')}_cpu_seconds_per_{unit}"] = seconds / count
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor time that both ends took so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print the figures, one a line, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    found = measure(options.rounds)
    if options.json:
        print(msgspec.json.encode(found).decode())
        return
    for name, value in found.items():
        print(f"{name:46} {value:12.4g}")


if __name__ == "__main__":
    main()
