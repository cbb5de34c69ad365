"""TFRecord: framed `tf.train.Example` records, and the text index DLIO keeps beside them.

A record is u64 length, u32 masked CRC-32C of the length, payload, u32 masked CRC-32C of the payload, all little
endian. The payload has the features `image` (the sample's bytes) and `size` (their number). The index of
`train/<file>` is `index/train/<file>.idx`, one line `offset size` a record. Source: TensorFlow's record_writer.
Records need not be read one at a time: any run of whole records decodes.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from stoker.core.errors import CorruptError
from stoker.core.units import KiB, MiB
from stoker.formats.api import (
    Array,
    Block,
    ContentSource,
    DecodedMany,
    Extent,
    Int64s,
    Layout,
    RangeSource,
    SampleSpec,
)
from stoker.formats.base import (
    FormatBase,
    as_bytes,
    extent_bytes,
    gather,
    take,
    told_by,
    view_samples,
)
from stoker.formats.columns import ColumnLayout, column_layout
from stoker.formats.many import extents_in
from stoker.formats.many_records import decode_examples
from stoker.formats.protobuf import example_frame, image_bytes_of, parse_example
from stoker.kernels.unpack_columns import SCAN_BROKEN, SCAN_END, SCAN_MORE
from stoker.kernels.unpacking import masked_crc32c, records_scan

INDEX_SUFFIX: Final = ".idx"
_HEAD: Final = struct.Struct("<QI")
_FOOT: Final = struct.Struct("<I")
FRAME_BYTES: Final = _HEAD.size + _FOOT.size
_MASK: Final = 0xA282EAD8
_U32: Final = 0xFFFFFFFF
_INDEX: Final = re.compile(rb"(?:\d{1,18}+ \d{1,18}+\r?+\n)*+(?:\d{1,18}+ \d{1,18}+)?+")
"""Possessive: of an index of millions of lines nothing is kept to try again."""

_WINDOW_BYTES: Final = 1 * MiB
_SCAN_RECORDS: Final = 1 << 16
_SPARSE_RECORD_BYTES: Final = 64 * KiB
"""Above this record size a scan reads the headers alone; below, whole windows cost fewer reads."""


class TfRecord(FormatBase):
    """Option: `verify` false leaves the payload's checksum unread; the length's is always compared."""

    name = "tfrecord"
    extension = "tfrecord"
    whole_file = False
    primary = "image"
    own_options = ("verify",)

    def encode(self, spec: SampleSpec, content: ContentSource) -> Iterator[memoryview]:
        """Yield the records, one sample in memory at a time."""
        spec = self.check_spec(spec)
        return gather(_records(spec, content))

    def side_files(self, spec: SampleSpec) -> dict[str, bytes]:
        """Return the index under `.idx`: every record has the same size, so no content is needed."""
        record_bytes = _record_bytes(self.check_spec(spec).sample_bytes)
        lines = [b"%d %d\n" % (index * record_bytes, record_bytes) for index in range(spec.samples)]
        return {INDEX_SUFFIX: b"".join(lines)}

    def side_key(self, key: str, suffix: str) -> str:
        """Return `index/<key><suffix>`: the index tree mirrors the tree of the data."""
        return f"index/{key}{suffix}"

    def layout(self, source: RangeSource, options: Mapping[str, Any]) -> Layout:
        """Return one extent a record, from the index when there is one, else by walking the lengths.

        Raises CorruptError when the index or the lengths do not tile the file, or tell another number of samples.
        """
        return self.layout_columns(source, options).layout()

    def layout_columns(self, source: RangeSource, options: Mapping[str, Any]) -> ColumnLayout:
        """See `LaysOutColumns`."""
        told = self.expectation(options)
        index = source.side_file(INDEX_SUFFIX)
        offsets, sizes = scan(source) if index is None else read_index(index, source.size_bytes)
        if told.samples not in (None, len(offsets)):
            got = f"{len(offsets)}"
            raise CorruptError("tfrecord: wrong number of records", expected=str(told.samples), got=got)
        return column_layout(offsets, sizes, told, joinable=True)

    def decode(self, data: memoryview, extent: Extent, layout: Layout) -> Block:
        """Return the columns image (a view a record) and size. Raises CorruptError on a wrong checksum."""
        view = extent_bytes(data, extent)
        told = told_by(layout)
        images: list[Array] = []
        sizes: list[int] = []
        for payload in unframe(view, verify=told.verify is not False):
            image = image_of(payload)
            sizes.append(len(image))
            images.append(view_samples(image, 1, told, "tfrecord: image")[0])
        if len(images) != extent.samples:
            raise CorruptError("tfrecord: wrong number of records", expected=f"{extent.samples}", got=f"{len(images)}")
        size = np.array(sizes, np.int64)
        return Block({"image": images, "size": size}, primary="image", samples=extent.samples, copied_bytes=size.nbytes)

    def decode_many(
        self, data: NDArray[np.uint8], starts: Int64s, lengths: Int64s, samples: Int64s | int, context: Any
    ) -> DecodedMany:
        """See `DecodesMany`: views of the images, found by the records' frames alone unless payloads are verified."""
        return decode_examples(self, extents_in(data, starts, lengths, samples, context))


