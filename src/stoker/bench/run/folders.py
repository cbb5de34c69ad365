"""Run folders: one a run, never reused, named so that they sort by time."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from stoker.core import clock, seed
from stoker.core.errors import NoSpaceError, PreflightError

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def new_run_folder(parent: str | Path, label: str) -> Path:
    """Make and return `<parent>/<date>-<time>-<label>-<id>`.

    Raises PreflightError when the folder cannot be made.
    """
    stamp = clock.utc_text().replace("-", "").replace(":", "").replace("T", "-")[:15]
    return make_run_folder(Path(parent) / f"{stamp}-{label}-{seed.run_id()[:6]}")


def make_run_folder(folder: Path) -> Path:
    """Make the folder, which must not be there yet, and return it. Raises PreflightError when that cannot be done."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise PreflightError(
            "results folder cannot be made",
            where=str(folder),
            got=error.strerror or "",
            remedy="choose another place for the results",
        ) from error
    return folder


@contextmanager
def results_kept_in(folder: Path) -> Iterator[None]:
    """Tell which folder is full when there is no space to keep the results; a folder that stayed empty is removed."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise NoSpaceError(
            "results cannot be kept",
            where=str(folder),
            got=error.strerror or "",
            remedy="free some space there, or choose another place for the results",
        ) from error
    finally:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
