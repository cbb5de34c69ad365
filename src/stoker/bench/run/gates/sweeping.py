"""What a killed gate may leave behind: one small file with a name of its own, which a later gate removes."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from stoker.core import clock

STALE_SECONDS: Final = 600.0
_ENTRIES_MAX: Final = 100_000
_LEFT_OVER: Final = re.compile(r"\.stoker-(?:shared|link)-[0-9a-f]{12}")


def sweep(folder: Path) -> list[str]:
    """Remove the files of gates that ended long ago from a folder, and return their names.

    Gates last seconds: what is younger than ten minutes may be in use. Only plain files with exactly such a name go.
    """
    gone: list[str] = []
    oldest_ns = clock.wall_ns() - round(STALE_SECONDS * 1e9)
    with suppress(OSError), os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if number >= _ENTRIES_MAX:
                break
            if _LEFT_OVER.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime_ns < oldest_ns:
                        Path(entry.path).unlink()
                        gone.append(entry.name)
    return gone
