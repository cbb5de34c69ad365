"""The one place where requests become changes: a pure function of what is stored, the calls, and the time.

Many calls are run one after the other over one view: each is answered by itself, and a refused one leaves nothing
behind. What the view has read and written is then one transaction of an engine, so that the calls of many clients cost
one wait for the disk.
"""

import errno
import struct
import uuid
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec

from stoker.core.errors import CorruptError
from stoker.fs.meta import (
    attributes,
    calls,
    classes,
    cluster_map,
    content,
    holdcalls,
    holding,
    listing,
    namehold,
    naming,
    pack_calls,
    renaming,
    sparse,
    taken,
    whole,
)
from stoker.fs.meta.answers import Answer, Refusal, pack_answer, unpack_answer
from stoker.fs.meta.calls import Call, Question, Request
from stoker.fs.meta.context import Context
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.keys import (
    INODES,
    NEXT_INODE,
    NEXT_SESSION,
    NEXT_SLICE,
    NEXT_TOKEN,
    ROOT,
    VOLUME,
    answer_key,
    answer_rows,
    attr_key,
    class_key,
    last_number_in,
    session_key,
)
from stoker.fs.meta.records import TIME_NS_MAX, TIME_NS_MIN, Attr, pack_attr, pack_count, pack_session
from stoker.fs.meta.storage_class import DEFAULT_CLASS, StorageClass, pack_class
from stoker.fs.meta.view import View

FORMAT_VERSION: Final = 2

_RUNS: Final[dict[type[Request[Any]], Callable[[Context, Any], Answer]]] = {
    calls.Create: naming.create,
    calls.Mkdir: naming.mkdir,
    calls.Mknod: naming.mknod,
    calls.Symlink: naming.symlink,
    calls.Link: naming.link,
    calls.Unlink: naming.unlink,
    calls.Rmdir: naming.rmdir,
    calls.Rename: renaming.rename,
    calls.SetAttr: attributes.setattr_,
    calls.SetXattr: attributes.setxattr,
    calls.RemoveXattr: attributes.removexattr,
    calls.MakeClass: classes.make_class,
    calls.SetClass: classes.set_class,
    calls.PutMap: cluster_map.put_map,
    calls.Open: content.open_file,
    calls.Close: content.close_file,
    calls.TakeSlices: content.take_slices,
    calls.Write: content.write,
    calls.Put: whole.put,
    calls.Fallocate: content.fallocate,
    calls.CopyRange: content.copy_range,
    calls.Compact: content.compact,
    calls.SetLock: holding.set_lock,
    holdcalls.HoldNames: namehold.hold_names,
    holdcalls.AskNames: namehold.ask_names,
    holdcalls.ReturnNames: namehold.return_names,
    holdcalls.TakeInodes: namehold.take_inodes,
    calls.BeginSession: holding.begin_session,
    calls.RenewSession: holding.renew_session,
    calls.EndSession: holding.end_session,
    calls.ExpireSessions: holding.expire_sessions,
    calls.Reclaim: content.reclaim,
    calls.ForgetFreed: taken.forget_freed,
    calls.MergeTaken: taken.merge_taken,
    calls.Lookup: naming.lookup,
    calls.GetAttr: attributes.getattr_,
    calls.Access: attributes.access,
    calls.ReadDir: listing.readdir,
    calls.ReadLink: listing.readlink,
    calls.GetXattr: attributes.getxattr,
    calls.ListXattr: attributes.listxattr,
    calls.ReadExtents: content.read_extents,
    calls.Peek: whole.peek,
    calls.FindLock: holding.find_lock,
    calls.Usage: holding.usage,
    calls.ListClasses: classes.list_classes,
    calls.GetMap: cluster_map.get_map,
    calls.ListFreed: taken.list_freed,
    calls.JudgeSlices: taken.judge_slices,
    pack_calls.ListSparse: sparse.list_sparse,
    pack_calls.Repack: sparse.repack,
}
REQUESTS: Final = tuple(_RUNS)
"""All kinds of requests."""
_KEPT_ANSWERS_MAX: Final = 4096
"""How many answers a client may leave unconfirmed: beyond it a request is refused, so that a session stays bounded."""


