"""Chunked HDF5 datasets, put together from the file's bytes.

The library tells where the chunks lie; cutting them out and unpacking them is done here. Its own reader believes
chunk sizes and can be made to read beyond its buffers (seen under fuzzing with HDF5 2.0); and it holds one lock for
all threads, while zlib here holds none. LZF, which only the library can unpack, goes through it after a check.
"""

import math
import zlib
from collections.abc import Sequence
from itertools import pairwise, starmap
from typing import Any, Final

import h5py
import msgspec
import numpy as np

from stoker.core.errors import CorruptError
from stoker.core.units import MiB
from stoker.formats.api import Array
from stoker.formats.base import INFLATE_RATIO_MAX

DEFLATE: Final = int(h5py.h5z.FILTER_DEFLATE)
SHUFFLE: Final = int(h5py.h5z.FILTER_SHUFFLE)
FLETCHER32: Final = int(h5py.h5z.FILTER_FLETCHER32)
LZF: Final = 32000
_FLETCHER_BYTES: Final = 4
_FLETCHER_BLOCK: Final = 1 << 16
_FLETCHER_MODULUS: Final = 0xFFFF


class Filter(msgspec.Struct, frozen=True):
    """One step of the pipeline that every chunk went through, with its parameters."""

    code: int
    values: tuple[int, ...]


def filters_of(dataset: Any) -> tuple[Filter, ...]:
    """Return the filters in the order of writing. Raises CorruptError for a foreign or a doubled one."""
    plan = dataset.id.get_create_plist()
    steps = [plan.get_filter(index) for index in range(plan.get_nfilters())]
    filters = tuple(Filter(int(step[0]), tuple(int(value) for value in step[2])) for step in steps)
    codes = [step.code for step in filters]
    if len(set(codes)) != len(codes) or not set(codes) <= {DEFLATE, SHUFFLE, FLETCHER32, LZF}:
        raise CorruptError("hdf5: filter is refused", where=dataset.name, got=str(codes))
    return filters


def read_chunked(dataset: Any, view: memoryview) -> tuple[Array, int]:
    """Return a chunked dataset's array and the bytes copied for it: none when one plain chunk holds it all.

    Raises CorruptError for chunks that lie outside the file or the dataset, or do not unpack to their size.
    """
    shape, chunks, dtype = dataset.shape, dataset.chunks, dataset.dtype
    filters = filters_of(dataset)
    infos = _chunk_infos(dataset, shape, chunks)
    held_bytes = sum(info.size for info in infos)
    chunk_bytes = math.prod(chunks) * dtype.itemsize
    if max(math.prod(shape) * dtype.itemsize, chunk_bytes) > min(held_bytes, len(view)) * INFLATE_RATIO_MAX + MiB:
        raise CorruptError("hdf5: dataset claims an absurd size", where=dataset.name, got=f"{shape}")
    if not filters and len(infos) == 1 and chunks == shape:
        return np.frombuffer(_stored(infos[0], view, chunk_bytes), dtype).reshape(shape), 0
    array = np.empty(shape, dtype) if _places(shape, chunks) == len(infos) else zeros(dataset)
    if any(step.code == LZF for step in filters):
        _refuse_unsafe_lzf(infos, filters, view, chunk_bytes)
        if array.size:
            dataset.read_direct(array)
        return array, array.nbytes
    for info in infos:
        packed = _stored(info, view, 0 if filters else chunk_bytes)
        chunk = np.frombuffer(unpack(packed, filters, info.filter_mask, chunk_bytes), dtype).reshape(chunks)
        starts = info.chunk_offset
        ends = [min(start + side, whole) for start, side, whole in zip(starts, chunks, shape, strict=True)]
        inside = tuple(slice(0, end - start) for start, end in zip(starts, ends, strict=True))
        array[tuple(starmap(slice, zip(starts, ends, strict=True)))] = chunk[inside]
    return array, array.nbytes


def _chunk_infos(dataset: Any, shape: Sequence[int], chunks: Sequence[int]) -> list[Any]:
    """Return where every stored chunk lies; never more than the dataset has places for."""
    places = _places(shape, chunks)
    infos: list[Any] = []

    def collect(info: Any) -> bool | None:
        infos.append(info)
        return True if len(infos) > places else None

    dataset.id.chunk_iter(collect)
    corners = [info.chunk_offset for info in infos]
    if len(infos) > places or len(set(corners)) != len(corners):
        raise CorruptError("hdf5: dataset has too many chunks", where=dataset.name, expected=f"at most {places}")
    for corner in corners:
        if any(start >= whole or start % side for start, whole, side in zip(corner, shape, chunks, strict=True)):
            raise CorruptError("hdf5: chunk lies outside the dataset", where=dataset.name, got=str(corner))
    return infos


