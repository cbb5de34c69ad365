"""How large KV caches and vector collections are: bytes a token and working sets, vectors, index and exact copy."""

import math
import tomllib
from functools import cache
from importlib.resources import files
from typing import Final, TypeVar

import msgspec

from stoker.bench.rules.mlperf.tables import DATA, KvOption, models
from stoker.core.errors import UnknownNameError, UsageError
from stoker.core.kvcache import KvModel, KvPersona
from stoker.core.registry import nearest
from stoker.core.units import GiB, format_bytes

DTYPE_BYTES: Final = 2
VECTOR_ELEMENT_BYTES: Final = {"FLOAT_VECTOR": 4}
VECTORS_A_SHARD: Final = 1_000_000
SECTOR_BYTES: Final = 4096
_ID_BYTES: Final = 8
_LINK_BYTES: Final = 4
T = TypeVar("T")


class IndexKind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an index stores its vectors, with the build parameters of the rules."""

    kind: str
    degree: int = 0
    inline_pq: int = 0
    element_bytes: int = 0
    raw_ratio_min: float = 0.0


class _Tables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kv_models: dict[str, KvModel]
    personas: dict[str, KvPersona]
    indexes: dict[str, IndexKind]


@cache
def _tables() -> _Tables:
    text = files(DATA).joinpath("data", "sizing.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _Tables)


def kv_models() -> dict[str, KvModel]:
    """Return the language models by name."""
    return _tables().kv_models


def personas() -> dict[str, KvPersona]:
    """Return the kinds of users by name."""
    return _tables().personas


def index_kinds() -> dict[str, IndexKind]:
    """Return the indexes by name."""
    return _tables().indexes


def known(table: dict[str, T], name: str, kind: str) -> T:
    """Return the table's entry. Raises UnknownNameError with the nearest name."""
    if name in table:
        return table[name]
    close = nearest(name, list(table))
    remedy = f"did you mean {close!r}? " if close else ""
    raise UnknownNameError(f"no {kind}", where=name, remedy=f"{remedy}known: {', '.join(table)}")


def counted(**counts: int) -> None:
    """Raise UsageError for a count below 1."""
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"{name} must be at least 1", got=str(count))


class PersonaSize(msgspec.Struct, frozen=True, kw_only=True):
    """The cache that one kind of user fills: if all users were of this kind, one conversation each."""

    name: str
    tokens_min: int
    tokens_max: int
    bytes_min: int
    bytes_max: int

    @property
    def bytes_mean(self) -> float:
        """Return the expected bytes: contexts and answers are drawn uniformly."""
        return (self.bytes_min + self.bytes_max) / 2


class KvSize(msgspec.Struct, frozen=True, kw_only=True):
    """The working set of all users of all clients. `tier_bytes` is the memory of all clients' tiers above the storage.

    `storage_bytes_*` are what does not fit there. Entries that are kept after their conversation ended come on top, up
    to the capacity of the storage tier.
    """

    model: str
    clients: int
    users_per_client: int
    bytes_per_token: int
    personas: tuple[PersonaSize, ...]
    working_set_bytes_min: int
    working_set_bytes_mean: float
    working_set_bytes_max: int
    tier_bytes: int
    storage_bytes_mean: float
    storage_bytes_max: float
    largest_entry_bytes: int
    sentence: str


def kv_size(
    model: str,
    *,
    users: int,
    clients: int = 1,
    gpu_memory_gb: float = 0,
    cpu_memory_gb: float = 0,
    tensor_parallel: int = 1,
    dtype_bytes: int = DTYPE_BYTES,
) -> KvSize:
    """Return the working set of `users` a client, each of whom holds one conversation of full context.

    Users are a third of each persona. A rank of `tensor_parallel` holds its share of an entry. Memory of the tiers is
    in GB as the benchmark's options count them, which are binary.

    Raises UnknownNameError for an unknown model, UsageError for counts below 1.
    """
    counted(users=users, clients=clients, tensor_parallel=tensor_parallel)
    entry = known(kv_models(), model, "KV-cache model")
    each, all_users = entry.bytes_per_token(dtype_bytes), users * clients
    personas = tuple(_persona(name, persona, all_users * each) for name, persona in _tables().personas.items())
    least = sum(persona.bytes_min for persona in personas) // len(personas)
    most = sum(persona.bytes_max for persona in personas) // len(personas)
    mean = sum(persona.bytes_mean for persona in personas) / len(personas)
    tiers = round((gpu_memory_gb + cpu_memory_gb) * GiB) * clients
    longest = max(persona.tokens_max for persona in personas)
    told = (
        f"{all_users:,} users x {each:,} B a token: {format_bytes(mean)} of working set, at most {format_bytes(most)}"
    )
    return KvSize(
        model=model,
        clients=clients,
        users_per_client=users,
        bytes_per_token=each,
        personas=personas,
        working_set_bytes_min=least,
        working_set_bytes_mean=mean,
        working_set_bytes_max=most,
        tier_bytes=tiers,
        storage_bytes_mean=max(0.0, mean - tiers),
        storage_bytes_max=max(0.0, float(most - tiers)),
        largest_entry_bytes=longest * each // tensor_parallel,
        sentence=told + f"; {format_bytes(tiers)} of memory above the storage",
    )


