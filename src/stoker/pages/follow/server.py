"""Sending a store's frames to followers elsewhere: whoever has the token reads every page."""

import socket
from typing import Final

from stoker.core.clock import sleep
from stoker.pages.follow.listener import Listener
from stoker.pages.follow.messages import PROTOCOL, Head, send
from stoker.pages.follow.tail import FellBehind, RingFollower
from stoker.pages.snapshot import Snapshot
from stoker.pages.store import Store

_POLL_SECONDS: Final = 0.001
_IDLE_SECONDS: Final = 1.0


class FrameServer(Listener):
    """Serves one store's frames; each follower has a thread. Close it.

    A new follower gets all pages of a snapshot first, or only the frames behind the LSN that it has.
    """

    def __init__(self, store: Store, *, token: str, host: str = "127.0.0.1", port: int = 0) -> None:
        self._store = store
        super().__init__(token=token, host=host, port=port)

    def serve(self, connection: socket.socket, hello: Head) -> None:
        """Send pages where the client has none, then frames as they are committed."""
        known = str(hello.get("uuid", "")) == self._store.arena.geometry.uuid.hex()
        follower = self._follower(connection, int(hello.get("since", 0)) if known else 0)
        idle_seconds = 0.0
        while not self.stopping():
            chunk = follower.poll_bytes()
            if chunk:
                send(connection, {"frames": chunk[0]}, chunk[1])
                idle_seconds = 0.0
                continue
            sleep(_POLL_SECONDS)
            idle_seconds += _POLL_SECONDS
            if idle_seconds >= _IDLE_SECONDS:
                send(connection, {"alive": follower.lsn})
                idle_seconds = 0.0

    def _follower(self, connection: socket.socket, since: int) -> RingFollower:
        """Say hello and bring the client to the LSN from which frames go on."""
        geometry = self._store.arena.geometry
        hello = {"protocol": PROTOCOL, "uuid": geometry.uuid.hex(), "salt": geometry.salt}
        try:
            follower = RingFollower(self._store.arena, since if since else None)
        except FellBehind:
            since, follower = 0, RingFollower(self._store.arena)
        if since:
            send(connection, {**hello, "pages": 0, "lsn": since, "fresh": False})
            return follower
        with self._store.snapshot() as snapshot:
            # The snapshot is the newer of the two: frames up to its LSN come twice and are skipped.
            send(connection, {**hello, "pages": len(snapshot), "lsn": snapshot.lsn, "fresh": True})
            _send_pages(connection, snapshot)
        return follower


def _send_pages(connection: socket.socket, snapshot: Snapshot) -> None:
    for image in snapshot.images():
        facts = {
            "page": image.page,
            "epoch": image.epoch,
            "lsn": image.lsn,
            "state": image.state,
            "location": image.location,
            "residency": image.residency,
            "elem_width": image.elem_width,
            "flags": image.flags,
            "meta": image.meta,
        }
        send(connection, facts, image.data.data)
