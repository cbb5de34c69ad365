"""What is asked of holders, so that one behind a connection can be asked without a thread that waits for it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from stoker.fs.chunk.target import Target
from stoker.fs.disk.interface import Bytes, Outcome, ShardHeader, ShardHolder, ShardId, Wanted
from stoker.fs.wire import Begun


class Work(ABC):
    """Something to be done with a holder, by waiting for it or not."""

    @abstractmethod
    def __call__(self, holder: ShardHolder) -> Any:
        """Do it, and wait."""

    @abstractmethod
    def begin(self, target: Target) -> Begun[Any] | None:
        """Begin it without waiting for anything; None where that cannot be."""


class Putting(Work):
    """Stores a shard."""

    def __init__(self, header: ShardHeader, parts: Sequence[Bytes], *, durable: bool) -> None:
        self._header, self._parts, self._durable = header, parts, durable

    def __call__(self, holder: ShardHolder) -> None:
        """See Work."""
        holder.put(self._header, self._parts, durable=self._durable)

    def begin(self, target: Target) -> Begun[None] | None:
        """See Work."""
        return target.begin_put(self._header, self._parts, durable=self._durable)


class Getting(Work):
    """Reads ranges of shards."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self._wanted = wanted

    def __call__(self, holder: ShardHolder) -> list[Outcome]:
        """See Work."""
        return holder.get_many(self._wanted)

    def begin(self, target: Target) -> Begun[list[Outcome]] | None:
        """See Work."""
        return target.begin_get_many(self._wanted)


class Syncing(Work):
    """Makes shards durable."""

    def __init__(self, shards: Sequence[ShardId]) -> None:
        self._shards = shards

    def __call__(self, holder: ShardHolder) -> None:
        """See Work."""
        holder.sync(self._shards)

    def begin(self, target: Target) -> Begun[None] | None:
        """See Work."""
        return target.begin_sync(self._shards)
