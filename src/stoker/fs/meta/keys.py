"""How keys are laid out: a letter, a number in eight bytes, and what it is about; rows of one inode lie together.

i <ino> A                attributes          i <ino> D <name>          an entry of a directory
i <ino> P <parent>       how many entries of that parent name it (only where it has several names)
i <ino> C <index>        the slices of a chunk of 64 MiB
i <ino> T                the target of a symbolic link
i <ino> X <name>         an extended attribute
i <ino> L                its locks           i <ino> O <session>       how a session has it open
i <ino> H                who holds the names in it, until when
s <session> A            a session           s <session> O <ino>       what it has open
s <session> K            the digest of the secret by which masters know a session's owner
s <session> R <seq>      the answer to a request, in case it is repeated
r <slice> R              how often a slice is referred to
p <slice> A              how many bytes of a pack show
p <slice> H <ino><index> how many of them show in a chunk
q <slice> Q              a pack of which little shows
g <slice> G              a slice that nothing refers to any more
t <last slice> T         numbers of slices that were taken: the first of them, in which session, when
o <ino> O                an inode without a name that is still open
d <ino> D                an inode that is gone and whose chunks are still to be freed
k <class> K              a storage class
c <0> <name>             a counter           v                         the volume's settings
w                        the cluster map, behind its epoch
m                        where the volume has moved to: nothing may be written here any more
"""

import struct
from typing import Final

ROOT: Final = 1
VOLUME: Final = b"v"
MOVED: Final = b"m"
CLUSTER_MAP: Final = b"w"
_NUMBER: Final = struct.Struct(">cQ")
_ROW: Final = struct.Struct(">cQc")
_PAIR: Final = struct.Struct(">cQcQ")
_CHUNK: Final = struct.Struct(">cQcI")
_HOLDER: Final = struct.Struct(">cQcQI")

HEAD_BYTES: Final = 9
"""The letter and the number: what all rows of one inode, session or slice begin with."""

NEXT_INODE: Final = b"c" + bytes(8) + b"next-inode"
NEXT_SLICE: Final = b"c" + bytes(8) + b"next-slice"
NEXT_SESSION: Final = b"c" + bytes(8) + b"next-session"
NEXT_TOKEN: Final = b"c" + bytes(8) + b"next-token"
INODES: Final = b"c" + bytes(8) + b"inodes"
BYTES: Final = b"c" + bytes(8) + b"bytes"
CLASSES: Final = b"k"
"""The prefix of all storage classes."""


def inode_rows(ino: int) -> bytes:
    """Return the prefix of all rows of an inode."""
    return _NUMBER.pack(b"i", ino)


def attr_key(ino: int) -> bytes:
    """Return the key of an inode's attributes."""
    return _ROW.pack(b"i", ino, b"A")


def entry_key(parent: int, name: bytes = b"") -> bytes:
    """Return the key of a directory's entry; without a name, the prefix of all of them."""
    return _ROW.pack(b"i", parent, b"D") + name


def parent_key(ino: int, parent: int) -> bytes:
    """Return the key that counts the names of `ino` in `parent`."""
    return _PAIR.pack(b"i", ino, b"P", parent)


def parent_rows(ino: int) -> bytes:
    """Return the prefix of the counts of names by parent."""
    return _ROW.pack(b"i", ino, b"P")


def chunk_key(ino: int, index: int) -> bytes:
    """Return the key of the slices of chunk `index`."""
    return _CHUNK.pack(b"i", ino, b"C", index)


def chunk_rows(ino: int) -> bytes:
    """Return the prefix of all chunks of an inode."""
    return _ROW.pack(b"i", ino, b"C")


def target_key(ino: int) -> bytes:
    """Return the key of a symbolic link's target."""
    return _ROW.pack(b"i", ino, b"T")


def xattr_key(ino: int, name: bytes = b"") -> bytes:
    """Return the key of an extended attribute; without a name, the prefix of all of them."""
    return _ROW.pack(b"i", ino, b"X") + name