def kv_option_size(option: str, *, clients: int = 1) -> KvSize:
    """Return the working set of one of the closed options. Raises UnknownNameError."""
    fixed: KvOption = known(models().kv_cache.options, option, "option of the closed KV-cache workload")
    return kv_size(
        fixed.model,
        users=fixed.users,
        clients=clients,
        gpu_memory_gb=fixed.gpu_memory_gb,
        cpu_memory_gb=fixed.cpu_memory_gb,
    )


def _persona(name: str, persona: KvPersona, bytes_a_token: int) -> PersonaSize:
    least, most = (persona.context[end] + persona.generated[end] for end in (0, 1))
    return PersonaSize(
        name=name,
        tokens_min=least,
        tokens_max=most,
        bytes_min=least * bytes_a_token,
        bytes_max=most * bytes_a_token,
    )


class VectorSize(msgspec.Struct, frozen=True, kw_only=True):
    """A collection: the vectors, their index, and the exact copy that recall is held against."""

    index: str
    vectors: int
    dimension: int
    shards_advised: int
    raw_bytes: int
    index_bytes: int
    index_ratio: float
    exact_copy_bytes: int
    total_bytes: int
    served_from_memory: bool
    sentence: str


def vector_size(
    index: str,
    *,
    vectors: int,
    dimension: int,
    dtype: str = "FLOAT_VECTOR",
    degree: int | None = None,
    inline_pq: int | None = None,
    exact_copy: bool = True,
) -> VectorSize:
    """Return the bytes of a collection: vectors x dimension x 4, however many shards it has.

    `degree` is max_degree or M, else the rules' value. An index of a graph on disk is counted in whole sectors of
    4 KiB a node, and with no less than 130 % of the vectors.

    Raises UnknownNameError for an unknown index or element type, UsageError for counts below 1.
    """
    counted(vectors=vectors, dimension=dimension)
    kind = known(_tables().indexes, index, "index")
    raw = vectors * dimension * known(VECTOR_ELEMENT_BYTES, dtype, "vector type")
    shape = msgspec.structs.replace(
        kind,
        degree=kind.degree if degree is None else degree,
        inline_pq=kind.inline_pq if inline_pq is None else inline_pq,
    )
    index_bytes = _index_bytes(shape, vectors, dimension, raw)
    copy = raw if exact_copy and kind.kind != "copy" else 0
    total = raw + index_bytes + copy
    told = f"{format_bytes(total)}: {format_bytes(raw)} of vectors, {format_bytes(index_bytes)} of {index} index"
    return VectorSize(
        index=index,
        vectors=vectors,
        dimension=dimension,
        shards_advised=math.ceil(vectors / VECTORS_A_SHARD),
        raw_bytes=raw,
        index_bytes=index_bytes,
        index_ratio=index_bytes / raw,
        exact_copy_bytes=copy,
        total_bytes=total,
        served_from_memory=kind.kind != "disk_graph",
        sentence=told + (f", {format_bytes(copy)} of exact copy" if copy else ""),
    )


def _index_bytes(shape: IndexKind, vectors: int, dimension: int, raw: int) -> int:
    if shape.kind == "disk_graph":
        node = dimension * 4 + _LINK_BYTES * (1 + shape.degree) + shape.inline_pq * shape.degree
        return max(_in_sectors(node, vectors), math.ceil(shape.raw_ratio_min * raw))
    if shape.kind == "memory_graph":  # the lowest level has twice the links; each level above 1/M of the nodes
        links = 2 * shape.degree * (1 + 1 / (2 * max(shape.degree - 1, 1)))
        return raw + math.ceil(vectors * (_LINK_BYTES * links + _ID_BYTES))
    if shape.kind == "lists":
        return vectors * (dimension * shape.element_bytes + _ID_BYTES)
    return 0


def _in_sectors(node_bytes: int, nodes: int) -> int:
    if node_bytes <= SECTOR_BYTES:
        return math.ceil(nodes / (SECTOR_BYTES // node_bytes)) * SECTOR_BYTES
    return nodes * math.ceil(node_bytes / SECTOR_BYTES) * SECTOR_BYTES
