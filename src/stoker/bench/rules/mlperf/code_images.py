"""What a code image is: which files of a folder are code, and the digest over them.

The digest is the MD5 of a text of one line a file, `<md5 of the file>  <path>`, sorted by path: what
`cd IMAGE && find * -type f | LC_ALL=C sort | xargs md5sum | md5sum` prints. Hidden files, tests, caches and links are
no code. The reference tool's digest over a folder is not published; of its images only the name can be checked.
"""

import hashlib
import os
import stat
from pathlib import Path
from typing import Final

from stoker.core.errors import CorruptError

FILES_MAX: Final = 50_000
BYTES_MAX: Final = 1 << 30
TOOL: Final = "stoker"
"""What `.code-hash.json` names as `tool` where the digest is this one."""
_LEFT_OUT: Final = ("test", "tests", "__pycache__")
_CHUNK_BYTES: Final = 1 << 20


def image_digest(folder: Path) -> str:
    """Return the MD5 of a folder's code, 32 hex digits. Raises CorruptError for more than 1 GiB or 50,000 files."""
    whole, size = hashlib.md5(usedforsecurity=False), 0
    for path in code_files(folder):
        digest, length = _md5(folder / path, BYTES_MAX - size)
        size += length
        whole.update(os.fsencode(f"{digest}  {path}\n"))
    return whole.hexdigest()


def code_files(folder: Path) -> list[str]:
    """Return the paths of the code below a folder, sorted. Raises CorruptError for more than 50,000."""
    found: list[str] = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if _belongs(name)]
        for name in files:
            path = os.path.join(here, name)
            if not name.startswith(".") and not name.endswith(".pyc") and stat.S_ISREG(os.lstat(path).st_mode):
                found.append(os.path.relpath(path, folder))
        if len(found) > FILES_MAX:
            raise CorruptError("code image has too many files", where=str(folder), expected=f"at most {FILES_MAX:,}")
    return sorted(found, key=os.fsencode)


def _belongs(name: str) -> bool:
    return not name.startswith(".") and name not in _LEFT_OUT and not name.endswith(".egg-info")


def _md5(path: Path, bytes_max: int) -> tuple[str, int]:
    """Return digest and size of a plain file; it was one when it was listed, and a link or a pipe now is refused."""
    found, size = hashlib.md5(usedforsecurity=False), 0
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            found.update(piece)
            size += len(piece)
            if size > bytes_max:
                raise CorruptError("code image is too large", where=str(path), expected=f"at most {BYTES_MAX:,} bytes")
    return found.hexdigest(), size
