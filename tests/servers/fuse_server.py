"""Serves mounts of one volume in a process of its own: one client and session for each mount point.

`python fuse_server.py URL POINT...` prints `ready` when all can be used, and ends on SIGTERM. The bytes lie in memory:
what is tested is the mount. A test must not serve a mount that it uses: a page fault in it would wait for itself.
"""

import signal
import sys
import threading
from pathlib import Path

from stoker.fs.client.client import Client
from stoker.fs.fuse.options import MountOptions
from stoker.fs.fuse.serving import Server
from stoker.fs.meta import Volume
from stoker.fs.store.memory import MemorySliceStore


def complain(text: str) -> None:
    """Tell a failure: no test expects one."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main() -> None:
    """Serve until told to stop."""
    url, *points = sys.argv[1:]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    volume, store = Volume.open(url), MemorySliceStore()
    clients = [Client(volume, store) for _ in points]
    servers = [
        Server(
            client, Path(point), MountOptions(allow_other=True, attr_seconds=0.2, entry_seconds=0.2),
            source=url, free_bytes=lambda: 1 << 40, complain=complain,
        )
        for client, point in zip(clients, points, strict=True)
    ]  # fmt: skip
    for server in servers:
        server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not stop.is_set() and not all(server.is_over for server in servers):
        stop.wait(0.05)
    for server, client in zip(servers, clients, strict=True):
        server.stop()
        client.close()
    volume.close()


if __name__ == "__main__":
    main()
