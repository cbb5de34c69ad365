"""PostgreSQL with the extension pgvector.

A collection is a table of an id and a vector, with what it is kept as the table's comment. Vectors go in by COPY in
the extension's binary form (two 16-bit numbers, then big-endian floats). The planner is told not to read whole tables,
its plan is looked at before anything is timed, and a search that does not use its index is refused.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from threading import Thread
from typing import Any, Final

import numpy as np
import psycopg
from psycopg import sql
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.types import TypeInfo

from stoker.core.errors import DeniedError, StokerError, UnavailableError, UsageError
from stoker.core.vectors import IndexSpec
from stoker.vectors.engine import Address, BuildProgress, CollectionFacts, CollectionSpec, Searcher, VectorEngine
from stoker.vectors.making import Vectors
from stoker.vectors.secrets import secret
from stoker.vectors.truth import Ids

DIMENSION_MAX: Final = 2000
_CONNECT_SECONDS: Final = 10
_METRICS: Final = {
    "COSINE": ("vector_cosine_ops", "<=>"),
    "L2": ("vector_l2_ops", "<->"),
    "IP": ("vector_ip_ops", "<#>"),
}
_KINDS: Final = {"HNSW": "hnsw", "IVF_FLAT": "ivfflat"}
_OPTIONS: Final = {"M": "m", "efConstruction": "ef_construction", "nlist": "lists"}
_EFFORT: Final = {"HNSW": ("hnsw.ef_search", 1000), "IVF_FLAT": ("ivfflat.probes", 32_768)}
_LOCAL: Final = ("127.0.0.1", "localhost", "::1", "")


class _Binary:
    """A vector on its way to the server."""

    def __init__(self, row: Vectors) -> None:
        self.data = packed(row)


class _VectorDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _Binary) -> bytes:
        return obj.data


def packed(row: Vectors) -> bytes:
    """Return a vector in pgvector's binary form."""
    return struct.pack(">HH", len(row), 0) + row.astype(">f4").tobytes()


def unpacked(data: bytes) -> Vectors:
    """Return the vector that `packed` wrote. Raises StokerError for bytes that are none."""
    if len(data) < 4 or len(data) != 4 + 4 * int.from_bytes(data[:2], "big"):
        raise StokerError("not a vector of pgvector", got=f"{len(data)} bytes")
    return np.frombuffer(data, ">f4", offset=4).astype(np.float32)


def _told(error: psycopg.Error, what: str, where: str) -> StokerError:
    text = " ".join(str(error).split())[:400]
    if "authentication" in text or "password" in text:
        return DeniedError(what, where=where, got=text, remedy="set STOKER_VECTOR_USER and STOKER_VECTOR_PASSWORD")
    if isinstance(error, psycopg.OperationalError):
        return UnavailableError(what, where=where, got=text, remedy="is the database running there?")
    return StokerError(what, where=where, got=text)


