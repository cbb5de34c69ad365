"""Serves mounts of one volume in a process of its own: one client and session for each mount point.

`python fuse_server.py UID URL POINT...` becomes the user UID, prints `ready` when all can be used, and ends on SIGTERM.
The bytes lie in memory: what is tested is the mount. A test must not serve a mount that it uses: a page fault in it
would wait for itself.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from stoker.fs.client.client import Client
from stoker.fs.client.options import ClientOptions
from stoker.fs.fuse.options import MountOptions
from stoker.fs.fuse.serving import Server
from stoker.fs.meta import Volume
from stoker.fs.meta.engines import sqlite
from stoker.fs.store.memory import MemorySliceStore


def complain(text: str) -> None:
    """Tell a failure: no test expects one."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def become(uid: int) -> None:
    """Be another user, once all modules are there: he may not be able to read them."""
    assert sqlite
    if uid != os.geteuid():
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)


def main() -> None:
    """Serve until told to stop."""
    uid, url, *points = sys.argv[1:]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    become(int(uid))
    volume, store = Volume.open(url), MemorySliceStore()
    holding = ClientOptions(hold_seconds=float(os.environ.get("STOKER_TEST_HOLD_SECONDS", "0")))
    clients = [Client(volume, store, holding) for _ in points]
    servers = [
        Server(
            client, Path(point), MountOptions(allow_other=uid == "0", attr_seconds=0.2, entry_seconds=0.2),
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
