"""What lies in an entry: an array file whose every 4 KiB show whose they are.

The payload of a key is a page stream of its own (`stoker.kernels.filling`): noise that is made once, and a key for each
page hashed from the entry's key and the page's number. No two pages of any two entries are alike, so nothing underneath
can save them once and nothing compresses; making them costs a copy, and whoever reads knows every byte.
"""

import struct
from functools import lru_cache
from typing import Final

import numpy as np

from stoker.core import seed
from stoker.core.errors import CorruptError
from stoker.core.kvcache import DTYPE_BYTES
from stoker.kernels.filling import PAGE_BYTES, PAGE_WORDS, PageStream, fill_pages, page_tile, pool_keys
from stoker.kernels.plain_fill import TILE_PAGES, hashed

HEADER_BYTES: Final = 4096
"""The header of the array file, padded: the payload begins on a page, as O_DIRECT wants it."""
_MAGIC: Final = b"\x93NUMPY\x01\x00"
_CODES: Final = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "int8": "|i1"}


def array_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """Return the first 4096 bytes of a NumPy file, version 1.0, of such an array in C order.

    NumPy has no bfloat16: its numbers lie there as whole ones of two bytes.
    """
    told = f"{{'descr': '{_CODES[dtype]}', 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    length = HEADER_BYTES - len(_MAGIC) - 2
    return _MAGIC + struct.pack("<H", length) + told.ljust(length - 1) + b"\n"


@lru_cache(maxsize=4)
def _noise(content_seed: int) -> int:
    return seed.derive(content_seed, "kv-noise")


class EntryContent:
    """The bytes of one entry's file: its header and `payload_bytes` of its own stream."""

    def __init__(self, content_seed: int, key: str, header: bytes, payload_bytes: int) -> None:
        noise = _noise(content_seed)
        self.key = key
        self.size_bytes = len(header) + payload_bytes
        self._header = header
        self._stream = PageStream(
            page_tile(noise, PAGE_WORDS), PAGE_WORDS, pool_keys(noise), seed.derive(content_seed, "kv", key), 0.0, 0.0
        )

    def fill(self, offset_bytes: int, into: memoryview) -> None:
        """Fill `into` with the file's bytes from `offset_bytes`, a multiple of 4096, on."""
        head = max(0, len(self._header) - offset_bytes)
        if head:
            taken = min(head, into.nbytes)
            into[:taken] = self._header[offset_bytes : offset_bytes + taken]
            into, offset_bytes = into[taken:], offset_bytes + taken
        if into.nbytes:
            fill_pages(into, self._stream, offset_bytes=offset_bytes - len(self._header))

    def check_stamps(self, offset_bytes: int, data: memoryview, *, where: str) -> None:
        """Hold the header and the first word of every page of `data`, the file from `offset_bytes` (a multiple of 4096)
        on, against what was written. Raises CorruptError for another entry's page, or one at another place."""
        if offset_bytes < len(self._header):
            head = bytes(data[: len(self._header) - offset_bytes])
            if head != self._header[offset_bytes : offset_bytes + len(head)]:
                raise self._corrupt(where, offset_bytes)
            data, offset_bytes = data[len(head) :], offset_bytes + len(head)
        whole = data.nbytes // 8 * 8
        found = np.frombuffer(data[:whole], np.uint64)[::PAGE_WORDS]
        pages = np.arange(found.size, dtype=np.uint64) + np.uint64((offset_bytes - len(self._header)) // PAGE_BYTES)
        wanted = self._stream.tile[pages % np.uint64(TILE_PAGES), 0] ^ hashed(self._stream.base, pages)
        wrong = np.flatnonzero(found != wanted)
        if wrong.size:
            raise self._corrupt(where, offset_bytes + int(wrong[0]) * PAGE_BYTES)

    def check_whole(self, offset_bytes: int, data: memoryview, scratch: memoryview, *, where: str) -> None:
        """Hold every byte against what was written; `scratch` is as long as `data`. Raises CorruptError."""
        self.fill(offset_bytes, scratch)
        if scratch != data:
            found = np.frombuffer(data, np.uint8) != np.frombuffer(scratch, np.uint8)
            raise self._corrupt(where, offset_bytes + int(np.argmax(found)))

    def _corrupt(self, where: str, offset_bytes: int) -> CorruptError:
        return CorruptError(
            "entry of the KV cache is not what was written",
            where=where,
            expected=f"the bytes of {self.key!r}",
            got=f"others, from byte {offset_bytes} on",
            remedy="the storage gave other bytes back; nothing it says of this run can be trusted",
        )


def payload_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """Return the bytes of an array."""
    size = DTYPE_BYTES[dtype]
    for length in shape:
        size *= length
    return size
