"""Milvus, through its own client: a server at host:port, standalone or a cluster.

The order of loading is the reference's: the collection, its index while it is empty, the vectors, flush, the wait for
the index, and at last compaction. Search parameters go by the index's own names.
"""

import logging
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import msgspec
import numpy as np
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from stoker.core import clock
from stoker.core.errors import DeniedError, StokerError, UnavailableError, UsageError
from stoker.core.vectors import IndexSpec
from stoker.vectors.engine import (
    EFFORT_NAMES,
    Address,
    BuildProgress,
    CollectionFacts,
    CollectionSpec,
    Searcher,
    VectorEngine,
)
from stoker.vectors.making import Vectors
from stoker.vectors.secrets import secret
from stoker.vectors.truth import Ids

ID: Final = "id"
VECTOR: Final = "vector"
NOTE: Final = "stoker.note"
"""The property that Milvus Lite keeps a note as: it has no descriptions."""
CONNECT_SECONDS: Final = 10.0
_COMPACTED: Final = "Completed"
_COMPACT_SECONDS: Final = 24 * 3600.0
_QUIET_LOOKS: Final = 3
_OWN_KEYS: Final = ("field_name", "index_name", "total_rows", "indexed_rows", "pending_index_rows", "state")


def told(error: Exception, what: str, where: str) -> StokerError:
    """Return the one sentence for an error of the client."""
    text = " ".join(str(getattr(error, "message", "") or error).split())[:400]
    lowered = text.lower()
    if any(word in lowered for word in ("auth", "permission", "password")):
        return DeniedError(what, where=where, got=text, remedy="set STOKER_VECTOR_TOKEN, or _USER and _PASSWORD")
    if any(word in lowered for word in ("fail connecting", "unavailable", "deadline", "timeout", "refused")):
        return UnavailableError(what, where=where, got=text, remedy="is the database running there?")
    return StokerError(what, where=where, got=text)


def require_listener(host: str, port: int) -> None:
    """Raise UnavailableError when nobody listens there: the client would knock for long."""
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        raise UnavailableError(
            "no database answers",
            where=f"{host}:{port}",
            got=error.strerror or str(error),
            remedy="is the database running there?",
        ) from error


