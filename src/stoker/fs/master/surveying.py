"""All rows of a volume as of one revision, page by page from a master's copy, for who looks whether it is sound.

A master keeps the snapshot of its copy open while a survey goes on: it costs no memory, but the pages of LMDB that
change meanwhile are not used again, so a survey that nobody goes on with, or that lasts too long, is ended. Whoever
asks keeps the rows in a file, and lets the master go before he looks at them.
"""

import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Final

import msgspec

from stoker.core.clock import monotonic_ns
from stoker.core.errors import NoSpaceError, NotFoundError, StokerError, StoreError, TransientError, UnavailableError
from stoker.core.units import MiB
from stoker.fs.master.messages import STATUS, Status
from stoker.fs.master.remote import Masters
from stoker.fs.meta.kv import Engine, Pair, Snapshot, bounds
from stoker.fs.wire import Operation

IDLE_SECONDS: Final = 30.0
LONGEST_SECONDS: Final = 900.0
AT_ONCE: Final = 2
_PAGE_BYTES: Final = 2 * MiB
_PAIRS_A_SCAN: Final = 200
"""Few enough that values of the greatest size do no harm."""
_ANSWER_BYTES_MAX: Final = 20 * MiB
"""A page, and the greatest value that may come on top of it."""
_WITHIN_SECONDS: Final = 30.0
_FRESH_SECONDS: Final = 5.0
_TRIES: Final = 3
_SECRET_ROWS: Final = (b"K", b"R")


class Survey(msgspec.Struct, frozen=True):
    """Asks for rows behind a key: of a new survey with number 0, else of one that goes on."""

    number: int = 0
    after: bytes = b""


class SurveyPage(msgspec.Struct, frozen=True, array_like=True):
    """Rows in the order of their keys, of which revision they are, and up to which key they go; empty at the end."""

    number: int
    revision: int
    pairs: tuple[tuple[bytes, bytes], ...]
    upto: Annotated[bytes, msgspec.Meta(max_length=511)]


SURVEY: Final = Operation(0x205, "survey", Survey, SurveyPage, body_bytes_max=_ANSWER_BYTES_MAX, idempotent=True)


class _Kept:
    """A snapshot that a survey reads from, by one thread at a time."""

    def __init__(self, snapshot: Snapshot, now_ns: int) -> None:
        self.snapshot = snapshot
        self.lock = threading.Lock()
        self.began_ns = self.asked_ns = now_ns


class Surveys:
    """The surveys that a master answers. `close` ends them all."""

    def __init__(self, *, clock: Callable[[], int] = monotonic_ns) -> None:
        self._clock = clock
        self._kept: dict[int, _Kept] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._closed = False

    def page(self, copy: Engine, asked: Survey) -> SurveyPage:
        """Return the next rows. Raises NotFoundError for a survey that is over, TransientError when many go on."""
        self.tidy()
        number, kept = self._kept_of(copy, asked.number)
        with kept.lock:
            if self._kept.get(number) is not kept:
                raise _over(number)
            kept.asked_ns = self._clock()
            pairs, upto = _some_rows(kept.snapshot, asked.after)
            revision = kept.snapshot.revision
        if not upto:
            self._end(number)
        return SurveyPage(number, revision, tuple(pairs), upto)

    def _kept_of(self, copy: Engine, number: int) -> tuple[int, _Kept]:
        with self._lock:
            if number:
                if number not in self._kept:
                    raise _over(number)
                return number, self._kept[number]
            if self._closed or len(self._kept) >= AT_ONCE:
                raise TransientError("other surveys go on", expected=f"{AT_ONCE} at once", remedy="ask again later")
            fresh = 1 + secrets.randbits(53)
            kept = self._kept[fresh] = _Kept(copy.snapshot(), self._clock())
            self._watch()
            return fresh, kept

    def _watch(self) -> None:
        """Look again in a while: who asked may never come back. The lock is held."""
        if self._timer is None and self._kept and not self._closed:
            self._timer = threading.Timer(IDLE_SECONDS / 2, self._look)
            self._timer.daemon = True
            self._timer.start()

    def _look(self) -> None:
        self.tidy()
        with self._lock:
            self._timer = None
            self._watch()

    def tidy(self) -> None:
        """End surveys that nobody goes on with, and those that last too long."""
        now_ns = self._clock()
        for number, kept in list(self._kept.items()):
            idle, lasts = now_ns - kept.asked_ns, now_ns - kept.began_ns
            if idle > IDLE_SECONDS * 1e9 or lasts > LONGEST_SECONDS * 1e9:
                self._end(number)

    def _end(self, number: int) -> None:
        with self._lock:
            kept = self._kept.pop(number, None)
        if kept is not None:
            with kept.lock:
                kept.snapshot.close()

    def close(self) -> None:
        """End all; twice is harmless."""
        with self._lock:
            self._closed = True
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        for number in list(self._kept):
            self._end(number)


