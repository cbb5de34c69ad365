"""From what came of requests to what came of ranges."""

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Final

from stoker.core.errors import (
    DeniedError,
    NotFoundError,
    ShortReadError,
    StokerError,
    TransientError,
    UnavailableError,
    UsageError,
)
from stoker.kernels.files import STATUS_GOOD, STATUS_NOT_TRIED, STATUS_SHORT
from stoker.storage.backends.object_plan import Part
from stoker.storage.base import range_length
from stoker.storage.batch import BatchRead

_STATUSES: Final[tuple[tuple[type[StokerError], int], ...]] = (
    (ShortReadError, STATUS_SHORT),
    (NotFoundError, errno.ENOENT),
    (DeniedError, errno.EACCES),
    (TransientError, errno.EAGAIN),
    (UnavailableError, errno.EHOSTUNREACH),
    (UsageError, errno.EINVAL),
)


def status_of(error: StokerError) -> int:
    """Return the status that stands for an error."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), errno.EIO)


def tell(batch: BatchRead, parts: Sequence[Part], where: Callable[[str], str]) -> dict[int, StokerError]:
    """Fill the columns of what was done to `batch` by `parts`; return the errors by range."""
    objects = _objects(batch.keys, parts, where)
    if objects:
        batch.objects_done[:] = [(o.status, o.size_bytes, o.started_ns, o.opened_ns) for o in objects]
    fetched = _fetched(parts)
    errors: dict[int, StokerError] = {}
    rows: list[tuple[int, int, int, int, int]] = []
    for index, (number, offset_bytes, wanted_bytes, *_) in enumerate(batch.ranges.tolist()):
        owner = objects[number]
        own = fetched.get(index) or _Fetched(owner.started_ns, owner.ended_ns, owner.error)
        error = owner.changed or own.error or owner.beyond(offset_bytes, wanted_bytes)
        if error is None:
            rows.append((STATUS_GOOD, wanted_bytes, -1, own.started_ns, own.ended_ns))
        else:
            errors[index] = error
            rows.append((status_of(error), 0, -1, own.started_ns, own.ended_ns))
    if rows:
        batch.ranges_done[:] = rows
    return errors


@dataclass(slots=True)
class _Fetched:
    """What came of the requests for one range."""

    started_ns: int
    ended_ns: int
    error: StokerError | None


@dataclass(slots=True)
class _Object:
    """What the responses tell of one object. `changed`: they are of different versions."""

    where: str
    status: int = STATUS_NOT_TRIED
    size_bytes: int = -1
    started_ns: int = 0
    opened_ns: int = 0
    ended_ns: int = 0
    error: StokerError | None = None
    changed: StokerError | None = None

    def beyond(self, offset_bytes: int, wanted_bytes: int) -> StokerError | None:
        """Return the error for a range that goes beyond the object's end, None for one that does not."""
        try:
            range_length(self.size_bytes, offset_bytes, wanted_bytes, where=self.where)
        except ShortReadError as error:
            return error
        return None


def _objects(keys: Sequence[str], parts: Sequence[Part], where: Callable[[str], str]) -> list[_Object]:
    objects = [_Object(where(key)) for key in keys]
    for number, group in groupby(parts, key=attrgetter("number")):
        first, *others = group
        found = objects[number]
        found.started_ns, found.opened_ns, found.ended_ns = first.started_ns, first.opened_ns, first.ended_ns
        for part in others:
            found.started_ns = min(found.started_ns, part.started_ns)
            found.opened_ns = min(found.opened_ns or part.opened_ns, part.opened_ns or found.opened_ns)
            found.ended_ns = max(found.ended_ns, part.ended_ns)
        versions = {part.facts[1:]: None for part in (first, *others) if part.facts}
        if versions:
            found.status = STATUS_GOOD
            found.size_bytes = next(iter(versions))[0]
        else:
            found.error = first.error
            found.status = status_of(first.error) if first.error else STATUS_NOT_TRIED
        if len(versions) > 1:
            found.changed = _changed(found.where, versions)
    return objects


def _fetched(parts: Sequence[Part]) -> dict[int, _Fetched]:
    fetched: dict[int, _Fetched] = {}
    for part in parts:
        for piece in part.pieces:
            known = fetched.get(piece.row)
            if known is None:
                fetched[piece.row] = _Fetched(part.started_ns, part.ended_ns, part.error)
            else:
                known.started_ns = min(known.started_ns, part.started_ns)
                known.ended_ns = max(known.ended_ns, part.ended_ns)
                known.error = known.error or part.error
    return fetched


def _changed(where: str, versions: Iterable[tuple[int, str]]) -> StokerError:
    told = sorted(f"{size_bytes} bytes {version!r}" for size_bytes, version in versions)
    # Nothing of it was handed out yet, so reading all of it again can heal this.
    return TransientError("object changed while it was read", where=where, expected="one version", got=", ".join(told))
