"""The shipped configurations of the vector database, by name: what they set of the options that nobody gives."""

from typing import Any, Final

from stoker.core.errors import UnknownNameError, UsageError
from stoker.core.registry import nearest

_MILLION: Final = 1_000_000
_DISKANN: Final = {"max_degree": 64, "search_list_size": 200}
_HNSW: Final = {"m": 64, "ef_construction": 200}
_AISAQ: Final = {"inline_pq": 32, "max_degree": 32, "search_list_size": 100, "chunk_size": 100_000, "batch_size": 1000}
CONFIGS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "default": ("", {"num_vectors": _MILLION, "dimension": 1536, "num_shards": 1, **_DISKANN, **_HNSW}),
    "1m_diskann": ("DISKANN", {"num_vectors": _MILLION, "dimension": 1536, "num_shards": 1, **_DISKANN}),
    "10m_diskann": ("DISKANN", {"num_vectors": 10 * _MILLION, "dimension": 1536, "num_shards": 10, **_DISKANN}),
    "1m_hnsw": ("HNSW", {"num_vectors": _MILLION, "dimension": 1536, "num_shards": 1, **_HNSW}),
    "10m_hnsw": ("HNSW", {"num_vectors": 10 * _MILLION, "dimension": 1536, "num_shards": 10, **_HNSW}),
    "1m_diskann_512": ("DISKANN", {"num_vectors": _MILLION, "dimension": 512, "num_shards": 1, **_DISKANN}),
    "1m_aisaq_512": ("AISAQ", {"num_vectors": _MILLION, "dimension": 512, "num_shards": 1, **_AISAQ}),
}
"""Name -> the index it is for (empty: any), and options with their values."""


def preset_of(name: str, index: str, options: list[str]) -> dict[str, Any]:
    """Return what a configuration sets of a command's options.

    Raises UnknownNameError for a name that none has, UsageError for a configuration of another index.
    """
    if name not in CONFIGS:
        close = nearest(name, list(CONFIGS))
        hint = f"did you mean {close!r}? " if close else ""
        raise UnknownNameError(
            "--config: no such configuration", where=name, remedy=f"{hint}known: {', '.join(CONFIGS)}"
        )
    kind, values = CONFIGS[name]
    if kind and kind != index:
        raise UsageError("--config is for another index", where=name, expected=kind, got=index)
    values = {**values, "vector_dim": values["dimension"]}
    if "num_vectors" not in options:  # the run's batches are queries
        values.pop("batch_size", None)
    return {key: value for key, value in values.items() if key in options}