class PgEngine:
    """A connection to PostgreSQL."""

    def __init__(self, address: Address) -> None:
        self._where = f"{address.host}:{address.port}"
        self._address = address
        self._spec: CollectionSpec | None = None
        self._connection = self._connect()
        try:
            row = self._one(
                "select current_setting('server_version'), extversion from pg_extension where extname = 'vector'"
            )
            self.version = f"PostgreSQL {row[0].split(' ')[0]}, pgvector {row[1]}"
            self.data_folder = self._folder()
            self._register()
        except BaseException:
            self._connection.close()
            raise

    def _connect(self) -> "psycopg.Connection[Any]":
        address = self._address
        try:
            connection = psycopg.connect(
                host=address.host,
                port=address.port or 5432,
                dbname=address.database or "postgres",
                user=secret("user") or "postgres",
                password=secret("password") or None,
                connect_timeout=_CONNECT_SECONDS,
                autocommit=True,
                application_name="stoker",
            )
            connection.execute("create extension if not exists vector")
        except psycopg.Error as error:
            raise _told(error, "no database answers", self._where) from error
        return connection

    def _register(self) -> None:
        info = TypeInfo.fetch(self._connection, "vector")
        assert info is not None
        dumper = type("VectorDumper", (_VectorDumper,), {"oid": info.oid})
        self._connection.adapters.register_dumper(_Binary, dumper)

    def _folder(self) -> str:
        """Return the server's data folder where it lies on this host and we may know it."""
        if not (self._address.host in _LOCAL or self._address.host.startswith("/")):
            return ""
        with suppress(StokerError):
            folder = str(self._one("show data_directory")[0])
            return folder if Path(folder).is_dir() else ""
        return ""

    def _do(self, what: str, query: Any, parameters: Any = None, **more: Any) -> "psycopg.Cursor[Any]":
        try:
            return self._connection.execute(query, parameters, **more)
        except psycopg.Error as error:
            raise _told(error, what, self._where) from error

    def _one(self, query: Any, parameters: Any = None) -> Any:
        found = self._do("the database does not answer", query, parameters).fetchone()
        if found is None:
            raise StokerError("the database does not answer", where=self._where, expected="a row")
        return found

    def names(self) -> list[str]:
        """Return the tables that hold an id and an embedding."""
        query = (
            "select table_name from information_schema.columns where column_name = 'embedding' and udt_name = 'vector' "
            "and table_schema = current_schema() order by table_name"
        )
        return [str(row[0]) for row in self._do("collections cannot be listed", query)]

    def create(self, spec: CollectionSpec) -> None:
        """Make an empty table; its index is made when the vectors are in, for that is many times as fast."""
        if spec.dimension > DIMENSION_MAX and spec.index.kind != "FLAT":
            got = str(spec.dimension)
            raise UsageError(
                "pgvector indexes no vectors of this dimension", expected=f"at most {DIMENSION_MAX}", got=got
            )
        if spec.shards != 1:
            raise UsageError("pgvector has no shards", got=str(spec.shards), remedy="leave out --num-shards")
        table = sql.Identifier(spec.name)
        make = sql.SQL("create table {} (id bigint primary key, embedding vector({}) not null)")
        self._do("the collection cannot be made", make.format(table, sql.Literal(spec.dimension)))
        self._do(
            "the collection cannot be made", sql.SQL("alter table {} alter embedding set storage plain").format(table)
        )
        note = sql.SQL("comment on table {} is {}").format(table, sql.Literal(spec.note))
        self._do("the collection cannot be made", note)
        self._spec = spec

    def drop(self, name: str) -> None:
        """Remove a table."""
        self._do("the collection cannot be removed", sql.SQL("drop table if exists {}").format(sql.Identifier(name)))

    def insert(self, name: str, ids: Ids, vectors: Vectors) -> int:
        """Insert vectors under ids; return how many the database took."""
        copy_in = sql.SQL("copy {} (id, embedding) from stdin with (format binary)").format(sql.Identifier(name))
        try:
            with self._connection.cursor() as cursor:
                with cursor.copy(copy_in) as copy:
                    copy.write(b"PGCOPY\n\xff\r\n\x00" + struct.pack(">II", 0, 0))
                    for number, row in zip(ids.tolist(), vectors, strict=True):
                        data = packed(row)
                        copy.write(struct.pack(">HIqI", 2, 8, number, len(data)) + data)
                    copy.write(struct.pack(">h", -1))
                return int(cursor.rowcount)
        except psycopg.Error as error:
            raise _told(error, "vectors cannot be inserted", self._where) from error

    def flush(self, name: str) -> None:
        """Have what was inserted written down, where we may ask for it: every insertion is durable already."""
        with suppress(StokerError):
            self._do("no checkpoint", "checkpoint")

    def build(self, name: str, *, wait_seconds: float, on_progress: Callable[[BuildProgress], None]) -> None:
        """Make the index, on a connection of its own, and tell how far it is."""
        spec = self._spec
        assert spec is not None and spec.name == name
        total = int(self._one(sql.SQL("select count(*) from {}").format(sql.Identifier(name)))[0])
        if spec.index.kind == "FLAT":
            on_progress(BuildProgress(total, total, "none is needed"))
            return
        failed: list[StokerError] = []
        thread = Thread(target=self._make_index, args=(spec, failed), name="stoker-index", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(wait_seconds)
            on_progress(self._progress(total))
        if failed:
            raise failed[0]
        on_progress(BuildProgress(total, total, "built"))

    def _make_index(self, spec: CollectionSpec, failed: list[StokerError]) -> None:
        operators = _METRICS[spec.index.metric][0]
        chosen = {_OPTIONS[key]: value for key, value in spec.index.parameters.items()}
        options = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(k), sql.Literal(v)) for k, v in chosen.items()
        )
        query = sql.SQL("create index {} on {} using {} (embedding {})").format(
            sql.Identifier(f"{spec.name}_index"),
            sql.Identifier(spec.name),
            sql.Identifier(_KINDS[spec.index.kind]),
            sql.Identifier(operators),
        )
        if chosen:
            query += sql.SQL(" with ({})").format(options)
        try:
            with self._connect() as connection:
                connection.execute(query)
        except psycopg.Error as error:
            failed.append(_told(error, "the index cannot be built", self._where))
        except StokerError as error:
            failed.append(error)

    def _progress(self, total: int) -> BuildProgress:
        query = "select phase, coalesce(tuples_done, 0) from pg_stat_progress_create_index limit 1"
        found = self._do("the progress is not told", query).fetchone()
        return BuildProgress(int(found[1]), total, str(found[0])) if found else BuildProgress(0, total)

    def compact(self, name: str) -> bool:
        """Have the table vacuumed, and its statistics made."""
        self._do("the collection cannot be compacted", sql.SQL("vacuum (analyze) {}").format(sql.Identifier(name)))
        return True

    def describe(self, name: str) -> CollectionFacts:
        """Return what PostgreSQL tells of a table and its index."""
        if name not in self.names():
            known = ", ".join(self.names()[:10]) or "none"
            raise UsageError("no such collection", where=name, got=f"there are: {known}", remedy="load one first")
        table = sql.Identifier(name)
        count = int(self._one(sql.SQL("select count(*) from {}").format(table))[0])
        note, dimension = self._one(
            "select coalesce(obj_description(attrelid, 'pg_class'), ''), atttypmod from pg_attribute "
            "where attrelid = to_regclass(quote_ident(%s)) and attname = 'embedding'",
            (name,),
        )
        index, told = self._index(name)
        return CollectionFacts(name, count, int(dimension), index, str(note), 1, told)

    def _index(self, name: str) -> tuple[IndexSpec, dict[str, str]]:
        query = (
            "select m.amname, coalesce(c.reloptions, '{}'), o.opcname, pg_relation_size(c.oid) from pg_index i "
            "join pg_class c on c.oid = i.indexrelid join pg_am m on m.oid = c.relam "
            "join pg_opclass o on o.oid = i.indclass[0] "
            "where i.indrelid = to_regclass(quote_ident(%s)) and i.indisvalid and m.amname = any(%s)"
        )
        found = self._do("the index cannot be described", query, (name, list(_KINDS.values()))).fetchone()
        if found is None:
            metric = self._spec.index.metric if self._spec is not None and self._spec.name == name else ""
            return IndexSpec("FLAT", metric or "COSINE"), {}
        kind = next(ours for ours, theirs in _KINDS.items() if theirs == found[0])
        metric = next(ours for ours, (operators, _) in _METRICS.items() if operators == found[2])
        names = {theirs: ours for ours, theirs in _OPTIONS.items()}
        pairs = (option.partition("=") for option in found[1])
        parameters = {names[key]: int(value) for key, _, value in pairs if key in names}
        told = {"method": str(found[0]), "operators": str(found[2]), "index_bytes": str(found[3])}
        return IndexSpec(kind, metric, parameters), told | {key: str(value) for key, value in parameters.items()}

    def load(self, name: str) -> None:
        """Make a table ready: a server's planner knows of its rows only once they were counted."""
        self._do("the collection cannot be made ready", sql.SQL("analyze {}").format(sql.Identifier(name)))

    def searcher(self, facts: CollectionFacts, k: int, effort: int) -> Searcher:
        """Return what answers queries; its plan uses the index, or it is refused."""
        if facts.index.kind in _EFFORT:
            variable, most = _EFFORT[facts.index.kind]
            wanted = max(effort, k) if facts.index.kind == "HNSW" else effort
            if wanted > most:
                raise UsageError(
                    f"pgvector takes no {variable} of this size", expected=f"at most {most}", got=str(wanted)
                )
            self._do("the search cannot be set", f"set {variable} = {wanted}")
        # a planner that finds a table small reads it whole, which is another benchmark
        scans = "on" if facts.index.kind == "FLAT" else "off"
        self._do("the search cannot be set", f"set enable_seqscan = {scans}")
        found = _Searcher(self, facts, k)
        found.require_index()
        return found

    def scan(self, name: str, rows: int) -> Iterator[tuple[Ids, Vectors]]:
        """Yield all of a table, ids ascending."""
        last = -(1 << 63)
        query = sql.SQL("select id, vector_send(embedding) from {} where id > %s order by id limit {}").format(
            sql.Identifier(name), sql.Literal(rows)
        )
        while found := self._do("the collection cannot be read", query, (last,), binary=True).fetchall():
            last = int(found[-1][0])
            yield np.array([row[0] for row in found], np.int64), np.stack([unpacked(row[1]) for row in found])

    def fetch(self, name: str, ids: Ids) -> Vectors:
        """Return the vectors of some ids, in their order."""
        query = sql.SQL("select id, vector_send(embedding) from {} where id = any(%s)").format(sql.Identifier(name))
        found = dict(self._do("vectors cannot be read", query, (ids.tolist(),), binary=True).fetchall())
        rows = [unpacked(found[number]) for number in ids.tolist() if number in found]
        return np.stack(rows) if rows else np.empty((0, 0), np.float32)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class _Searcher:
    """Searches on the engine's connection; queries of a request go together."""

    def __init__(self, engine: PgEngine, facts: CollectionFacts, k: int) -> None:
        self._engine, self._facts = engine, facts
        self._connection = engine._connection
        self._query = sql.SQL("select id from {} order by embedding {} %s limit {}").format(
            sql.Identifier(facts.name), sql.SQL(_METRICS[facts.index.metric][1]), sql.Literal(k)
        )

    def require_index(self) -> None:
        """Raise UsageError when the planner would read the whole table though there is an index."""
        if self._facts.index.kind == "FLAT":
            return
        explain = sql.SQL("explain ") + self._query
        probe = _Binary(np.ones(self._facts.dimension, np.float32))
        lines = [str(row[0]) for row in self._engine._do("the search cannot be planned", explain, (probe,))]
        if not any("Index Scan" in line for line in lines):
            got = lines[-1].strip() if lines else "no plan"
            remedy = "load the collection anew (--force)"
            raise UsageError("the search would not use its index", where=self._facts.name, got=got, remedy=remedy)

    def search(self, queries: Vectors) -> list[list[int]]:
        """Return the ids nearest to each query."""
        try:
            if len(queries) == 1:
                return [self._ids(self._ask(queries[0]))]
            with self._connection.pipeline():
                asked = [self._ask(row) for row in queries]
            return [self._ids(cursor) for cursor in asked]
        except psycopg.Error as error:
            raise _told(error, "a search has no answer", self._engine._where) from error

    def _ask(self, row: Vectors) -> "psycopg.Cursor[Any]":
        return self._connection.execute(self._query, (_Binary(row),), prepare=True, binary=True)

    @staticmethod
    def _ids(cursor: "psycopg.Cursor[Any]") -> list[int]:
        return [int(row[0]) for row in cursor.fetchall()]


class PgKind:
    """How PostgreSQL is opened."""

    default_port = 5432
    indexes = ("HNSW", "IVF_FLAT", "FLAT")
    metrics = ("COSINE", "L2", "IP")
    single_writer = False

    def open(self, address: Address) -> VectorEngine:
        """Connect."""
        return PgEngine(address)

    def serve(self, address: Address) -> AbstractContextManager[Address]:
        """Return the address: the server is there already."""
        return nullcontext(address)


open_pgvector: Final = PgKind()