def _over(number: int) -> NotFoundError:
    expected = f"a page every {IDLE_SECONDS:g} s, all within {LONGEST_SECONDS:g} s"
    return NotFoundError("no such survey goes on", where=str(number), expected=expected, remedy="begin anew")


def _some_rows(snapshot: Snapshot, after: bytes) -> tuple[list[Pair], bytes]:
    """Return about a page of rows and the last key that was looked at; none at the end."""
    held: list[Pair] = []
    size_bytes = 0
    while size_bytes < _PAGE_BYTES:
        pairs = snapshot.scan(b"", after, _PAIRS_A_SCAN)
        if not pairs:
            return held, b""
        for key, value in pairs:
            after = key
            if key[:1] == b"s" and key[9:10] in _SECRET_ROWS:
                continue  # a session's secret, and answers kept for it: the owner's alone
            held.append((key, value))
            size_bytes += len(key) + len(value) + 16
            if size_bytes >= _PAGE_BYTES:
                break
    return held, after


class RowsInFile(Snapshot):
    """Rows of one revision in a file of this process: what was surveyed, to be looked at at leisure."""

    def __init__(self, path: Path, revision: int = 0) -> None:
        self.revision = revision
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("CREATE TABLE rows (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")

    def add(self, pairs: tuple[Pair, ...]) -> None:
        """Add rows. Raises NoSpaceError, StoreError."""
        try:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO rows VALUES (?, ?)", pairs)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if "full" in str(error):
                raise NoSpaceError(
                    "no room for the rows of the volume", got=str(error), remedy="set TMPDIR to a folder with room"
                ) from error
            raise StoreError("rows of the volume cannot be kept", got=str(error)) from error

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None when there is none."""
        found = self._database.execute("SELECT value FROM rows WHERE key = ?", (key,)).fetchone()
        return None if found is None else found[0]

    def scan(self, prefix: bytes, after: bytes = b"", limit: int | None = None) -> list[Pair]:
        """Return pairs in order, as every snapshot does."""
        start, end = bounds(prefix, after)
        last, values = (" AND key < ?", (start, end)) if end else ("", (start,))
        query = f"SELECT key, value FROM rows WHERE key >= ?{last} ORDER BY key LIMIT ?"  # noqa: S608 - our own words
        return list(self._database.execute(query, (*values, -1 if limit is None else limit)))

    def close(self) -> None:
        """Let the file go."""
        self._database.close()


def surveyed(masters: Masters, folder: Path) -> tuple[RowsInFile, str]:
    """Return all rows of a volume as of one revision, in a file in `folder`, and which master gave them.

    A standby is asked where there is one. Raises UnavailableError when no master gives them whole.
    """
    failures: list[str] = []
    for attempt in range(_TRIES):
        for address in _in_order(masters):
            try:
                return _surveyed_at(masters, address, folder / f"rows-{attempt}-{len(failures)}"), address
            except (UnavailableError, TransientError, NotFoundError) as error:
                failures.append(str(error))
    raise UnavailableError("no master gives the rows of the volume", got="; ".join(failures[-3:]) or "none answers")


def _in_order(masters: Masters) -> Iterator[str]:
    """Give the masters that answer: those that stand by and know the newest, then the one that leads."""
    leading = []
    for address in list(masters.addresses):
        try:
            told = masters.connection(address).call(STATUS, Status(), within_seconds=_FRESH_SECONDS)[0]
        except (UnavailableError, TransientError):
            continue
        if told.role == "leads":
            leading.append(address)
        elif 0 <= told.age_seconds <= _FRESH_SECONDS:
            yield address
    yield from leading


def _surveyed_at(masters: Masters, address: str, path: Path) -> RowsInFile:
    connection = masters.connection(address)
    rows = RowsInFile(path)
    try:
        asked = Survey()
        while True:
            page, _ = connection.call(SURVEY, asked, within_seconds=_WITHIN_SECONDS)
            if asked.number and page.revision != rows.revision:
                raise UnavailableError("master answers of another revision", where=address)
            rows.revision = page.revision
            rows.add(page.pairs)
            if not page.upto:
                return rows
            asked = Survey(page.number, page.upto)
    except StokerError:
        rows.close()
        path.unlink(missing_ok=True)
        raise
