"""A volume with its bytes by paths: what a program without a mount works with."""

import errno
import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from stoker.fs.client.client import Client
from stoker.fs.client.folders import split
from stoker.fs.client.many import WINDOW_BYTES, LinkMet, Wanted, read_many
from stoker.fs.client.openfile import OpenFile
from stoker.fs.client.options import PIECE_BYTES
from stoker.fs.meta.answers import Answer, Entry
from stoker.fs.meta.calls import READ, WRITE, Call, Caller, Create, Put, Request
from stoker.fs.meta.faults import MetaError, meta_error
from stoker.fs.meta.machine import Settings
from stoker.fs.meta.tree import Path, Tree
from stoker.fs.store.interface import Bytes

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

A = TypeVar("A")
_MODES = {"rb": READ, "r+b": READ | WRITE, "wb": WRITE, "w+b": READ | WRITE, "xb": WRITE, "ab": WRITE}


class _Asked:
    """The metadata as a client gives it: in its session, with what is written and not shown yet."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def settings(self) -> Settings:
        return self._client.metadata.settings

    def run(self, request: Request[A], *, caller: Caller = Caller(), session: int = 0) -> A:  # noqa: B008 - a value
        return self._client.ask(request, caller=caller)

    def submit(self, batch: Sequence[Call]) -> list[Answer]:
        return self._client.submit(batch)

    def numbered(self, call: Call) -> Call:
        return self._client.metadata.numbered(call)

    def answered(self, call: Call) -> None:
        self._client.metadata.answered(call)

    def make_durable(self) -> None:
        self._client.metadata.make_durable()

    def end_session(self, number: int) -> None:
        self._client.metadata.end_session(number)

    def close(self) -> None:
        """The client is its owner's."""


