"""Tell a file's format by its first bytes, and by its name where the bytes do not tell."""

import struct
from typing import Final

from crc32c import crc32c

HEAD_BYTES: Final = 16
"""How many bytes from the start `detect` looks at."""

_MAGICS: Final = (
    (b"\x93NUMPY", "npy"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"PAR1", "parquet"),
)
_PACKED: Final = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
_ENDINGS: Final = {
    "npz": "npz",
    "npy": "npy",
    "hdf5": "hdf5",
    "h5": "hdf5",
    "tfrecord": "tfrecord",
    "tfrecords": "tfrecord",
    "csv": "csv",
    "jpeg": "jpeg",
    "jpg": "jpeg",
    "png": "png",
    "parquet": "parquet",
    "indexed_binary": "indexed_binary",
    "mmap_indexed_binary": "mmap_indexed_binary",
    "raw": "raw",
    "synthetic": "synthetic",
}
_PACKED_ENDINGS: Final = ("gz", "bz2", "xz", "zip")
_MASK: Final = 0xA282EAD8


def detect(head: bytes, name: str) -> str | None:
    """Return the format's name for a file that starts with `head` and is called `name`; None when nothing fits.

    `head` may be shorter than HEAD_BYTES, even empty: then only the name speaks. Bytes win over the name, except
    that a packed csv is told from an npz by its name.
    """
    for magic, known in _MAGICS:
        if head.startswith(magic):
            return known
    ending = _ending(name)
    if head.startswith(_PACKED):
        return "csv" if ending == "csv" else ("npz" if head.startswith(_PACKED[0]) else None)
    if _starts_record(head):
        return "tfrecord"
    return ending


def _ending(name: str) -> str | None:
    words = name.lower().rsplit("/", 1)[-1].split(".")
    if len(words) > 2 and words[-1] in _PACKED_ENDINGS:
        words.pop()
    return _ENDINGS.get(words[-1]) if len(words) > 1 else None


def _starts_record(head: bytes) -> bool:
    """A TFRecord has no magic, but its first length carries a checksum: chance fits once in 2^32."""
    if len(head) < 12:
        return False
    crc = crc32c(head[:8])
    masked = ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF
    return bool(struct.unpack_from("<I", head, 8)[0] == masked)
