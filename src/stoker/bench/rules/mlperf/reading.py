"""A tree's folders and documents, read as if a stranger had made them.

The tree is listed once, without following a link or opening anything but plain files, and within bounds of depth and
count. Documents are read on demand, whole, up to a bound; what cannot be read becomes a finding, never an exception.
Paths are relative to the root, with `/`; names that are not UTF-8 are kept (surrogates) and made harmless when shown.
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from stoker.core.errors import CorruptError
from stoker.core.plain_yaml import load_plain

DEPTH_MAX: Final = 32
ENTRIES_MAX: Final = 500_000
JSON_BYTES_MAX: Final = 16 << 20
TYPED_JSON_BYTES_MAX: Final = 256 << 20  # raw latencies of a rank, of which a summary is kept
ALL_BYTES_MAX: Final = 4 << 30
YAML_BYTES_MAX: Final = 1 << 20
TEXT_BYTES_MAX: Final = 64 << 10
WHOLE_MAX: Final = 1 << 62
NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_CODE: Final = re.compile(r"code|code-[0-9a-f]{8}")

T = TypeVar("T")


class Problem(msgspec.Struct, frozen=True):
    """Something about the files themselves: the rule it breaks (FILE-…), where, and what was seen."""

    rule: str
    path: str
    observed: str


class Folder:
    """A folder: its path relative to the root, its folders, and its plain files with their sizes in bytes."""

    __slots__ = ("files", "folders", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.folders: dict[str, Folder] = {}
        self.files: dict[str, int] = {}

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self.path.rpartition("/")[2]

    def below(self, name: str) -> str:
        """Return the path of an entry of this folder."""
        return f"{self.path}/{name}" if self.path else name

    def visible(self) -> list["Folder"]:
        """Return the folders whose names do not begin with a dot, sorted."""
        return [self.folders[name] for name in sorted(self.folders) if not name.startswith(".")]

    def find(self, *names: str) -> "Folder | None":
        """Return the folder below, nothing when there is none."""
        here: Folder | None = self
        for name in names:
            here = here.folders.get(name) if here is not None else None
        return here

    def walk(self) -> Iterator["Folder"]:
        """Give this folder and all below it, in order of their names."""
        waiting = [self]
        while waiting:
            here = waiting.pop()
            yield here
            waiting.extend(here.folders[name] for name in sorted(here.folders, reverse=True))


class Files:
    """The tree under `root`: its folders, and its documents by path. `problems` grows as documents are read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[Problem] = []
        self.top = Folder("")
        self._entries = 0
        self._read_bytes = 0
        self._documents: dict[tuple[str, object], Any] = {}
        self._real_root = os.path.realpath(root)
        self._list_all()

    def _list_all(self) -> None:
        waiting = [(self.top, 0)]
        while waiting:
            folder, depth = waiting.pop()
            if depth > DEPTH_MAX:
                self._tell("FILE-03", folder.path, f"more than {DEPTH_MAX} folders deep; what lies below is not read")
                continue
            self._list(folder)
            if self._entries > ENTRIES_MAX:
                self._tell("FILE-03", folder.path, f"more than {ENTRIES_MAX:,} entries; the rest is not read")
                return
            if not _CODE.fullmatch(folder.name):  # what lies in captured code is nobody's evidence
                waiting.extend((below, depth + 1) for below in folder.folders.values())

    def _list(self, folder: Folder) -> None:
        try:
            with os.scandir(self.root / folder.path) as entries:
                for entry in entries:
                    self._entries += 1
                    if self._entries > ENTRIES_MAX:
                        return
                    self._enter(folder, entry)
        except OSError as error:
            self._tell("FILE-03", folder.path, f"the folder cannot be listed: {error.strerror or 'error'}")

    def _enter(self, folder: Folder, entry: "os.DirEntry[str]") -> None:
        path = folder.below(entry.name)
        if not entry.name.isprintable():
            self._tell("FILE-04", path, "a name with bytes that are not printable UTF-8")
        try:
            mode = entry.stat(follow_symlinks=False)
        except OSError as error:
            self._tell("FILE-02", path, f"the entry cannot be looked at: {error.strerror or 'error'}")
            return
        if stat.S_ISDIR(mode.st_mode):
            folder.folders[entry.name] = Folder(path)
        elif stat.S_ISREG(mode.st_mode):
            folder.files[entry.name] = mode.st_size
        elif not self._harmless_link(path, mode.st_mode):
            self._tell("FILE-01", path, _kind(mode.st_mode))

    def _harmless_link(self, path: str, mode: int) -> bool:
        """Tell whether this is a link within the captured code that stays in the tree; it is not followed either."""
        if not stat.S_ISLNK(mode) or not any(_CODE.fullmatch(part) for part in path.split("/")[:-1]):
            return False
        target = os.path.realpath(self.root / path)
        return target.startswith(self._real_root + os.sep)

    def _tell(self, rule: str, path: str, observed: str) -> None:
        self.problems.append(Problem(rule, path, observed))

    def _bytes(self, path: str, bytes_max: int) -> bytes | None:
        """Return the content of a plain file, None with a problem told when it cannot be had."""
        if self._read_bytes > ALL_BYTES_MAX:
            self._tell("FILE-03", path, f"not read: the documents before it hold more than {ALL_BYTES_MAX:,} bytes")
            return None
        try:
            descriptor = os.open(self.root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise CorruptError("not a plain file")
                data = file.read(bytes_max + 1)
        except (OSError, CorruptError) as error:
            told = error.strerror if isinstance(error, OSError) else str(error)
            self._tell("FILE-02", path, f"the file cannot be read: {told or 'error'}")
            return None
        if len(data) > bytes_max:
            self._tell("FILE-02", path, f"the file is larger than {bytes_max:,} bytes")
            return None
        self._read_bytes += len(data)
        return data

    def json(self, path: str, kind: type[T] | Any = None) -> Any:
        """Return the JSON document at `path`, None when it cannot be read; a problem is then told once.

        With `kind` only what the type asks for is kept, and anything else of its shape is refused.
        """
        return self._document(path, kind, self._read_json)

    def yaml(self, path: str) -> Any:
        """Return the YAML document at `path`, None when it cannot be read; a problem is then told once."""
        return self._document(path, "yaml", lambda where, _: self._read_yaml(where))

    def text(self, path: str) -> str | None:
        """Return the text at `path`, None when it cannot be read."""
        found: str | None = self._document(path, "text", lambda where, _: self._read_text(where))
        return found

    def _document(self, path: str, kind: object, read: Any) -> Any:
        place = (path, kind)
        if place not in self._documents:
            self._documents[place] = read(path, kind)
        return self._documents[place]

    def _read_json(self, path: str, kind: Any) -> Any:
        data = self._bytes(path, JSON_BYTES_MAX if kind is None else TYPED_JSON_BYTES_MAX)
        if data is None:
            return None
        try:
            return msgspec.json.decode(data, type=Any if kind is None else kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._tell("FILE-02", path, f"not JSON of the expected shape: {error}")
        except RecursionError:
            self._tell("FILE-02", path, "JSON that is nested too deeply")
        return None

    def _read_yaml(self, path: str) -> Any:
        data = self._bytes(path, YAML_BYTES_MAX)
        if data is None:
            return None
        try:
            return load_plain(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            self._tell("FILE-02", path, f"not UTF-8 text at byte {error.start}")
        except CorruptError as error:
            self._tell("FILE-02", path, str(error))
        return None

    def _read_text(self, path: str) -> str | None:
        data = self._bytes(path, TEXT_BYTES_MAX)
        try:
            return None if data is None else data.decode("utf-8")
        except UnicodeDecodeError as error:
            self._tell("FILE-02", path, f"not UTF-8 text at byte {error.start}")
            return None


def _kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
    ):
        if test(mode):
            return name
    return "an entry of unknown kind"


def dig(document: Any, keys: Sequence[str]) -> Any:
    """Return what lies under the keys, None when a level is missing or no mapping."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def number(document: Any, dotted: str) -> float | None:
    """Return the finite number under a dotted key, also one written as text; None for anything else."""
    value = dig(document, dotted.split("."))
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if abs(found) <= WHOLE_MAX else None


def whole(document: Any, dotted: str) -> int | None:
    """Return the whole number under a dotted key, None for anything else."""
    found = number(document, dotted)
    return int(found) if found is not None and found.is_integer() else None


def words(document: Any, dotted: str) -> str | None:
    """Return the text under a dotted key, None for anything else."""
    value = dig(document, dotted.split("."))
    return value if isinstance(value, str) else None


def numbers(document: Any, dotted: str) -> list[float] | None:
    """Return the list of finite numbers under a dotted key, None for anything else."""
    value = dig(document, dotted.split("."))
    if not isinstance(value, list):
        return None
    found = [number({"item": item}, "item") for item in value]
    return [item for item in found if item is not None] if None not in found else None