class FileTree(Tree):
    """A volume as one caller sees it, with the content of its files. The words are those of `os` and `pathlib`."""

    def __init__(self, client: Client, caller: Caller | None = None, *, umask: int = 0o022) -> None:
        super().__init__(_Asked(client), caller, umask=umask)
        self.client = client

    # -- files

    def open(self, path: Path, mode: str = "rb", *, permissions: int = 0o666) -> "TreeFile":
        """Open a file: `rb`, `r+b`, `wb`, `w+b`, `xb` or `ab`, as Python's `open` without a buffer of its own."""
        access = _MODES.get(mode)
        if access is None:
            raise meta_error(errno.EINVAL, "open", _shown(path), f"mode {mode}, expected one of {', '.join(_MODES)}")
        if mode[0] == "r":
            ino, attr = self._inode("open", path)
            if not attr.is_file:
                raise meta_error(errno.EISDIR if attr.is_directory else errno.EINVAL, "open", _shown(path))
            return TreeFile(self.client.open(ino, access, caller=self.caller), path, mode)
        return TreeFile(self._made(path, mode, access, permissions), path, mode)

    def _made(self, path: Path, mode: str, access: int, permissions: int) -> OpenFile:
        """Open a file to write, made when it is missing."""
        if mode[0] != "x":
            try:
                ino, _ = self._inode("open", path)
            except MetaError as error:
                if error.errno != errno.ENOENT:
                    raise
            else:
                return self.client.open(ino, access, truncate=mode[0] == "w", caller=self.caller)
        place = self._place("open", self._end(path) if mode[0] != "x" else path, slash=errno.EISDIR)
        request = Create(place.parent, place.name, permissions, self.umask, mode[0] == "x", access)
        entry, handle = self.client.create(request, caller=self.caller)
        if mode[0] == "w" and not entry.made:  # somebody was faster
            handle.close()
            return self.client.open(entry.ino, access, truncate=True, caller=self.caller)
        return handle

    def _end(self, path: Path) -> Path:
        """Return where the symbolic links at the end of a path lead, be anything there or not."""
        for _ in range(40):
            try:
                target = self.readlink(path)
            except MetaError as error:
                if error.errno in (errno.EINVAL, errno.ENOENT):
                    return path
                raise
            raw = path if isinstance(path, bytes) else path.encode(errors="surrogateescape")
            folder = raw.rstrip(b"/").rpartition(b"/")[0]
            path = target if target.startswith(b"/") else folder + b"/" + target
        raise meta_error(errno.ELOOP, "open", _shown(path))

    def read_bytes(self, path: Path) -> Bytes:
        """Return the content of a file."""
        content = next(self.read_each([path], errors="raise"))
        if isinstance(content, MetaError):
            raise content
        return content

    def write_bytes(
        self, path: Path, data: Bytes | Iterable[Bytes], *, exclusive: bool = False, permissions: int = 0o666
    ) -> Entry:
        """Make a file of bytes, or replace the content of the one that is there, in one step and durably.

        Others see the old content or the new one. `data` may come in parts, of which few are in memory at once.
        """
        if isinstance(data, bytes | bytearray | memoryview):
            done = self._written_there(path, data, exclusive=exclusive, permissions=permissions)
            if done is not None:
                return done
        place = self._place("write", path if exclusive else self._end(path), slash=errno.EISDIR)
        parts = [data] if isinstance(data, bytes | bytearray | memoryview) else data
        request = Put(place.parent, place.name, permissions, (), self.umask, exclusive)
        return self.client.put(request, pieces(parts), caller=self.caller)

    def _written_there(self, path: Path, data: Bytes, *, exclusive: bool, permissions: int) -> Entry | None:
        """Make a file in a directory that is known, and no symbolic link: None where the path must be walked along."""
        raw = path if isinstance(path, bytes) else path.encode(errors="surrogateescape")
        folder, name = split(raw)
        parent = self._folder(folder) if name and raw.startswith(b"/") else 0
        if not parent:
            return None
        request = Put(parent, name, permissions, (), self.umask, exclusive)
        try:
            return self.client.put(request, pieces([data]), caller=self.caller)
        except MetaError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                raise
            self.client.works.folders.forget()
            return None

    def _folder(self, path: bytes) -> int:
        """Return a directory by its path, believed or asked for; 0 where it is not there."""
        works, now_ns = self.client.works, self.client.works.clock()
        ino = works.folders.get(self.caller, path, now_ns)
        if not ino:
            try:
                ino, attr = self._inode("write", path)
            except MetaError:
                return 0
            if not attr.is_directory:
                return 0
            works.folders.put(self.caller, path, ino, now_ns)
        return ino

    # -- many files

    def read_many(self, paths: Iterable[Path]) -> list[Bytes | MetaError]:
        """Return the content of each file, or the error that reading it gives, in the order of the paths."""
        return list(self.read_each(paths))

    def read_each(
        self, paths: Iterable[Path], *, errors: str = "return", window_bytes: int = WINDOW_BYTES
    ) -> Iterator[Bytes | MetaError]:
        """Yield the same one after the other, of any number of files; with `errors` "raise" an error is raised.

        Besides what was yielded, about `window_bytes` are in memory, or one file where that is larger.
        """
        folders: dict[bytes, int | MetaError] = {}
        asked: deque[Path] = deque()

        def wanted() -> Iterator[Wanted]:
            for path in paths:
                asked.append(path)
                yield self._wanted(path, folders)

        for found in read_many(self.client, wanted(), self.caller, window_bytes=window_bytes):
            path = asked.popleft()
            lost = isinstance(found, LinkMet) or (isinstance(found, MetaError) and found.errno == errno.ENOENT)
            # A path that its directory does not tell, or that is not there, is followed by itself.
            outcome = self._read_one(path) if lost or isinstance(found, LinkMet) else found
            if errors == "raise" and isinstance(outcome, MetaError):
                raise outcome
            yield outcome

    def _wanted(self, path: Path, folders: dict[bytes, int | MetaError]) -> Wanted:
        """Return a file by its directory and its name; a directory that cannot be found tells itself later."""
        raw = path if isinstance(path, bytes) else path.encode(errors="surrogateescape")
        folder, slash, name = raw.rpartition(b"/")
        if name in (b"", b".", b".."):
            return 0, b"."
        key = folder + slash or b"/"
        if key not in folders:
            if len(folders) > 10_000:
                folders.clear()
            try:
                folders[key] = self._inode("read", key)[0]
            except MetaError as error:
                folders[key] = error
        found = folders[key]
        return (found, name) if isinstance(found, int) else (0, name)

    def _read_one(self, path: Path) -> Bytes | MetaError:
        try:
            with self.open(path) as file:
                return file.read()
        except MetaError as error:
            return error

    # -- walking

    def walk(self, path: Path) -> Iterator[tuple[bytes, list[bytes], list[bytes]]]:
        """Yield each directory below `path`, itself first, with the names of directories and of others in it."""
        waiting = [path if isinstance(path, bytes) else path.encode(errors="surrogateescape")]
        while waiting:
            folder = waiting.pop()
            folders: list[bytes] = []
            others: list[bytes] = []
            for entry in self.scandir(folder):
                (folders if entry.kind == 4 else others).append(entry.name)
            yield folder, folders, others
            waiting += [folder.rstrip(b"/") + b"/" + name for name in reversed(folders)]


