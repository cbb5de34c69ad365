"""Keys and values in an LMDB folder; each commit is on the disk when it returns.

A value is stored behind the revision that wrote it. LMDB lets one environment be open once a process, so engines of the
same folder share it. Reads cost no lock; several processes may open the folder at once.
"""

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lmdb

from stoker.core.errors import CorruptError, DeniedError, NoSpaceError, StokerError, StoreError, UsageError
from stoker.core.files import sync_folder
from stoker.core.units import GiB, parse_bytes
from stoker.fs.meta.engines.urls import EngineURL, check_version, not_made, refuse_taken, sync_choice, unfinished
from stoker.fs.meta.kv import HISTORY_BYTES_MAX, Copy, Pair, Snapshot, Writer, Writes, bounds, trimmed

MAGIC: Final = b"stoker metadata"
SCHEMA_VERSION: Final = 1
MAP_BYTES: Final = 64 * GiB
"""Address space, not memory and not disk: the file grows only as far as it is filled."""
_NO_SPACE: Final = ("No space", "File too large", "Input/output error")
_READERS_MAX: Final = 1024
_REVISION: Final = struct.Struct(">Q")
_FACTS: Final = struct.Struct(">QQQ")  # revision, history's floor, history's bytes


class _Environment:
    """One open folder of this process, with how many engines use it."""

    def __init__(self, path: Path, url: str, *, map_bytes: int, durable: bool) -> None:
        self.users = 0
        self.lock = threading.Lock()
        self.settings = (map_bytes, durable)
        try:
            self.env = lmdb.open(
                str(path), max_dbs=3, map_size=map_bytes, sync=durable, metasync=durable, max_readers=_READERS_MAX,
                create=False, readahead=False,
            )  # fmt: skip
        except lmdb.Error as error:
            raise _told(error, url) from error
        try:
            _check_length(self.env, path, url)
            self.about, self.pairs, self.history = _databases(self.env, url)
        except BaseException:
            self.env.close()
            raise
        self.env.reader_check()  # slots of processes that were killed


def _check_length(env: Any, path: Path, url: str) -> None:
    """Refuse a file that ends before its last page: to read behind its end would end the process."""
    needed_bytes = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    size_bytes = (path / "data.mdb").stat().st_size
    if size_bytes < needed_bytes:
        raise CorruptError(
            "metadata file is torn",
            where=url,
            expected=f"{needed_bytes} bytes",
            got=f"{size_bytes}",
            remedy="restore it from a copy",
        )


def _databases(env: Any, url: str) -> tuple[Any, Any, Any]:
    try:
        about = env.open_db(b"about", create=False)
    except lmdb.NotFoundError:
        raise UsageError("folder is not a volume's metadata", where=url, got="another program's LMDB folder") from None
    except lmdb.Error as error:
        raise _told(error, url) from error
    with env.begin(db=about) as txn:
        magic, version = txn.get(b"magic"), int.from_bytes(txn.get(b"version") or b"", "big")
    if magic != MAGIC:
        raise UsageError("folder is not a volume's metadata", where=url, got="another program's LMDB folder")
    check_version("folder", url, version, SCHEMA_VERSION)
    with _told_of(url):
        return about, env.open_db(b"pairs", create=False), env.open_db(b"history", create=False)


def _facts(txn: Any, shared: _Environment, url: str) -> tuple[int, int, int]:
    """Return the revision, that below which history is gone, and the bytes of the history."""
    data = txn.get(b"facts", db=shared.about) or b""
    if len(data) != _FACTS.size:
        raise CorruptError("facts of the folder are not readable", where=url, got=f"{len(data)} bytes")
    revision, floor, history_bytes = _FACTS.unpack(data)
    return revision, floor, history_bytes


@contextmanager
def _told_of(url: str) -> Iterator[None]:
    """Turn LMDB's errors into ours."""
    try:
        yield
    except lmdb.Error as error:
        raise _told(error, url) from error


def _revision_in(value: bytes) -> int:
    """Return the revision that wrote a value."""
    if len(value) < _REVISION.size:
        raise CorruptError("value has no revision", got=f"{len(value)} bytes")
    return int(_REVISION.unpack_from(value)[0])


