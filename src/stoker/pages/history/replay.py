"""Time travel: frames applied to a state, up to a moment told by LSN, epoch, time or mark."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.clock import utc_text_of_ns
from stoker.core.errors import UsageError
from stoker.kernels.replaying import KINDS, LSN, PAGE, TIME_NS, Rows, replay_frames
from stoker.pages.errors import PageNotFound, PagesError
from stoker.pages.frames import Frame, FrameType, PageState, pages_of, parts_of
from stoker.pages.history.state import State
from stoker.pages.images import PageImage
from stoker.pages.journal.scan import FrameTable

_TIME_MAX: Final = (1 << 64) - 1
_RUN_MIN: Final = 32
"""Fewer frames than this in a row are not worth a table of their pages."""


class Target(msgspec.Struct, frozen=True):
    """Where to stop: exactly one of these. The state is that after the last whole commit at or before it.

    lsn      a log sequence number
    epoch    with `page`: when that page had this epoch
    time_ns  nanoseconds since 1970
    mark     a name given by `Store.mark`
    """

    lsn: int | None = None
    page: int | None = None
    epoch: int | None = None
    time_ns: int | None = None
    mark: str | None = None

    def text(self) -> str:
        """Return the moment in words."""
        if self.epoch is not None:
            return f"epoch {self.epoch} of page {self.page}"
        if self.time_ns is not None:
            return utc_text_of_ns(self.time_ns)
        if self.mark is not None:
            return f"mark {self.mark!r}"
        return "now" if self.lsn is None else f"LSN {self.lsn}"

    def check(self) -> None:
        """Raise UsageError unless exactly one moment is told."""
        told = [self.lsn, self.epoch, self.time_ns, self.mark]
        if sum(one is not None for one in told) > 1 or (self.epoch is None) != (self.page is None):
            raise UsageError("moment to go to is told by one of LSN, page and epoch, time, or mark")


NOW: Final = Target()


class PageVersion(msgspec.Struct, frozen=True):
    """One version of a page: what a commit made of it. `data` are its bytes, where they were asked for."""

    epoch: int
    lsn: int
    time_ns: int
    source: str
    kind: str
    frame_bytes: int
    data: NDArray[np.uint8] | None = None


def commits(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """Yield the frames of each whole commit."""
    waiting: list[Frame] = []
    for frame in frames:
        waiting.append(frame)
        if frame.last:
            yield waiting
            waiting = []


def replay(base: State, frames: Iterable[Frame], to: Target = NOW) -> State:
    """Return `base` brought to a moment; `base` itself is used up.

    Raises PagesError when the moment lies before `base` or is never reached, or frames are missing between the two.
    """
    to.check()
    _require_kept(to, base)
    if _is_base(to, base):
        return base
    first, marked = base.lsn, base.marks.get(to.mark or "")
    reached = to == NOW or to.time_ns is not None
    for commit in commits(frame for frame in frames if frame.lsn > base.lsn):
        if commit[0].lsn != base.lsn + 1 and base.lsn:
            raise PagesError("frames are missing", expected=f"LSN {base.lsn + 1}", got=f"LSN {commit[0].lsn}")
        if _beyond(to, commit):
            return base
        for frame in commit:
            base.apply(frame)
        if _here(to, base, commit):
            return base
    if not reached and marked is not None:
        raise _gone(f"LSN {first}", f"{to.text()} of LSN {marked}")
    if not reached:
        raise PagesError(
            "moment was never reached", expected=f"{to.text()} in the log", got=f"its end at LSN {base.lsn}"
        )
    return base


def replay_tables(base: State, tables: Iterable[FrameTable], to: Target = NOW) -> State:
    """Do as `replay` does with whole segments: changes of pages are made many in one call. Raises PagesError."""
    to.check()
    if to.epoch is not None or to.mark is not None:
        return replay(base, (frame for table in tables for frame in table.frames()), to)
    _require_kept(to, base)
    for table in tables:
        new = FrameTable(table.data, table.rows[np.searchsorted(table.rows[:, LSN], base.lsn, "right") :])
        if not len(new.rows):
            continue
        _require_whole(base, new)
        kept = _kept(new, to)
        _apply_table(base, FrameTable(new.data, new.rows[:kept]))
        if kept < len(new.rows):
            return base  # a commit behind the moment
    return replay(base, (), to)  # tells whether the moment was reached


def _require_whole(base: State, table: FrameTable) -> None:
    lsns = table.rows[:, LSN].astype(np.int64)
    before = np.concatenate(([base.lsn or lsns[0] - 1], lsns[:-1]))
    gaps = np.flatnonzero(lsns != before + 1)
    if gaps.size:
        raise PagesError("frames are missing", expected=f"LSN {before[gaps[0]] + 1}", got=f"LSN {lsns[gaps[0]]}")


def _kept(table: FrameTable, to: Target) -> int:
    """Return how many frames lie in whole commits at or before the moment."""
    ends = table.commit_ends()
    beyond = np.zeros(len(ends), np.bool_)
    if to.lsn is not None:
        beyond = table.rows[ends, LSN] > np.uint64(to.lsn)
    elif to.time_ns is not None:
        beyond = table.rows[ends, TIME_NS] > np.uint64(min(max(0, to.time_ns), _TIME_MAX))
    count = int(np.argmax(beyond)) if beyond.any() else len(ends)
    return int(ends[count - 1]) + 1 if count else 0


def _apply_table(base: State, table: FrameTable) -> None:
    kinds = table.rows[:, KINDS] & np.uint64(0xFF)
    others = np.flatnonzero((kinds != FrameType.DELTA) & (kinds != FrameType.IMAGE))
    start = 0
    for other in [*others.tolist(), len(table.rows)]:
        _apply_run(base, table, start, other)
        if other < len(table.rows):
            base.apply(table.frame(other))
        start = other + 1


def _apply_run(base: State, table: FrameTable, start: int, end: int) -> None:
    """Do what DELTA and IMAGE frames say: many by the kernel, few one by one, as those that it refuses."""
    while end - start >= _RUN_MIN:
        rows = table.rows[start:end]
        ids, slots = np.unique(rows[:, PAGE], return_inverse=True)
        images = [base.pages.get(page) for page in ids.tolist()]
        if any(image is None for image in images):
            break
        done = _replay_images(base, table, rows, ([image for image in images if image], slots))
        start += done
        if start < end:
            base.apply(table.frame(start))  # which says what is wrong with it
            start += 1
    for index in range(start, end):
        base.apply(table.frame(index))


def _replay_images(base: State, table: FrameTable, rows: Rows, places: tuple[list[PageImage], NDArray[np.intp]]) -> int:
    images, slots = places
    pages = np.array(
        [(image.data.__array_interface__["data"][0], image.size_bytes, image.epoch, image.lsn) for image in images],
        np.uint64,
    )
    done = replay_frames(table.data, rows, slots.astype(np.int64), pages)
    for image, (epoch, lsn) in zip(images, pages[:, 2:].tolist(), strict=True):
        if lsn != image.lsn:
            image.epoch, image.lsn, image.state = epoch, lsn, PageState.CLEAN
    if done:
        base.lsn, base.time_ns = int(rows[done - 1, LSN]), int(rows[done - 1, TIME_NS])
    return done


def _require_kept(to: Target, base: State) -> None:
    """Raise PagesError for a moment before the base, whose own history is gone."""
    if to.lsn is not None and to.lsn < base.lsn:
        raise _gone(f"LSN {base.lsn}", to.text())
    if to.time_ns is not None and base.lsn and to.time_ns < base.time_ns:
        raise _gone(utc_text_of_ns(base.time_ns), to.text())
    image = base.pages.get(to.page or 0)
    if image is not None and to.epoch is not None and to.epoch < image.epoch:
        raise _gone(f"epoch {image.epoch}", to.text())


def _gone(expected: str, got: str) -> PagesError:
    return PagesError("moment lies before what is kept", expected=f"{expected} or later", got=got)


def _is_base(to: Target, base: State) -> bool:
    """Tell whether the base itself is what the moment tells."""
    image = base.pages.get(to.page or 0)
    if image is not None and to.epoch is not None:
        return image.epoch == to.epoch
    if to.mark is not None:
        return bool(base.lsn) and base.marks.get(to.mark) == base.lsn
    return to.lsn is not None and to.lsn == base.lsn


def _beyond(to: Target, commit: list[Frame]) -> bool:
    """Tell whether a commit lies behind the moment."""
    if to.lsn is not None:
        return commit[-1].lsn > to.lsn
    return to.time_ns is not None and commit[-1].time_ns > to.time_ns


def _here(to: Target, state: State, commit: list[Frame]) -> bool:
    """Tell whether the moment is now."""
    if to.page is not None and to.epoch is not None:
        image = state.pages.get(to.page)
        return image is not None and image.epoch >= to.epoch and any(to.page in pages_of(frame) for frame in commit)
    if to.mark is not None:
        return any(frame.type == FrameType.MARK and bytes(frame.payload).decode() == to.mark for frame in commit)
    return to.lsn is not None and state.lsn >= to.lsn


def page_history(base: State, frames: Iterable[Frame], page: int, *, with_data: bool = False) -> list[PageVersion]:
    """Return what each commit made of a page, oldest first. Raises PageNotFound for a page that never was."""
    versions: list[PageVersion] = []
    for commit in commits(frames):
        for frame in commit:
            base.apply(frame)
        touched = [part for frame in commit for part in parts_of(frame) if part.page == page and part.page]
        if touched:
            last, image = touched[-1], base.pages.get(page)
            versions.append(
                PageVersion(
                    epoch=last.epoch,
                    lsn=last.lsn,
                    time_ns=last.time_ns,
                    source=base.sources.get(last.source, ""),
                    kind="+".join(FrameType(frame.type).name for frame in touched),
                    frame_bytes=sum(len(frame.payload) for frame in touched),
                    data=image.data.copy() if with_data and image else None,
                )
            )
    if not versions and page not in base.pages:
        raise PageNotFound("no page had this id", got=str(page))
    return versions


def replay_where(base: State, frames: Iterable[Frame], wanted: Callable[[State], bool]) -> Iterator[State]:
    """Yield a copy of the state after each commit for which `wanted` says so."""
    for commit in commits(frames):
        for frame in commit:
            base.apply(frame)
        if wanted(base):
            yield base.copy()
