"""From a URL to a volume with its bytes: the metadata, the store of slices, and one client over both.

A volume without daemons keeps its slices in a folder, by default beside its metadata: `volume.db.data` for
`sqlite:///x/volume.db`. One process at a time has the folder open; in it, all who open the volume share one client.
The slices of `master://host:port,host:port/VOLUME` are on the chunk servers that report to its masters.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.errors import NotFoundError, StokerError, UsageError
from stoker.fs.care.messages import CARE_OF, CareOf
from stoker.fs.care.opening import open_cluster
from stoker.fs.client.client import Client
from stoker.fs.client.diskcache import DiskCache
from stoker.fs.client.options import ClientOptions
from stoker.fs.master.remote import RemoteMetadata
from stoker.fs.meta.calls import ExpireSessions, GetAttr, ListClasses, Reclaim
from stoker.fs.meta.engines.urls import parse_engine_url
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.service import Metadata
from stoker.fs.meta.volume import Volume
from stoker.fs.store.interface import SliceStore
from stoker.fs.store.local import LocalStore
from stoker.fs.store.memory import MemorySliceStore
from stoker.fs.wire.keys import Tls, client_tls, read_token

_DEFAULTS: Final = ClientOptions()
_MASTERS: Final = "master://"
_LOCAL_SCHEMES: Final = ("sqlite", "lmdb", "memory")


class Access(msgspec.Struct, frozen=True):
    """How a volume is reached beside its URL, in names of files.

    `data` is the folder of the bytes of a volume without daemons. The others are for masters and chunk servers: the
    token (else the environment's), the authority that signed their certificates, and one's own certificate and key.
    """

    data: str = ""
    token_file: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""

    def token(self) -> str | None:
        """Return the token, None for none. Raises UsageError."""
        return read_token(Path(self.token_file) if self.token_file else None)

    def tls(self) -> Tls | None:
        """Return how connections are encrypted, None where they are not. Raises UsageError."""
        if not self.tls_ca:
            if self.tls_cert or self.tls_key:
                raise UsageError("a certificate is of no use without TLS", remedy="name the authority, too (tls_ca)")
            return None
        if bool(self.tls_cert) != bool(self.tls_key):
            raise UsageError("TLS needs a certificate and its key", remedy="give both, or neither")
        own = (Path(self.tls_cert), Path(self.tls_key)) if self.tls_cert else (None, None)
        return client_tls(Path(self.tls_ca), *own)

    def refuse_network(self, url: str) -> None:
        """Raise UsageError for what means nothing to a volume on this machine."""
        if self.token_file or self.tls_ca or self.tls_cert or self.tls_key:
            raise UsageError("volume has no servers, and so neither token nor TLS", where=url)


_NOTHING: Final = Access()
Key = tuple[int, str, Access]


@dataclass
class Place:
    """An open volume, its store, and a client over both."""

    volume: Metadata
    store: SliceStore
    client: Client
    key: Key
    users: int = 1

    def free_bytes(self) -> int:
        """Return how many bytes of files there is room for, in the class of the root; 0 where that is not known."""
        if isinstance(self.volume, RemoteMetadata):
            return _free_in_cluster(self.volume)
        if not isinstance(self.store, LocalStore):
            return 0
        found = os.statvfs(self.key[2].data or data_folder(self.key[1]))
        return found.f_bavail * found.f_frsize


def _free_in_cluster(metadata: RemoteMetadata) -> int:
    """Ask the leading master, whom the disks tell."""
    try:
        reports = metadata.converse(CARE_OF, CareOf()).disks
        number = metadata.run(GetAttr(ROOT)).attr.storage_class
        kind = next(one for one in metadata.run(ListClasses()).classes if one.id == number)
    except StokerError:
        return 0
    raw = sum(one.free_bytes for one in reports if one.free_bytes > 0 and one.disk.health == "up")
    return raw * kind.k // (kind.k + kind.m)


_OPEN: Final[dict[Key, Place]] = {}
_MEMORY: Final[dict[str, MemorySliceStore]] = {}
_mutex = threading.Lock()


def _renew_lock() -> None:
    global _mutex  # noqa: PLW0603 - one that another thread held at the fork would never be released in the child
    _mutex = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def data_folder(url: str) -> Path:
    """Return the folder of slices of the volume at `url`, unless told otherwise: beside its metadata."""
    parsed = parse_engine_url(url, create=False)
    if parsed.scheme not in _LOCAL_SCHEMES:
        raise UsageError(
            "the volume's names are at a server, its bytes need a folder",
            where=parsed.text,
            remedy="give --data FOLDER",
        )
    path = parsed.path()
    return path.with_name(path.name + ".data")


def is_served(url: str) -> bool:
    """Tell whether a volume is served by masters."""
    return url.lower().startswith(_MASTERS)


def open_metadata(url: str, access: Access = _NOTHING) -> Metadata:
    """Open the metadata of a volume, by themselves. Raises UsageError, UnavailableError, DeniedError, CorruptError."""
    if is_served(url):
        if access.data:
            raise UsageError("the bytes of a volume with masters are on chunk servers, in no folder", where=access.data)
        return RemoteMetadata.open(url, token=access.token(), tls=access.tls())
    access.refuse_network(url)
    return Volume.open(url)


def tidy(metadata: Metadata) -> None:
    """End sessions that gave no sign of life in time, and free the chunks of files that are gone."""
    for request in (ExpireSessions(), Reclaim()):
        while metadata.run(request).more:
            pass


def open_slices(url: str, volume: Metadata, access: Access = _NOTHING) -> SliceStore:
    """Open the store of a volume's slices; a folder is made when it is missing. Raises UsageError for another's."""
    if is_served(url):
        return open_cluster(volume, token=access.token(), tls=access.tls())
    return _open_folder(url, volume, access.data)


def _open_folder(url: str, volume: Metadata, data: str) -> SliceStore:
    parsed = parse_engine_url(url, create=False)
    if parsed.scheme == "memory":
        return _MEMORY.setdefault(volume.settings.uuid, MemorySliceStore())
    folder = Path(data) if data else data_folder(url)
    if not folder.is_dir() or not any(folder.iterdir()):
        if not folder.parent.is_dir():
            raise NotFoundError("folder for the bytes of the volume is missing", where=str(folder.parent))
        folder.mkdir(mode=0o700, exist_ok=True)
        return LocalStore.make(folder, volume=volume.settings.uuid)
    store = LocalStore(folder)
    if store.disk.volume != volume.settings.uuid:
        other = store.disk.volume
        store.close()
        raise UsageError(
            "folder holds the bytes of another volume", where=str(folder), expected=volume.settings.uuid, got=other
        )
    return store


def open_place(
    url: str, access: Access = _NOTHING, *, options: ClientOptions = _DEFAULTS, cache_folder: str = "",
    cache_bytes: int = 0,
) -> Place:  # fmt: skip
    """Open a volume with its bytes, or share it with who has it open in this process; `close_place` gives it back.

    `cache_folder` keeps up to `cache_bytes` of blocks over restarts. Who comes first decides the options.
    """
    key = (os.getpid(), url, access)
    with _mutex:
        place = _OPEN.get(key)
        if place is not None:
            place.users += 1
            return place
        place = _OPEN[key] = _opened(key, options, cache_folder, cache_bytes)
        return place


def _opened(key: Key, options: ClientOptions, cache_folder: str, cache_bytes: int) -> Place:
    _, url, access = key
    volume = open_metadata(url, access)
    try:
        store = open_slices(url, volume, access)
        try:
            client = Client(volume, store, options)
        except BaseException:
            store.close()
            raise
    except BaseException:
        volume.close()
        raise
    place = Place(volume, store, client, key)
    if cache_folder:
        try:
            add_disk_cache(client, Path(cache_folder), cache_bytes)
        except BaseException:
            _close(place)
            raise
    return place


def add_disk_cache(client: Client, folder: Path, capacity_bytes: int) -> None:
    """Let a client keep blocks in a folder, which several volumes may share."""
    volume, block_bytes = client.metadata.settings.uuid, client.options.block_bytes
    client.works.blocks.disk = DiskCache(folder, volume, block_bytes, capacity_bytes, client.works.counters)


def close_place(place: Place) -> None:
    """Give a place back; the last to do so closes it. Raises what could not be stored."""
    with _mutex:
        place.users -= 1
        if place.users:
            return
        _OPEN.pop(place.key, None)
        _close(place)


def _close(place: Place) -> None:
    try:
        place.client.close()
    finally:
        try:
            place.store.close()
        finally:
            place.volume.close()


@contextmanager
def opened_place(
    url: str, access: Access = _NOTHING, *, options: ClientOptions = _DEFAULTS
) -> Iterator[Place]:  # fmt: skip
    """Open a volume with its bytes for a while."""
    place = open_place(url, access, options=options)
    try:
        yield place
    finally:
        close_place(place)
