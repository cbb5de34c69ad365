"""`stoker:///path/volume.db!/folder`: the files below a folder of a volume, as a store of objects.

What stands before the `!` is the volume's metadata, an SQLite file or an LMDB folder; behind it the root of the keys.
`stoker://host:port,host:port/VOLUME!/folder` is a volume that masters serve, and with `?engine=postgresql&data=…`
`stoker://host:port/database/volume!/folder` one whose names are in a database.
An object is read as it was when it was opened, whatever is put over it meanwhile.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

from stoker.core.errors import (
    AlreadyExistsError,
    DeniedError,
    NoSpaceError,
    NotFoundError,
    StoreError,
    TransientError,
    UsageError,
)
from stoker.fs.client.client import Client
from stoker.fs.client.filetree import FileTree
from stoker.fs.client.gather import gather
from stoker.fs.client.spans import Span, shown_spans
from stoker.fs.doors.places import Access, Place, close_place, open_place
from stoker.fs.meta.answers import Peeked
from stoker.fs.meta.calls import Caller, Peek
from stoker.fs.meta.faults import MetaError
from stoker.fs.meta.paths import DIRECTORY
from stoker.fs.meta.records import Attr
from stoker.fs.store.interface import Bytes
from stoker.storage.api import Buffer, Capabilities, ObjectInfo, Reader
from stoker.storage.base import (
    BaseReader,
    BaseStore,
    byte_view,
    check_object_key,
    check_prefix,
    check_range,
    range_length,
    short_read,
)
from stoker.storage.url import StoreURL, UrlOption

_FILE: Final = 8  # the highest four bits of its mode
_STEP_BYTES: Final = 8 << 20
DATABASES: Final = ("postgresql", "postgres")
OPTIONS: Final = (
    UrlOption(
        "engine", "text", "what the volume's metadata is", default="", choices=("", "sqlite", "lmdb", *DATABASES)
    ),
    UrlOption("sync", "text", "whether commits wait for the disk", default="full", choices=("full", "off")),
    UrlOption("data", "text", "the folder of the volume's bytes; beside the metadata unless told", default=""),
    UrlOption("token_file", "text", "file with the token of masters and chunk servers", default=""),
    UrlOption("tls_ca", "text", "authority of the servers' certificates", default=""),
    UrlOption("tls_cert", "text", "certificate to show them", default=""),
    UrlOption("tls_key", "text", "its key", default=""),
    UrlOption("cache_folder", "text", "a folder that keeps blocks which were read", default=""),
    UrlOption("cache_bytes", "bytes", "how much it keeps", default=10 << 30, low=1),
)
_ERRORS: Final[dict[int, type[StoreError]]] = {
    errno.ENOENT: NotFoundError,
    errno.ENOTDIR: NotFoundError,
    errno.EISDIR: NotFoundError,
    errno.EEXIST: AlreadyExistsError,
    errno.EACCES: DeniedError,
    errno.EPERM: DeniedError,
    errno.ENOSPC: NoSpaceError,
    errno.EDQUOT: NoSpaceError,
    errno.EFBIG: NoSpaceError,
    errno.ESTALE: TransientError,
}


def split_path(path: str) -> tuple[str, str]:
    """Return the volume and the folder in it that a URL's path names: `/x/volume.db!/a/b`."""
    volume, mark, inner = path.partition("!/")
    if not mark:
        volume = path.removesuffix("!")
    return volume, "/" + inner.strip("/")


def access_of(settings: Mapping[str, Any]) -> Access:
    """Return how a volume is reached, of the options that tell so."""
    return Access(**{name: str(settings.get(name, "")) for name in Access.__struct_fields__})


def masters_url(host: str, path: str, engine: str, sync: str) -> str:
    """Return the URL of a volume that masters at `host` serve. Raises UsageError for what they are not asked."""
    if engine or sync != "full":
        raise UsageError("masters decide about engine and sync themselves", where=host)
    return f"master://{host}/{path.strip('/')}"


def metadata_url(host: str, path: str, engine: str, sync: str) -> str:
    """Return the URL of the metadata that a URL of ours names: at a path, at masters, or in a database.

    User and password of a database come from libpq's own environment and files, as the commands take them.
    """
    if engine in DATABASES:
        return f"{DATABASES[0]}://{host}{quote(path)}" + ("?sync=off" if sync == "off" else "")
    return masters_url(host, path, engine, sync) if host else volume_url(path, engine, sync)


