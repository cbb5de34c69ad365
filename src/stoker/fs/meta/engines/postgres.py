"""Keys and values in a schema of a PostgreSQL database: `postgresql://host:port/database/volume`.

A transaction that writes first takes the row of the revision for itself, so that writers of all processes come one
behind the other, and what each has read is checked against the newest state. A commit is durable when it is answered.
Snapshots are read-only transactions of one moment on connections of their own, which a pool keeps.

User, password, certificates and whatever else libpq knows come from its own environment and files (PGUSER, PGPASSFILE,
PGSSLMODE, PGSERVICE …), never from a URL. A connection that broke is made anew by the next who needs one.
"""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from stoker.core.errors import (
    CorruptError,
    DeniedError,
    NoSpaceError,
    StokerError,
    StoreError,
    UnavailableError,
    UsageError,
)
from stoker.fs.meta.engines.urls import EngineURL, check_version, sync_choice
from stoker.fs.meta.kv import HISTORY_BYTES_MAX, Engine, Pair, Snapshot, Writes, bounds, trimmed

SCHEMA_VERSION: Final = 1
_MAGIC: Final = 0x53744D65  # "StMe"
_CONNECT_SECONDS: Final = 10
_POOLED_MAX: Final = 16
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_FACTS: Final = ("magic", "version", "revision", "floor", "history_bytes")
_TABLES: Final = (
    "CREATE TABLE {schema}.pairs (k bytea PRIMARY KEY, r bigint NOT NULL, v bytea NOT NULL)",
    "CREATE TABLE {schema}.history (r bigint PRIMARY KEY, size bigint NOT NULL, record bytea NOT NULL)",
    "CREATE TABLE {schema}.about (name text PRIMARY KEY, value bigint NOT NULL)",
)
Connection = psycopg.Connection[Any]


class PostgresSnapshot(Snapshot):
    """A read-only transaction on a connection of the pool."""

    def __init__(self, engine: "PostgresEngine") -> None:
        self._engine = engine
        self._connection: Connection | None = None
        try:
            self._begin()
        except UnavailableError:
            self._begin()  # on a new connection: those that rested are gone with the one that broke

    def _begin(self) -> None:
        self._connection = self._engine.take_reader()
        try:
            with self._engine.told():
                self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                self.revision = _about(self._connection, self._engine.url)["revision"]
        except BaseException:
            self.close()
            raise

    def rows(self, query: str, values: Sequence[Any]) -> list[Any]:
        """Return the rows of a question."""
        assert self._connection is not None, "a snapshot is read before it is closed"
        with self._engine.told():
            return self._connection.execute(query, values, binary=True).fetchall()

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`."""
        found = self.rows("SELECT v FROM pairs WHERE k = %b", (key,))
        return bytes(found[0][0]) if found else None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys`, asked for at once."""
        found = {bytes(k): bytes(v) for k, v in self.rows("SELECT k, v FROM pairs WHERE k = ANY(%b)", (list(keys),))}
        return [found.get(key) for key in keys]

    def scan(self, prefix: bytes, after: bytes = b"", limit: int | None = None) -> list[Pair]:
        """Return pairs in order."""
        where, values = _range(*bounds(prefix, after))
        query = f"SELECT k, v FROM pairs WHERE {where} ORDER BY k LIMIT %b"  # noqa: S608 - `where` is ours
        return [(bytes(k), bytes(v)) for k, v in self.rows(query, (*values, limit))]

    def close(self) -> None:
        """End the transaction and give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._engine.give_reader(connection)


def _range(start: bytes, end: bytes) -> tuple[str, tuple[bytes, ...]]:
    return ("k >= %b AND k < %b", (start, end)) if end else ("k >= %b", (start,))


def _about(connection: Connection, url: str, *, lock: bool = False) -> dict[str, int]:
    """Return the facts about the volume, with `lock` for who will write. Raises CorruptError when one is missing."""
    if lock:
        connection.execute("SELECT value FROM about WHERE name = 'revision' FOR UPDATE")
    facts: dict[str, int] = dict(connection.execute("SELECT name, value FROM about").fetchall())
    if any(name not in facts for name in _FACTS):
        raise CorruptError("facts of the volume are not readable", where=url, expected=", ".join(_FACTS))
    return facts


