"""From a URL to a volume with its bytes: the metadata, the folder of slices beside it, and one client over both.

A volume without daemons keeps its slices in a folder, by default beside its metadata: `volume.db.data` for
`sqlite:///x/volume.db`. One process at a time has the folder open; in it, all who open the volume share one client.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker.core.errors import NotFoundError, UsageError
from stoker.fs.client.client import Client
from stoker.fs.client.diskcache import DiskCache
from stoker.fs.client.options import ClientOptions
from stoker.fs.meta.engines.urls import parse_engine_url
from stoker.fs.meta.volume import Volume
from stoker.fs.store.interface import SliceStore
from stoker.fs.store.local import LocalStore
from stoker.fs.store.memory import MemorySliceStore

_DEFAULTS: Final = ClientOptions()


@dataclass
class Place:
    """An open volume, its store, and a client over both."""

    volume: Volume
    store: SliceStore
    client: Client
    key: tuple[int, str, str]
    users: int = 1


_OPEN: Final[dict[tuple[int, str, str], Place]] = {}
_MEMORY: Final[dict[str, MemorySliceStore]] = {}
_mutex = threading.Lock()


def _renew_lock() -> None:
    global _mutex  # noqa: PLW0603 - one that another thread held at the fork would never be released in the child
    _mutex = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def data_folder(url: str) -> Path:
    """Return the folder of slices of the volume at `url`, unless told otherwise: beside its metadata."""
    path = parse_engine_url(url, create=False).path()
    return path.with_name(path.name + ".data")


def open_slices(url: str, volume: Volume, data: str = "") -> SliceStore:
    """Open the store of a volume's slices, made when it is missing. Raises UsageError for that of another volume."""
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
    url: str, *, data: str = "", options: ClientOptions = _DEFAULTS, cache_folder: str = "", cache_bytes: int = 0
) -> Place:
    """Open a volume with its bytes, or share it with who has it open in this process; `close_place` gives it back.

    `cache_folder` keeps up to `cache_bytes` of blocks over restarts. Who comes first decides the options.
    """
    key = (os.getpid(), url, data)
    with _mutex:
        place = _OPEN.get(key)
        if place is not None:
            place.users += 1
            return place
        place = _OPEN[key] = _opened(key, options, cache_folder, cache_bytes)
        return place


def _opened(key: tuple[int, str, str], options: ClientOptions, cache_folder: str, cache_bytes: int) -> Place:
    _, url, data = key
    volume = Volume.open(url)
    try:
        store = open_slices(url, volume, data)
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
def opened_place(url: str, *, data: str = "", options: ClientOptions = _DEFAULTS) -> Iterator[Place]:
    """Open a volume with its bytes for a while."""
    place = open_place(url, data=data, options=options)
    try:
        yield place
    finally:
        close_place(place)