def volume_url(path: str, engine: str = "", sync: str = "full") -> str:
    """Return the URL of the metadata at a path: LMDB's where it is a folder, unless told."""
    engine = engine or ("lmdb" if os.path.isdir(path) else "sqlite")  # noqa: PTH112 - as the rest of the URL's text
    return f"{engine}://{quote(path)}" + ("?sync=off" if sync == "off" else "")


@contextmanager
def told(what: str, where: str) -> Iterator[None]:
    """Turn a refusal into the error of stores."""
    try:
        yield
    except MetaError as error:
        kind = _ERRORS.get(error.errno, StoreError)
        raise kind(what, where=where, got=str(error)) from error


class ObjectReader(BaseReader):
    """A range of one object, as it showed when it was opened."""

    def __init__(self, client: Client, found: Peeked, start: int, length: int, where: str) -> None:
        self._client = client
        self._spans: list[Span] = shown_spans(found.shown, start, start + length)
        self._place, self._stop = start, start + length
        self._where = where
        self._version = _version(found.ino, found.attr)
        self.object_bytes = found.attr.size_bytes
        self.range_bytes = length

    @property
    def version(self) -> str:
        """Return the object's version."""
        return self._version

    def read_into(self, into: memoryview) -> None:
        """Fill `into` with the next bytes of the range."""
        view = byte_view(into)
        if view.nbytes > self._stop - self._place:
            raise short_read(self._where, wanted_bytes=view.nbytes, got_bytes=self._stop - self._place)
        filled = 0
        while filled < view.nbytes:
            for part in self._next(min(view.nbytes - filled, _STEP_BYTES)):
                view[filled : filled + len(part)] = part
                filled += len(part)

    def _next(self, size: int) -> list[Bytes]:
        start, stop = self._place, self._place + size
        spans = [span.clipped(start, stop) for span in self._spans if span.start < stop and span.stop > start]
        try:
            parts = gather(self._client.works.blocks, [(spans, start, stop)])[0]
        except NotFoundError as error:  # replaced or removed long ago, and collected: opening it again tells
            raise TransientError("object is no longer what was opened", where=self._where, got=str(error)) from error
        self._place = stop
        return parts

    def close(self) -> None:
        """Let go of the object."""
        self._spans, self._place = [], self._stop


