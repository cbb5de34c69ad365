"""A consistent look at all pages: everything up to one LSN, nothing after it, for as long as it is open."""

import os
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from stoker.pages.arena.arena import Arena
from stoker.pages.columns import NO_META, PageColumns
from stoker.pages.errors import PageNotFound, PagesError, quarantined
from stoker.pages.frames import PageState
from stoker.pages.images import PageImage

_FACTS: Final = ("id", "epoch", "lsn", "size", "state", "location", "residency", "elem_width", "flags")
_COLUMNS: Final = (
    "id",
    "epoch",
    "lsn",
    "offset",
    "size",
    "state",
    "location",
    "residency",
    "elem_width",
    "flags",
    "meta_offset",
    "meta_bytes",
)


class Snapshot:
    """Pages as they were at `lsn`. Close it: what it holds cannot be freed. It reads no lock and copies nothing.

    Opening copies the page table (128 bytes a page) under the store's lock.
    """

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._line, self.lsn, self._records = self._arena.pin()
        self._found: dict[int, int] | None = None
        self._private: NDArray[np.uint8] | None = None
        self._kept: dict[int, Any] = {}
        self._closer = weakref.finalize(self, _unpin, self._arena, self._line, os.getpid())

    def __enter__(self) -> Self:
        """Use it as a context."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let go of the versions; views of them must not be used any more. Twice is no error."""
        self._kept.clear()
        self._private = None
        self._closer()

    def __len__(self) -> int:
        """How many pages there are."""
        return len(self._records)

    def __contains__(self, page: int) -> bool:
        """Tell whether the page was there."""
        return page in self._slots()

    def _slots(self) -> dict[int, int]:
        """Return which record is of which page; made when it is first asked for."""
        if self._found is None:
            self._found = {page: index for index, page in enumerate(self._records["id"].tolist())}
        return self._found

    def quarantined(self) -> list[int]:
        """Return the ids of pages in quarantine, in order."""
        found: list[int] = np.sort(self._records["id"][self._records["state"] == PageState.QUARANTINED]).tolist()
        return found

    def pages(self) -> list[int]:
        """Return the ids, in order."""
        found: list[int] = np.sort(self._records["id"]).tolist()
        return found

    def view(self, page: int) -> NDArray[np.uint8]:
        """Return a page's bytes without a copy, read-only. Raises PageNotFound, Quarantined; PagesError once closed."""
        row = self._sound_row(page)
        found = self._arena.view(int(row["offset"]), int(row["size"]))
        found.flags.writeable = False
        return found

    def private_view(self, page: int) -> NDArray[np.uint8]:
        """Return a page's bytes without a copy, in memory that may be written: what is written stays in this process.

        For consumers that know no read-only memory, torch above all. Raises as `view`.
        """
        row = self._sound_row(page)
        if self._private is None:
            self._private = self._arena.mapping.private()
        start = int(row["offset"])
        return self._private[start : start + int(row["size"])]

    def kept(self, page: int, make: Callable[[], Any]) -> Any:
        """Return what `make` gave for the page the first time; forgotten when the snapshot closes.

        Raises PageNotFound; PagesError once it is closed.
        """
        self._sound_row(page)
        if page not in self._kept:
            self._kept[page] = make()
        return self._kept[page]

    def image(self, page: int) -> PageImage:
        """Return all about a page; its data as `view`. Raises PageNotFound; PagesError once it is closed."""
        row = self._row(page)
        meta = bytes(self._arena.view(int(row["meta_offset"]), int(row["meta_bytes"])))
        return PageImage(
            page=page,
            epoch=int(row["epoch"]),
            lsn=int(row["lsn"]),
            data=self.view(page),
            state=int(row["state"]),
            location=int(row["location"]),
            residency=int(row["residency"]),
            elem_width=int(row["elem_width"]),
            flags=int(row["flags"]),
            meta=meta or NO_META,
        )

    def images(self) -> Iterator[PageImage]:
        """Yield all pages, in the order of their ids; their data as `view`. Raises PagesError once it is closed."""
        self._check()
        records = self._records[np.argsort(self._records["id"])]
        columns = [records[name].tolist() for name in _COLUMNS]
        whole = self._arena.whole_view()
        for page, epoch, lsn, offset, size, state, location, residency, width, flags, at, length in zip(
            *columns, strict=True
        ):
            data = whole[offset : offset + size]
            meta = whole[at : at + length].tobytes() if length else NO_META
            yield PageImage(page, epoch, lsn, data, state, location, residency, width, flags, meta)

    def columns(self) -> PageColumns:
        """Return all pages in columns, in the order of their ids; their data as `view`, all in one memory.

        Raises PagesError once it is closed.
        """
        self._check()
        records = self._records[np.argsort(self._records["id"])]
        whole = self._arena.whole_view()
        places = np.zeros((len(records), 2), np.int64)
        places[:, 1] = len(NO_META)
        metas, at = [NO_META], len(NO_META)
        for row in np.flatnonzero(records["meta_bytes"]).tolist():
            start, size = int(records["meta_offset"][row]), int(records["meta_bytes"][row])
            metas.append(whole[start : start + size].tobytes())
            places[row] = at, len(metas[-1])
            at += len(metas[-1])
        return PageColumns(
            facts=np.stack([records[name].astype(np.uint64) for name in _FACTS], axis=1),
            starts=records["offset"].astype(np.int64),
            memory=whole,
            meta_places=places,
            metas=b"".join(metas),
        )

    def _row(self, page: int) -> np.void:
        self._check()
        index = self._slots().get(page)
        if index is None:
            raise PageNotFound("snapshot has no page of this id", got=str(page))
        row: np.void = self._records[index]
        return row

    def _sound_row(self, page: int) -> np.void:
        row = self._row(page)
        if row["state"] == PageState.QUARANTINED:
            raise quarantined(page)
        return row

    def _check(self) -> None:
        if not self._closer.alive:
            raise PagesError("snapshot is closed")


def _unpin(arena: Arena, line: int, owner: int) -> None:
    """A forked child holds a copy of the object, not of the pin."""
    if os.getpid() == owner:
        arena.unpin(line)
