"""Pages on their way into a checkpoint, in columns: a number of pages costs little more than their bytes."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.pages.images import PageImage

FACTS: Final = ("page", "epoch", "lsn", "size_bytes", "state", "location", "residency", "elem_width", "flags")
"""The columns of `PageColumns.facts`: fields of a page of the same names."""
SIZE: Final = FACTS.index("size_bytes")
NO_META: Final = b"\x80"


class PageColumns(msgspec.Struct, frozen=True, kw_only=True):
    """Pages, a row each.

    facts         uint64 of shape (n, 9): see FACTS
    starts        int64 of shape (n,): where the bytes of a page begin in `memory`
    memory        uint8; it must not change meanwhile
    meta_places   int64 of shape (n, 2): where the metadata of a page begin in `metas`, and their bytes
    metas         metadata, one behind the other
    """

    facts: NDArray[np.uint64]
    starts: NDArray[np.int64]
    memory: NDArray[np.uint8]
    meta_places: NDArray[np.int64]
    metas: bytes

    @classmethod
    def of(cls, images: Sequence[PageImage]) -> "PageColumns":
        """Return the columns of pages that lie here and there: a copy of their bytes."""
        facts = [[getattr(image, name) for name in FACTS] for image in images]
        sizes = [image.size_bytes for image in images]
        metas = [image.meta for image in images]
        lengths = [len(meta) for meta in metas]
        return cls(
            facts=np.array(facts, np.uint64).reshape(-1, len(FACTS)),
            starts=starts_of(sizes),
            memory=np.concatenate([image.data for image in images]) if len(images) != 1 else images[0].data,
            meta_places=np.stack([starts_of(lengths), np.array(lengths, np.int64)], axis=1),
            metas=b"".join(metas),
        )

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each page."""
        return self.facts[:, SIZE].astype(np.int64)

    def __len__(self) -> int:
        """How many pages there are."""
        return len(self.facts)

    def rows(self, wanted: slice | NDArray[np.bool_]) -> "PageColumns":
        """Return some of the pages."""
        return msgspec.structs.replace(
            self, facts=self.facts[wanted], starts=self.starts[wanted], meta_places=self.meta_places[wanted]
        )

    def data(self, row: int) -> NDArray[np.uint8]:
        """Return the bytes of a page."""
        start = int(self.starts[row])
        return self.memory[start : start + int(self.facts[row, SIZE])]


def starts_of(sizes: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where parts of these sizes begin that lie one behind the other."""
    return np.cumsum(np.asarray(sizes, np.int64)) - np.asarray(sizes, np.int64)


def groups_of(sizes: NDArray[np.int64], group_bytes: int) -> Iterator[slice]:
    """Cut rows into groups of at most so many bytes; a larger row is a group by itself."""
    ends = np.cumsum(sizes)
    row = 0
    while row < len(sizes):
        before = int(ends[row] - sizes[row])
        after = max(row + 1, int(np.searchsorted(ends, before + group_bytes, "right")))
        yield slice(row, after)
        row = after


def columns_of(images: "Iterable[PageImage] | PageColumns", group_bytes: int) -> Iterator[PageColumns]:
    """Yield pages in columns: single ones some at a time, so that no more than a few groups of them are copied."""
    if isinstance(images, PageColumns):
        yield images
        return
    group: list[PageImage] = []
    waiting_bytes = 0
    for image in images:
        if group and waiting_bytes + image.size_bytes > group_bytes:
            yield PageColumns.of(group)
            group, waiting_bytes = [], 0
        group.append(image)
        waiting_bytes += image.size_bytes
    if group:
        yield PageColumns.of(group)