class VolumeStore(BaseStore):
    """Files of a volume as objects."""

    def __init__(self, place: Place, parsed: StoreURL, inner: str) -> None:
        self._place = place
        self._url = parsed.redacted
        self._location = parsed.location
        self._base = inner.rstrip("/") + "/"
        caller = Caller(os.geteuid(), os.getegid(), tuple(os.getgroups()))
        self.tree = FileTree(place.client, caller)
        self._closed = False

    @property
    def url(self) -> str:
        """Return the URL."""
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        """Return the facts about this store."""
        return Capabilities(io_mode="network", durable="sync=off" not in self._place.key[1], in_flight=16)

    def _path(self, key: str) -> str:
        return self._base + check_object_key(key)

    def _where(self, key: str) -> str:
        return f"{self._location}/{key}"

    def _peek(self, key: str) -> Peeked:
        where = self._where(key)
        with told("no such object", where):
            found = self.tree.stat(self._path(key))
            if not found.attr.is_file:
                raise NotFoundError("no such object", where=where)
            return self._place.client.ask(Peek(found.ino), caller=self.tree.caller)

    def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
        """Open `key` for reading `length_bytes` from `offset_bytes`."""
        where = self._where(key)
        self._path(key)
        check_range(offset_bytes, length_bytes, where=where)
        found = self._peek(key)
        length = range_length(found.attr.size_bytes, offset_bytes, length_bytes, where=where)
        return ObjectReader(self._place.client, found, offset_bytes, length, where)

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """Store `data` under `key` whole or not at all."""
        return self._put(key, lambda: [byte_view(data)], if_absent=if_absent)

    def put_parts(self, key: str, parts: Iterable[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        """Store the concatenation of `parts` under `key`; a few of them are in memory at once."""
        self._make_folder(key)
        # A part's memory may be used anew once the next is asked for.
        return self._put(key, lambda: (bytes(byte_view(part)) for part in parts), if_absent=if_absent)

    def _put(self, key: str, parts: Callable[[], Iterable[Bytes]], *, if_absent: bool) -> ObjectInfo:
        path, where = self._path(key), self._where(key)
        with told("object cannot be put", where):
            try:
                entry = self.tree.write_bytes(path, parts(), exclusive=if_absent)
            except MetaError as error:
                if error.errno != errno.ENOENT:
                    raise
                self._make_folder(key)
                entry = self.tree.write_bytes(path, parts(), exclusive=if_absent)
        return ObjectInfo(key, entry.attr.size_bytes, _version(entry.ino, entry.attr))

    def _make_folder(self, key: str) -> None:
        folder = self._path(key).rpartition("/")[0]
        if folder.strip("/"):
            with told("folder cannot be made", self._where(key)):
                self.tree.makedirs(folder)

    def stat(self, key: str) -> ObjectInfo:
        """Return the object's facts."""
        path, where = self._path(key), self._where(key)
        with told("no such object", where):
            found = self.tree.stat(path)
        if not found.attr.is_file:
            raise NotFoundError("no such object", where=where)
        return ObjectInfo(key, found.attr.size_bytes, _version(found.ino, found.attr))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`, in key order; one folder at a time is in memory."""
        folder, _, start = check_prefix(prefix).rpartition("/")
        yield from self._list(folder + "/" if folder else "", start)

    def _list(self, folder: str, start: str = "") -> Iterator[ObjectInfo]:
        try:
            with told("folder cannot be listed", self._where(folder)):
                entries = list(self.tree.scandir(self._base + folder, plus=True))
        except NotFoundError:
            return
        named = [(entry.name.decode(errors="surrogateescape"), entry) for entry in entries]
        for name, entry in sorted((name + "/" * (one.kind == DIRECTORY), one) for name, one in named):
            if not name.startswith(start):
                continue
            if entry.kind == DIRECTORY:
                yield from self._list(folder + name)
            elif entry.kind == _FILE and entry.attr is not None:
                yield ObjectInfo(folder + name, entry.attr.size_bytes, _version(entry.ino, entry.attr))

    def delete(self, key: str) -> None:
        """Remove the object; removing what is not there is not an error."""
        path = self._path(key)
        try:
            with told("object cannot be deleted", self._where(key)):
                self.tree.unlink(path)
        except NotFoundError:
            return

    def rename(self, source: str, target: str) -> None:
        """Make `source` appear as `target` in one step, replacing what was there."""
        old, new = self._path(source), self._path(target)
        self.stat(source)
        self._make_folder(target)
        with told("object cannot be renamed", self._where(source)):
            self.tree.rename(old, new)

    def sync(self, key: str) -> None:
        """Make the object survive power loss: it does since it was put. Raises NotFoundError."""
        self.stat(key)

    def close(self) -> None:
        """Give the volume back; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            close_place(self._place)


def _version(ino: int, attr: Attr) -> str:
    return f"{ino:x}-{attr.version:x}"


def open_objects(parsed: StoreURL) -> VolumeStore:
    """Open a `stoker://` URL. Raises UsageError where no volume is, NotFoundError for a root that is missing."""
    settings = parsed.settings(OPTIONS)
    path, inner = split_path(parsed.path)
    in_database = settings["engine"] in DATABASES
    ported = in_database or all(":" in one for one in parsed.host.split(",") if parsed.host)
    if not path.strip("/") or not ported:
        raise UsageError(
            "URL names no volume",
            where=parsed.redacted,
            expected="stoker:///path/volume.db!/folder, with three slashes, or stoker://host:port/VOLUME!/folder",
        )
    url = metadata_url(parsed.host, path, settings["engine"], settings["sync"])
    place = open_place(
        url, access_of(settings), cache_folder=settings["cache_folder"], cache_bytes=settings["cache_bytes"]
    )  # fmt: skip
    try:
        store = VolumeStore(place, parsed, inner)
        with told("folder is missing in the volume", parsed.location):
            if parsed.create:
                store.tree.makedirs(inner)
            if not store.tree.stat(inner).attr.is_directory:
                raise NotFoundError("root of the store is no folder", where=parsed.location)
    except BaseException:
        close_place(place)
        raise
    return store
