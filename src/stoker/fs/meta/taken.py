"""Numbers of slices: who took them, and so whether anybody may still show them.

A client stores a slice before it shows it, so bytes may lie in a store of which no file knows. They are garbage once
the session that took their numbers is over: what is shown must be shown in it, and a session that is over stays over.
"""

import errno
from typing import Final

from stoker.fs.meta.answers import Answer, Done, FreedSlice, FreedSlices, Judged, Number
from stoker.fs.meta.calls import FREED, LOST, TAKEN, USED, ForgetFreed, JudgeSlices, ListFreed, MergeTaken
from stoker.fs.meta.context import Context
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.keys import freed_key, number_in, slice_key, taken_key
from stoker.fs.meta.records import pack_taken, unpack_freed, unpack_taken

_OVER: Final = 2**64 - 1
"""The session of numbers that were taken in several sessions, all of which are over."""
_JUDGED_MAX: Final = 65_536


def judge_slices(context: Context, request: JudgeSlices) -> Answer:
    """Tell what is known of slices."""
    if len(request.ids) > _JUDGED_MAX or request.grace_ns < 0:
        raise Refused(errno.EINVAL)
    return Judged(tuple(_verdict(context, slice_id, request.grace_ns) for slice_id in request.ids))


def _verdict(context: Context, slice_id: int, grace_ns: int) -> int:
    if context.view.get(slice_key(slice_id)) is not None:
        return USED
    if context.view.get(freed_key(slice_id)) is not None:
        return FREED
    if slice_id <= 0:
        return TAKEN
    rows = context.view.scan(b"t", taken_key(slice_id - 1), 1)
    if not rows:
        return TAKEN
    first, session, time_ns = unpack_taken(rows[0][1])
    if first > slice_id or not _is_over(context, session) or context.now_ns - time_ns < grace_ns:
        return TAKEN
    return LOST


def _is_over(context: Context, session: int) -> bool:
    """Tell whether a session is over; what was taken in none has an unknown taker."""
    return session == _OVER or (session != 0 and context.session_is_over(session))


def merge_taken(context: Context, request: MergeTaken) -> Answer:
    """Join neighbours among the numbers whose sessions are over."""
    limit = max(request.limit, 2)
    after = taken_key(request.after) if request.after > 0 else b""
    rows = context.view.scan(b"t", after, limit)
    before: tuple[int, int, int] | None = None  # first, last, time of the row before, when its session is over
    for key, value in rows:
        first, session, time_ns = unpack_taken(value)
        last = number_in(key)
        if not _is_over(context, session):
            before = None
            continue
        if before is not None and before[1] + 1 == first:
            context.view.delete(taken_key(before[1]))
            first, time_ns = before[0], max(time_ns, before[2])
            context.view.put(key, pack_taken(first, _OVER, time_ns))
        before = (first, last, time_ns)
    if len(rows) < limit:
        return Number(0)
    # One row before the last: the next piece joins its first to it.
    return Number(max(number_in(rows[-1][0]) - 1, 1))


def list_freed(context: Context, request: ListFreed) -> Answer:
    """Return slices that were freed and not yet forgotten."""
    after = freed_key(request.after) if request.after else b""
    rows = context.view.scan(b"g", after, max(request.limit, 1))
    return FreedSlices(tuple(FreedSlice(*unpack_freed(number_in(key), value)) for key, value in rows))


def forget_freed(context: Context, request: ForgetFreed) -> Answer:
    """Forget freed slices, whose bytes are deleted. Refuses (EINVAL) a slice that was not freed."""
    for slice_id in request.ids:
        if context.view.get(freed_key(slice_id)) is None:
            raise Refused(errno.EINVAL)
        context.view.delete(freed_key(slice_id))
    return Done()
