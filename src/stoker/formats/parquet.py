"""Parquet: rows are samples, row groups are extents, and only the columns that are read are asked for.

Option `columns` is a list of {name, dtype, size, read}: a size of 1 is a plain column, a larger one a fixed-size
list; `string`, `binary` and `list` (of float32) take `size` too. A sample is then one row of bytes, the columns'
values one after the other (`split_rows`). Without columns there is one fixed-size list of uint8, `data`, that holds
the sample's bytes whatever their type. Dictionaries are kept to 8-bit columns, which plain Parquet would widen to
four bytes a value; so the file is about as large as its payload.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stoker.core.errors import CorruptError, UsageError
from stoker.formats.api import Array, Block, ContentSource, Extent, Layout, Lend, RangeSource, SampleSpec
from stoker.formats.base import (
    Expectation,
    FormatBase,
    as_bytes,
    extent_bytes,
    gather,
    hold_against,
    take,
    view_samples,
    whole_number,
)
from stoker.formats.parquet_columns import (
    DATA_COLUMN,
    Column,
    arrow_schema,
    byte_wide_paths,
    parse_columns,
    readable,
    row_bytes,
    split_rows,
    to_arrow,
    to_numpy,
)
from stoker.formats.parquet_footer import LIBRARY_ERRORS, group_ranges, leaf_paths, read_footer
from stoker.formats.parquet_plain import Leaf, PlainGroup, plain_columns, plain_group, plain_leaves
from stoker.formats.ranges import PieceSource, RangeFile

_ROW_GROUP_ROWS: Final = 1024


class ParquetContext(msgspec.Struct, frozen=True):
    """What decoding needs beside the bytes: the footer, the columns to read, and which group starts at which row.

    `leaves` are the columns that may be read without Arrow, `plain` how, for each group that starts at a row.
    """

    metadata: Any
    names: tuple[str, ...]
    primary: str
    size_bytes: int
    groups: Mapping[int, int]
    told: Expectation
    leaves: Mapping[str, Leaf]
    plain: Mapping[int, PlainGroup]


class Parquet(FormatBase):
    """Options: `columns` (see above), `row_group_size` rows (1024), `compression` of the pages, `verify` page checksums
    on reading, for files that carry them.
    """

    name = "parquet"
    extension = "parquet"
    whole_file = False
    primary = DATA_COLUMN
    own_options = ("columns", "row_group_size", "verify")
    compressions = ("none", "snappy", "gzip", "brotli", "zstd", "lz4")

    def check_spec(self, spec: SampleSpec) -> SampleSpec:
        """Return the spec; with columns, a sample is a row of bytes. Raises UsageError for malformed columns."""
        columns = _columns_option(spec.options)
        if columns is None:
            return super().check_spec(spec)
        # The columns decide shape and dtype; what the options told of them was the caller's wish.
        options = {name: value for name, value in spec.options.items() if name not in ("shape", "dtype")}
        return super().check_spec(SampleSpec((row_bytes(columns),), "uint8", spec.samples, options))

    def checked_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options given. Raises UsageError for a row group of no rows."""
        given = super().checked_options(options)
        if "row_group_size" in given:
            whole_number("row_group_size", given["row_group_size"])
        return given

    def encode(self, spec: SampleSpec, content: ContentSource) -> Iterator[memoryview]:
        """Yield the file, one row group in memory at a time."""
        spec = self.check_spec(spec)
        return gather(_row_groups(spec, content, self.compression(spec.options)))

    def layout(self, source: RangeSource, options: Mapping[str, Any]) -> Layout:
        """Return one extent a row group, with the ranges of the columns that are read; reads the footer alone.

        Raises CorruptError for a footer that lies, or a type of column that arrays cannot show.
        """
        columns, told = _columns_option(options), self.expectation(options)
        if columns is not None:
            told = _rows_told(columns, told)
        footer = read_footer(source)
        names = _wanted_names(footer.metadata, columns)
        paths = leaf_paths(footer.groups, names)
        extents: list[Extent] = []
        groups: dict[int, int] = {}
        # Only Arrow compares the checksums of pages.
        leaves = {} if told.verify else plain_leaves(footer.metadata, names)
        plain: dict[int, PlainGroup] = {}
        first = 0
        for number, group in enumerate(footer.groups):
            if group.rows:
                extents.append(Extent(group_ranges(group, paths, footer.start_bytes), first, group.rows))
                groups[first] = number
                found = plain_group(group, extents[-1].ranges, leaves)
                if found is not None:
                    plain[first] = found
            first += group.rows
        if told.samples not in (None, first):
            raise CorruptError("parquet: wrong number of rows", expected=str(told.samples), got=str(first))
        primary = DATA_COLUMN if columns is None and DATA_COLUMN in names else names[0]
        context = ParquetContext(footer.metadata, names, primary, source.size_bytes, groups, told, leaves, plain)
        return Layout(tuple(extents), context)

    def decode(self, data: memoryview, extent: Extent, layout: Layout) -> Block:
        """Return the columns that are read. Parquet's pages have to be unpacked, so every byte counts as copied."""
        return self.decode_into(data, extent, layout, _new_memory)

    def decode_into(self, data: memoryview, extent: Extent, layout: Layout, lend: Lend) -> Block:
        """Do as `decode` does; plain numbers go to memory from `lend`."""
        view = extent_bytes(data, extent)
        context = layout.context
        if not isinstance(context, ParquetContext) or extent.first_sample not in context.groups:
            raise UsageError("parquet: an extent can be decoded only with the layout it came from")
        plain = context.plain.get(extent.first_sample)
        found: dict[str, Array | list[Array]] = {}
        if plain is not None and plain.ranges == extent.ranges:
            found.update(plain_columns(np.frombuffer(view, np.uint8), plain, extent.samples, context.leaves, lend))
        rest = [name for name in context.names if name not in found]
        if rest:
            table = _read_group(view, context, extent, rest)
            for name in rest:
                found[name] = to_numpy(table.column(name), name)
        columns = {name: found[name] for name in context.names}
        columns[context.primary] = _as_told(columns[context.primary], extent, context)
        copied_bytes = sum(_held_bytes(values) for values in columns.values())
        even = all(isinstance(values, np.ndarray) for values in columns.values())
        row_bytes = copied_bytes // extent.samples if even else None
        return Block(
            columns, primary=context.primary, samples=extent.samples, copied_bytes=copied_bytes, row_bytes=row_bytes
        )


