"""The folder of a store that lasts: who it is, its log and its checkpoints.

identity.json   uuid, salt and sizes; written once
lock            held while a process opens or closes the store, so that only one makes or removes the arena
log/            segments
checkpoints/    page images
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec

from stoker.core.errors import UsageError
from stoker.core.files import sync_folder, write_atomic
from stoker.pages.errors import FormatError, PageNotFound
from stoker.pages.frames import FORMAT_VERSION

IDENTITY: Final = "identity.json"
DURABILITIES: Final = ("none", "os", "data", "full")


class Identity(msgspec.Struct, frozen=True):
    """What a folder's store is: fixed when it is made.

    uuid  hexadecimal; names the shared memory too
    salt  seed of every frame's checksum
    """

    version: int
    uuid: str
    salt: int
    size_bytes: int
    pages_max: int
    log_bytes: int
    segment_bytes: int


class StoreFolder:
    """A folder and its identity."""

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = path
        self.identity = identity

    @property
    def log(self) -> Path:
        """Folder of the segments."""
        return self.path / "log"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def arena_name(self) -> str:
        """Name of the shared memory while the store is open."""
        return f"store-{self.identity.uuid}"

    @classmethod
    def prepare(
        cls, path: Path, *, size_bytes: int, pages_max: int, log_bytes: int, segment_bytes: int
    ) -> "StoreFolder":
        """Make the folders of a new store. Raises UsageError for a folder that holds other things."""
        strangers = {found.name for found in path.iterdir()} - {"lock", "log", "checkpoints"}
        if strangers:
            raise UsageError(
                "folder for a store of pages holds other things", where=str(path), got=", ".join(sorted(strangers)[:3])
            )
        identity = Identity(
            FORMAT_VERSION, uuid4().hex, secrets.randbits(32), size_bytes, pages_max, log_bytes, segment_bytes
        )
        folder = cls(path, identity)
        for part in (folder.log, folder.checkpoints):
            # Without an identity nothing here was ever acknowledged: whoever made it died over it.
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
        return folder

    def publish(self) -> None:
        """Write the identity: from now on the store exists."""
        write_atomic(self.path / IDENTITY, msgspec.json.encode(self.identity))
        sync_folder(self.path)

    @classmethod
    def open(cls, path: Path) -> "StoreFolder":
        """Read who a folder's store is. Raises PageNotFound where there is none, FormatError."""
        try:
            identity = msgspec.json.decode((path / IDENTITY).read_bytes(), type=Identity)
        except FileNotFoundError as error:
            raise PageNotFound("no store of pages is here", where=str(path)) from error
        except msgspec.MsgspecError as error:
            raise FormatError("identity of the store cannot be read", where=str(path), got=str(error)) from error
        if identity.version != FORMAT_VERSION:
            raise FormatError(
                "store has an unknown version", where=str(path), expected=str(FORMAT_VERSION), got=str(identity.version)
            )
        return cls(path, identity)

    @staticmethod
    def exists(path: Path) -> bool:
        """Tell whether the folder holds a store."""
        return (path / IDENTITY).exists()


@contextmanager
def folder_kept_still(path: Path) -> Iterator[None]:
    """Keep others from opening or closing the folder's store, for a block that only reads; any number may at once."""
    try:
        descriptor = os.open(path / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield  # a copy of a folder, which nobody opened since: to make the file would change what is only looked at
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def folder_lock(path: Path) -> Iterator[None]:
    """Hold the right to open or close the folder's store; the kernel takes it from who dies."""
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
