"""Whether the hosts of an MPI job are alike: one release of ours, and one place behind the target's name.

Nothing is written: the first files below a local target are listed with size, inode number and time on every host.
Hosts of one file system see the same; a folder that only has the same name does not.
"""

import os
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from stoker import __version__
from stoker.bench.run.hosts.sources import local_name
from stoker.storage.url import parse_url

FILES_MAX: Final = 1000
FOLDER_MAX: Final = 20_000
SAME: Final = "the target is one place: all hosts see the same files, inodes and times there"


class Seen(msgspec.Struct, frozen=True):
    """A host: its release, and digests of what it sees at the target, empty for an object store.

    `files` is of names and sizes, `inodes` of inode numbers and times as well.
    """

    host: str
    version: str
    python: str
    files: str = ""
    inodes: str = ""


def look(target_url: str) -> Seen:
    """Return what this host sees."""
    parsed = parse_url(target_url)
    names, inodes = sha256(), sha256()
    if parsed.scheme in ("file", "direct"):
        for line, more in _entries(Path(parsed.path)):
            names.update(line)
            inodes.update(line + more)
        return Seen(local_name(), __version__, platform.python_version(), names.hexdigest(), inodes.hexdigest())
    return Seen(local_name(), __version__, platform.python_version())


def _entries(top: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield (name and size, inode number and time) of the first files, in one order everywhere.

    Of a folder with very many files only the folder itself is told, for listing it would take long.
    """
    count, folders = 0, [top]
    while folders and count < FILES_MAX:
        folder = folders.pop()
        try:
            found = sorted(islice(os.scandir(folder), FOLDER_MAX + 1), key=lambda entry: entry.name)
        except OSError:
            continue
        if len(found) > FOLDER_MAX:
            found = []
            yield _entry(folder, top, folder.stat(), size_bytes=0)
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            elif entry.is_file() and count < FILES_MAX:
                count += 1
                status = entry.stat()
                yield _entry(Path(entry.path), top, status, size_bytes=status.st_size)


def _entry(path: Path, top: Path, status: os.stat_result, *, size_bytes: int) -> tuple[bytes, bytes]:
    line = f"{path.relative_to(top)}\0{size_bytes}\n"
    return line.encode("utf-8", "surrogateescape"), f"{status.st_ino} {status.st_mtime_ns}\n".encode()


def compare(hosts: list[Seen]) -> tuple[str, list[str]]:
    """Return why the hosts cannot run together, an empty text when they can, and notes for the result. Pure."""
    for what, values in (
        ("releases of stoker", {host.host: host.version for host in hosts}),
        ("files at the target", {host.host: host.files for host in hosts}),
    ):
        usual = Counter(values.values()).most_common(1)[0][0]
        others = [name for name, value in values.items() if value != usual]
        if others:
            return f"the hosts have different {what}: {_shown(values, usual, others)}", []
    notes = []
    pythons = {host.host: host.python for host in hosts}
    if len(set(pythons.values())) > 1:
        notes.append(f"the hosts have different versions of Python: {_pairs(pythons)}")
    if len(hosts) > 1 and hosts[0].files:
        alike = len({host.inodes for host in hosts}) == 1
        apart = "the hosts see files of the same names and sizes at the target, but other inodes or times: it was not "
        notes.append(SAME if alike else apart + "shown that they read one place")
    return "", notes


def _shown(values: Mapping[str, str], usual: str, others: list[str]) -> str:
    if len(usual) == sha256().digest_size * 2:  # a digest tells people nothing
        return f"{', '.join(others[:8])} and {next(name for name in values if name not in others)}"
    return _pairs(values)


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{value} on {name}" for name, value in list(values.items())[:8])