def locks_key(ino: int) -> bytes:
    """Return the key of an inode's locks."""
    return _ROW.pack(b"i", ino, b"L")


def hold_key(ino: int) -> bytes:
    """Return the key of who holds the names of a directory."""
    return _ROW.pack(b"i", ino, b"H")


def open_key(ino: int, session: int) -> bytes:
    """Return the key that tells how a session has an inode open."""
    return _PAIR.pack(b"i", ino, b"O", session)


def open_rows(ino: int) -> bytes:
    """Return the prefix of the sessions that have an inode open."""
    return _ROW.pack(b"i", ino, b"O")


def session_key(session: int) -> bytes:
    """Return the key of a session: the first of its rows."""
    return _ROW.pack(b"s", session, b"A")


def session_rows(session: int) -> bytes:
    """Return the prefix of all rows of a session."""
    return _NUMBER.pack(b"s", session)


def session_secret_key(session: int) -> bytes:
    """Return the key of the digest of a session's secret."""
    return _ROW.pack(b"s", session, b"K")


def session_open_key(session: int, ino: int) -> bytes:
    """Return the key that tells that a session has an inode open."""
    return _PAIR.pack(b"s", session, b"O", ino)


def answer_key(session: int, seq: int) -> bytes:
    """Return the key of the answer to request `seq` of a session."""
    return _PAIR.pack(b"s", session, b"R", seq)


def answer_rows(session: int) -> bytes:
    """Return the prefix of the answers kept for a session."""
    return _ROW.pack(b"s", session, b"R")


def slice_key(slice_id: int) -> bytes:
    """Return the key of a slice's reference count."""
    return _ROW.pack(b"r", slice_id, b"R")


def freed_key(slice_id: int) -> bytes:
    """Return the key of a slice that nothing refers to."""
    return _ROW.pack(b"g", slice_id, b"G")


def pack_key(slice_id: int) -> bytes:
    """Return the key that counts how many bytes of a pack show."""
    return _ROW.pack(b"p", slice_id, b"A")


def holder_key(slice_id: int, ino: int, index: int) -> bytes:
    """Return the key that counts how many bytes of a pack show in chunk `index` of an inode."""
    return _HOLDER.pack(b"p", slice_id, b"H", ino, index)


def holder_rows(slice_id: int) -> bytes:
    """Return the prefix of the counts of a pack's bytes by chunk."""
    return _ROW.pack(b"p", slice_id, b"H")


def holder_in(key: bytes) -> tuple[int, int]:
    """Return the inode and the chunk's index at the end of the key of a count of a pack's bytes."""
    return int.from_bytes(key[10:18], "big"), int.from_bytes(key[18:22], "big")


def sparse_key(slice_id: int) -> bytes:
    """Return the key of a pack of which little shows."""
    return _ROW.pack(b"q", slice_id, b"Q")


def taken_key(last: int) -> bytes:
    """Return the key of numbers that were taken, by the last of them."""
    return _ROW.pack(b"t", last, b"T")


def orphan_key(ino: int) -> bytes:
    """Return the key of an inode without a name that is open."""
    return _ROW.pack(b"o", ino, b"O")


def doomed_key(ino: int) -> bytes:
    """Return the key of an inode that is gone and whose chunks are to be freed."""
    return _ROW.pack(b"d", ino, b"D")


def class_key(number: int) -> bytes:
    """Return the key of a storage class."""
    return _ROW.pack(b"k", number, b"K")


def number_in(key: bytes) -> int:
    """Return the number behind the letter: the inode, session or slice of a row."""
    return int.from_bytes(key[1:9], "big")


def last_number_in(key: bytes) -> int:
    """Return the number at the end of a key of two numbers."""
    return int.from_bytes(key[10:18], "big")


def index_in(key: bytes) -> int:
    """Return the index of a chunk's row."""
    return int.from_bytes(key[10:14], "big")


def name_in(key: bytes) -> bytes:
    """Return the name at the end of the key of an entry or an extended attribute."""
    return key[10:]
