"""Locks and sessions: who holds what, until when. Locks are held by who has a file open, and go with his session."""

import errno
from typing import Final

from stoker.fs.meta.answers import Answer, Done, InTheWay, Number, Used
from stoker.fs.meta.calls import BeginSession, EndSession, ExpireSessions, FindLock, RenewSession, SetLock, Usage
from stoker.fs.meta.content import closed
from stoker.fs.meta.context import Context
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.keys import (
    BYTES,
    INODES,
    NEXT_SESSION,
    NEXT_TOKEN,
    last_number_in,
    locks_key,
    number_in,
    open_key,
    session_key,
    session_rows,
)
from stoker.fs.meta.locking import (
    END,
    LOCKS_MAX,
    Held,
    granted,
    in_the_way,
    of_others,
    pack_locks,
    released,
    unpack_locks,
)
from stoker.fs.meta.records import Session, pack_session, unpack_opens, unpack_session

_TTL_NS_MIN: Final = 1_000_000
_BYTES_TOLD_MAX: Final = 2**63 - 1
_TTL_NS_MAX: Final = 365 * 86_400 * 1_000_000_000


# -- locks


def set_lock(context: Context, request: SetLock) -> Answer:
    """Take, change or give back a lock; EAGAIN when somebody else's stands in the way. Returns the fencing token."""
    context.live_session()
    _check_range(request)
    _need_open(context, request)
    locks = unpack_locks(context.view.get(locks_key(request.ino)))
    start, end = (0, END) if request.whole else (request.start, request.end)
    want = Held(context.session, request.owner, bool(request.exclusive), start, end, request.whole, 0)
    if request.exclusive is None:
        left = released(locks, want)
        if len(left) > max(LOCKS_MAX, len(locks)):
            raise Refused(errno.ENOLCK)  # what is left of a lock in its middle is one more
        context.view.put(locks_key(request.ino), pack_locks(left))
        return Number(0)
    while (held := in_the_way(locks, want)) is not None:
        if not context.session_is_over(held.session):
            raise Refused(errno.EAGAIN)
        locks = of_others(locks, held.session)
    token = context.view.add(NEXT_TOKEN, 1)
    new = granted(locks, Held(want.session, want.owner, want.exclusive, start, end, want.whole, token))
    if len(new) > LOCKS_MAX:
        raise Refused(errno.ENOLCK)
    context.view.put(locks_key(request.ino), pack_locks(new))
    return Number(token)


def _check_range(request: SetLock | FindLock) -> None:
    if not request.whole and not 0 <= request.start < request.end <= END:
        raise Refused(errno.EINVAL)


def _need_open(context: Context, request: SetLock) -> None:
    """Refuse (EBADF) who does not have the file open, and a range of fcntl without the access it needs."""
    data = context.view.get(open_key(request.ino, context.session))
    if data is None:
        raise Refused(errno.EBADF)
    readers, writers = unpack_opens(data)
    if not request.whole and request.exclusive is not None and not (writers if request.exclusive else readers):
        raise Refused(errno.EBADF)


def find_lock(context: Context, request: FindLock) -> Answer:
    """Return the lock that would stand in the way."""
    _check_range(request)
    context.load(request.ino)
    start, end = (0, END) if request.whole else (request.start, request.end)
    want = Held(context.session, request.owner, request.exclusive, start, end, request.whole, 0)
    locks = unpack_locks(context.view.get(locks_key(request.ino)))
    alive = [held for held in locks if not context.session_is_over(held.session)]
    return InTheWay(in_the_way(alive, want))


# -- sessions


def begin_session(context: Context, request: BeginSession) -> Answer:
    """Begin a session and return its number."""
    if not _TTL_NS_MIN <= request.ttl_ns <= _TTL_NS_MAX:
        raise Refused(errno.EINVAL)
    number = context.view.add(NEXT_SESSION, 1)
    session = Session(context.now_ns + request.ttl_ns, request.ttl_ns)
    context.view.put(session_key(number), pack_session(session))
    return Number(number)


def renew_session(context: Context, _request: RenewSession) -> Answer:
    """Let the session live on from now. One that is over stays over: others may have its locks already."""
    session = context.live_session()
    session.expires_ns = context.now_ns + session.ttl_ns
    context.view.put(session_key(context.session), pack_session(session))
    return Done()


def end_session(context: Context, request: EndSession) -> Answer:
    """Close all that a session has open, with its locks, forget its answers, and then the session."""
    data = context.view.get(session_key(request.session))
    if data is None:
        raise Refused(errno.ESTALE)
    return Done(more=_end(context, request.session, unpack_session(data), max(request.limit, 1)))


def _end(context: Context, number: int, session: Session, limit: int) -> bool:
    """Remove rows of a session; tell whether some are left. From the first on it is closing: nothing new comes."""
    rows = context.view.scan(session_rows(number), session_key(number), limit + 1)
    for key, _ in rows[:limit]:
        if key[9:10] == b"O":
            closed(context, last_number_in(key), number)
        else:
            context.view.delete(key)
    if len(rows) > limit:
        session.closing = True
        context.view.put(session_key(number), pack_session(session))
        return True
    context.view.delete(session_key(number))
    return False


def expire_sessions(context: Context, request: ExpireSessions) -> Answer:
    """End the first session that gave no sign of life in time, or that is being closed; `more` when others are left."""
    for number in _session_numbers(context):
        session = unpack_session(context.kept(session_key(number), "session that has rows"))
        if session.closing or session.expires_ns <= context.now_ns:
            _end(context, number, session, max(request.limit, 1))
            return Done(more=True)
    return Done()


def _session_numbers(context: Context) -> list[int]:
    """Return all sessions, going from each one's first row to the next one's."""
    found: list[int] = []
    after = b""
    while rows := context.view.scan(b"s", after, 1):
        number = number_in(rows[0][0])
        found.append(number)
        after = session_rows(number) + b"\xff" * 9
    return found


# -- the whole


def usage(context: Context, _request: Usage) -> Answer:
    """Return how much the volume holds."""
    return Used(context.view.count(INODES), min(context.view.count(BYTES), _BYTES_TOLD_MAX))
