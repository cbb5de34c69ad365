"""Care in every master: takes what disks and clients say, and tends the cluster while its master leads."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

from stoker.core.clock import wall_ns
from stoker.core.errors import StokerError, UnavailableError, UsageError
from stoker.fs.care.membership import Sign, check_beat
from stoker.fs.care.messages import (
    CARE_OF,
    NOTE_SHORT,
    ORDER,
    SLICES_AT_ONCE_MAX,
    CareOf,
    CareStatus,
    DiskReport,
    NoteShort,
    Order,
)
from stoker.fs.care.opening import OpenedCluster, open_cluster
from stoker.fs.care.tending import CareOptions, Collect, Tending
from stoker.fs.chunk.operations import HEARTBEAT, Heartbeat, Noted
from stoker.fs.cluster import ThreadLanes
from stoker.fs.master.daemon import Master, MasterOptions
from stoker.fs.master.messages import NotLeadingError
from stoker.fs.master.within import OwnMetadata
from stoker.fs.meta.service import Metadata
from stoker.fs.place import ClusterMap, Disk, Mapping
from stoker.fs.wire.operations import Asker, Handlers

STEP_SECONDS: Final = 0.25
IN_TOUCH_SECONDS: Final = 4.0
"""A master that knows less of the others for longer tells no disk that it is there: less than disks wait to be told."""
_LANES: Final = 24
_INBOX_MAX: Final = 65_536
_STRANGERS_TOLD: Final = 20
Answered = tuple[Any, tuple[()]]


class Care:
    """The care that goes with one master. Its handlers may be served before it starts; until then they refuse."""

    def __init__(self, options: CareOptions | None = None, collect: Collect | None = None) -> None:
        self._options = options or CareOptions()
        self._collect = collect
        self._lock = threading.Lock()
        self._inbox: deque[Heartbeat] = deque(maxlen=_INBOX_MAX)
        self._opening: Callable[[], Tending] = _never
        self._tending: Tending | None = None
        self._store: OpenedCluster | None = None
        self._volume = ""
        self._in_touch: Callable[[], bool] = lambda: True
        self._not_leading: Callable[[], StokerError] = _starting
        self._lanes = ThreadLanes(_LANES)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="stoker-care")

    def handlers(self) -> Handlers:
        """Return what is served beside the master's own operations."""
        return {HEARTBEAT: self._heartbeat, NOTE_SHORT: self._note_short, CARE_OF: self._care_of, ORDER: self._order}

    def start(
        self,
        metadata: Metadata,
        leading: Callable[[], bool],
        *,
        in_touch: Callable[[], bool] = lambda: True,
        not_leading: Callable[[], StokerError] | None = None,
        token: str | None = None,
        tls: Any = None,
    ) -> None:
        """Begin to care for the volume of `metadata` while `leading`.

        `in_touch` tells whether this master knows what the others know: only then may it tell a disk that masters
        are there. `not_leading` makes the error that sends who asks to the leader.
        """
        self._in_touch = in_touch
        self._not_leading = not_leading or _starting
        self._opening = lambda: self._open(metadata, leading, token, tls)
        self._thread.start()

    def _open(self, metadata: Metadata, leading: Callable[[], bool], token: str | None, tls: Any) -> Tending:
        """Raises StokerError while the metadata cannot tell what the volume is."""
        volume = metadata.settings.uuid
        store = self._store = open_cluster(metadata, token=token, tls=tls)
        self._volume = volume
        return Tending(
            metadata, store, store.maps, self._lanes, leading, self._options, wall_ns=wall_ns, collect=self._collect
        )

    def _run(self) -> None:
        while not self._closing.wait(STEP_SECONDS):
            try:
                self._step()
            except StokerError:
                continue  # it starts: it is tried again until the metadata answer

    def _step(self) -> None:
        tending = self._tending
        if tending is None:
            tending = self._opening()
        with self._lock:
            self._tending = tending
            while self._inbox:
                with suppress(UsageError):  # a disk too many; those that are known stay heard
                    tending.heard(self._inbox.popleft())
            tending.step()

    # -- what is told and asked

    def _heartbeat(self, beat: Heartbeat, _payload: memoryview, _asker: Asker) -> Answered:
        if not self._in_touch():
            raise UnavailableError("this master does not know what the others do", remedy="ask another")
        if self._tending is None:
            raise _starting()
        check_beat(beat, self._volume)
        self._inbox.append(beat)  # nobody who lives waits for what is being done
        return Noted(), ()

    def _note_short(self, told: NoteShort, _payload: memoryview, _asker: Asker) -> Answered:
        if len(told.slices) > SLICES_AT_ONCE_MAX:
            raise UsageError("too many slices are noted at once", expected=f"{SLICES_AT_ONCE_MAX} at most")
        with self._lock:
            self._leading().noted(told.slices)
        return Noted(), ()

    def _leading(self) -> Tending:
        tending = self._tending
        if tending is None or not tending.leads:
            raise self._not_leading()
        return tending

    def _order(self, order: Order, _payload: memoryview, _asker: Asker) -> Answered:
        with self._lock:
            tending = self._leading()
            if order.what == "examine":
                tending.repairs.examine_soon()
            else:
                tending.pause(pause=order.what == "pause")
        return Noted(), ()

    def _care_of(self, _request: CareOf, _payload: memoryview, _asker: Asker) -> Answered:
        with self._lock:
            tending = self._leading()
            assert self._store is not None
            return status_of(tending, self._store.maps.known), ()

    def close(self) -> None:
        """End the care; repairs that run are finished first. Twice is harmless."""
        self._closing.set()
        if self._thread.is_alive():
            with self._lock:
                if self._tending is not None:
                    self._tending.repairs.stop()
            self._thread.join()
        self._lanes.close()
        if self._store is not None:
            self._store.close()


