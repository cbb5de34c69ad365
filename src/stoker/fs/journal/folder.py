"""The folder of a volume's copy on this host: disposable, and made anew from a snapshot and the log when in doubt.

    FOLDER/journal.json      which volume it is a copy of, in which boot of the host it was written, and whether the
                             copy was brought to the disk when it was closed
    FOLDER/lock              locked by the process that uses it
    FOLDER/copy…             LMDB; one that is made anew gets another name, so that the old one is read meanwhile

Commits to the copy do not wait for the disk: the log is what is durable. So a copy that was open when the host went
down may be torn without a sign, and is not trusted.
"""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from stoker.core.errors import CorruptError, StoreError, UsageError
from stoker.core.files import write_atomic
from stoker.fs.meta.engines.urls import EngineURL, check_version
from stoker.fs.meta.kv import Copy

_VERSION: Final = 1
_FACTS, _LOCK, _COPY = "journal.json", "lock", "copy"
T = TypeVar("T")
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class _Facts(msgspec.Struct, frozen=True):
    volume: str
    boot: str
    clean: bool
    copy: str = _COPY
    version: int = _VERSION


def _boot() -> str:
    return _BOOT.read_text().strip()


class CopyFolder:
    """An open folder. `volume` is the number that the journal was given when it was made."""

    def __init__(self, path: Path, volume: str, *, map_bytes: str = "1TiB") -> None:
        self._path = path
        self._volume = volume
        self._map_bytes = map_bytes
        self._retired: Copy | None = None
        self._lock = self._locked()
        try:
            facts = self._facts()
            self._name = _COPY if facts is None else facts.copy
            if facts is not None and not facts.clean and facts.boot != _boot():
                self._discard()
            self._write(clean=False)
            self.copy = self._opened()
        except BaseException:
            os.close(self._lock)
            raise

    def _locked(self) -> int:
        """Make the folder if need be, and lock it. Raises UsageError for one that holds something else, or is used."""
        if self._path.exists() and not self._path.is_dir():
            raise UsageError("place of the copy is no folder", where=str(self._path))
        if self._path.is_dir() and any(self._path.iterdir()) and not (self._path / _FACTS).is_file():
            raise UsageError(
                "folder is not a volume's copy", where=str(self._path), got="another program's", expected="an empty one"
            )
        try:
            self._path.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(self._path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                "folder of the copy cannot be made", where=str(self._path), got=error.strerror or str(error)
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise UsageError("another process uses the folder of the copy", where=str(self._path)) from None
        return lock

    def _facts(self) -> _Facts | None:
        try:
            data = (self._path / _FACTS).read_bytes()
        except FileNotFoundError:
            return None
        try:
            facts = msgspec.json.decode(data, type=_Facts)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CorruptError(
                "facts of a volume's copy are not readable",
                where=str(self._path / _FACTS),
                got=str(error),
                remedy="remove the folder: it is made anew",
            ) from error
        check_version("copy", str(self._path), facts.version, _VERSION)
        if not facts.copy.removeprefix(_COPY).isdigit() and facts.copy != _COPY:
            raise CorruptError("facts of a volume's copy name no copy", where=str(self._path), got=facts.copy)
        if facts.volume != self._volume:
            raise UsageError(
                "folder is the copy of another volume", where=str(self._path), expected=self._volume, got=facts.volume
            )
        return facts

    def _write(self, *, clean: bool) -> None:
        write_atomic(self._path / _FACTS, msgspec.json.encode(_Facts(self._volume, _boot(), clean, self._name)))

    def _opened(self) -> Copy:
        """Open the copy; one that cannot be opened is made anew."""
        place = self._path / self._name
        if place.is_dir():
            try:
                return self._open(create=False)
            except (CorruptError, UsageError):
                self._discard()
        return self._open(create=True)

    def _open(self, *, create: bool) -> Copy:
        from stoker.fs.meta.engines.lmdb import open_lmdb

        place = str(self._path / self._name)
        query = {"sync": "off", "map_bytes": self._map_bytes}
        return open_lmdb(EngineURL("lmdb", place, query, f"lmdb://{place}", create))

    def _discard(self) -> None:
        shutil.rmtree(self._path / self._name, ignore_errors=True)

    def renewed(self, fill: Callable[[Copy], T]) -> T:
        """Fill an empty copy and have it take the old one's place; who reads the old one may finish."""
        before = self._name
        self._name = f"{_COPY}{int(before.removeprefix(_COPY) or 0) + 1}"
        self._discard()  # what is left of an attempt
        fresh = self._open(create=True)
        try:
            filled = fill(fresh)
            self._write(clean=False)
        except BaseException:
            fresh.close()
            self._discard()
            self._name = before
            raise
        if self._retired is not None:
            self._retired.close()
        self._retired, self.copy = self.copy, fresh
        shutil.rmtree(self._path / before, ignore_errors=True)
        return filled

    def close(self) -> None:
        """Bring the copy to the disk and close it."""
        sync: Any = getattr(self.copy, "sync", None)
        try:
            if sync is not None:
                sync()
                self._write(clean=True)
        finally:
            self.copy.close()
            if self._retired is not None:
                self._retired.close()
            os.close(self._lock)
