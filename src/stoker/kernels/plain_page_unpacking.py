"""The plain twin of the kernel for pages of Parquet columns: the same strict form, spelled out in Python.

Told apart is *usual* and *unusual*, never good and bad: what is not exactly in the form its common writers give it is
marked unusual, and the format's own reader decides. Sources: parquet.thrift and Encodings.md of Apache Parquet format
2.11, thrift-compact-protocol.md of Apache Thrift.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stoker.kernels.page_jobs import INDEX_BITS_MAX
from stoker.kernels.unpack_columns import USUAL, Int64s

_TRUE, _FALSE, _I32, _I64, _BINARY, _STRUCT = 1, 2, 5, 6, 8, 12
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
_PLAIN, _PLAIN_DICTIONARY, _RLE, _RLE_DICTIONARY = 0, 2, 3, 8
_DATA_HEADER, _DICTIONARY_HEADER = 5, 7
_VARINT_BYTES_MAX: Final = 9

Bytes = NDArray[np.uint8]


class _UnusualError(Exception):
    """The chunk is for somebody else to judge."""


class _Job(NamedTuple):
    at: int
    size_bytes: int
    values: int
    width: int
    out_width: int
    list_size: int
    levels: int
    out_at: int


class _Run(NamedTuple):
    """So many of one `value`, or values of their own."""

    length: int
    value: int
    values: Int64s | None


class _Cursor:
    """Bytes that are read from front to back."""

    def __init__(self, data: Bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def byte(self) -> int:
        if not self.left:
            raise _UnusualError
        self.at += 1
        return int(self.data[self.at - 1])

    def varint(self) -> int:
        value = 0
        for index in range(_VARINT_BYTES_MAX):
            digit = self.byte()
            value |= (digit & 0x7F) << (7 * index)
            if digit < 0x80:
                return value
        raise _UnusualError

    def number(self) -> int:
        """Return a number that is not negative."""
        value = self.varint()
        if value & 1:
            raise _UnusualError
        return value >> 1

    def take(self, size_bytes: int) -> "_Cursor":
        """Split off the next bytes."""
        if size_bytes > self.left:
            raise _UnusualError
        self.at += size_bytes
        return _Cursor(self.data[self.at - size_bytes : self.at])


def unpack_columns(data: Bytes, jobs: Int64s, out: Bytes, statuses: Int64s) -> None:
    """Do all jobs; see `stoker.kernels.page_unpacking.unpack_columns`."""
    for number, row in enumerate(jobs.tolist()):
        job = _Job(*row)
        into = out[job.out_at : job.out_at + job.values * job.out_width]
        try:
            _unpack(_Cursor(data[job.at : job.at + job.size_bytes]), job, into.reshape(job.values, job.out_width))
            statuses[number] = USUAL
        except _UnusualError:
            statuses[number] = 0


def _unpack(chunk: _Cursor, job: _Job, out: Bytes) -> None:
    dictionary: Bytes | None = None
    done = 0
    while chunk.left:
        page = _page(chunk)
        body = chunk.take(page.size_bytes)
        if page.kind == _DICTIONARY_PAGE:
            fits = page.encoding in (_PLAIN, _PLAIN_DICTIONARY) and body.left == page.values * job.width
            if not fits or dictionary is not None or done:
                raise _UnusualError
            dictionary = body.data.reshape(page.values, job.width)[:, : job.out_width]
            continue
        if page.kind != _DATA_PAGE or page.values > job.values - done:
            raise _UnusualError
        _check_levels(body, job, done, page.values)
        out[done : done + page.values] = _values(body, job, page, dictionary)
        done += page.values
    if done != job.values or (job.list_size and done % job.list_size):
        raise _UnusualError


class _Page(NamedTuple):
    kind: int
    size_bytes: int
    values: int
    encoding: int


def _fields(struct: _Cursor) -> Iterator[tuple[int, int]]:
    """Yield number and kind of each field of a struct; the caller reads it before the next."""
    number = 0
    while head := struct.byte():
        if not head >> 4 or not head & 15:
            raise _UnusualError
        number += head >> 4
        yield number, head & 15


def _page(chunk: _Cursor) -> _Page:
    told: dict[int, int] = {}
    header, values, encoding = 0, 0, 0
    for number, kind in _fields(chunk):
        if kind == _I32 and number < 4:
            told[number] = chunk.number()
        elif kind == _I32 and number == 4:
            chunk.varint()
        elif kind == _STRUCT and number in (_DATA_HEADER, _DICTIONARY_HEADER) and not header:
            header = number
            values, encoding = _page_header(chunk, number)
        else:
            raise _UnusualError
    kind = told.get(1, -1)
    wanted = _DATA_HEADER if kind == _DATA_PAGE else _DICTIONARY_HEADER
    if len(told) != 3 or told[2] != told[3] or header != wanted:
        raise _UnusualError
    return _Page(kind, told[3], values, encoding)


def _page_header(chunk: _Cursor, header: int) -> tuple[int, int]:
    told: dict[int, int] = {}
    for number, kind in _fields(chunk):
        if kind == _I32 and number in (1, 2):
            told[number] = chunk.number()
        elif header == _DATA_HEADER and kind == _I32 and number in (3, 4):
            if chunk.number() != _RLE:
                raise _UnusualError
        else:
            _skip(chunk, kind, structs=True)
    if len(told) != 2:
        raise _UnusualError
    return told[1], told[2]


def _skip(chunk: _Cursor, kind: int, *, structs: bool) -> None:
    if kind in (_TRUE, _FALSE):
        return
    if kind in (_I32, _I64):
        chunk.varint()
    elif kind == _BINARY:
        chunk.take(chunk.varint())
    elif kind == _STRUCT and structs:
        for _, inner in _fields(chunk):
            _skip(chunk, inner, structs=False)
    else:
        raise _UnusualError


def _runs(source: _Cursor, width: int, count: int) -> Iterator[_Run]:
    """Yield runs of the hybrid of run lengths and packed bits, `count` values in all, and nothing behind them."""
    while count:
        head = source.varint()
        if head < 2:
            raise _UnusualError
        if head & 1:
            own = min((head >> 1) * 8, count)
            if head >> 1 > source.left:
                raise _UnusualError
            yield _Run(own, 0, _packed(source.take((head >> 1) * width).data, width)[:own] if width else None)
        else:
            own = head >> 1
            if own > count:
                raise _UnusualError
            value = sum(source.byte() << shift for shift in range(0, width, 8))
            yield _Run(own, value, None)
        count -= own
    if source.left:
        raise _UnusualError


def _packed(data: Bytes, width: int) -> Int64s:
    bits = np.unpackbits(data, bitorder="little").reshape(-1, width).astype(np.int64)
    return bits @ (np.int64(1) << np.arange(width, dtype=np.int64))


def _levels(body: _Cursor, width: int, count: int) -> Iterator[_Run]:
    size_bytes = int.from_bytes(body.take(4).data.tobytes(), "little")
    return _runs(body.take(size_bytes), width, count)


def _check_levels(body: _Cursor, job: _Job, done: int, count: int) -> None:
    if job.list_size:
        for run in _levels(body, 1, count):
            places = np.arange(done, done + run.length) % job.list_size
            if not bool(((places > 0) == (run.value if run.values is None else run.values)).all()):
                raise _UnusualError
            done += run.length
    if job.levels:
        for run in _levels(body, job.levels.bit_length(), count):
            if not bool(np.all((run.value if run.values is None else run.values) == job.levels)):
                raise _UnusualError


def _values(body: _Cursor, job: _Job, page: _Page, dictionary: Bytes | None) -> Any:
    if page.encoding == _PLAIN:
        if body.left != page.values * job.width:
            raise _UnusualError
        return body.take(body.left).data.reshape(page.values, job.width)[:, : job.out_width]
    if page.encoding not in (_PLAIN_DICTIONARY, _RLE_DICTIONARY) or dictionary is None:
        raise _UnusualError
    width = body.byte()
    if width > INDEX_BITS_MAX:
        raise _UnusualError
    parts = [
        np.full(run.length, run.value, np.int64) if run.values is None else run.values
        for run in _runs(body, width, page.values)
    ]
    indices = np.concatenate(parts) if parts else np.empty(0, np.int64)
    if len(indices) and int(indices.max()) >= len(dictionary):
        raise _UnusualError
    return dictionary[indices]
