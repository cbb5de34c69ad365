"""Several endpoints of one object store, taken in turn; one that fails is left out for a while."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from stoker.core import clock
from stoker.storage.backends.object_clients import Client

FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of the service. The `uploader` repeats single parts of an upload, the `client` nothing."""

    name: str
    client: Client
    uploader: Client


@dataclass(slots=True)
class _Health:
    requests: int = 0
    failures: int = 0
    pause_seconds: float = FIRST_PAUSE_SECONDS
    out_until_ns: int = 0


class Ring:
    """Endpoints in turn: one more request each, and the failing ones last. Safe from many threads."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = tuple(endpoints)
        self._health = {endpoint.name: _Health() for endpoint in endpoints}
        self._turns = -1
        self._lock = threading.Lock()

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Return, for each endpoint, the `requests` it was given and the `failures` among them."""
        with self._lock:
            return {name: {"requests": h.requests, "failures": h.failures} for name, h in self._health.items()}

    def turn(self) -> tuple[Endpoint, ...]:
        """Return all endpoints in the order to try them: whose turn it is first, those left out last."""
        if len(self._endpoints) == 1:
            return self._endpoints
        now_ns = clock.monotonic_ns()
        with self._lock:
            fit = [endpoint for endpoint in self._endpoints if self._out_ns(endpoint) <= now_ns]
            unfit = sorted((e for e in self._endpoints if self._out_ns(e) > now_ns), key=self._out_ns)
            self._turns += 1
            start = self._turns % len(fit) if fit else 0
            return (*fit[start:], *fit[:start], *unfit)

    def _out_ns(self, endpoint: Endpoint) -> int:
        return self._health[endpoint.name].out_until_ns

    def asked(self, endpoint: Endpoint) -> None:
        """Note that a request is sent."""
        with self._lock:
            self._health[endpoint.name].requests += 1

    def worked(self, endpoint: Endpoint) -> None:
        """Note that a request was answered: the next pause is short again."""
        health = self._health[endpoint.name]
        if health.out_until_ns == 0:
            return
        with self._lock:
            if health.out_until_ns <= clock.monotonic_ns():
                health.pause_seconds = FIRST_PAUSE_SECONDS
                health.out_until_ns = 0

    def failed(self, endpoint: Endpoint) -> None:
        """Leave `endpoint` out: 5 s after its first failure, twice as long after each further one, 60 s at most."""
        now_ns = clock.monotonic_ns()
        with self._lock:
            health = self._health[endpoint.name]
            health.failures += 1
            if now_ns < health.out_until_ns:
                return  # requests that were under way together are one failure, not many
            health.out_until_ns = now_ns + int(health.pause_seconds * 1e9)
            health.pause_seconds = min(LONGEST_PAUSE_SECONDS, 2 * health.pause_seconds)
