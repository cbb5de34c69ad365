"""What is needed of etcd, as values and one Protocol: read, a checked transaction, watch, compact, status.

Revisions are etcd's own: one counter for the whole store; a key knows the revision that made it and that which changed
it last, 0 where it is not there.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final, Protocol

import msgspec

from stoker.core.errors import StoreError, TransientError
from stoker.fs.meta.kv import prefix_end

TRY_SECONDS: Final = 0.3
"""How long one try of a request may take. A request in flight to a leader that died is never answered."""

REQUEST_BYTES_MAX: Final = 1_500_000
"""What a request may hold; etcd refuses more than 1.5 MiB unless told otherwise."""


class KeyValue(msgspec.Struct, frozen=True):
    """A key with the revisions that made it and that changed it last."""

    key: bytes
    value: bytes
    created: int
    modified: int


class Compare(msgspec.Struct, frozen=True):
    """A condition: the key was changed last at `modified` or made at `created`; 0 is a key that is not there."""

    key: bytes
    modified: int | None = None
    created: int | None = None


class Put(msgspec.Struct, frozen=True):
    """Write a key."""

    key: bytes
    value: bytes


class Delete(msgspec.Struct, frozen=True):
    """Delete a key, or with an `end` the range up to it."""

    key: bytes
    end: bytes = b""


class Get(msgspec.Struct, frozen=True):
    """Read a key, or with an `end` the range up to it in order, at most `limit` keys unless that is 0."""

    key: bytes
    end: bytes = b""
    limit: int = 0


class Txn(msgspec.Struct, frozen=True):
    """Do `then` where all compares hold, else `otherwise`; all or nothing."""

    compares: tuple[Compare, ...] = ()
    then: tuple[Put | Delete | Get, ...] = ()
    otherwise: tuple[Put | Delete | Get, ...] = ()


class Compact(msgspec.Struct, frozen=True):
    """Forget what keys held before `revision`."""

    revision: int


Request = Get | Txn | Compact


class Outcome(msgspec.Struct, frozen=True):
    """What came of a request: the store's revision, whether the compares held, and what each Get found.

    `more` tells that the first Get's limit left some.
    """

    revision: int
    succeeded: bool = True
    found: tuple[tuple[KeyValue, ...], ...] = ()
    more: bool = False


class Seen(msgspec.Struct, frozen=True):
    """What a watch saw: keys written and keys deleted up to `revision`.

    `compacted`, unless 0, tells that what came before that revision is forgotten: read anew and watch from there.
    """

    revision: int
    puts: tuple[KeyValue, ...] = ()
    deleted: tuple[bytes, ...] = ()
    compacted: int = 0


class MemberStatus(msgspec.Struct, frozen=True):
    """One server of the store."""

    address: str
    answers: bool
    version: str = ""
    size_bytes: int = 0
    leads: bool = False
    raft_term: int = 0


class UnknownOutcomeError(TransientError):
    """No answer came: whether a request was done is not known."""


class CompactedError(StoreError):
    """The revision that was asked for is forgotten."""


class Watch(Protocol):
    """What changes in a range, in order and without gaps, unless told."""

    def next(self, timeout_seconds: float) -> Seen | None:
        """Return what came next, None when nothing came in time. Raises UnknownOutcomeError: watch anew."""

    def close(self) -> None:
        """End it; ending twice is harmless."""


class Etcd(Protocol):
    """A store on which a majority agrees. Every method may be called from many threads at once."""

    def begin(self, request: Request) -> "Future[Outcome]":
        """Send a request; it is tried once. The future raises UnknownOutcomeError when no answer came in time.

        It raises CompactedError, NoSpaceError, DeniedError or UsageError where the store refuses.
        """

    def watch(self, start: bytes, end: bytes, after: int) -> Watch:
        """Watch the range [start, end) for what changed behind revision `after`."""

    def members(self) -> list[MemberStatus]:
        """Return what each server says of itself."""

    def close(self) -> None:
        """Give everything back; closing twice is harmless."""


def under(prefix: bytes, limit: int = 0) -> Get:
    """Return the request that reads all keys that begin with `prefix`."""
    return Get(prefix, prefix_end(prefix), limit)


def ask(etcd: Etcd, request: Request, tries: int = 20) -> Outcome:
    """Send a request again until it is answered. Only for what may be done twice: reads, and what is the same again.

    Raises what the store says, and UnknownOutcomeError when the tries are spent.
    """
    for _ in range(tries - 1):
        try:
            return etcd.begin(request).result()
        except UnknownOutcomeError:
            continue
    return etcd.begin(request).result()


def first(found: Sequence[KeyValue]) -> KeyValue | None:
    """Return the one pair that a Get of one key found, None when there is none."""
    return found[0] if found else None
