"""Shards from shards: parity of data, and what is lost of what is left, into memory that the caller gives."""

from collections.abc import Mapping, Sequence

import numpy as np

from stoker.core.errors import UsageError
from stoker.fs.code.backends import Backend, Memory, backend
from stoker.fs.code.field import code_rows, rebuilding_rows

Bytes = bytes | bytearray | memoryview


class Codec:
    """The code of k data shards and m parity shards. Safe from many threads."""

    def __init__(self, k: int, m: int, by: Backend | None = None) -> None:
        self.k = k
        self.m = m
        self._by = by or backend()
        self._parity = code_rows(k, m)[k:]

    def encode(self, data: Sequence[Bytes], parity: Sequence[Bytes]) -> None:
        """Compute the parity of k data shards, all of one length, into m writable buffers of that length.

        Raises UsageError for buffers that do not fit.
        """
        sources, targets = _memories(data), _memories(parity, writable=True)
        if len(sources) != self.k or len(targets) != self.m:
            got = f"{len(sources)} and {len(targets)}"
            raise UsageError("shards are not those of the code", expected=f"{self.k} and {self.m}", got=got)
        self._multiply(self._parity, sources, targets)

    def rebuild(self, have: Mapping[int, Bytes], lost: Mapping[int, Bytes]) -> None:
        """Compute the shards `lost`, by index, into writable buffers, of any k or more shards that are there.

        Raises UsageError for fewer than k, or buffers that do not fit.
        """
        sources = tuple(sorted(have))[: self.k]
        rows = rebuilding_rows(self.k, self.m, sources, tuple(lost))
        inputs = _memories([have[index] for index in sources])
        self._multiply(rows, inputs, _memories(list(lost.values()), writable=True))

    def _multiply(self, rows: tuple[bytes, ...], sources: Sequence[Memory], targets: Sequence[Memory]) -> None:
        if len({len(buffer) for buffer in (*sources, *targets)}) > 1:
            lengths = sorted({len(buffer) for buffer in (*sources, *targets)})
            raise UsageError("shards differ in length", expected="one length", got=f"{lengths} bytes")
        if targets and len(sources[0]):
            self._by.multiply(rows, sources, targets)


def _memories(buffers: Sequence[Bytes], *, writable: bool = False) -> list[Memory]:
    found = [np.frombuffer(buffer, np.uint8) if len(buffer) else np.empty(0, np.uint8) for buffer in buffers]
    if writable and not all(memory.flags.writeable for memory in found):
        raise UsageError("memory for shards is read-only", expected="writable buffers")
    return found
