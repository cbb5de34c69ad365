"""Time travel: frames applied to a state, up to a moment told by LSN, epoch, time or mark."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.clock import utc_text_of_ns
from stoker.core.errors import UsageError
from stoker.pages.errors import PageNotFound, PagesError
from stoker.pages.frames import Frame, FrameType
from stoker.pages.history.state import State


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
        reached = reached or (to.lsn is not None and base.lsn <= to.lsn)
        if _here(to, base, commit):
            return base
    if not reached and marked is not None:
        raise _gone(f"LSN {first}", f"mark {to.mark!r} of LSN {marked}")
    if not reached:
        raise PagesError(
            "moment was never reached", expected="a mark, epoch or LSN in the log", got=f"its end at LSN {base.lsn}"
        )
    return base


def _require_kept(to: Target, base: State) -> None:
    """Raise PagesError for a moment before the base, whose own history is gone."""
    if to.lsn is not None and to.lsn < base.lsn:
        raise _gone(f"LSN {base.lsn}", f"LSN {to.lsn}")
    if to.time_ns is not None and base.lsn and to.time_ns < base.time_ns:
        raise _gone(utc_text_of_ns(base.time_ns), utc_text_of_ns(to.time_ns))
    image = base.pages.get(to.page or 0)
    if image is not None and to.epoch is not None and to.epoch < image.epoch:
        raise _gone(f"epoch {image.epoch} of page {to.page}", f"epoch {to.epoch}")


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
        return image is not None and image.epoch >= to.epoch and any(frame.page == to.page for frame in commit)
    if to.mark is not None:
        return any(frame.type == FrameType.MARK and bytes(frame.payload).decode() == to.mark for frame in commit)
    return to.lsn is not None and state.lsn >= to.lsn


def page_history(base: State, frames: Iterable[Frame], page: int, *, with_data: bool = False) -> list[PageVersion]:
    """Return what each commit made of a page, oldest first. Raises PageNotFound for a page that never was."""
    versions: list[PageVersion] = []
    for commit in commits(frames):
        for frame in commit:
            base.apply(frame)
        touched = [frame for frame in commit if frame.page == page and frame.page]
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
