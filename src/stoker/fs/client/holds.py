"""Directories whose names this client holds: it makes files in them without asking, and tells of them together.

The second file that is made in a directory within a second has its names held for a while. As long as they are, a name
that is known to stand for nothing does so, and a file is made here at once, under a number that was taken before. The
metadata is told with the file's first commit, or after some milliseconds by a thread of the client's. The thread makes
holds longer as long as they are used. When another client has asked for the names, it tells of what was made there,
gives them back, and leaves the directory alone for a while.
"""

import errno
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, NamedTuple

import msgspec

from stoker.core.clock import monotonic_ns, wall_ns
from stoker.core.errors import StokerError
from stoker.fs.client.making import Made, tell_all
from stoker.fs.client.numbers import TakenNumbers
from stoker.fs.client.works import Works
from stoker.fs.meta.answers import Entry, Refusal
from stoker.fs.meta.calls import Call, Caller, Create, GetAttr, Lookup, Question, ReadDir, Rename, Request, SetLock
from stoker.fs.meta.context import MAY_SEARCH, MAY_WRITE, check_name, mode_allows, touch
from stoker.fs.meta.faults import MetaError, Refused, meta_error
from stoker.fs.meta.holdcalls import HoldNames, ReturnNames, TakeInodes
from stoker.fs.meta.naming import new_attr
from stoker.fs.meta.records import HAS_ACL, HAS_DEFAULT_ACL, Attr

_S_IFREG: Final = 0o100000
_NAMES_MAX: Final = 1000
"""Of a directory with more entries than these the names are not asked for: each is looked up once."""
_HOLDS_MAX: Final = 64
_MARGIN_NS: Final = 500_000_000
"""So much earlier than the metadata a hold is taken to be over."""
_AGAIN_NS: Final = 1_000_000_000
_RENEW_NS: Final = 100_000_000
_IDLE_NS: Final = 400_000_000
_COOL_NS: Final = 20_000_000_000
_TELL_SECONDS: Final = 0.005
_TICK_SECONDS: Final = 0.05
_INODES_AT_ONCE: Final = 1024


Asked = Callable[[Lookup | GetAttr, Caller], Entry]


class Hold:
    """A directory whose names are held. `names` are those that may stand for something; `absent` do not."""

    def __init__(self, ino: int, session: int, attr: Attr, asked_ns: int, ttl_ns: int) -> None:
        self.ino = ino
        self.session = session
        self.attr = attr
        self.begun_ns = monotonic_ns()
        self.extend(asked_ns, ttl_ns)
        self.used_ns = asked_ns
        self.names: set[bytes] = set()
        self.absent: set[bytes] = set()
        self.complete = False
        self.claims = 0  # files that are being made and are not owed yet
        self.closing = False
        self.unsure = False  # its attributes have changed by what was asked of the metadata
        self.owed: dict[bytes, tuple[Made, Attr]] = {}

    def extend(self, asked_ns: int, ttl_ns: int) -> None:
        """Note that the hold was made, or made longer, by what was asked then."""
        self.renewed_ns = asked_ns
        self.until_ns = asked_ns + ttl_ns - _MARGIN_NS

    def is_good(self, now_ns: int) -> bool:
        """Tell whether nobody else can be changing the names."""
        return not self.closing and now_ns < self.until_ns

    def lacks(self, name: bytes) -> bool:
        """Tell whether a name stands for nothing for sure."""
        return (self.complete and name not in self.names) or name in self.absent


class MadeFile(NamedTuple):
    """A file that was made here: the hold of its directory, its name, what is told of it, and the call that tells."""

    hold: Hold
    name: bytes
    entry: Entry
    call: Call


class Changing:
    """While a request is asked: what it changes is not believed, and no hold begins in its directories."""

    __slots__ = ("_holds", "_request")

    def __init__(self, holds: "Holds", request: Request[Any]) -> None:
        self._holds = holds
        self._request = request

    def __enter__(self) -> None:
        self._holds.begin(self._request)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holds.end(self._request)


