"""The footer of a Parquet file: which bytes hold which columns of which rows.

Field numbers are those of parquet.thrift (Apache Parquet format 2.11).
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from stoker.core.errors import CorruptError
from stoker.core.units import KiB, MiB
from stoker.formats.api import RangeSource
from stoker.formats.base import INFLATE_RATIO_MAX
from stoker.formats.thrift import Wanted, parse

MAGIC: Final = b"PAR1"
LIBRARY_ERRORS: Final = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError)
_TAIL_BYTES: Final = 64 * KiB
_END_BYTES: Final = 8
_SLACK: Final = 16 * MiB
"""Run-length coding shrinks constant columns beyond any ratio: up to this many values, or bytes, they are believed."""

_FILE_ROWS, _FILE_GROUPS = 3, 4
_GROUP_COLUMNS, _GROUP_ROWS = 1, 3
_CHUNK_PATH, _CHUNK_META = 1, 3
_META_PATH, _META_CODEC, _META_VALUES, _META_UNPACKED, _META_PACKED, _META_DATA, _META_DICTIONARY = 3, 4, 5, 6, 7, 9, 11
_META_WANTED: Final[Wanted] = dict.fromkeys(
    (_META_PATH, _META_CODEC, _META_VALUES, _META_UNPACKED, _META_PACKED, _META_DATA, _META_DICTIONARY)
)
_WANTED: Final[Wanted] = {
    _FILE_ROWS: None,
    _FILE_GROUPS: {_GROUP_ROWS: None, _GROUP_COLUMNS: {_CHUNK_PATH: None, _CHUNK_META: _META_WANTED}},
}


class Chunk(msgspec.Struct, frozen=True):
    """One column of one row group: its path in the schema, where it lies, and how it is packed (0: not)."""

    path: str
    offset_bytes: int
    length_bytes: int
    unpacked_bytes: int
    values: int
    codec: int = 0


class RowGroup(msgspec.Struct, frozen=True):
    """Some rows, column by column."""

    rows: int
    chunks: tuple[Chunk, ...]


class Footer(msgspec.Struct, frozen=True):
    """What the footer says, the same for Arrow, and where in the file it starts."""

    groups: tuple[RowGroup, ...]
    metadata: Any
    start_bytes: int


def read_footer(source: RangeSource) -> Footer:
    """Return the footer. Raises CorruptError when it is cut off, malformed, or contradicts itself."""
    size_bytes = source.size_bytes
    if size_bytes < _END_BYTES + len(MAGIC):
        raise CorruptError("parquet: file is cut off", got=f"{size_bytes} bytes")
    tail = source.read(max(0, size_bytes - _TAIL_BYTES), min(size_bytes, _TAIL_BYTES))
    if bytes(tail[-4:]) != MAGIC:
        raise CorruptError("parquet: file is cut off, or is none", expected=f"{MAGIC!r} at the end")
    footer_bytes = int.from_bytes(tail[-_END_BYTES:-4], "little")
    start = size_bytes - _END_BYTES - footer_bytes
    if start < len(MAGIC) or footer_bytes == 0:
        raise CorruptError("parquet: footer length is impossible", got=f"{footer_bytes} of {size_bytes} bytes")
    if footer_bytes + _END_BYTES > len(tail):
        tail = source.read(start, footer_bytes + _END_BYTES)
    end = bytes(tail[-_END_BYTES - footer_bytes :])
    groups = parse_groups(end[:footer_bytes])
    try:
        metadata = pq.read_metadata(pa.BufferReader(MAGIC + end))
    except LIBRARY_ERRORS as error:
        raise CorruptError("parquet: footer cannot be read", got=str(error)) from error
    return Footer(groups, metadata, start)


def parse_groups(footer: bytes) -> tuple[RowGroup, ...]:
    """Return the row groups of a footer. Raises CorruptError."""
    told = parse(footer, _WANTED)
    groups = told.get(_FILE_GROUPS)
    rows = told.get(_FILE_ROWS)
    if not isinstance(groups, list) or not isinstance(rows, int):
        raise CorruptError("parquet: footer tells no rows")
    parsed = tuple(_group(group) for group in groups)
    held = sum(group.rows for group in parsed)
    if held != rows:
        raise CorruptError("parquet: footer tells two numbers of rows", expected=str(rows), got=str(held))
    return parsed


def _group(told: Any) -> RowGroup:
    rows = told.get(_GROUP_ROWS) if isinstance(told, dict) else None
    columns = told.get(_GROUP_COLUMNS) if isinstance(told, dict) else None
    if not isinstance(rows, int) or rows < 0 or not isinstance(columns, list):
        raise CorruptError("parquet: row group is malformed", got=f"{rows!r} rows")
    return RowGroup(rows, tuple(_chunk(column) for column in columns))


def _chunk(told: Any) -> Chunk:
    meta = told.get(_CHUNK_META) if isinstance(told, dict) else None
    if not isinstance(meta, dict) or told.get(_CHUNK_PATH):
        raise CorruptError("parquet: column is encrypted, or lies in another file")
    path = meta.get(_META_PATH)
    if not isinstance(path, list) or not all(isinstance(word, bytes) for word in path):
        raise CorruptError("parquet: column has no path")
    start, dictionary = _number(meta, _META_DATA), _number(meta, _META_DICTIONARY, 0)
    return Chunk(
        path=b".".join(path).decode("utf-8", "backslashreplace"),
        offset_bytes=dictionary if 0 < dictionary < start else start,
        length_bytes=_number(meta, _META_PACKED),
        unpacked_bytes=_number(meta, _META_UNPACKED),
        values=_number(meta, _META_VALUES),
        codec=_number(meta, _META_CODEC),
    )


def _number(meta: dict[int, Any], field: int, default: int = -1) -> int:
    value = meta.get(field, default)
    if not isinstance(value, int) or value < 0:
        raise CorruptError("parquet: column is malformed", got=f"{value!r} in field {field}")
    return value


def leaf_paths(groups: Sequence[RowGroup], names: Sequence[str]) -> frozenset[str]:
    """Return the paths of the stored columns that make up the named ones."""
    wanted = frozenset(names)
    paths = {chunk.path for group in groups for chunk in group.chunks}
    return frozenset(path for path in paths if path in wanted or path.split(".", 1)[0] in wanted)


def group_ranges(group: RowGroup, paths: frozenset[str], border: int) -> tuple[tuple[int, int], ...]:
    """Return the byte ranges of the columns at `paths` of a row group, neighbours joined. Raises CorruptError.

    Every range must lie before `border`, where the footer starts, and promise no more than its size allows.
    """
    joined: list[tuple[int, int]] = []
    chunks = [chunk for chunk in group.chunks if chunk.path in paths]
    if len(chunks) != len(paths):
        raise CorruptError("parquet: row group lacks columns", expected=f"{len(paths)}", got=f"{len(chunks)}")
    for chunk in sorted(chunks, key=lambda chunk: chunk.offset_bytes):
        start, length = chunk.offset_bytes, chunk.length_bytes
        end = joined[-1][0] + joined[-1][1] if joined else len(MAGIC)
        if start < end or length < 1 or start + length > border:
            raise CorruptError("parquet: column lies where it cannot", got=f"[{start}, {start + length}) of {border}")
        promised = max(group.rows, chunk.values, chunk.unpacked_bytes)
        if promised > length * INFLATE_RATIO_MAX + _SLACK:
            raise CorruptError("parquet: column claims an absurd size", got=f"{promised} values in {length} bytes")
        if joined and start == end:
            joined[-1] = (joined[-1][0], joined[-1][1] + length)
        else:
            joined.append((start, length))
    return tuple(joined)
