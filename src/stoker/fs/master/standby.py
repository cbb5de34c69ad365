"""When a standby comes to power: what it hears of the leader, and the decision, which is a pure function.

A leader that lives says so every 100 ms when asked, and everything it appends is a sign of life too. One that is silent
for 300 ms, or whose connection breaks and is refused, is taken to be dead: that may be wrong, and does no harm but a
moment's pause, for the journal's fence and not this decision keeps two from leading.
"""

import threading
from collections.abc import Callable
from typing import Final

import msgspec

from stoker.core.clock import monotonic_ns
from stoker.core.errors import StokerError
from stoker.fs.journal.entries import Leader
from stoker.fs.master.messages import BEAT, Beat
from stoker.fs.wire import ClientOptions, Connection
from stoker.fs.wire.keys import Tls

BEAT_SECONDS: Final = 0.1
SUSPECT_NS: Final = 300_000_000
_LOOK_SECONDS: Final = 0.01


class Heard(msgspec.Struct, frozen=True):
    """What a standby has heard: who leads, when there last was a sign of life, and whether the connection broke."""

    leader: Leader | None
    seen_ns: int
    lost: bool


def should_claim(heard: Heard, own_address: str, now_ns: int) -> bool:
    """Tell whether a standby asks for power."""
    leader = heard.leader
    if leader is None or not leader.name or not leader.address:
        return True  # nobody yet; one who has given power back; a process that serves nobody
    if leader.address == own_address:
        return True  # a process that was here before this one
    return heard.lost or now_ns - heard.seen_ns > SUSPECT_NS


class Listener:
    """Keeps a connection to the leader and asks for signs of life, on a thread of its own."""

    def __init__(
        self,
        name: str,
        own_address: str,
        leader: Callable[[], tuple[Leader | None, int]],
        told: Callable[[Heard], None],
        token: str | None,
        tls: Tls | None = None,
    ) -> None:
        self._name = name
        self._own = own_address
        self._leader = leader
        self._told = told
        self._token, self._tls = token, tls
        self._connection: Connection | None = None
        self._address = ""
        self._seen_ns = monotonic_ns()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stoker-master-beat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join(timeout=5)
        self._drop()

    def _run(self) -> None:
        while not self._closing.is_set():
            leader, seen_ns = self._leader()
            lost = False
            if leader is not None and leader.address and leader.address != self._own:
                lost = not self._beat(leader.address)
            self._told(Heard(leader, max(seen_ns, self._seen_ns), lost))
            self._pause(BEAT_SECONDS)

    def _beat(self, address: str) -> bool:
        """Ask for a sign of life; tells False when nobody is there any more, so that waiting makes no sense."""
        if address != self._address:
            self._drop()
            self._address, self._seen_ns = address, monotonic_ns()
        had = self._connection is not None
        try:
            if self._connection is None or not self._connection.usable:
                self._drop()
                options = ClientOptions(connect_seconds=SUSPECT_NS / 1e9)
                self._connection = Connection(
                    address, token=self._token, tls=self._tls, role="standby", options=options
                )
            self._connection.call(BEAT, Beat(self._name), within_seconds=SUSPECT_NS / 1e9)
        except StokerError:
            reset = self._connection is None or not self._connection.usable
            self._drop()
            # Once more at once: a connection that breaks and cannot be had again is a process that ended.
            return not reset or (had and self._beat_again(address))
        self._seen_ns = monotonic_ns()
        return True

    def _beat_again(self, address: str) -> bool:
        return self._beat(address)

    def _pause(self, seconds: float) -> None:
        """Wait, but no longer than the connection lasts."""
        deadline_ns = monotonic_ns() + int(seconds * 1e9)
        while monotonic_ns() < deadline_ns and not self._closing.wait(_LOOK_SECONDS):
            if self._connection is not None and not self._connection.usable:
                return

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
