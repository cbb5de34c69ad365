"""Keys and values in one SQLite file, in WAL mode (`synchronous=NORMAL`: SQLite syncs when it folds the log).

A commit is visible, and survives the end of the process, once its log is written; it is durable when that is synced,
which is done here, outside the write transaction: who commits meanwhile does not wait, and those who wait share a sync.
A sync covers what all processes have written before it, so nothing durable ever rests on something that is not.

One connection writes, behind a lock; snapshots read on connections of their own, which a pool keeps. Several processes
may open the file at once: SQLite lets one of them write at a time.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from stoker.core.errors import (
    CorruptError,
    DeniedError,
    NoSpaceError,
    StokerError,
    StoreError,
    TransientError,
    UsageError,
)
from stoker.core.files import sync_folder
from stoker.fs.meta.engines.urls import EngineURL, check_version, not_made, refuse_taken, sync_choice, unfinished
from stoker.fs.meta.kv import HISTORY_BYTES_MAX, Engine, Pair, Snapshot, Writes, bounds, trimmed

APPLICATION_ID: Final = 0x53744D65  # "StMe"
SCHEMA_VERSION: Final = 1
_BUSY_SECONDS: Final = 30.0
_SCHEMA: Final = """
CREATE TABLE pairs (k BLOB PRIMARY KEY, r INTEGER NOT NULL, v BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE history (r INTEGER PRIMARY KEY, size INTEGER NOT NULL, record BLOB NOT NULL);
CREATE TABLE about (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO about VALUES ('revision', 0), ('floor', 0), ('history_bytes', 0);
"""
_FACTS: Final = ("revision", "floor", "history_bytes")
_NO_SPACE: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}
_NOT_OURS: Final = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}


class SqliteSnapshot(Snapshot):
    """A read transaction on a connection of the pool."""

    def __init__(self, engine: "SqliteEngine") -> None:
        self._engine = engine
        self._connection: sqlite3.Connection | None = engine.take_reader()
        try:
            with engine.told():
                self._connection.execute("BEGIN")
                self.revision = _about(self._connection, engine.url)["revision"]
        except BaseException:
            self.close()
            raise

    def connection(self) -> sqlite3.Connection:
        """Return the connection that the snapshot reads on."""
        assert self._connection is not None, "a snapshot is read before it is closed"
        return self._connection

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`."""
        try:  # not `told`: this is asked twenty times for a small file
            row = self.connection().execute("SELECT v FROM pairs WHERE k=?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise _told(error, self._engine.url) from error
        return None if row is None else _blob(row[0], self._engine.url)

    def scan(self, prefix: bytes, after: bytes = b"", limit: int | None = None) -> list[Pair]:
        """Return pairs in order."""
        where, values = _range(*bounds(prefix, after))
        with self._engine.told():
            found: list[Pair] = (
                self.connection()
                .execute(
                    f"SELECT k, v FROM pairs WHERE {where} ORDER BY k LIMIT ?",  # noqa: S608 - `where` is ours
                    (*values, -1 if limit is None else limit),
                )
                .fetchall()
            )
        for _, value in found:
            _blob(value, self._engine.url)
        return found

    def close(self) -> None:
        """End the read transaction and give the connection back."""
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        self._engine.give_reader(connection)


def _range(start: bytes, end: bytes) -> tuple[str, tuple[bytes, ...]]:
    return ("k >= ? AND k < ?", (start, end)) if end else ("k >= ?", (start,))


def _blob(value: object, url: str) -> bytes:
    """Return a value of a row. Raises CorruptError for one that is not bytes: SQLite's columns take anything."""
    if not isinstance(value, bytes):
        raise CorruptError("value in the file is not bytes", where=url, got=type(value).__name__)
    return value


def _about(connection: sqlite3.Connection, url: str) -> dict[str, int]:
    """Return the facts about the file. Raises CorruptError when one is missing or no number."""
    facts: dict[str, int] = dict(connection.execute("SELECT name, value FROM about").fetchall())
    if any(not isinstance(facts.get(name), int) for name in _FACTS):
        raise CorruptError("facts of the file are not readable", where=url, expected=", ".join(_FACTS))
    return facts


class _SqliteWriter:
    def __init__(self, connection: sqlite3.Connection, url: str) -> None:
        self._connection = connection
        facts = _about(connection, url)
        self.revision = facts["revision"]
        self._history_bytes = facts["history_bytes"]

    def modified(self, key: bytes) -> int:
        row = self._connection.execute("SELECT r FROM pairs WHERE k=?", (key,)).fetchone()
        return 0 if row is None else int(row[0])

    def modified_in(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, int]]:
        where, values = _range(start, end)
        yield from self._connection.execute(f"SELECT k, r FROM pairs WHERE {where}", values)  # noqa: S608

    def apply(self, revision: int, writes: Writes, record: bytes | None) -> None:
        connection = self._connection
        gone = [(key,) for key, value in writes.items() if value is None]
        if gone:
            connection.executemany("DELETE FROM pairs WHERE k=?", gone)
        connection.executemany(
            "INSERT INTO pairs VALUES (?,?,?) ON CONFLICT (k) DO UPDATE SET r=excluded.r, v=excluded.v",
            ((key, revision, value) for key, value in writes.items() if value is not None),
        )
        self._remember(revision, record)
        connection.execute("UPDATE about SET value=? WHERE name='revision'", (revision,))

    def _remember(self, revision: int, record: bytes | None) -> None:
        connection = self._connection
        if record is None:
            connection.execute("DELETE FROM history")
            connection.execute("UPDATE about SET value=? WHERE name='floor'", (revision,))
            total_bytes = 0
        else:
            connection.execute("INSERT INTO history VALUES (?,?,?)", (revision, len(record), record))
            total_bytes = self._history_bytes + len(record)
        if total_bytes > HISTORY_BYTES_MAX:
            total_bytes = self._trim(total_bytes)
        connection.execute("UPDATE about SET value=? WHERE name='history_bytes'", (total_bytes,))

    def _trim(self, total_bytes: int) -> int:
        # Row by row: few go, and reading all of them would cost more than the transaction.
        with closing(self._connection.execute("SELECT r, size FROM history ORDER BY r")) as sizes:
            last = trimmed(sizes, total_bytes)[-1]
        gone_bytes = self._connection.execute("SELECT SUM(size) FROM history WHERE r<=?", (last,)).fetchone()[0]
        self._connection.execute("DELETE FROM history WHERE r<=?", (last,))
        self._connection.execute("UPDATE about SET value=? WHERE name='floor'", (last,))
        return total_bytes - int(gone_bytes)


class _LogSync:
    """Syncs the log for those who wait for it, together. `syncs` counts.

    Once a sync has failed, all do: the kernel forgets what it could not write.
    """

    def __init__(self, path: Path, url: str) -> None:
        self._path = path
        self._url = url
        self._state = threading.Condition()
        self._handle = -1
        self._written = 0
        self._synced = -1
        self._busy = False
        self._failed = ""
        self.syncs = 0

    def wait(self, revision: int) -> None:
        """Return when what was committed up to a revision is durable. Raises StoreError."""
        with self._state:
            self._written = max(self._written, revision)
            while self._synced < revision and self._busy:
                self._state.wait()
            if self._synced >= revision:
                return
            self.check()
            self._busy, covered = True, self._written
        done = False
        try:
            self._sync()
            done = True
        except OSError as error:
            self._failed = error.strerror or str(error)
        finally:
            with self._state:
                self._busy = False
                self.syncs += 1
                if done:
                    self._synced = max(self._synced, covered)
                self._state.notify_all()
        self.check()

    def check(self) -> None:
        """Raise StoreError when a sync has failed: nothing is to be written any more."""
        if self._failed:
            raise StoreError("sync of the metadata's log failed", where=self._url, got=self._failed)

    def _sync(self) -> None:
        if self._handle < 0:
            # The log stays this very file while a connection is open. SQLite holds no locks on it that closing undoes.
            self._handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            sync_folder(self._path.parent)
        os.fdatasync(self._handle)

    def close(self) -> None:
        """Give the handle back."""
        with self._state:
            while self._busy:
                self._state.wait()
            if self._handle >= 0:
                os.close(self._handle)
            self._handle = -1


class SqliteEngine(Engine):
    """An engine over one file."""

    name = "sqlite"

    def __init__(self, path: Path, url: str, *, durable: bool) -> None:
        super().__init__()
        self.url = url
        self._path = path
        self._durable = durable
        self._lock = threading.Lock()
        self._pool_lock = threading.Lock()
        self._pool: list[sqlite3.Connection] = []
        self._closed = False
        self._writer = self._connect()
        self._log = _LogSync(path.with_name(path.name + "-wal"), url)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        connection.execute(f"PRAGMA synchronous={'NORMAL' if self._durable else 'OFF'}")
        return connection

    def take_reader(self) -> sqlite3.Connection:
        """Return a connection to read on."""
        with self._pool_lock:
            if self._closed:
                raise StoreError("engine is closed", where=self.url)
            if self._pool:
                return self._pool.pop()
        with self.told():
            return self._connect()

    def give_reader(self, connection: sqlite3.Connection) -> None:
        """Take a connection back."""
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        with self._pool_lock:
            if not self._closed:
                self._pool.append(connection)
                return
        connection.close()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise _told(error, self.url) from error

    def snapshot(self) -> SqliteSnapshot:
        """Return the state as of the newest commit."""
        return SqliteSnapshot(self)

    def revision(self) -> int:
        """Return the newest revision of any process."""
        with self.snapshot() as snapshot:
            return snapshot.revision

    @contextmanager
    def _writing(self) -> Iterator[_SqliteWriter]:
        with self._lock, self.told():
            if self._closed:
                raise StoreError("engine is closed", where=self.url)
            self._log.check()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield _SqliteWriter(self._writer, self.url)
                self._writer.execute("COMMIT")
            finally:
                # Left by a conflict or an error: whatever stands in the transaction is undone.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")

    def make_durable(self, revision: int) -> None:
        """Sync the log, with all who wait for that."""
        if self._durable and revision:
            self._log.wait(revision)

    def syncs(self) -> int:
        """Return how often the log was synced for those who waited."""
        return self._log.syncs

    def _history(self, after: int, limit: int) -> tuple[int, list[tuple[int, bytes]]]:
        with closing(self.snapshot()) as snapshot, self.told():
            connection = snapshot.connection()
            floor = _about(connection, self.url)["floor"]
            rows = connection.execute(
                "SELECT r, record FROM history WHERE r>? ORDER BY r LIMIT ?", (after, limit)
            ).fetchall()
        return floor, rows

    def close(self) -> None:
        """Close every connection; the last of all processes folds the WAL into the file."""
        with self._lock, self._pool_lock:
            if self._closed:
                return
            self._closed = True
            for connection in [*self._pool, self._writer]:
                connection.close()
            self._pool.clear()
        self._log.close()


def _told(error: sqlite3.Error, url: str) -> StokerError:
    code = getattr(error, "sqlite_errorcode", 0)
    if code in _NO_SPACE:
        return NoSpaceError("metadata cannot be written", where=url, got=str(error), remedy="free some space")
    if code & 0xFF in _NOT_OURS:
        return CorruptError("metadata file is torn", where=url, got=str(error), remedy="restore it from a copy")
    if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        got = f"{error} for {_BUSY_SECONDS:.0f} seconds"
        return TransientError("another process holds the metadata file", where=url, got=got, remedy="try again")
    if code & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return DeniedError("metadata file may not be written", where=url, got=str(error))
    return StoreError("metadata engine failed", where=url, got=str(error))


def open_sqlite(url: EngineURL) -> SqliteEngine:
    """Open `sqlite:///path.db`; options: `sync=full|off`.

    Raises UsageError for a file that is missing, taken, another program's or a newer release's; CorruptError.
    """
    durable = bool(url.options({"sync": sync_choice}).get("sync", True))
    path = url.path()
    if url.create:
        _make(path, url.text)
    elif not path.is_file():
        raise UsageError("no volume is here", where=url.text, remedy="make one with `stoker fs format`")
    engine: SqliteEngine | None = None
    try:
        engine = SqliteEngine(path, url.text, durable=durable)
        _check_kind(engine, url.text)
    except sqlite3.Error as error:
        _close(engine)
        raise _told(error, url.text) from error
    except BaseException:
        _close(engine)
        raise
    return engine


def _close(engine: SqliteEngine | None) -> None:
    if engine is not None:
        engine.close()


def _make(path: Path, url: str) -> None:
    """Make the file beside its name, then give it the name: what is there is a whole file or none."""
    refuse_taken(path, url)
    _refuse_remains(path, url)
    temporary = unfinished(path)
    try:
        # The names of all files are in it, whoever may see them: nobody but the owner reads it, or its log.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(temporary, isolation_level=None)
        try:
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            connection.execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()
        # A link, not a renaming: that would take the place of a volume that another process has made meanwhile.
        os.link(temporary, path)
    except sqlite3.Error as error:
        raise _told(error, url) from error
    except OSError as error:
        raise not_made(error, url) from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _refuse_remains(path: Path, url: str) -> None:
    """Refuse a place beside which a log of an earlier file lies: SQLite would take it for the new file's."""
    for ending in ("-wal", "-shm", "-journal"):
        remains = path.with_name(path.name + ending)
        if remains.exists():
            remedy = "remove it when the file it belonged to is gone"
            raise UsageError("something is left of an earlier file", where=url, got=remains.name, remedy=remedy)


def _check_kind(engine: SqliteEngine, url: str) -> None:
    """Refuse a file that is not ours or of a newer release; SQLite itself refuses one shorter than its header says."""
    connection = engine.take_reader()
    try:
        kind = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    finally:
        engine.give_reader(connection)
    if kind != APPLICATION_ID:
        raise UsageError("file is not a volume's metadata", where=url, got="another program's SQLite file")
    check_version("file", url, version, SCHEMA_VERSION)
