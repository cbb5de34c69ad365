"""A volume: names and files over an engine, in this process. Any number of processes may have one open."""

import errno
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

import msgspec

from stoker.core.clock import wall_ns
from stoker.core.errors import CorruptError, UsageError
from stoker.fs.meta.answers import Answer, Refusal
from stoker.fs.meta.calls import BeginSession, Call, Caller, EndSession, ExpireSessions, Question, Reclaim, Request
from stoker.fs.meta.committing import Committer
from stoker.fs.meta.context import Context
from stoker.fs.meta.engines.urls import check_version, open_engine
from stoker.fs.meta.faults import HELD, Refused, meta_error
from stoker.fs.meta.keys import VOLUME
from stoker.fs.meta.kv import Engine
from stoker.fs.meta.machine import FORMAT_VERSION, Settings, new_volume, run
from stoker.fs.meta.view import View
from stoker.fs.meta.waiting import wait_for_names

A = TypeVar("A")
SESSION_SECONDS: Final = 60.0
_NAME_CHARACTERS_MAX: Final = 100
_SUPERUSER: Final = Caller()
_PATIENCE_NS: Final = 30_000_000_000


class Volume:
    """An open volume. All methods may be called from many threads; what they change is durable when they return.

    But for opening, making by opening, and closing: these are seen at once, and durable when `make_durable` or any
    other change returns that was asked for later.

    A child process that was forked must open it anew.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], int] = wall_ns) -> None:
        self.engine = engine
        self.settings = _settings(engine)
        self._clock = clock
        self._committer = Committer(engine, clock)

    @classmethod
    def format(
        cls,
        url: str,
        *,
        name: str = "",
        mode: int = 0o755,
        owner: Caller = _SUPERUSER,
        clock: Callable[[], int] = wall_ns,
    ) -> "Volume":
        """Make an empty volume where nothing is, and open it; `mode` and `owner` are those of its root.

        Raises UsageError for a place that is taken or a name that is too long.
        """
        if len(name) > _NAME_CHARACTERS_MAX or not name.isprintable():
            raise UsageError("volume has a bad name", expected=f"at most {_NAME_CHARACTERS_MAX} printable characters")
        engine = open_engine(url, create=True)
        try:
            pairs = new_volume(name, uuid.uuid4(), clock(), uid=owner.uid, gid=owner.gid, mode=mode)
            engine.bulk_load(pairs.items())
            return cls(engine, clock=clock)
        except BaseException:
            engine.close()
            raise

    @classmethod
    def open(cls, url: str, *, clock: Callable[[], int] = wall_ns) -> "Volume":
        """Open the volume at `url`. Raises UsageError where there is none or it is of a newer release; CorruptError."""
        engine = open_engine(url)
        try:
            return cls(engine, clock=clock)
        except BaseException:
            engine.close()
            raise

    # -- asking

    def run(self, request: Request[A], *, caller: Caller = _SUPERUSER, session: int = 0) -> A:
        """Do one request and return its answer. Raises MetaError with the errno when it is refused."""
        return granted(request, self.submit([Call(request, caller, session)])[0])

    def numbered(self, call: Call) -> Call:
        """Return the call: in this process calls have no numbers, whose answers would be rows to write."""
        return call

    def answered(self, call: Call) -> None:
        """Do nothing; see `numbered`."""

    def submit(self, batch: Sequence[Call]) -> list[Answer]:
        """Do calls in their order, in as few transactions as they and those of other threads allow.

        Each is answered by itself; a Refusal carries an errno. Questions alone cost no transaction. What changes names
        that another session holds is done once they are given back, behind the others.
        """
        answers = self._submit(batch)
        if any(isinstance(answer, Refusal) and answer.errno == HELD for answer in answers):
            wait_for_names(batch, answers, self._submit, _PATIENCE_NS)
        return answers

    def _submit(self, batch: Sequence[Call]) -> list[Answer]:
        if all(isinstance(call.request, Question) for call in batch):
            with self.engine.snapshot() as snapshot:
                view = View(snapshot)
                return [run(view, call, self._clock()) for call in batch]
        return self._committer.submit(batch)

    @contextmanager
    def looking(self, caller: Caller = _SUPERUSER) -> Iterator[Context]:
        """Give a snapshot to ask several things of one state."""
        with self.engine.snapshot() as snapshot:
            yield Context(View(snapshot), self._clock(), caller, 0)

    def make_durable(self) -> None:
        """Return when all that can be seen now survives a power failure. Raises StoreError."""
        self.engine.make_durable(self.engine.revision())

    # -- sessions and upkeep

    @contextmanager
    def session(self, seconds: float = SESSION_SECONDS) -> Iterator[int]:
        """Give a session, and end it: it holds open files and locks, and lives `seconds` unless renewed."""
        number = self.run(BeginSession(int(seconds * 1e9))).value
        try:
            yield number
        finally:
            self.end_session(number)

    def end_session(self, number: int) -> None:
        """Close what a session has open, give back its locks, and end it."""
        while self.run(EndSession(number)).more:
            pass

    def tidy(self) -> None:
        """End sessions that gave no sign of life in time, and free the chunks of files that are gone."""
        while self.run(ExpireSessions()).more:
            pass
        while self.run(Reclaim()).more:
            pass

    def close(self) -> None:
        """Close the engine; closing twice is harmless."""
        self.engine.close()

    def __enter__(self) -> "Volume":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def refusals(verb: str, where: bytes) -> Iterator[None]:
    """Turn a Refused, or a damaged row (EIO), into the MetaError that a caller gets."""
    try:
        yield
    except Refused as refused:
        raise meta_error(refused.errno, verb, where.decode(errors="backslashreplace")) from None
    except CorruptError as error:
        raise meta_error(errno.EIO, verb, where.decode(errors="backslashreplace"), str(error)) from error


def granted(request: Request[A], answer: Answer) -> A:
    """Return the answer to a request. Raises MetaError for a refusal."""
    if isinstance(answer, Refusal):
        raise meta_error(answer.errno, type(request).__name__.lower(), _subject(request), answer.detail)
    return cast("A", answer)


def _subject(request: Request[Any]) -> str:
    """Return what a request is about, for its error: a name, else the number of an inode."""
    name = getattr(request, "name", b"")
    if name:
        return str(name.decode(errors="backslashreplace"))
    ino = getattr(request, "ino", 0)
    return f"inode {ino}" if ino else ""


def _settings(engine: Engine) -> Settings:
    data = engine.get(VOLUME)
    if data is None:
        remedy = "remove what was left half made, then make one with `stoker fs format`"
        raise UsageError("no volume is here", where=engine.url, remedy=remedy)
    return unpack_settings(data, engine.url)


def unpack_settings(data: bytes, url: str) -> Settings:
    """Return a volume's settings. Raises CorruptError, UsageError for a volume of a newer release."""
    try:
        settings = msgspec.json.decode(data, type=Settings)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError("settings of the volume are not readable", where=url, got=str(error)) from error
    check_version("volume", url, settings.version, FORMAT_VERSION)
    return settings
