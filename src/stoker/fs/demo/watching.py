"""What a cluster's page shows: how masters and disks are, and what happened to them, asked once a second."""

import threading
from collections import deque
from contextlib import suppress
from typing import Final

import msgspec

from stoker.core.clock import utc_text_of_ns, wall_ns
from stoker.core.errors import StokerError
from stoker.fs.care.messages import CareStatus
from stoker.fs.demo.cluster import LoopbackCluster
from stoker.fs.master.messages import MasterStatus
from stoker.fs.master.remote import ask_status

_EVERY_SECONDS: Final = 1.0
_EVENTS_MAX: Final = 100


class Event(msgspec.Struct, frozen=True):
    """Something that happened, and when: text of UTC."""

    time: str
    text: str


class Seen(msgspec.Struct, frozen=True):
    """How the cluster was when it was last looked at; a master that does not answer has no status."""

    masters: dict[str, MasterStatus | None] = {}
    care: CareStatus | None = None
    events: tuple[Event, ...] = ()


def changes(before: Seen, after: Seen) -> list[str]:
    """Return what happened between two looks, a sentence each."""
    told = []
    leads = {name: status.role for name, status in after.masters.items() if status is not None}
    led = {name: status.role for name, status in before.masters.items() if status is not None}
    for name in after.masters:
        if name in before.masters and (name in leads) != (name in led):
            told.append(f"master {name} " + ("answers again" if name in leads else "does not answer"))
        if leads.get(name) == "leads" and led.get(name) != "leads":
            told.append(f"master {name} leads")
    if after.care is None:
        return told
    known = {one.disk.id: one.disk for one in before.care.disks} if before.care is not None else {}
    for one in after.care.disks:
        old = known.get(one.disk.id)
        if old is None:
            told.append(f"disk {one.disk.id} of {one.disk.host} joins")
        elif old.health != one.disk.health:
            told.append(f"disk {one.disk.id} of {one.disk.host} is {one.disk.health}, it was {old.health}")
    return told


class Watcher:
    """A thread that looks until it is closed; `seen` is the newest look."""

    def __init__(self, cluster: LoopbackCluster) -> None:
        self._cluster = cluster
        self._events: deque[Event] = deque(maxlen=_EVENTS_MAX)
        self._stop = threading.Event()
        self.seen = Seen()
        self._thread = threading.Thread(target=self._run, name="stoker-demo-watcher", daemon=True)
        self._thread.start()

    def note(self, text: str) -> None:
        """Add an event."""
        self._events.appendleft(Event(utc_text_of_ns(wall_ns())[:19].replace("T", " "), text))
        self.seen = msgspec.structs.replace(self.seen, events=tuple(self._events))

    def _run(self) -> None:
        while True:
            self._look()
            if self._stop.wait(_EVERY_SECONDS):
                return

    def _look(self) -> None:
        masters: dict[str, MasterStatus | None] = dict.fromkeys(self._cluster.masters)
        for address in masters:
            with suppress(StokerError):
                masters[address] = ask_status(address, token=self._cluster.token)
        care = self.seen.care
        with suppress(StokerError):
            care = self._cluster.care()
        after = Seen(masters, care)
        for text in changes(self.seen, after):
            self.note(text)
        self.seen = msgspec.structs.replace(after, events=tuple(self._events))

    def close(self) -> None:
        """Stop looking; stopping twice is harmless."""
        self._stop.set()
        self._thread.join()