def image_of(payload: memoryview) -> memoryview:
    """Return the image bytes of one Example, as a view. Raises CorruptError.

    Records in our own form are recognised by comparing what stands around the image; others are parsed.
    """
    image_bytes = image_bytes_of(len(payload))
    if image_bytes >= 0:
        head, tail = example_frame(image_bytes)
        start = len(head)
        if payload[:start] == head and payload[start + image_bytes :] == tail:
            return payload[start : start + image_bytes]
    image, size = parse_example(payload)
    if size is not None and size != len(image):
        raise CorruptError("tfrecord: feature 'size' is wrong", expected=str(len(image)), got=str(size))
    return image


def unframe(data: memoryview, *, verify: bool) -> Iterator[memoryview]:
    """Yield the payload of every record in `data`, which must end with one. Raises CorruptError."""
    at = 0
    while at < len(data):
        length = _length(data, at, len(data))
        start = at + _HEAD.size
        at = start + length + _FOOT.size
        payload = data[start : start + length]
        if verify and masked_crc32c(payload) != _FOOT.unpack_from(data, start + length)[0]:
            raise CorruptError("tfrecord: payload fails its checksum", got=f"record of {length} bytes")
        yield payload


def read_index(index: memoryview, size_bytes: int) -> tuple[Int64s, Int64s]:
    """Return offset and size of every record from index lines. Raises CorruptError unless they tile the file."""
    text = bytes(index)
    if not _INDEX.fullmatch(text):
        raise CorruptError("tfrecord: index is malformed", expected="lines of two numbers", got=repr(text[:40]))
    offsets, sizes = np.fromstring(text, np.int64, sep=" ").reshape(-1, 2).T.copy()
    ends = offsets + sizes  # 18 digits at most, so the sum has its place
    borders = np.concatenate((np.zeros(1, np.int64), ends))
    wrong = (offsets != borders[:-1]) | (sizes < FRAME_BYTES)
    if wrong.any():
        which = int(wrong.argmax())
        got = f"{offsets[which]}, {sizes[which]} bytes"
        raise CorruptError("tfrecord: index does not fit the file", expected=f"offset {borders[which]}", got=got)
    if borders[-1] != size_bytes:
        got = str(borders[-1])
        raise CorruptError("tfrecord: index does not fit the file", expected=f"{size_bytes} bytes", got=got)
    return offsets, sizes


def scan(source: RangeSource) -> tuple[Int64s, Int64s]:
    """Return offset and size of every record by walking the lengths, in large windows while records are small.

    Raises CorruptError for a wrong length checksum or a record that runs over the file's end.
    """
    found = [np.zeros((2, 0), np.int64)]
    room = np.empty((2, _SCAN_RECORDS), np.int64)
    at, size_bytes, last_bytes = 0, source.size_bytes, 0
    window, ended = memoryview(b""), SCAN_MORE
    while ended != SCAN_END:
        if ended == SCAN_MORE:
            wanted = _HEAD.size if last_bytes > _SPARSE_RECORD_BYTES else _WINDOW_BYTES
            window = source.read(at, min(wanted, size_bytes - at))
        seen = np.frombuffer(window, np.uint8)
        count, moved, ended = records_scan(seen, size_bytes - at, *room)
        if ended == SCAN_BROKEN:
            _length(window, moved, size_bytes - at)
            raise CorruptError("tfrecord: record is malformed", got=f"at byte {at + moved}")
        if count:
            found.append(room[:, :count] + np.array([[at], [0]]))
            last_bytes = int(room[1, count - 1])
        at += moved
        window = window[moved:]
    offsets, sizes = np.concatenate(found, axis=1)
    return offsets, sizes


def _length(data: memoryview, at: int, end: int) -> int:
    """Return the payload length told at `at`; the record must end at or before `end`."""
    if at + _HEAD.size > min(len(data), end):
        raise CorruptError("tfrecord: record header is cut off", got=f"{len(data) - at} bytes")
    length, crc = _HEAD.unpack_from(data, at)
    if masked_crc32c(data[at : at + 8]) != crc:
        raise CorruptError("tfrecord: record length fails its checksum", got=f"length {length}")
    if at + FRAME_BYTES + length > end:
        raise CorruptError("tfrecord: record is cut off", expected=f"{length} bytes", got=f"{end - at - FRAME_BYTES}")
    return int(length)


def _record_bytes(image_bytes: int) -> int:
    head, tail = example_frame(image_bytes)
    return FRAME_BYTES + len(head) + image_bytes + len(tail)


def _records(spec: SampleSpec, content: ContentSource) -> Iterator[bytes | memoryview]:
    head, tail = example_frame(spec.sample_bytes)
    length = (len(head) + spec.sample_bytes + len(tail)).to_bytes(8, "little")
    start = length + _FOOT.pack(masked_crc32c(length)) + head
    for index in range(spec.samples):
        image = as_bytes(take(content, index, spec))
        crc = crc32c(tail, crc32c(image, crc32c(head)))
        yield start
        yield image
        yield tail + _FOOT.pack(((crc >> 15 | crc << 17) + _MASK) & _U32)


FORMAT: Final = TfRecord()