class MilvusEngine:
    """A connection to Milvus."""

    def __init__(self, address: Address, *, data_folder: str = "") -> None:
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # what matters comes as an error, once
        self._where = f"{address.host}:{address.port}"
        self._seconds = address.timeout_seconds
        self.data_folder = data_folder
        require_listener(address.host, address.port)
        try:
            self._client: Any = MilvusClient(
                uri=f"http://{self._where}",
                user=secret("user"),
                password=secret("password"),
                token=secret("token"),
                db_name=address.database,
                timeout=CONNECT_SECONDS,
            )
            self.version = f"Milvus {self._client.get_server_version()}"
        except MilvusException as error:
            raise told(error, "no database answers", self._where) from error

    def _do(self, what: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except MilvusException as error:
            raise told(error, what, self._where) from error

    def names(self) -> list[str]:
        """Return the collections that are there."""
        return sorted(self._do("collections cannot be listed", self._client.list_collections))

    def create(self, spec: CollectionSpec) -> None:
        """Make an empty collection and its index."""
        client = self._client
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False, description=spec.note)
        schema.add_field(ID, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=spec.dimension)
        index = client.prepare_index_params()
        # nested, as older servers and Milvus Lite read them: what they do not understand they drop without a word
        told_of_index = {"params": dict(spec.index.parameters)}
        index.add_index(VECTOR, index_type=spec.index.kind, metric_type=spec.index.metric, params=told_of_index)
        properties = {NOTE: spec.note} if self.data_folder else None

        def make() -> None:
            client.create_collection(spec.name, schema=schema, num_shards=spec.shards, properties=properties)
            client.create_index(spec.name, index)

        try:
            self._do("the collection cannot be made", make)
        except StokerError:
            if self._client.has_collection(spec.name):
                self._client.drop_collection(spec.name)
            raise

    def drop(self, name: str) -> None:
        """Remove a collection."""
        self._do("the collection cannot be removed", lambda: self._client.drop_collection(name))

    def insert(self, name: str, ids: Ids, vectors: Vectors) -> int:
        """Insert vectors under ids; return how many the database took."""
        rows = [{ID: number, VECTOR: row} for number, row in zip(ids.tolist(), vectors, strict=True)]
        found = self._do("vectors cannot be inserted", lambda: self._client.insert(name, rows, timeout=self._seconds))
        return int(found["insert_count"])

    def flush(self, name: str) -> None:
        """Have what was inserted written down; the server limits how often, and is asked again."""
        for pause_seconds in (0.5, 2.0, 10.0, 0.0):
            try:
                self._do("the collection cannot be flushed", lambda: self._client.flush(name))
                return
            except StokerError as error:
                if "rate limit" not in str(error).lower() or not pause_seconds:
                    raise
                clock.sleep(pause_seconds)

    def build(self, name: str, *, wait_seconds: float, on_progress: Callable[[BuildProgress], None]) -> None:
        """Wait for the index: nothing pending, several looks in a row, for segments come and go."""
        quiet = 0
        while quiet < _QUIET_LOOKS:
            told_now = self._index(name)
            state = str(told_now.get("state", ""))
            if "Fail" in state:
                raise StokerError("the index was not built", where=name, got=str(told_now.get("reason", state)))
            total, indexed = int(told_now.get("total_rows", 0)), int(told_now.get("indexed_rows", 0))
            pending = int(told_now.get("pending_index_rows", 0))
            on_progress(BuildProgress(indexed, max(total, indexed + pending), state))
            quiet = quiet + 1 if not pending and indexed >= total else 0
            clock.sleep(wait_seconds if not quiet else min(wait_seconds, 0.5))

    def compact(self, name: str) -> bool:
        """Have the collection compacted, and wait for it."""
        job = self._do("the collection cannot be compacted", lambda: self._client.compact(name))
        end_ns = clock.monotonic_ns() + round(_COMPACT_SECONDS * 1e9)
        while (
            state := str(self._do("compaction is not told of", lambda: self._client.get_compaction_state(job)))
        ) not in (
            _COMPACTED,
            "3",
        ):
            if clock.monotonic_ns() > end_ns:
                raise StokerError("the compaction does not end", where=name, got=state)
            clock.sleep(0.5)
        return True

    def _index(self, name: str) -> Mapping[str, Any]:
        found = self._do("the index cannot be described", lambda: self._client.describe_index(name, VECTOR))
        return found if isinstance(found, Mapping) else {}

    def describe(self, name: str) -> CollectionFacts:
        """Return what Milvus tells of a collection."""
        if not self._do("collections cannot be looked for", lambda: self._client.has_collection(name)):
            known = ", ".join(self.names()[:10]) or "none"
            raise UsageError("no such collection", where=name, got=f"there are: {known}", remedy="load one first")
        found = self._do("the collection cannot be described", lambda: self._client.describe_collection(name))
        field = next((each for each in found["fields"] if each["name"] == VECTOR), None)
        if field is None:
            raise UsageError("collection is not one of ours", where=name, expected=f"fields {ID} and {VECTOR}")
        index = self._index(name)
        parameters = _parameters(index)
        return CollectionFacts(
            name=name,
            count=self._count(name),
            dimension=int(field["params"]["dim"]),
            index=IndexSpec(str(index.get("index_type", "")), str(index.get("metric_type", "")), parameters),
            note=str(found.get("description") or dict(found.get("properties") or {}).get(NOTE, "")),
            shards=int(found.get("num_shards", 1) or 1),
            told={key: str(value) for key, value in index.items() if key not in _OWN_KEYS},
        )

    def _count(self, name: str) -> int:
        """Return the rows: counted where the collection is loaded, else as the statistics have them."""
        try:
            found = self._client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")
            return int(found[0]["count(*)"])
        except (MilvusException, LookupError):
            stats = self._do("vectors cannot be counted", lambda: self._client.get_collection_stats(name))
            return int(stats["row_count"])

    def load(self, name: str) -> None:
        """Have the collection loaded."""
        self._do("the collection cannot be loaded", lambda: self._client.load_collection(name))

    def searcher(self, facts: CollectionFacts, k: int, effort: int) -> Searcher:
        """Return what answers queries."""
        word = EFFORT_NAMES.get(facts.index.kind, "")
        parameters = {word: max(effort, k) if word != "nprobe" else effort} if word else {}
        return _Searcher(self, facts, k, parameters)

    def scan(self, name: str, rows: int) -> Iterator[tuple[Ids, Vectors]]:
        """Yield all of a collection."""
        iterator = self._do(
            "the collection cannot be read",
            lambda: self._client.query_iterator(
                name, batch_size=min(rows, 4096), filter="", output_fields=[ID, VECTOR], consistency_level="Strong"
            ),
        )
        try:
            while found := self._do("the collection cannot be read", iterator.next):
                yield _rows(found)
        finally:
            iterator.close()

    def fetch(self, name: str, ids: Ids) -> Vectors:
        """Return the vectors of some ids, in their order."""
        found = self._do(
            "vectors cannot be read",
            lambda: self._client.get(name, ids=ids.tolist(), output_fields=[ID, VECTOR]),
        )
        if not found:
            return np.empty((0, 0), np.float32)
        got, vectors = _rows(found)
        order = {number: at for at, number in enumerate(got.tolist())}
        return vectors[[order[number] for number in ids.tolist() if number in order]]

    def close(self) -> None:
        """End the connection."""
        self._client.close()