class Holds:
    """The holds of a client. Safe from many threads."""

    def __init__(self, works: Works) -> None:
        self._works = works
        self._ttl_ns = int(works.options.hold_seconds * 1e9)
        self._numbers = TakenNumbers(works.metadata, _INODES_AT_ONCE, TakeInodes)
        self._changed = threading.Condition()
        self._holds: dict[int, Hold] = {}
        self._owed: dict[int, tuple[Made, Attr]] = {}
        self._busy: dict[int, int] = {}  # requests under way that change a directory
        self._recent: dict[int, int] = {}  # directories in which a file was made, when
        self._cooling: dict[int, int] = {}
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="stoker-fs-holds", daemon=True)
        self._thread.start()

    # -- what is known

    def ask(self, request: Lookup | GetAttr, caller: Caller, asked: Asked) -> Entry:
        """Answer from what is known, or have it asked, and learn. Raises MetaError."""
        found = self.answer(request, caller)
        if found is not None:
            return found
        asked_ns = monotonic_ns()
        try:
            answer = asked(request, caller)
        except MetaError as error:
            if error.errno == errno.ENOENT:
                self._learn(request, None, asked_ns)
            raise
        self._learn(request, answer, asked_ns)
        return answer

    def answer(self, request: Lookup | GetAttr, caller: Caller) -> Entry | None:
        """Answer from what is known, None where that is not enough. Raises MetaError (ENOENT) for no such name."""
        if not self._holds and not self._owed:
            return None
        with self._changed:
            if isinstance(request, GetAttr):
                return self._attributes(request.ino)
            hold = self._good(request.parent)
            if hold is None or not _may(hold.attr, caller, MAY_SEARCH):
                return None
            owed = hold.owed.get(request.name)
            if owed is not None:
                return Entry(owed[0].ino, msgspec.structs.replace(owed[1]))
            if not hold.lacks(request.name) or not _is_name(request.name):
                return None
        raise meta_error(errno.ENOENT, "lookup", request.name.decode(errors="backslashreplace"))

    def _attributes(self, ino: int) -> Entry | None:
        owed = self._owed.get(ino)
        if owed is not None:
            return Entry(ino, msgspec.structs.replace(owed[1]))
        hold = self._good(ino)
        if hold is None or hold.unsure:
            return None
        return Entry(ino, msgspec.structs.replace(hold.attr))

    def _good(self, ino: int) -> Hold | None:
        hold = self._holds.get(ino)
        return hold if hold is not None and hold.is_good(monotonic_ns()) else None

    def _learn(self, request: Lookup | GetAttr, answer: Entry | None, asked_ns: int) -> None:
        """Take an answer of the metadata that was asked for then; None: there is no such name."""
        if not self._holds:
            return
        with self._changed:
            hold = self._good(request.ino if isinstance(request, GetAttr) else request.parent)
            if hold is None or hold.begun_ns > asked_ns:
                return
            if isinstance(request, Lookup):
                if answer is None and request.name not in hold.names:
                    hold.absent.add(request.name)
            elif answer is not None and answer.attr.version >= hold.attr.version and not hold.owed and not hold.claims:
                hold.attr, hold.unsure = msgspec.structs.replace(answer.attr), False

    # -- making files

    def make(self, request: Create, caller: Caller, session: int) -> MadeFile | None:
        """Make a file without asking; None where that may not be. `owe` must follow."""
        if self._good(request.parent) is None:
            return None
        ino = self._numbers.take(session)
        with self._changed:
            hold = self._good(request.parent)
            if hold is None or hold.session != session or not _may_make(hold, request.name, caller):
                return None
            hold.names.add(request.name)
            hold.absent.discard(request.name)
            hold.claims += 1
            hold.used_ns = monotonic_ns()
            now_ns = wall_ns()
            mode = _S_IFREG | request.mode & 0o7777
            attr = new_attr(hold.attr, request.parent, caller, mode, rdev=0, now_ns=now_ns)
            attr.mode &= ~(request.umask & 0o777)
            attr.opens = 1
            hold.attr.size_bytes += 1
            touch(hold.attr, now_ns)
        told = msgspec.structs.replace(request, ino=ino, made_ns=now_ns)
        return MadeFile(hold, request.name, Entry(ino, attr, made=True), Call(told, caller, session))

    def owe(self, made: MadeFile, inode: Made) -> None:
        """Note which open file is owed to the metadata: it is told soon."""
        ino, attr = made.entry.ino, msgspec.structs.replace(made.entry.attr)
        inode.making.owe(made.call, lambda: self._is_known(made))
        with self._changed:
            made.hold.owed[made.name] = self._owed[ino] = (inode, attr)
            made.hold.claims -= 1
            self._works.counters.made_here += 1
            self._changed.notify_all()

    def _is_known(self, made: MadeFile) -> None:
        with self._changed:
            self._owed.pop(made.entry.ino, None)
            made.hold.owed.pop(made.name, None)

    # -- requests

    def tell(self) -> None:
        """Tell the metadata of all files that it does not know yet. Raises what asking raises."""
        with self._changed:
            owed = [made for made, _ in self._owed.values()]
        if owed:
            tell_all(self._works, owed, wait=True)

    def changing(self, request: Request[Any]) -> Changing:
        """Return what a request is to be asked within: who it is about is told of what it rests on."""
        return Changing(self, request)

    def begin(self, request: Request[Any]) -> None:
        """Tell the metadata what a request rests on, and believe no longer what it may change."""
        changes = not isinstance(request, Question)
        with self._changed:
            owed = [self._owed[ino] for ino in _inodes_of(request) if ino in self._owed]
            for parent, name in _names_of(request):
                hold = self._holds.get(parent)
                if changes:
                    self._busy[parent] = self._busy.get(parent, 0) + 1
                if hold is not None:
                    owed += self._in_the_way(hold, name, changes)
            itself = self._holds.get(getattr(request, "ino", 0))
            if isinstance(request, SetLock):
                owed = list(self._owed.values())  # who gets a lock next sees all that was made under it
            elif itself is not None and isinstance(request, ReadDir):
                owed += itself.owed.values()
            elif itself is not None and changes:
                itself.until_ns = 0  # who may make what in it may be another from now on
        if owed:
            tell_all(self._works, [made for made, _ in owed], wait=True)

    def _in_the_way(self, hold: Hold, name: bytes, changes: bool) -> Iterable[tuple[Made, Attr]]:
        if not changes:
            return [hold.owed[name]] if name in hold.owed else []
        hold.names.add(name)
        hold.absent.discard(name)
        hold.unsure = True
        return list(hold.owed.values())

    def end(self, request: Request[Any]) -> None:
        """Note that a request was answered."""
        if isinstance(request, Question):
            return
        with self._changed:
            for parent, _ in _names_of(request):
                left = self._busy.get(parent, 1) - 1
                if left:
                    self._busy[parent] = left
                else:
                    self._busy.pop(parent, None)

    def made_in(self, parent: int, session: int) -> None:
        """Note that a file was made by asking; hold the names of its directory when it is not the first."""
        now_ns = monotonic_ns()
        with self._changed:
            before = self._recent.pop(parent, None)
            self._recent[parent] = now_ns
            while len(self._recent) > _HOLDS_MAX:
                del self._recent[next(iter(self._recent))]
            wanted = before is not None and now_ns - before < _AGAIN_NS and now_ns >= self._cooling.get(parent, 0)
            if not wanted or self._stopped or parent in self._holds or len(self._holds) >= _HOLDS_MAX:
                return
        with suppress(StokerError):
            self._hold(parent, session)

    def _hold(self, parent: int, session: int) -> None:
        asked_ns = monotonic_ns()
        try:
            found = self._works.metadata.run(HoldNames(parent, self._ttl_ns), session=session)
        except MetaError:
            self._cool(parent)  # another client has them
            raise
        hold = Hold(parent, session, msgspec.structs.replace(found.attr), asked_ns, self._ttl_ns)
        with self._changed:
            if self._busy.get(parent) or parent in self._holds or self._stopped:
                return  # it is over by itself soon
            self._holds[parent] = hold
            self._works.counters.holds += 1
            self._changed.notify_all()
        if found.attr.size_bytes > _NAMES_MAX:
            return
        listing = self._works.metadata.run(ReadDir(parent, limit=_NAMES_MAX + 1), session=session)
        with self._changed:
            hold.names.update(one.name for one in listing.entries)
            hold.complete = not listing.more

    def _cool(self, parent: int) -> None:
        with self._changed:
            if len(self._cooling) > _NAMES_MAX:
                self._cooling.clear()
            self._cooling[parent] = monotonic_ns() + _COOL_NS

    # -- the thread

    def _run(self) -> None:
        while not self._stopped:
            with self._changed:
                if not self._holds and not self._owed:
                    self._changed.wait()
                elif not self._owed:
                    self._changed.wait(_TICK_SECONDS)
            time.sleep(_TELL_SECONDS)
            with suppress(StokerError):  # who made a file hears of it when he flushes or closes it
                self._tell_some()
                self._tend()

    def _tell_some(self) -> None:
        before_ns = wall_ns() - int(_TELL_SECONDS * 1e9)
        with self._changed:
            owed = [made for made, attr in self._owed.values() if attr.btime_ns <= before_ns]
        if owed:
            tell_all(self._works, owed, wait=False)

    def _tend(self) -> None:
        """Make holds longer that are used, give back those that are not, or that were asked for."""
        now_ns = monotonic_ns()
        with self._changed:
            holds = list(self._holds.values())
        used = [hold for hold in holds if hold.used_ns > hold.renewed_ns and now_ns - hold.renewed_ns > _RENEW_NS]
        asked_back = self._renew(used) if used else []
        idle = [hold for hold in holds if now_ns - max(hold.used_ns, hold.renewed_ns) > _IDLE_NS]
        for hold in {*idle, *asked_back}:
            self._give_back(hold)

    def _renew(self, holds: list[Hold]) -> list[Hold]:
        """Make holds longer; return those for which that was refused."""
        asked_ns = monotonic_ns()
        calls = [Call(HoldNames(hold.ino, self._ttl_ns), session=hold.session) for hold in holds]
        refused = []
        for hold, answer in zip(holds, self._works.commits.commit((), calls), strict=True):
            if isinstance(answer, Refusal):
                self._works.counters.holds_asked_back += 1
                self._cool(hold.ino)
                refused.append(hold)
            elif isinstance(answer, Entry):
                with self._changed:
                    hold.extend(asked_ns, self._ttl_ns)
                    now, told = hold.attr, answer.attr
                    now.mode, now.uid, now.gid, now.flags = told.mode, told.uid, told.gid, told.flags
                    now.storage_class = told.storage_class
        return refused

    def _give_back(self, hold: Hold) -> None:
        """Tell of all that was made in a directory, and give its names back."""
        with self._changed:
            hold.closing = True
            self._changed.wait_for(lambda: not hold.claims, timeout=1.0)
            owed = [made for made, _ in hold.owed.values()]
        try:
            tell_all(self._works, owed, wait=True)
            self._works.commits.commit((), [Call(ReturnNames(hold.ino), session=hold.session)])
        finally:
            with self._changed:
                if self._holds.get(hold.ino) is hold:
                    del self._holds[hold.ino]

    # -- the end

    def lost(self) -> None:
        """Hear that the session is over: nothing is held, and what was owed is refused."""
        with self._changed:
            self._holds.clear()
            self._owed.clear()

    def close(self) -> None:
        """Tell of all that was made, give all names back, and end the thread. Raises what asking raises."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()
        for hold in list(self._holds.values()):
            self._give_back(hold)


def _may(directory: Attr, caller: Caller, wanted: int) -> bool:
    """Tell whether a caller surely may do all of `wanted` with a directory."""
    return not caller.uid or (not directory.flags & HAS_ACL and mode_allows(directory, caller, wanted))


def _may_make(hold: Hold, name: bytes, caller: Caller) -> bool:
    """Tell whether a file can be made without asking."""
    if not hold.lacks(name) or hold.attr.flags & HAS_DEFAULT_ACL or not _may(hold.attr, caller, MAY_WRITE | MAY_SEARCH):
        return False
    return _is_name(name)


def _is_name(name: bytes) -> bool:
    """Tell whether something can have this name."""
    try:
        check_name(name)
    except Refused:
        return False
    return name not in (b".", b"..")


def _inodes_of(request: Request[Any]) -> list[int]:
    """Return the inodes that a request is about by their numbers."""
    return [number for field in ("ino", "source", "target") if isinstance(number := getattr(request, field, 0), int)]


def _names_of(request: Request[Any]) -> list[tuple[int, bytes]]:
    """Return the names that a request is about, with their directories."""
    found = []
    parent, name = getattr(request, "parent", 0), getattr(request, "name", b"")
    if parent:
        found.append((parent, name))
    if isinstance(request, Rename):
        found.append((request.new_parent, request.new_name))
    return found
