"""The driver of fsspec: `stoker:///path/volume.db!/folder/file`, or a path and the volume as an option.

    fsspec.open("stoker:///data/volume.db!/train/0.parquet")
    fsspec.filesystem("stoker", volume="/data/volume.db").ls("/train")
    fsspec.filesystem("stoker", volume="master://a:9400,b:9400/volume", token_file="/etc/stoker/token").ls("/")

Paths begin at the volume's root. A file that is written shows when it is closed; `pipe_file` replaces one in one step.
"""

import io
import os
import weakref
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast

from fsspec.spec import AbstractFileSystem

from stoker.core.errors import StokerError
from stoker.fs.client.filetree import FileTree, TreeFile
from stoker.fs.doors.objects import DATABASES, access_of, metadata_url, split_path, volume_url
from stoker.fs.doors.places import Access, Place, close_place, open_place
from stoker.fs.meta.calls import Caller, CopyRange
from stoker.fs.meta.faults import MetaError
from stoker.fs.meta.records import Attr

_URL_OPTIONS: Final = ("engine", "sync", "cache_folder", *Access.__struct_fields__)
_BUFFER_BYTES: Final = 1 << 20
_COPY_BYTES: Final = 1 << 30
_KINDS: Final = {0o10: "file", 0o04: "directory", 0o12: "link"}


class StokerFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A volume to fsspec. `volume` is a path or the URL of the metadata; the rest tells how it is reached (Access)."""

    protocol = "stoker"
    root_marker = "/"

    def __init__(
        self, volume: str = "", *, engine: str = "", sync: str = "full", cache_folder: str = "",
        cache_bytes: int = 10 << 30, **options: Any,
    ) -> None:  # fmt: skip
        access = access_of(options)
        super().__init__(**options)
        if not volume:
            raise ValueError("stoker: no volume is named, such as in stoker:///path/volume.db!/file")
        url = volume if "://" in volume else volume_url(volume, engine, sync)
        place = open_place(url, access, cache_folder=cache_folder, cache_bytes=cache_bytes)
        self.tree = FileTree(place.client, Caller(os.geteuid(), os.getegid(), tuple(os.getgroups())))
        self._finalizer = weakref.finalize(self, _give_back, place)

    @classmethod
    def _strip_protocol(cls, path: str | list[str]) -> str | list[str]:
        if isinstance(path, list):
            return [cast("str", cls._strip_protocol(one)) for one in path]
        text = os.fspath(path)
        if text.startswith("stoker://"):
            text = split_path(text.removeprefix("stoker://").partition("?")[0])[1]
        return "/" + text.strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        text, _, query = path.removeprefix("stoker://").partition("?")
        options = dict(pair.split("=", 1) for pair in query.split("&") if "=" in pair)
        known = {name: options[name] for name in _URL_OPTIONS if name in options}
        volume = split_path(text)[0]
        host, _, name = volume.partition("/")
        engine = known.get("engine", "")
        if host or engine in DATABASES:
            volume = metadata_url(host, "/" + name, engine, known.get("sync", "full"))
        return {"volume": volume, **known}

    def unstrip_protocol(self, name: str) -> str:
        """Return the URL of a path, with its volume."""
        scheme, mark, place = str(self.storage_options.get("volume", "")).partition("?")[0].partition("://")
        inner = self._strip_protocol(name)
        if scheme in DATABASES:
            return f"stoker://{place}!{inner}?engine={scheme}&data={self.storage_options.get('data', '')}"
        return f"stoker://{place if mark and scheme == 'master' else scheme + mark + place}!{inner}"

    # -- looking

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return the facts of a path; a symbolic link's are those of what it points to."""
        path = cast("str", self._strip_protocol(path))
        with _told(path):
            found = self.tree.stat(path)
        return _info(path, found.ino, found.attr)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Return what is in a directory, or the file itself."""
        path = cast("str", self._strip_protocol(path))
        with _told(path):
            found = self.tree.stat(path)
            if not found.attr.is_directory:
                return [_info(path, found.ino, found.attr)] if detail else [path]
            entries = list(self.tree.scandir(path, plus=True))
        base = path.rstrip("/") + "/"
        rows = [_info(base + os.fsdecode(one.name), one.ino, one.attr) for one in entries if one.attr is not None]
        return rows if detail else [row["name"] for row in rows]

    def created(self, path: str) -> datetime:
        """Return when a path was made."""
        return datetime.fromtimestamp(self.info(path)["created"], UTC)

    def modified(self, path: str) -> datetime:
        """Return when a path was changed."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    def ukey(self, path: str) -> str:
        """Return a text that changes with the content."""
        found = self.info(path)
        return f"{found['ino']:x}-{found['version']:x}"

    checksum = ukey

    # -- names

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Make a directory."""
        path = cast("str", self._strip_protocol(path))
        with _told(path):
            if create_parents and path.rpartition("/")[0]:
                self.tree.makedirs(path.rpartition("/")[0])
            self.tree.mkdir(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a directory and those above it."""
        path = cast("str", self._strip_protocol(path))
        with _told(path):
            if not exist_ok and self.tree.exists(path):
                raise FileExistsError(path)
            self.tree.makedirs(path)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        path = cast("str", self._strip_protocol(path))
        with _told(path):
            self.tree.rmdir(path)

    def rm_file(self, path: str) -> None:
        """Remove a file."""
        path = cast("str", self._strip_protocol(path))
        with _told(path):
            self.tree.unlink(path)

    _rm = rm_file

    def rm(self, path: str | list[str], recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files, and with `recursive` directories with all that is in them."""
        paths = path if isinstance(path, list) else [path]
        for one in paths:
            if maxdepth is not None or any(sign in one for sign in "*?["):
                super().rm(one, recursive=recursive, maxdepth=maxdepth)
                continue
            name = cast("str", self._strip_protocol(one))
            with _told(name):
                if not self.tree.stat(name, follow=False).attr.is_directory:
                    self.tree.unlink(name)
                elif recursive:
                    self.tree.remove_tree(name)
                else:
                    self.tree.rmdir(name)

    def mv(self, path1: str, path2: str, recursive: bool = False, maxdepth: int | None = None, **_: Any) -> None:
        """Rename a file or directory, in one step; into `path2` when that is a directory."""
        source, target = (cast("str", self._strip_protocol(path)) for path in (path1, path2))
        with _told(source):
            if self.tree.exists(target) and self.tree.stat(target).attr.is_directory:
                target = f"{target.rstrip('/')}/{source.rpartition('/')[2]}"
            self.tree.rename(source, target)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copy a file by reference: no byte is read or written. A directory is made."""
        source, target = (cast("str", self._strip_protocol(path)) for path in (path1, path2))
        with _told(source):
            found = self.tree.stat(source)
            if found.attr.is_directory:
                self.tree.makedirs(target)
                return
            client, caller = self.tree.client, self.tree.caller
            with self.tree.open(source) as old, self.tree.open(target, "wb") as new:
                size, done = old.handle.attributes().size_bytes, 0
                while done < size:
                    request = CopyRange(old.handle.ino, done, new.handle.ino, done, min(size - done, _COPY_BYTES))
                    done += client.ask(request, caller=caller).value or size

    def touch(self, path: str, truncate: bool = True, **_: Any) -> None:
        """Make an empty file, or empty one unless not to `truncate`; then its times become now."""
        path = cast("str", self._strip_protocol(path))
        with _told(path):
            self.tree.open(path, "wb" if truncate else "ab").close()
            if not truncate:
                self.tree.utime(path)

    # -- bytes

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, autocommit: bool = True, **_: Any) -> Any:
        if not autocommit:
            raise NotImplementedError("stoker: transactions of fsspec; pipe_file replaces a file in one step")
        with _told(path):
            file = self.tree.open(path, mode)
        if "+" in mode:
            return io.BufferedRandom(_Told(file), _BUFFER_BYTES)
        if mode == "rb":
            return io.BufferedReader(_Told(file), _BUFFER_BYTES)
        return io.BufferedWriter(_Told(file), _BUFFER_BYTES)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return the bytes of a file, of a range when told; negative numbers count from its end."""
        return self._cat(cast("str", self._strip_protocol(path)), [(start, end)])[0]

    def _cat(self, path: str, ranges: Sequence[tuple[int | None, int | None]]) -> list[bytes]:
        with _told(path), self.tree.open(path) as file:
            size = file.handle.attributes().size_bytes
            found = []
            for start, end in ranges:
                low, high, _ = slice(start, end).indices(size)
                found.append(bytes(file.handle.read(low, max(high - low, 0))))
            return found

    def cat_ranges(
        self, paths: list[str], starts: Any, ends: Any, max_gap: int | None = None, on_error: str = "return", **_: Any
    ) -> list[Any]:  # fmt: skip
        """Return ranges of files in their order; each file is opened once."""
        count = len(paths)
        starts = starts if isinstance(starts, Sequence) else [starts] * count
        ends = ends if isinstance(ends, Sequence) else [ends] * count
        if len(starts) != count or len(ends) != count:
            raise ValueError("paths, starts and ends are not equally many")
        wanted: dict[str, list[int]] = {}
        for place, path in enumerate(paths):
            wanted.setdefault(cast("str", self._strip_protocol(path)), []).append(place)
        found: list[Any] = [None] * count
        for path, places in wanted.items():
            try:
                parts: list[Any] = list(self._cat(path, [(starts[place], ends[place]) for place in places]))
            except (OSError, StokerError) as error:
                if on_error == "raise":
                    raise
                parts = [error] * len(places)
            for place, part in zip(places, parts, strict=True):
                found[place] = part
        return found

    def cat(self, path: str | list[str], recursive: bool = False, on_error: str = "raise", **options: Any) -> Any:
        """Return the content of a file, or of several by their names: many files in few round trips."""
        paths = self.expand_path(path, recursive=recursive)
        if len(paths) == 1 and isinstance(path, str) and paths[0] == self._strip_protocol(path) and not recursive:
            return self.cat_file(paths[0], **options)
        files = [one for one in paths if not self.isdir(one)] if recursive else paths
        found: dict[str, Any] = {}
        for name, content in zip(files, self.tree.read_each(files), strict=True):
            if not isinstance(content, MetaError):
                found[name] = bytes(content)
            elif on_error == "raise":
                raise _as_os_error(content, name) from content
            elif on_error == "return":
                found[name] = _as_os_error(content, name)
        return found

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **_: Any) -> None:
        """Write a whole file, in one step; `mode` "create" refuses one that is there."""
        path = cast("str", self._strip_protocol(path))
        with _told(path):
            self.tree.write_bytes(path, value, exclusive=mode == "create")


class _Told(io.RawIOBase):
    """A file of a volume whose errors are those of the operating system, as fsspec's callers expect."""

    def __init__(self, file: TreeFile) -> None:
        super().__init__()
        self._file = file
        self.readable, self.writable = file.readable, file.writable  # type: ignore[method-assign]
        self.seekable, self.tell = file.seekable, file.tell  # type: ignore[method-assign]

    def readinto(self, into: Any) -> int:
        with _told(str(self._file.name)):
            return self._file.readinto(into)

    def write(self, data: Any) -> int:
        with _told(str(self._file.name)):
            return self._file.write(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with _told(str(self._file.name)):
            return self._file.seek(offset, whence)

    def truncate(self, size: int | None = None) -> int:
        raise io.UnsupportedOperation("truncate")

    def close(self) -> None:
        if not self.closed:
            try:
                with _told(str(self._file.name)):
                    self._file.close()
            finally:
                super().close()


class _told:
    """Turns a refusal into the operating system's error with the same number: FileNotFoundError and its like."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, MetaError):
            raise _as_os_error(error, self._path) from error


def _as_os_error(error: MetaError, path: str) -> OSError:
    return OSError(error.errno, str(error), path)


def _info(path: str, ino: int, attr: Attr) -> dict[str, Any]:
    kind = _KINDS.get(attr.kind, "other")
    return {
        "name": path,
        "type": kind,
        "size": attr.size_bytes if kind != "directory" else 0,
        "ino": ino,
        "mode": attr.mode,
        "uid": attr.uid,
        "gid": attr.gid,
        "nlink": attr.nlink,
        "mtime": attr.mtime_ns / 1e9,
        "created": attr.btime_ns / 1e9,
        "version": attr.version,
        "islink": attr.is_symlink,
    }


def _give_back(place: Place) -> None:
    if place.key[0] == os.getpid():
        close_place(place)