class _Searcher:
    """Searches on the engine's connection."""

    def __init__(self, engine: MilvusEngine, facts: CollectionFacts, k: int, parameters: dict[str, int]) -> None:
        self._engine = engine
        self._words = {
            "collection_name": facts.name,
            "anns_field": VECTOR,
            "limit": k,
            "output_fields": [],
            "search_params": {"metric_type": facts.index.metric, "params": parameters},
            "timeout": engine._seconds,
        }

    def search(self, queries: Vectors) -> list[list[int]]:
        """Return the ids nearest to each query."""
        try:
            found = self._engine._client.search(data=list(queries), **self._words)
        except MilvusException as error:
            raise told(error, "a search has no answer", self._engine._where) from error
        return [[int(hit[ID]) for hit in hits] for hits in found]


def _rows(found: list[Any]) -> tuple[Ids, Vectors]:
    ids = np.array([row[ID] for row in found], np.int64)
    return ids, np.array([row[VECTOR] for row in found], np.float32)


def _parameters(index: Mapping[str, Any]) -> dict[str, int]:
    """Return the whole numbers among an index's parameters, wherever the server's version puts them."""
    found = dict(index)
    nested = found.pop("params", None)
    if isinstance(nested, str):
        try:
            nested = msgspec.json.decode(nested)
        except msgspec.DecodeError:
            nested = None
    found |= nested if isinstance(nested, dict) else {}
    return {key: int(value) for key, value in found.items() if key not in _OWN_KEYS and str(value).isdecimal()}


class MilvusKind:
    """How Milvus is opened."""

    default_port = 19530
    indexes = ("DISKANN", "HNSW", "AISAQ", "IVF_FLAT", "IVF_SQ8", "FLAT")
    metrics = ("COSINE", "L2", "IP")
    single_writer = False

    def open(self, address: Address) -> VectorEngine:
        """Connect."""
        return MilvusEngine(address)

    def serve(self, address: Address) -> AbstractContextManager[Address]:
        """Return the address: the server is there already."""
        return nullcontext(address)


open_milvus: Final = MilvusKind()