def run(view: View, call: Call, now_ns: int) -> Answer:
    """Run one call over the view and answer it; a refused one writes nothing but its answer."""
    context = Context(view, now_ns, call.caller, call.session)
    numbered = call.seq and not isinstance(call.request, Question)
    return _guarded(context, _run_once if numbered else _perform, call)


def run_all(view: View, batch: Sequence[Call], now_ns: int) -> list[Answer]:
    """Run calls one after the other: each sees what those before it did."""
    return [run(view, call, now_ns) for call in batch]


def _perform(context: Context, call: Call) -> Answer:
    if call.session and not isinstance(call.request, Question | calls.EndSession):
        context.live_session()
    return _RUNS[type(call.request)](context, call.request)


def _guarded(context: Context, function: Callable[[Context, Call], Answer], call: Call) -> Answer:
    """Run one call; whatever is wrong with it is its own refusal, and undone."""
    mark = context.view.mark()
    try:
        return function(context, call)
    except Refused as refused:
        refusal = Refusal(refused.errno, refused.detail)
    except CorruptError as error:
        # A damaged row fails who needs it, not all whose requests share the transaction.
        refusal = Refusal(errno.EIO, str(error))
    except (struct.error, OverflowError):
        refusal = Refusal(errno.EINVAL)  # a number that no field can hold
    context.view.undo(mark)
    return refusal


def _run_once(context: Context, call: Call) -> Answer:
    """Answer a numbered call as it was answered before, or run it and keep the answer in the same transaction."""
    key = answer_key(call.session, call.seq)
    kept = context.view.get(key)
    if kept is not None:
        return unpack_answer(kept)
    session = context.live_session()
    if call.seq < max(session.received, call.received):
        raise Refused(errno.EINVAL)  # its answer was received: who sends it again is confused
    if call.received > session.received:
        session.received = call.received
        _forget_answers(context, call.session, call.received)
        context.view.put(session_key(call.session), pack_session(session))
    if call.seq - session.received > _KEPT_ANSWERS_MAX:
        raise Refused(errno.ENOBUFS)
    answer = _guarded(context, _perform, call)
    if context.view.get(session_key(call.session)) is not None:
        context.view.put(key, pack_answer(answer))
    return answer


def _forget_answers(context: Context, session: int, received: int) -> None:
    for key, _ in context.view.scan(answer_rows(session), limit=_KEPT_ANSWERS_MAX):
        if last_number_in(key) >= received:
            return
        context.view.delete(key)


class Settings(msgspec.Struct, frozen=True):
    """What a volume is: its name, a number nobody else has, when it was made, and the version of its form."""

    name: str
    uuid: str
    made_ns: Annotated[int, msgspec.Meta(ge=TIME_NS_MIN, le=TIME_NS_MAX)]
    version: int = FORMAT_VERSION


def new_volume(name: str, volume_id: uuid.UUID, now_ns: int, *, uid: int, gid: int, mode: int) -> dict[bytes, bytes]:
    """Return the pairs of an empty volume: its settings, a root directory, a class of one copy, and the counters."""
    root = Attr(0o040000 | mode & 0o7777, uid, gid, 2, 0, 0, ROOT, now_ns, now_ns, now_ns, now_ns)
    return {
        VOLUME: msgspec.json.encode(Settings(name, str(volume_id), now_ns)),
        attr_key(ROOT): pack_attr(root),
        class_key(DEFAULT_CLASS): pack_class(StorageClass(DEFAULT_CLASS, "single")),
        INODES: pack_count(1),
        **{key: pack_count(1) for key in (NEXT_SLICE, NEXT_SESSION, NEXT_TOKEN)},
        NEXT_INODE: pack_count(ROOT + 1),
    }