class LmdbSnapshot(Snapshot):
    """A read transaction."""

    def __init__(self, shared: _Environment, url: str) -> None:
        self._url = url
        self._about = shared.about
        try:
            self._txn = shared.env.begin(db=shared.pairs)
        except lmdb.Error as error:
            raise _told(error, url) from error
        try:
            self.revision = _facts(self._txn, shared, url)[0]
        except BaseException:
            self._txn.abort()
            raise

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`."""
        try:
            value: bytes | None = self._txn.get(key)
        except lmdb.Error as error:
            raise _told(error, self._url) from error
        return None if value is None else value[8:]

    def scan(self, prefix: bytes, after: bytes = b"", limit: int | None = None) -> list[Pair]:
        """Return pairs in order."""
        found: list[Pair] = []
        start, end = bounds(prefix, after)
        with _told_of(self._url), self._txn.cursor() as cursor:
            if (limit is not None and limit <= 0) or not _place(cursor, start):
                return found
            for key, value in cursor:
                if end and key >= end:
                    break
                found.append((key, value[8:]))
                if limit is not None and len(found) >= limit:
                    break
        return found

    def mark(self) -> bytes:
        """Return the mark that belongs to the snapshot."""
        with _told_of(self._url):
            mark: bytes = self._txn.get(b"mark", db=self._about) or b""
        return mark

    def close(self) -> None:
        """End the read transaction."""
        self._txn.abort()


def _place(cursor: Any, start: bytes) -> bool:
    return bool(cursor.set_range(start) if start else cursor.first())


class _LmdbWriter:
    def __init__(self, shared: _Environment, txn: Any, url: str) -> None:
        self._shared = shared
        self._txn = txn
        self.revision, self._floor, self._history_bytes = _facts(txn, shared, url)

    def modified(self, key: bytes) -> int:
        value = self._txn.get(key)
        return 0 if value is None else _revision_in(value)

    def modified_in(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, int]]:
        with self._txn.cursor() as cursor:
            if not _place(cursor, start):
                return
            for key, value in cursor:
                if end and key >= end:
                    return
                yield key, _revision_in(value)

    def set_mark(self, mark: bytes) -> None:
        """Write the mark of a copy."""
        self._txn.put(b"mark", mark, db=self._shared.about)

    def apply(self, revision: int, writes: Writes, record: bytes | None) -> None:
        put, delete, stamp = self._txn.put, self._txn.delete, _REVISION.pack(revision)
        for key, value in writes.items():
            if value is None:
                delete(key)
            else:
                put(key, stamp + value)
        self._remember(revision, record)
        self.revision = revision
        facts = _FACTS.pack(revision, self._floor, self._history_bytes)
        put(b"facts", facts, db=self._shared.about)

    def _remember(self, revision: int, record: bytes | None) -> None:
        history = self._shared.history
        if record is None:
            self._txn.drop(history, delete=False)
            self._floor, self._history_bytes = revision, 0
            return
        self._txn.put(_REVISION.pack(revision), record, db=history, append=True)
        self._history_bytes += len(record)
        if self._history_bytes <= HISTORY_BYTES_MAX:
            return
        with self._txn.cursor(db=history) as cursor:
            sizes = ((_REVISION.unpack(key)[0], len(value)) for key, value in cursor)
            dropped = trimmed(sizes, self._history_bytes)
        for old in dropped:
            self._history_bytes -= len(self._txn.pop(_REVISION.pack(old), db=history))
            self._floor = old


_environments: Final[dict[Path, _Environment]] = {}
_opening: Final = threading.Lock()


class LmdbEngine(Copy):
    """An engine over one folder."""

    name = "lmdb"

    def __init__(self, path: Path, url: str, *, map_bytes: int, durable: bool) -> None:
        super().__init__()
        self.url = url
        self._path = path.resolve()
        self._closed = False
        with _opening:
            shared = _environments.get(self._path)
            if shared is None:
                shared = _environments[self._path] = _Environment(path, url, map_bytes=map_bytes, durable=durable)
            elif shared.settings != (map_bytes, durable):
                raise UsageError("folder is open in this process with other options", where=url)
            shared.users += 1
        self._shared = shared

    def _live(self) -> _Environment:
        if self._closed:
            raise StoreError("engine is closed", where=self.url)
        return self._shared

    def snapshot(self) -> LmdbSnapshot:
        """Return the state as of the newest commit."""
        return LmdbSnapshot(self._live(), self.url)

    def revision(self) -> int:
        """Return the newest revision of any process."""
        with self.snapshot() as snapshot:
            return snapshot.revision

    @contextmanager
    def _writing(self) -> Iterator[_LmdbWriter]:
        shared = self._live()
        with _told_of(self.url), shared.lock, shared.env.begin(write=True, db=shared.pairs) as txn:
            yield _LmdbWriter(shared, txn, self.url)

    def mark(self) -> bytes:
        """Return the mark of the newest replay."""
        mark, snapshot = self.marked_snapshot()
        snapshot.close()
        return mark

    def marked_snapshot(self) -> tuple[bytes, Snapshot]:
        """Return a snapshot with its mark."""
        snapshot = self.snapshot()
        try:
            return snapshot.mark(), snapshot
        except BaseException:
            snapshot.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[Writer]:
        """Give what reads are checked against."""
        shared = self._live()
        with _told_of(self.url), shared.env.begin(db=shared.pairs) as txn:
            yield _LmdbWriter(shared, txn, self.url)

    def _set_mark(self, writer: Writer, mark: bytes) -> None:
        assert isinstance(writer, _LmdbWriter)
        writer.set_mark(mark)

    def sync(self) -> None:
        """Bring to the disk what was committed without waiting for it."""
        with _told_of(self.url):
            self._live().env.sync(True)

    def _history(self, after: int, limit: int) -> tuple[int, list[tuple[int, bytes]]]:
        shared = self._live()
        found: list[tuple[int, bytes]] = []
        with _told_of(self.url), shared.env.begin(db=shared.history) as txn, txn.cursor() as cursor:
            floor = _facts(txn, shared, self.url)[1]
            if cursor.set_range(_REVISION.pack(after + 1)):
                for key, value in cursor:
                    if len(found) >= limit:
                        break
                    found.append((_REVISION.unpack(key)[0], value))
        return floor, found

    def close(self) -> None:
        """Close the folder when no other engine of this process uses it."""
        if self._closed:
            return
        self._closed = True
        with _opening:
            self._shared.users -= 1
            if not self._shared.users:
                del _environments[self._path]
                self._shared.env.close()


def _told(error: lmdb.Error, url: str) -> StokerError:
    if isinstance(error, lmdb.MapFullError | lmdb.MapResizedError):
        remedy = "open it with a larger map: ?map_bytes=1TiB"
        return NoSpaceError("metadata does not fit into its map", where=url, remedy=remedy)
    # LMDB calls a write that was cut short an input/output error: that is how a full disk shows first.
    if isinstance(error, lmdb.DiskError) or any(words in str(error) for words in _NO_SPACE):
        remedy = "free some space; when there is some, look at the disk"
        return NoSpaceError("metadata cannot be written", where=url, got=str(error), remedy=remedy)
    if isinstance(error, lmdb.CorruptedError | lmdb.InvalidError | lmdb.PageNotFoundError):
        return CorruptError("metadata file is torn", where=url, got=str(error), remedy="restore it from a copy")
    if isinstance(error, lmdb.VersionMismatchError):
        return UsageError("folder is of another release of LMDB", where=url, got=str(error))
    if isinstance(error, lmdb.ReadonlyError | lmdb.LockError):
        return DeniedError("metadata may not be written", where=url, got=str(error))
    return StoreError("metadata engine failed", where=url, got=str(error))


def _map_bytes(text: str) -> int:
    size_bytes = parse_bytes(text)
    if size_bytes < 1 << 20:
        raise UsageError("option map_bytes is too small", expected="at least 1 MiB", got=text)
    return size_bytes - size_bytes % 4096


def open_lmdb(url: EngineURL) -> LmdbEngine:
    """Open `lmdb:///folder`; options: `sync=full|off`, `map_bytes` (the address space, 64 GiB unless told).

    Raises UsageError for a folder that is missing, taken, another program's or a newer release's; CorruptError.
    """
    options = url.options({"sync": sync_choice, "map_bytes": _map_bytes})
    path = url.path()
    if url.create:
        _make(path, url.text)
    elif not (path / "data.mdb").is_file():
        raise UsageError("no volume is here", where=url.text, remedy="make one with `stoker fs format`")
    if not os.access(path / "data.mdb", os.W_OK):
        raise DeniedError("metadata may not be written", where=url.text)
    return LmdbEngine(
        path, url.text, map_bytes=options.get("map_bytes", MAP_BYTES), durable=bool(options.get("sync", True))
    )


def _make(path: Path, url: str) -> None:
    """Make the folder beside its name, then give it the name: what is there is a whole folder or none."""
    refuse_taken(path, url)
    temporary = unfinished(path)
    try:
        with lmdb.open(str(temporary), max_dbs=3, map_size=1 << 20) as env:
            about = env.open_db(b"about")
            for name in (b"pairs", b"history"):
                env.open_db(name)
            with env.begin(write=True, db=about) as txn:
                txn.put(b"magic", MAGIC)
                txn.put(b"version", SCHEMA_VERSION.to_bytes(4, "big"))
                txn.put(b"facts", _FACTS.pack(0, 0, 0))
        for made in temporary.iterdir():
            made.chmod(0o600)  # the names of all files are in it, whoever may see them
        temporary.rename(path)  # refused where a folder that is not empty has come meanwhile
    except lmdb.Error as error:
        raise _told(error, url) from error
    except OSError as error:
        raise not_made(error, url) from error
    finally:
        _remove(temporary)
    sync_folder(path)
    sync_folder(path.parent)


def _remove(folder: Path) -> None:
    if folder.is_dir():
        for name in ("data.mdb", "lock.mdb"):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
