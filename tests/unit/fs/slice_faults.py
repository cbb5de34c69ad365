"""A store of slices that fails as told, over a real one."""

import threading
from collections.abc import Callable, Iterator, Sequence

from stoker.core.errors import StokerError
from stoker.fs.meta.slices import Slice
from stoker.fs.store import SliceRange
from stoker.fs.store.interface import Bytes
from stoker.fs.store.memory import MemorySliceStore


class FaultyStore:
    """`fault` is asked before each call with its verb: an error that it returns is raised."""

    def __init__(self, inner: MemorySliceStore, fault: Callable[[str], StokerError | None] = lambda verb: None) -> None:
        self.inner = inner
        self.fault = fault
        self.calls: dict[str, int] = {}
        self.short = False
        self.gate: threading.Event | None = None

    def _meet(self, verb: str) -> None:
        self.calls[verb] = self.calls.get(verb, 0) + 1
        if self.gate is not None:
            assert self.gate.wait(30)
        error = self.fault(verb)
        if error is not None:
            raise error

    def write(self, data: Slice, parts: Sequence[Bytes], *, durable: bool) -> None:
        self._meet("write")
        self.inner.write(data, parts, durable=durable)

    def make_durable(self, slices: Sequence[Slice]) -> None:
        self._meet("make_durable")
        self.inner.make_durable(slices)

    def read(self, ranges: Sequence[SliceRange]) -> list[Bytes]:
        self._meet("read")
        parts = self.inner.read(ranges)
        return [part[:-1] for part in parts] if self.short else parts

    def remove(self, slices: Sequence[Slice]) -> None:
        self._meet("remove")
        self.inner.remove(slices)

    def inventory(self) -> Iterator[Slice]:
        self._meet("inventory")
        return self.inner.inventory()

    def close(self) -> None:
        self.inner.close()