class _PostgresWriter:
    def __init__(self, connection: Connection, url: str) -> None:
        self._connection = connection
        facts = _about(connection, url, lock=True)
        self.revision = facts["revision"]
        self._history_bytes = facts["history_bytes"]

    def modified(self, key: bytes) -> int:
        row = self._connection.execute("SELECT r FROM pairs WHERE k = %b", (key,), binary=True).fetchone()
        return 0 if row is None else int(row[0])

    def modified_in(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, int]]:
        where, values = _range(start, end)
        query = f"SELECT k, r FROM pairs WHERE {where}"  # noqa: S608 - `where` is ours
        for key, revision in self._connection.execute(query, values, binary=True):
            yield bytes(key), int(revision)

    def apply(self, revision: int, writes: Writes, record: bytes | None) -> None:
        gone = [key for key, value in writes.items() if value is None]
        kept = {key: value for key, value in writes.items() if value is not None}
        if gone:
            self._connection.execute("DELETE FROM pairs WHERE k = ANY(%b)", (gone,))
        if kept:
            self._connection.execute(
                "INSERT INTO pairs SELECT k, %b, v FROM unnest(%b::bytea[], %b::bytea[]) AS new (k, v) "
                "ON CONFLICT (k) DO UPDATE SET r = excluded.r, v = excluded.v",
                (revision, list(kept), list(kept.values())),
            )
        self._remember(revision, record)
        self._set("revision", revision)

    def _set(self, name: str, value: int) -> None:
        self._connection.execute("UPDATE about SET value = %b WHERE name = %s", (value, name))

    def _remember(self, revision: int, record: bytes | None) -> None:
        if record is None:
            self._connection.execute("DELETE FROM history")
            self._set("floor", revision)
            total_bytes = 0
        else:
            self._connection.execute("INSERT INTO history VALUES (%b, %b, %b)", (revision, len(record), record))
            total_bytes = self._history_bytes + len(record)
        if total_bytes > HISTORY_BYTES_MAX:
            total_bytes = self._trim(total_bytes)
        self._set("history_bytes", total_bytes)

    def _trim(self, total_bytes: int) -> int:
        with self._connection.cursor() as sizes:
            last = trimmed(iter(sizes.stream("SELECT r, size FROM history ORDER BY r")), total_bytes)[-1]
        gone = self._connection.execute("DELETE FROM history WHERE r <= %b RETURNING size", (last,)).fetchall()
        self._set("floor", last)
        return total_bytes - sum(int(size) for (size,) in gone)


class PostgresEngine(Engine):
    """An engine over one schema."""

    name = "postgresql"

    def __init__(self, place: "_Place", url: str, *, durable: bool) -> None:
        super().__init__()
        self.url = url
        self._place = place
        self._durable = durable
        self._lock = threading.Lock()
        self._pool_lock = threading.Lock()
        self._pool: list[Connection] = []
        self._closed = False
        self._writer: Connection | None = None

    def _connect(self) -> Connection:
        connection = self._place.connected()
        try:
            connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(self._place.schema)))
            connection.execute(f"SET synchronous_commit TO {'on' if self._durable else 'off'}")
        except BaseException:
            connection.close()
            raise
        return connection

    def take_reader(self) -> Connection:
        """Return a connection to read on. Raises UnavailableError, DeniedError."""
        with self._pool_lock:
            if self._closed:
                raise StoreError("engine is closed", where=self.url)
            if self._pool:
                return self._pool.pop()
        with self.told():
            return self._connect()

    def give_reader(self, connection: Connection) -> None:
        """Take a connection back; one that broke is let go."""
        with suppress(psycopg.Error):
            if connection.info.transaction_status != TransactionStatus.IDLE:
                connection.execute("ROLLBACK")
        with self._pool_lock:
            if not self._closed and not connection.closed and len(self._pool) < _POOLED_MAX:
                self._pool.append(connection)
                return
        connection.close()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn the database's errors into ours; after one of a connection those that rest are not believed."""
        try:
            yield
        except psycopg.Error as error:
            if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
                self._drop_pool()
            raise told_of(error, self.url) from error

    def _drop_pool(self) -> None:
        with self._pool_lock:
            resting, self._pool = self._pool, []
        for connection in resting:
            connection.close()

    def snapshot(self) -> PostgresSnapshot:
        """Return the state as of the newest commit."""
        return PostgresSnapshot(self)

    def revision(self) -> int:
        """Return the newest revision of any process."""
        with self.snapshot() as snapshot:
            return snapshot.revision

    @contextmanager
    def _writing(self) -> Iterator[_PostgresWriter]:
        with self._lock, self.told():
            if self._closed:
                raise StoreError("engine is closed", where=self.url)
            writer = self._begun()
            try:
                yield _PostgresWriter(writer, self.url)
                writer.execute("COMMIT")
            finally:
                # Left by a conflict or an error: whatever stands in the transaction is undone.
                if not writer.closed and writer.info.transaction_status != TransactionStatus.IDLE:
                    writer.execute("ROLLBACK")

    def _begun(self) -> Connection:
        """Return the connection that writes, in a transaction; a broken one is replaced: nothing was done on it yet."""
        if self._writer is not None:
            with suppress(psycopg.OperationalError, psycopg.InterfaceError):
                self._writer.execute("BEGIN")
                return self._writer
            self._writer.close()
        self._writer = None
        self._writer = self._connect()
        self._writer.execute("BEGIN")
        return self._writer

    def _history(self, after: int, limit: int) -> tuple[int, list[tuple[int, bytes]]]:
        with closing(self.snapshot()) as snapshot:
            ((floor,),) = snapshot.rows("SELECT value FROM about WHERE name = 'floor'", ())
            rows = snapshot.rows("SELECT r, record FROM history WHERE r > %b ORDER BY r LIMIT %b", (after, limit))
        return int(floor), [(int(revision), bytes(record)) for revision, record in rows]

    def close(self) -> None:
        """Close every connection; twice is harmless."""
        with self._lock, self._pool_lock:
            self._closed = True
            for connection in [*self._pool, *([self._writer] if self._writer is not None else [])]:
                connection.close()
            self._pool.clear()
            self._writer = None


