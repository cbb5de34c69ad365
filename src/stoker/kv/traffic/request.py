"""A request to an inference server, as the cache sees it."""

from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

PREFILL: Final = "prefill"
BOTH: Final = "both"
QOS: Final = ("interactive", "responsive", "batch")
QOS_LIMITS_SECONDS: Final = {
    "interactive": {"p95": 0.05, "p99": 0.1, "p99.9": 0.15, "p99.99": 0.2},
    "responsive": {"p95": 0.1, "p99": 0.2, "p99.9": 0.35, "p99.99": 0.5},
    "batch": {"p95": 1.0, "p99": 5.0, "p99.9": 7.5, "p99.99": 10.0},
}
"""How long requests of a class may take."""


class Request(msgspec.Struct, frozen=True):
    """One request.

    at_seconds      when it comes, counted from the start of the traffic
    number          of its user, from 0
    key, earlier    the entry it will write, and those of its conversation's turns before
    context, generated  tokens
    phase           prefill: the entry is written and not read; both: it is read for the generation, too
    prefix, prefix_tokens   a prompt shared with others that the context begins with; empty: none
    chunks          entries of documents that are read beside
    pages           ids of the pages of its tokens, of the layout of pages
    """

    user: int
    number: int
    at_seconds: float
    qos: str
    key: str
    context: int
    generated: int
    phase: str = BOTH
    earlier: tuple[str, ...] = ()
    prefix: str = ""
    prefix_tokens: int = 0
    chunks: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()

    @property
    def urgency(self) -> int:
        """Return which requests go before it: those of a smaller number."""
        return QOS.index(self.qos)


class Source(Protocol):
    """Where requests come from: each user's in order, whoever asks and however fast."""

    def streams(self, users: int) -> int:
        """Return how many streams of requests so many users make."""

    def requests(self, stream: int) -> Iterator[Request]:
        """Yield the requests of one stream, in the order of their times; the same ones each time."""
