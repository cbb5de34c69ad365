"""One trial of the KV cache: requests come, wait for a worker by their urgency, and read and write the cache.

Arrivals do not wait for answers: each user's next request comes after a time to think, however long the last one takes
(open load). One thread lets requests come; workers, one a user up to 500, serve them.
"""

import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Any, Final

import msgspec

from stoker.bench.workloads.kvcache_requests import RequestWork
from stoker.bench.workloads.kvcache_scaling import Autoscaler, Load
from stoker.core import clock
from stoker.core.kvcache import POINTS_MAX, STORAGE, KvPlan, KvPoint
from stoker.kv.account import Account
from stoker.kv.cache import KvCache
from stoker.kv.traffic.request import Request, Source

WORKERS_MAX: Final = 500
WAITING_MAX: Final = 100_000
"""Requests that may wait; more are held back at their users, and counted."""
_NAP_SECONDS: Final = 0.02
_LISTEN_SECONDS: Final = 0.1
_POINT_SECONDS: Final = 0.5

_Item = tuple[int, float, int, Request, int]


class Serving:
    """The traffic of one trial."""

    def __init__(
        self, plan: KvPlan, cache: KvCache, source: Source, account: Account, stopped: Callable[[], bool]
    ) -> None:
        self._plan, self._source, self._account, self._stopped = plan, source, account, stopped
        self._over = threading.Event()
        self._work = RequestWork(plan, cache, account, self._over)
        self._waiting: queue.PriorityQueue[_Item] = queue.PriorityQueue(WAITING_MAX)
        self._coming: list[tuple[float, int, Request, Iterator[Request]]] = []
        self._numbers = itertools.count()
        self._workers: list[threading.Thread] = []
        self._busy = 0
        self._counting = threading.Lock()
        self._streams = self._arrived = 0
        self.users = plan.users
        self.errors: list[BaseException] = []
        self.points: list[KvPoint] = []
        self._every_seconds, self._point_at = _POINT_SECONDS, 0.0
        self._scaler = Autoscaler(plan) if plan.autoscaler else None

    @property
    def scaling(self) -> list[dict[str, float]]:
        """Return what the autoscaler did, in order."""
        return self._scaler.steps if self._scaler is not None else []

    def run(self) -> float:
        """Let the trial run to its end; return the seconds it took. Raises what went wrong in a worker."""
        self._resize(self._plan.users, 0.0)
        began_ns = clock.monotonic_ns()
        try:
            while not self._ended(seconds := (clock.monotonic_ns() - began_ns) / 1e9):
                next_at = self._let_come(seconds)
                self._observe(seconds)
                clock.sleep(max(0.001, min(_NAP_SECONDS, next_at - seconds)))
        finally:
            self._over.set()
            for worker in self._workers:
                worker.join()
        seconds = (clock.monotonic_ns() - began_ns) / 1e9
        self._point(seconds)
        self._account.counted(waiting=self._waiting.qsize())
        if self.errors:
            raise self.errors[0]
        return seconds

    def _ended(self, seconds: float) -> bool:
        plan = self._plan
        if self.errors or self._stopped() or seconds >= plan.duration_seconds:
            return True
        return self._all_came() and self._waiting.empty() and not self._busy

    def _all_came(self) -> bool:
        return not self._coming or bool(self._plan.requests_max and self._arrived >= self._plan.requests_max)

    # -- arrivals ----------------------------------------------------------------------------------------------------

    def _resize(self, users: int, seconds: float) -> None:
        """Let there be so many users, and workers for them; users who are too many ask no more."""
        self.users = users
        wanted = self._source.streams(users)
        for stream in range(self._streams, wanted):
            self._next(stream, self._source.requests(stream), seconds)
        self._streams = max(self._streams, wanted)
        for _ in range(len(self._workers), min(users, WORKERS_MAX)):
            worker = threading.Thread(target=self._listen, name="stoker-kv", daemon=True)
            self._workers.append(worker)
            worker.start()

    def _next(self, stream: int, requests: Iterator[Request], joined: float) -> None:
        request = next(requests, None)
        if request is not None:
            heappush(self._coming, (request.at_seconds + joined, stream, request, _later(requests, joined)))

    def _let_come(self, seconds: float) -> float:
        """Let all come whose time it is; return when the next one comes."""
        while self._coming and self._coming[0][0] <= seconds and not self._all_came() and not self._waiting.full():
            at_seconds, stream, request, requests = heappop(self._coming)
            if stream < self._source.streams(self.users):
                arrived_ns = clock.monotonic_ns() - round((seconds - at_seconds) * 1e9)
                self._waiting.put((request.urgency, at_seconds, next(self._numbers), request, arrived_ns))
                self._arrived += 1
                self._account.counted(arrivals=1)
            following = next(requests, None)
            if following is not None:
                heappush(self._coming, (following.at_seconds, stream, following, requests))
        return self._coming[0][0] if self._coming else seconds + _NAP_SECONDS

    # -- work --------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                *_, request, arrived_ns = self._waiting.get(timeout=_LISTEN_SECONDS)
            except queue.Empty:
                continue
            self._change_busy(1)
            try:
                self._work.serve(request, arrived_ns)
            except BaseException as error:
                self.errors.append(error)
                self._over.set()
            finally:
                self._change_busy(-1)

    def _change_busy(self, change: int) -> None:
        with self._counting:
            self._busy += change

    # -- looking on --------------------------------------------------------------------------------------------------

    def _observe(self, seconds: float) -> None:
        if seconds >= self._point_at:
            self._point(seconds)
            self._point_at = seconds + self._every_seconds
        if self._scaler is not None:
            counts = self._account.counts
            load = Load(seconds, self.users, len(self._workers), self._busy, self._waiting.qsize(), counts.tokens)
            users = self._scaler.users(load)
            if users != self.users:
                self._resize(users, seconds)

    def _point(self, seconds: float) -> None:
        storage, counts = self._account.tiers[STORAGE], self._account.counts
        waiting = self._waiting.qsize()
        read, written = storage.read_bytes, storage.write_bytes + storage.demote_write_bytes
        self.points.append(KvPoint(seconds, read, written, counts.requests, waiting, self.users))
        if len(self.points) > POINTS_MAX:
            self.points = self.points[::2]
            self._every_seconds *= 2

    def told(self) -> dict[str, Any]:
        """Return how far the trial is: requests served, and bytes per second of late."""
        recent = self.points[-6:]
        seconds = recent[-1].seconds - recent[0].seconds if len(recent) > 1 else 0.0
        moved = sum(each * sign for each, sign in ((_bytes(recent[-1]), 1), (_bytes(recent[0]), -1))) if seconds else 0
        return {"requests": self._account.counts.requests, "bytes_per_second": moved / seconds if seconds else 0.0}


def _bytes(point: KvPoint) -> int:
    return point.read_bytes + point.write_bytes


def _later(requests: Iterator[Request], joined: float) -> Iterator[Request]:
    """Yield the requests of a user who came later, so much later."""
    if not joined:
        return requests
    return (msgspec.structs.replace(each, at_seconds=each.at_seconds + joined) for each in requests)