def _new_memory(size_bytes: int) -> Array:
    return np.empty(size_bytes, np.uint8)


def _columns_option(options: Mapping[str, Any]) -> tuple[Column, ...] | None:
    value = options.get("columns")
    return parse_columns(value) if value else None


def _rows_told(columns: tuple[Column, ...], told: Expectation) -> Expectation:
    """Return what is left to hold against a file of columns. Raises UsageError for a shape that is not their row."""
    if told.shape not in (None, (row_bytes(columns),)) or told.dtype not in (None, "|u1"):
        raise UsageError("parquet: the columns decide shape and dtype", got=f"{told.shape} {told.dtype}")
    return Expectation(samples=told.samples, verify=told.verify)


def _wanted_names(metadata: Any, columns: tuple[Column, ...] | None) -> tuple[str, ...]:
    """Return the names of the columns to read, all of the file's when none were told."""
    try:
        schema = metadata.schema.to_arrow_schema()
    except LIBRARY_ERRORS as error:
        raise CorruptError("parquet: schema cannot be read", got=str(error)) from error
    if len(set(schema.names)) != len(schema.names) or not schema.names:
        raise CorruptError("parquet: schema has no columns, or two of one name")
    names = tuple(schema.names) if columns is None else tuple(column.name for column in columns if column.read)
    for name in names:
        if name not in schema.names:
            raise CorruptError("parquet: column is missing", where=name, got=", ".join(schema.names[:8]))
        if not readable(schema.field(name).type):
            raise CorruptError(
                "parquet: column has a type that arrays cannot show", where=name, got=str(schema.field(name).type)
            )
    return names


def _read_group(view: memoryview, context: ParquetContext, extent: Extent, names: list[str]) -> Any:
    """Return some columns of a row group as Arrow reads them. Raises CorruptError."""
    group = context.groups[extent.first_sample]
    pieces: list[tuple[int, memoryview]] = []
    at = 0
    for start, length in extent.ranges:
        pieces.append((start, view[at : at + length]))
        at += length
    try:
        file = pq.ParquetFile(
            RangeFile(PieceSource(context.size_bytes, pieces)),
            metadata=context.metadata,
            pre_buffer=False,
            page_checksum_verification=bool(context.told.verify),
        )
        table = file.read_row_group(group, columns=names, use_threads=False)
        table.validate()
    except LIBRARY_ERRORS as error:
        raise CorruptError("parquet: row group cannot be read", got=str(error)) from error
    if table.num_rows != extent.samples:
        raise CorruptError("parquet: wrong number of rows", expected=str(extent.samples), got=str(table.num_rows))
    return table


def _as_told(values: Array | list[Array], extent: Extent, context: ParquetContext) -> Array | list[Array]:
    """Return the primary column in the shape and dtype told; `data` holds them as bytes."""
    told = context.told
    if isinstance(values, list):
        return values
    if context.primary == DATA_COLUMN and values.dtype == np.uint8 and told.shape is not None:
        values = view_samples(as_bytes(values), extent.samples, told, "parquet: data")
    hold_against(values, extent, told, f"parquet: {context.primary}")
    return values


def _held_bytes(values: Array | list[Array]) -> int:
    return values.nbytes if isinstance(values, np.ndarray) else sum(value.nbytes for value in values)


class _Collector:
    """A file that keeps what is written until it is taken."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.closed = False
        self._position = 0

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self.pieces.append(piece)
        self._position += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Do nothing: what is written is taken from memory."""

    def close(self) -> None:
        self.closed = True

    def taken(self) -> list[bytes]:
        pieces, self.pieces = self.pieces, []
        return pieces


def _row_groups(spec: SampleSpec, content: ContentSource, compression: str) -> Iterator[bytes]:
    columns = _columns_option(spec.options) or (Column(DATA_COLUMN, "uint8", spec.sample_bytes),)
    schema = arrow_schema(columns)
    step = min(int(spec.options.get("row_group_size") or _ROW_GROUP_ROWS), spec.samples)
    sink = _Collector()
    writer = pq.ParquetWriter(
        sink, schema, compression=compression, use_dictionary=byte_wide_paths(columns), write_statistics=False
    )
    for first in range(0, spec.samples, step):
        count = min(step, spec.samples - first)
        rows = np.empty((count, spec.sample_bytes), np.uint8)
        for index in range(count):
            rows[index] = take(content, first + index, spec).reshape(-1).view(np.uint8)
        values = split_rows(rows, columns)
        arrays = [to_arrow(values[column.name], column) for column in columns]
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=count)
        yield from sink.taken()
    writer.close()
    yield from sink.taken()


FORMAT: Final = Parquet()