class TreeFile(io.RawIOBase):
    """An open file with a place in it, as Python's own. Errors are MetaError."""

    def __init__(self, handle: OpenFile, path: Path, mode: str) -> None:
        super().__init__()
        self.handle = handle
        self.name = path
        self.mode = mode
        self._place = 0

    def readable(self) -> bool:
        """Tell whether it may be read."""
        return bool(self.handle.access & READ)

    def writable(self) -> bool:
        """Tell whether it may be written."""
        return bool(self.handle.access & WRITE)

    def seekable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int | None = -1) -> bytes:
        """Return the next `size` bytes, all that are left when it is negative or None."""
        if size is None or size < 0:
            size = max(self.handle.attributes().size_bytes - self._place, 0)
        data = bytes(self.handle.read(self._place, size))
        self._place += len(data)
        return data

    def readinto(self, into: "WriteableBuffer") -> int:
        """Fill `into` with the next bytes; return how many."""
        view = memoryview(into).cast("B")
        filled = 0
        for part in self.handle.read_parts(self._place, len(view)):
            view[filled : filled + len(part)] = part
            filled += len(part)
        self._place += filled
        return filled

    def write(self, data: "ReadableBuffer") -> int:
        """Write all bytes at the place, or at the end of a file opened with `ab`."""
        view = memoryview(data).cast("B")
        at = self.handle.write(self._place, view, append=self.mode[0] == "a")
        self._place = at + len(view)
        return len(view)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the place."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place}.get(whence)
        if base is None:
            base = self.handle.attributes().size_bytes
        if base + offset < 0:
            raise meta_error(errno.EINVAL, "seek", _shown(self.name))
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def flush(self) -> None:
        """Do nothing: nothing is kept here. What was written is shown by `fsync` or by closing."""

    def fsync(self) -> None:
        """Return when what was written survives a power failure."""
        self.handle.fsync()

    def close(self) -> None:
        """Show what was written and close. Raises MetaError when it could not be stored."""
        if not self.closed:
            try:
                self.handle.close()
            finally:
                super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pieces(parts: Iterable[Bytes]) -> Iterator[Bytes]:
    """Yield the same bytes in pieces of a slice each, of which the last may be smaller."""
    held = bytearray()
    for part in parts:
        view = memoryview(part).cast("B")
        while len(held) + len(view) >= PIECE_BYTES:
            if held:
                take = PIECE_BYTES - len(held)
                held += view[:take]
                yield held
                held = bytearray()
            else:
                take = PIECE_BYTES
                yield view[:take]
            view = view[take:]
        held += view
    if held:
        yield held


def _shown(path: Path) -> str:
    return path.decode(errors="backslashreplace") if isinstance(path, bytes) else path
