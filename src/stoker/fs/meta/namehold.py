"""Holding the names of a directory: one session makes files in it without asking, and nobody else changes it meanwhile.

A hold is short, by the time of the transactions. Who is in its way asks for it, and then no hold is made longer; so it
comes back when its holder is asked next, and at the latest when its time is over. What the holder has made is told by
Create with a number taken before; it is refused, never done twice or under another's name, should the hold be over.
"""

import errno
from typing import Final

from stoker.fs.meta.answers import Answer, Done, Entry, Number
from stoker.fs.meta.context import Context
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.holdcalls import AskNames, HoldNames, ReturnNames, TakeInodes
from stoker.fs.meta.keys import NEXT_INODE, hold_key
from stoker.fs.meta.records import NAMES_HELD, Hold, pack_hold, unpack_hold

TTL_NS_MAX: Final = 10_000_000_000
_INODES_MAX: Final = 1 << 16


def hold_names(context: Context, request: HoldNames) -> Answer:
    """Give a session the names of a directory, or for longer."""
    context.live_session()
    if not 0 < request.ttl_ns <= TTL_NS_MAX:
        raise Refused(errno.EINVAL)
    directory = context.directory(request.ino)
    if not directory.nlink:
        raise Refused(errno.ENOENT)
    data = context.view.get(hold_key(request.ino))
    held = None if data is None else unpack_hold(data)
    if held is not None and held.until_ns > context.now_ns and (held.asked or held.session != context.session):
        raise Refused(errno.EAGAIN)
    hold = Hold(context.session, context.now_ns + request.ttl_ns)
    context.view.put(hold_key(request.ino), pack_hold(hold))
    if not directory.flags & NAMES_HELD:
        directory.flags |= NAMES_HELD
        context.store(request.ino, directory)
    return Entry(request.ino, directory)


def ask_names(context: Context, request: AskNames) -> Answer:
    """Note that somebody wants the names of a directory back."""
    data = context.view.get(hold_key(request.ino))
    if data is not None:
        hold = unpack_hold(data)
        hold.asked = True
        context.view.put(hold_key(request.ino), pack_hold(hold))
    return Done()


def return_names(context: Context, request: ReturnNames) -> Answer:
    """Take a hold away."""
    data = context.view.get(hold_key(request.ino))
    if data is not None and unpack_hold(data).session == context.session:
        context.view.delete(hold_key(request.ino))
        directory = context.load(request.ino)
        directory.flags &= ~NAMES_HELD
        context.store(request.ino, directory)
    return Done()


def take_inodes(context: Context, request: TakeInodes) -> Answer:
    """Give out the next numbers of inodes."""
    if not 0 < request.count <= _INODES_MAX:
        raise Refused(errno.EINVAL)
    return Number(context.view.add(NEXT_INODE, request.count))
