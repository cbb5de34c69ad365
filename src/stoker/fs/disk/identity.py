"""Whose disk a folder is: its identity, made once, and the lock of the one process that has it open.

Shards carry their volume themselves; the identity is there so that an empty mount point, another volume's disk or one
of a newer release is refused before anything is written.
"""

import fcntl
import hashlib
import os
import secrets
import uuid
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.errors import CorruptError, NotFoundError, UsageError
from stoker.core.files import sync_folder, write_atomic
from stoker.fs.disk.files import telling
from stoker.fs.disk.format import SALT_BYTES
from stoker.fs.disk.interface import FORMAT

IDENTITY_NAME: Final = "stoker-disk.json"
_MAGIC: Final = "stoker disk"
_BYTES_MAX: Final = 4096
_IGNORED: Final = frozenset({"lost+found"})


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the identity file holds. `salt_key` makes the salts of segments: it is no secret from who reads the disk."""

    magic: str
    format: int
    volume: str
    disk: str
    salt_key: str

    def salt(self, segment: int) -> bytes:
        """Return the salt of a segment."""
        key = bytes.fromhex(self.salt_key)
        return hashlib.blake2b(segment.to_bytes(8, "big"), key=key, digest_size=SALT_BYTES).digest()


class _Version(msgspec.Struct):
    """What the identity file of any release has."""

    format: int


def make_identity(folder: Path, volume: str) -> Identity:
    """Make an empty folder a disk of a volume. Raises UsageError for one that is not empty."""
    volume = str(uuid.UUID(volume))
    with telling("folder cannot become a disk", str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted({path.name for path in folder.iterdir()} - _IGNORED)
    if there:
        raise UsageError(
            "folder cannot become a disk", where=str(folder), expected="an empty one", got=f"{there[0]!r} in it"
        )
    identity = Identity(_MAGIC, FORMAT, volume, str(uuid.uuid4()), secrets.token_hex(SALT_BYTES))
    with telling("folder cannot become a disk", str(folder)):
        write_atomic(folder / IDENTITY_NAME, msgspec.json.encode(identity))
        sync_folder(folder.parent)
    return identity


def read_identity(folder: Path) -> Identity:
    """Return whose disk a folder is. Raises NotFoundError, CorruptError, UsageError for a newer format."""
    path = folder / IDENTITY_NAME
    try:
        with telling("identity of a disk cannot be read", str(path)), path.open("rb") as file:
            data = file.read(_BYTES_MAX + 1)
    except NotFoundError:
        raise NotFoundError(
            "no disk is here", where=str(folder), got=f"no {IDENTITY_NAME}", remedy="look whether it is mounted"
        ) from None
    try:
        version = msgspec.json.decode(data, type=_Version).format
        if version > FORMAT:
            raise UsageError(
                "disk was made by a newer release", where=str(folder), expected=f"format {FORMAT}", got=f"{version}"
            )
        identity = msgspec.json.decode(data, type=Identity)
        fits = identity.magic == _MAGIC and identity.format == FORMAT and len(identity.salt(1)) == SALT_BYTES
        for text in (identity.volume, identity.disk):
            uuid.UUID(text)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptError("identity of a disk is not readable", where=str(path), got=str(error)) from error
    if not fits:
        raise CorruptError("identity of a disk is not ours", where=str(path), got=f"magic {identity.magic[:40]!r}")
    return identity


def lock_folder(folder: Path) -> int:
    """Return a handle that holds the folder's lock until it is closed. Raises UsageError where another has it."""
    with telling("folder of a disk cannot be locked", str(folder)):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise UsageError(
                "disk is open already", where=str(folder), remedy="one process at a time may have it"
            ) from None
        except BaseException:
            os.close(handle)
            raise
    return handle
