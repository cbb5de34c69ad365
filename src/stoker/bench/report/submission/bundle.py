"""A hash tree over a folder of results: one file names every other with its size and digest, one root stands for all.

    .stoker-bundle.json    schema, tool, root, files: path, bytes, SHA-256, in the order of their paths
    .stoker-bundle.sig     a detached signature over the root (see `signing`)

The tree is that of RFC 6962: a leaf is SHA-256 of 0x00, the file's line and its digest, a node is SHA-256 of 0x01 and
both halves, split at the largest power of two. Links and devices are refused, not followed. The journal of the results
folder, which grows with every command, and the trash are left out; so are the bundle's own files.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from stoker.bench.report.submission.provenance import tool
from stoker.bench.rules.mlperf.outputs import Bundle, BundleFile
from stoker.core import clock
from stoker.core.errors import CorruptError, NotFoundError, UsageError
from stoker.core.files import check_key, write_atomic

BUNDLE_FILE: Final = ".stoker-bundle.json"
SIGNATURE_FILE: Final = ".stoker-bundle.sig"
SCHEMA: Final = "stoker-bundle/1"
LEFT_OUT: Final = (".mlps/history", ".mlps/runs.jsonl", ".mlps/trash", BUNDLE_FILE, SIGNATURE_FILE)
FILES_MAX: Final = 500_000
BUNDLE_BYTES_MAX: Final = 256 << 20
DEPTH_MAX: Final = 64
PATH_BYTES_MAX: Final = 4096
_CHUNK_BYTES: Final = 1 << 20


class Comparison(msgspec.Struct, frozen=True):
    """What became of the files since the tree was made, by path. `odd` are entries that are no plain files."""

    files: int
    total_bytes: int
    root: str
    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()

    @property
    def intact(self) -> bool:
        """Tell whether every file is as it was, and no other is there."""
        return not (self.changed or self.missing or self.added or self.odd)


def make_bundle(folder: Path) -> Bundle:
    """Write the hash tree of `folder` into it and return it; a signature of an older one is removed.

    Raises NotFoundError where there is no folder, UsageError for links, devices, names that are not UTF-8, and more
    than 500,000 files.
    """
    plain, odd = listed(folder)
    if odd:
        raise UsageError("only plain files can be bundled", where=odd[0], remedy="replace it by what it leads to")
    if not plain:
        raise UsageError("nothing to bundle", where=str(folder), expected="a folder with files")
    files = []
    for path in plain:
        _require_text(path)
        size, digest = _digest(folder / path)
        files.append(BundleFile(path=path, bytes=size, sha256=digest))
    made_by, _ = tool("")
    bundle = Bundle(
        schema=SCHEMA,
        made_at=clock.utc_text(),
        tool=f"{made_by.name} {made_by.version}",
        algorithm="sha256",
        total_bytes=sum(each.bytes for each in files),
        root=root_of(files),
        left_out=list(LEFT_OUT),
        files=files,
    )
    (folder / SIGNATURE_FILE).unlink(missing_ok=True)
    write_atomic(folder / BUNDLE_FILE, msgspec.json.format(msgspec.json.encode(bundle), indent=1) + b"\n")
    return bundle


def _require_text(path: str) -> None:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = path.encode("utf-8", "backslashreplace").decode()
        raise UsageError("name of a file is not UTF-8", where=shown, remedy="rename it") from error


def read_bundle(folder: Path) -> Bundle:
    """Return the hash tree that lies in `folder`, checked as if a stranger had made it.

    Raises NotFoundError where there is none, CorruptError for one whose paths leave the folder, repeat, or are out of
    order, whose sizes are out of bounds, or whose root is not that of its own list.
    """
    path = folder / BUNDLE_FILE
    try:
        bundle = msgspec.json.decode(read_plain(path, BUNDLE_BYTES_MAX), type=Bundle)
    except FileNotFoundError as error:
        raise NotFoundError("no hash tree", where=str(path), remedy="make one with stoker bundle make") from error
    except msgspec.DecodeError as error:
        raise CorruptError("not a hash tree", where=str(path), expected=SCHEMA, got=str(error)) from error
    wrong = _fault(bundle)
    if wrong:
        raise CorruptError("hash tree does not hold together", where=str(path), got=wrong)
    return bundle


def _fault(bundle: Bundle) -> str:
    """Return what is wrong with a hash tree by itself, nothing when it holds together."""
    if len(bundle.files) > FILES_MAX:
        return f"{len(bundle.files):,} files, at most {FILES_MAX:,} are allowed"
    before = b""
    for each in bundle.files:
        if len(os.fsencode(each.path)) > PATH_BYTES_MAX or each.path.count("/") >= DEPTH_MAX:
            return "a path that is too long or too deep"
        try:
            check_key(each.path)
        except UsageError:
            return f"{each.path!r} leaves the folder"
        if _is_left_out(each.path):
            return f"{each.path!r} cannot be part of it"
        if each.path.encode() <= before:
            return f"{each.path!r} is out of order, or there twice"
        before = each.path.encode()
    if sum(each.bytes for each in bundle.files) != bundle.total_bytes:
        return "the sizes do not add up"
    return "" if root_of(bundle.files) == bundle.root else "the root is not that of the list"


def compare(folder: Path, bundle: Bundle) -> Comparison:
    """Return how the files of `folder` differ from the hash tree; every file is read whole."""
    plain, odd = listed(folder)
    here, told = set(plain), {each.path: each for each in bundle.files}
    changed = [path for path in plain if path in told and _differs(folder / path, told[path])]
    return Comparison(
        len(bundle.files),
        bundle.total_bytes,
        bundle.root,
        tuple(changed),
        tuple(path for path in told if path not in here),
        tuple(path for path in plain if path not in told),
        tuple(odd),
    )


def _differs(path: Path, told: BundleFile) -> bool:
    try:
        return path.stat(follow_symlinks=False).st_size != told.bytes or _digest(path) != (told.bytes, told.sha256)
    except (OSError, CorruptError):
        return True


def listed(folder: Path) -> tuple[list[str], list[str]]:
    """Return the plain files below a folder, and what is neither file nor folder; both by path, sorted by bytes."""
    if not folder.is_dir():
        raise NotFoundError("no folder of results", where=str(folder))
    plain: list[str] = []
    odd: list[str] = []
    for path, mode in _entries(folder):
        if not _is_left_out(path):
            (plain if stat.S_ISREG(mode) else odd).append(path)
            if len(plain) > FILES_MAX:
                raise UsageError("too many files for a hash tree", where=str(folder), expected=f"at most {FILES_MAX:,}")
    return sorted(plain, key=os.fsencode), sorted(odd, key=os.fsencode)


def _entries(folder: Path) -> Iterator[tuple[str, int]]:
    """Give (path, mode) of everything below a folder but folders; links are not followed."""
    waiting = [("", 0)]
    while waiting:
        here, depth = waiting.pop()
        if depth > DEPTH_MAX:
            raise UsageError("folders are nested too deeply", where=here[:200], expected=f"at most {DEPTH_MAX} levels")
        with os.scandir(folder / here) as entries:
            for entry in entries:
                path = f"{here}/{entry.name}" if here else entry.name
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    waiting.append((path, depth + 1))
                else:
                    yield path, mode


def _is_left_out(path: str) -> bool:
    return any(path == name or path.startswith(f"{name}/") for name in LEFT_OUT)


def read_plain(path: Path, bytes_max: int) -> bytes:
    """Return the content of a plain file. Raises FileNotFoundError, and CorruptError for a link, a device, too much."""
    with os.fdopen(_opened(path), "rb") as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise CorruptError("file is too large", where=str(path), expected=f"at most {bytes_max:,} bytes")
    return data


def _opened(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CorruptError("file cannot be read", where=str(path), got=error.strerror or "") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CorruptError("not a plain file", where=str(path))
    return descriptor


def _digest(path: Path) -> tuple[int, str]:
    """Return bytes and SHA-256 of a plain file."""
    digest, size = hashlib.sha256(), 0
    with os.fdopen(_opened(path), "rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


def root_of(files: Sequence[BundleFile]) -> str:
    """Return the root of the hash tree over files in their order, 64 hex digits."""
    level = [hashlib.sha256(b"\x00" + _line(each)).digest() for each in files]
    return _node(level).hex()


def _line(file: BundleFile) -> bytes:
    return b"%d\0%s\0%s" % (file.bytes, file.path.encode(), file.sha256.encode())


def _node(leaves: Sequence[bytes]) -> bytes:
    """Return the hash over leaves: pairs are joined level by level, an odd one rises, which splits as RFC 6962 does."""
    level = list(leaves)
    while len(level) > 1:
        pairs = [hashlib.sha256(b"\x01" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0] if level else hashlib.sha256().digest()
