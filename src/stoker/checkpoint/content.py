"""The bytes of a checkpoint's files: made at memory speed, never twice the same, and known again when read back.

A file's stream is drawn from the checkpoint's seed, its name and the file's (which names the rank), so that no two
files, ranks or checkpoints share a page: storage can neither compress nor deduplicate them. Whoever knows the seed
makes any part of any file anew and so verifies what was read without anything having been kept.
"""

from typing import Final

import numpy as np

from stoker.core.errors import CorruptError
from stoker.core.seed import derive
from stoker.kernels.filling import PAGE_WORDS, PageStream, fill_pages, page_tile, pool_keys

CONTENT_VERSION: Final = 1
"""Changes whenever the same seed would give other bytes."""


class ShardContent:
    """The stream of one file."""

    def __init__(self, seed: int, checkpoint: str, file: str) -> None:
        base = derive(seed, "checkpoint", CONTENT_VERSION, checkpoint, file)
        tile = page_tile(derive(seed, "tile"), PAGE_WORDS)
        self._stream = PageStream(tile, PAGE_WORDS, pool_keys(base), base, 0.0, 0.0)

    def fill(self, into: memoryview, offset_bytes: int) -> None:
        """Fill `into` with the stream's bytes from `offset_bytes` on."""
        fill_pages(into, self._stream, offset_bytes=offset_bytes)

    def require(self, got: memoryview, offset_bytes: int, scratch: memoryview, *, where: str) -> None:
        """Raise CorruptError, naming the first byte that differs, unless `got` is the stream from `offset_bytes` on.

        `scratch` is at least as long, and is overwritten.
        """
        wanted = scratch[: got.nbytes]
        self.fill(wanted, offset_bytes)
        mine, theirs = np.frombuffer(wanted, np.uint8), np.frombuffer(got, np.uint8)
        whole = got.nbytes // 8 * 8
        same = np.array_equal(mine[:whole].view(np.uint64), theirs[:whole].view(np.uint64))
        if same and np.array_equal(mine[whole:], theirs[whole:]):
            return
        first = int(np.argmax(mine != theirs))
        raise CorruptError(
            "checkpoint is not what was written",
            where=where,
            expected=f"0x{int(mine[first]):02x} at byte {offset_bytes + first}",
            got=f"0x{int(theirs[first]):02x}, {int((mine != theirs).sum())} of {got.nbytes} bytes differ",
            remedy="do not use this target: it gave back other bytes than it was given",
        )
