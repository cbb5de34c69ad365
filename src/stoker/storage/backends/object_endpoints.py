"""Several endpoints of one object store, taken in turn; one that fails is left out for a while."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from stoker.core import clock
from stoker.core.errors import UsageError
from stoker.storage.backends.object_clients import Client, Request

FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 60.0
ENDPOINTS_MAX: Final = 64
VARIABLE: Final = "STOKER_S3_ENDPOINTS"
"""Addresses of an S3 service, with commas between, where the URL names none: they go before AWS_ENDPOINT_URL."""
_PART_RETRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of the service. The `uploader` repeats single parts of an upload, the `client` nothing."""

    name: str
    client: Client
    uploader: Client


def connected(request: Request, connect: Callable[[Request], Client]) -> list[Endpoint]:
    """Return the endpoints that `?endpoint=` names, or those of the environment.

    Raises UsageError for what is no address, DeniedError without credentials.
    """
    given, name = request.settings["endpoint"], "?endpoint="
    if given is None and request.parsed.scheme == "s3":
        given, name = request.first(VARIABLE) or None, VARIABLE
    addresses = [""] if given is None else addresses_of(given, name)
    return [
        Endpoint(
            address or "default",
            connect(replace(request, endpoint=address)),
            # An upload in parts reads its data once, so nobody above can repeat it: its client repeats single parts.
            connect(replace(request, endpoint=address, retries=_PART_RETRIES)),
        )
        for address in addresses
    ]


def addresses_of(text: str, name: str) -> list[str]:
    """Return the addresses of a list with commas between; `name` is where it was found.

    Raises UsageError for what is no address, one that comes twice, and too many.
    """
    addresses = [address.strip().rstrip("/") for address in text.split(",")]
    for address in addresses:
        _check_address(address, name)
    if len(set(addresses)) != len(addresses) or len(addresses) > ENDPOINTS_MAX:
        raise UsageError(f"{name} names an address twice, or too many", expected=f"at most {ENDPOINTS_MAX}")
    return addresses


def _check_address(address: str, name: str) -> None:
    """Raise UsageError, without repeating the address, unless it is a plain URL of HTTP."""
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or "@" in address or "?" in address or "#" in address:
        raise UsageError(
            f"{name} does not hold addresses",
            expected="http://host:port or https://host, several with commas between, and nothing secret in them",
        )


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
        self.size = len(self._endpoints)
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

    def asked(self, endpoint: Endpoint, number: int = 1) -> None:
        """Note that requests are sent."""
        with self._lock:
            self._health[endpoint.name].requests += number

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