def _never() -> Tending:
    raise _starting()


def _starting() -> StokerError:
    return NotLeadingError("this master starts", remedy="ask another")


def status_of(tending: Tending, cluster: ClusterMap | None) -> CareStatus:
    """Return how a cluster is."""
    members = tending.members
    disks = cluster.disks if cluster is not None else ()
    pools = cluster.pools if cluster is not None else ()
    known = {disk.uuid for disk in disks}
    now_ns = members.time_ns
    degraded = [f"{why}" for pool in pools if cluster is not None and (why := Mapping(cluster, pool).degraded)]
    trouble = [f"{what}: {why}" for what, why in {**members.trouble, **tending.trouble}.items()]
    strangers = [
        f"{sign.beat.status.disk} at {sign.beat.address}" for name, sign in members.signs.items() if name not in known
    ]
    return CareStatus(
        cluster.epoch if cluster is not None else 0,
        tuple(DiskReport(disk) if (sign := members.signs.get(disk.uuid)) is None else _reported(disk, sign, now_ns)
              for disk in disks),
        tending.repairs.status(pools),
        tuple(degraded),
        tuple(trouble),
        tuple(sorted(strangers)[:_STRANGERS_TOLD]),
    )  # fmt: skip


def _reported(disk: Disk, sign: Sign, now_ns: int) -> DiskReport:
    status = sign.beat.status
    return DiskReport(
        disk, (now_ns - sign.seen_ns) / 1e9, status.capacity_bytes, status.free_bytes, status.used_bytes,
        status.shards, status.bad_shards, status.errors, status.read_only, status.scrub,
    )  # fmt: skip


@contextmanager
def serve_master(
    options: MasterOptions, care_options: CareOptions, collect: Collect | None = None
) -> Iterator[Master]:  # fmt: skip
    """Run a master that cares for its cluster while it leads, until the block ends; `collect` collects garbage."""
    care = Care(care_options, collect)
    with ExitStack() as held:
        held.callback(care.close)
        running = held.enter_context(Master(options, further=care.handlers()))
        held.callback(care.close)  # before the master that it asks
        care.start(
            OwnMetadata(running),
            lambda: running.leads,
            in_touch=lambda: running.in_touch(IN_TOUCH_SECONDS),
            not_leading=running.core.not_leading,
            token=options.token,
            tls=options.tls.for_client() if options.tls is not None else None,
        )
        yield running