def told_of(error: psycopg.Error, url: str) -> StokerError:
    """Return the database's error as one of ours, in one line."""
    text = " ".join(str(error).split())[:400]
    if isinstance(error, psycopg.errors.DiskFull):
        return NoSpaceError("metadata cannot be written", where=url, got=text, remedy="free some space at the server")
    if isinstance(error, psycopg.errors.DataCorrupted | psycopg.errors.IndexCorrupted):
        return CorruptError("metadata in the database are damaged", where=url, got=text, remedy="restore a backup")
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
        return CorruptError("tables of the volume are missing", where=url, got=text, remedy="restore a backup")
    if isinstance(error, psycopg.errors.InsufficientPrivilege | psycopg.errors.ReadOnlySqlTransaction):
        return DeniedError("database may not be written", where=url, got=text)
    if "authentication failed" in text or "no password supplied" in text:
        remedy = "set PGUSER, and put the password into the file that PGPASSFILE names"
        return DeniedError("database refuses who asks", where=url, got=text, remedy=remedy)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        remedy = "it is asked anew; whether the last change was done is not known"
        return UnavailableError("database does not answer", where=url, got=text, remedy=remedy)
    return StoreError("metadata engine failed", where=url, got=text)


class _Place:
    """Where a volume is: host and port as libpq takes them (empty: its own defaults), the database, the schema."""

    def __init__(self, url: EngineURL) -> None:
        server, _, rest = url.place.partition("/")
        database, _, self.schema = rest.partition("/")
        expected = "postgresql://host:port/database/volume"
        if not database or not _NAME.fullmatch(self.schema) or "\0" in url.place:
            raise UsageError(
                "URL names no volume in a database", where=url.text, expected=f"{expected}, of a to z, 0 to 9 and _"
            )
        host, _, port = server.rpartition(":") if re.search(r":\d+$", server) else (server, "", "")
        self._given: dict[str, Any] = {
            name: value for name, value in
            (("host", host.strip("[]")), ("port", port), ("dbname", database)) if value
        }  # fmt: skip

    def connected(self) -> Connection:
        """Return a new connection. Raises psycopg.Error."""
        return psycopg.connect(
            **self._given, connect_timeout=_CONNECT_SECONDS, autocommit=True, application_name="stoker"
        )


def open_postgres(url: EngineURL) -> PostgresEngine:
    """Open `postgresql://host:port/database/volume`; options: `sync=full|off`.

    Raises UsageError for a volume that is missing, taken, another program's or a newer release's; CorruptError,
    UnavailableError, DeniedError.
    """
    durable = bool(url.options({"sync": sync_choice}).get("sync", True))
    place = _Place(url)
    try:
        with place.connected() as connection:
            if url.create:
                _make(connection, place.schema, url.text)
            _check_kind(connection, place.schema, url.text)
    except psycopg.Error as error:
        raise told_of(error, url.text) from error
    return PostgresEngine(place, url.text, durable=durable)


def _make(connection: Connection, schema: str, url: str) -> None:
    """Make the schema with its tables: whole or not at all."""
    name = sql.Identifier(schema)
    facts = {"magic": _MAGIC, "version": SCHEMA_VERSION, "revision": 0, "floor": 0, "history_bytes": 0}
    try:
        with connection.transaction():
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
            for table in _TABLES:
                connection.execute(sql.SQL(table).format(schema=name))
            with connection.cursor() as cursor:
                cursor.executemany(sql.SQL("INSERT INTO {}.about VALUES (%s, %s)").format(name), list(facts.items()))
    except (psycopg.errors.DuplicateSchema, psycopg.errors.UniqueViolation) as error:
        raise UsageError("place is taken", where=url, expected="a schema that is not there") from error


def _check_kind(connection: Connection, schema: str, url: str) -> None:
    tables = {
        row[0] for row in connection.execute(
            "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = %s", (schema,)
        )
    }  # fmt: skip
    if not tables:
        raise UsageError("no volume is here", where=url, remedy="make one with `stoker fs format`")
    if "about" not in tables:
        raise UsageError("schema is not a volume's metadata", where=url, got="another program's tables")
    connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))
    facts = _about(connection, url)
    if facts["magic"] != _MAGIC:
        raise UsageError("schema is not a volume's metadata", where=url, got="another program's tables")
    check_version("schema", url, facts["version"], SCHEMA_VERSION)
    if not {"pairs", "history"} <= tables:
        raise CorruptError("tables of the volume are missing", where=url, remedy="restore a backup")
