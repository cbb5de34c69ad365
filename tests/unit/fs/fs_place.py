"""A volume in memory with a clock that a test moves, and short words for what tests do with it."""

import errno as numbers
from typing import Any

import pytest

from stoker.fs.meta import MetaError, Tree, Volume, fsck
from stoker.fs.meta.calls import READ, WRITE, BeginSession, Caller, Create, Request, TakeSlices
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.slices import Slice

SECOND_NS = 1_000_000_000


class Place:
    """A volume, and short words for what tests do with it."""

    def __init__(self) -> None:
        self.now_ns = 1_800_000_000 * SECOND_NS
        self.volume = Volume.format("memory://", mode=0o777, clock=lambda: self.now_ns)

    def tree(self, uid: int = 0, gid: int | None = None, *groups: int) -> Tree:
        return Tree(self.volume, Caller(uid, uid if gid is None else gid, groups))

    def session(self, seconds: float = 60) -> int:
        return self.volume.run(BeginSession(int(seconds * SECOND_NS))).value

    def file(self, name: bytes, session: int, access: int = READ | WRITE) -> int:
        return self.volume.run(Create(ROOT, name, 0o666, access=access), session=session).ino

    def slices(self, *sizes: int) -> tuple[Slice, ...]:
        first = self.volume.run(TakeSlices(len(sizes))).value
        return tuple(Slice(first + n, 0, size) for n, size in enumerate(sizes))

    def refused(self, number: int, request: Request[Any], **named: Any) -> None:
        with pytest.raises(MetaError) as caught:
            self.volume.run(request, **named)
        assert caught.value.errno == number, (numbers.errorcode[caught.value.errno], request)

    def sound(self) -> None:
        assert fsck(self.volume.engine) == []