def _places(shape: Sequence[int], chunks: Sequence[int]) -> int:
    return math.prod(-(-whole // side) for whole, side in zip(shape, chunks, strict=True))


def zeros(dataset: Any) -> Array:
    """Return the array of a dataset that was not wholly written to. Raises CorruptError for a fill value but zero.

    Reading a fill value is left alone: a lying one makes the library run over its buffers.
    """
    if dataset.id.get_create_plist().fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED:
        raise CorruptError("hdf5: dataset has holes with a value of their own", where=dataset.name)
    return np.zeros(dataset.shape, dataset.dtype)


def _stored(info: Any, view: memoryview, wanted_bytes: int) -> memoryview:
    """Return a chunk's bytes as stored; of exactly `wanted_bytes` unless that is 0."""
    if info.byte_offset is None or info.byte_offset + info.size > len(view):
        raise CorruptError("hdf5: chunk lies outside the file", got=f"{info.byte_offset} + {info.size}")
    if wanted_bytes and info.size != wanted_bytes:
        raise CorruptError("hdf5: chunk has another size", expected=f"{wanted_bytes} bytes", got=str(info.size))
    return view[info.byte_offset : info.byte_offset + info.size]


def unpack(packed: memoryview, filters: Sequence[Filter], skipped: int, chunk_bytes: int) -> memoryview:
    """Undo the filters, last first; bit i of `skipped` says that filter i was left out. Raises CorruptError."""
    data = packed
    for index, step in reversed(list(enumerate(filters))):
        if skipped >> index & 1:
            continue
        if step.code == FLETCHER32:
            data = _checked(data)
        elif step.code == DEFLATE:
            data = _inflated(data, chunk_bytes + _FLETCHER_BYTES)
        else:
            data = _unshuffled(data, step.values[0] if step.values else 1)
    if len(data) != chunk_bytes:
        raise CorruptError("hdf5: chunk unpacks to another size", expected=f"{chunk_bytes} bytes", got=str(len(data)))
    return data


def _inflated(data: memoryview, limit: int) -> memoryview:
    machine = zlib.decompressobj()
    try:
        content = machine.decompress(data, limit + 1)
    except zlib.error as error:
        raise CorruptError("hdf5: chunk cannot be unpacked", got=str(error)) from error
    if not machine.eof or len(content) > limit:
        raise CorruptError("hdf5: chunk is cut off, or unpacks to too much", got=f"{len(content)} bytes")
    return memoryview(content)


def _unshuffled(data: memoryview, width: int) -> memoryview:
    """Bring the bytes of each element together again; what is left over at the end was not shuffled."""
    count = len(data) // width if width > 0 else 0
    if width <= 1 or count <= 1:
        return data
    planes = np.frombuffer(data, np.uint8, count * width).reshape(width, count)
    return memoryview(planes.T.tobytes() + bytes(data[count * width :]))


def _checked(data: memoryview) -> memoryview:
    """Return the data without their checksum, compared."""
    body, stored = data[:-_FLETCHER_BYTES], int.from_bytes(data[-_FLETCHER_BYTES:], "little")
    first, second = fletcher32(body)
    good = (stored & 0xFFFF) % _FLETCHER_MODULUS == first and (stored >> 16) % _FLETCHER_MODULUS == second
    if len(data) < _FLETCHER_BYTES or not good:
        raise CorruptError("hdf5: chunk fails its checksum", got=f"{stored:08x}")
    return body


def fletcher32(data: memoryview) -> tuple[int, int]:
    """Return both sums of HDF5's Fletcher checksum, over big-endian 16-bit words, modulo 65535."""
    words = np.frombuffer(bytes(data) + bytes(len(data) % 2), ">u2").astype(np.uint64)
    first = second = 0
    edges = [*range(0, len(words), _FLETCHER_BLOCK), len(words)]
    for start, end in pairwise(edges):
        block = words[start:end]
        weights = np.arange(len(block), 0, -1, dtype=np.uint64)
        second = (second + len(block) * first + int((block * weights).sum())) % _FLETCHER_MODULUS
        first = (first + int(block.sum())) % _FLETCHER_MODULUS
    return first, second


def _refuse_unsafe_lzf(infos: Sequence[Any], filters: Sequence[Filter], view: memoryview, chunk_bytes: int) -> None:
    """The library unpacks LZF into a buffer of the size that the filter's third parameter tells."""
    codes = [step.code for step in filters]
    told = filters[-1].values[2:3]
    if codes not in ([LZF], [SHUFFLE, LZF]) or told != (chunk_bytes,):
        raise CorruptError("hdf5: lzf filter is refused", expected=f"chunks of {chunk_bytes} bytes", got=f"{told}")
    for info in infos:
        left_out = info.filter_mask >> (len(codes) - 1) & 1
        _stored(info, view, chunk_bytes if left_out else 0)
