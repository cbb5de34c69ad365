"""Run folders: one a run, never reused, named so that they sort by time."""

from pathlib import Path

from stoker.core import clock, seed
from stoker.core.errors import PreflightError


def new_run_folder(parent: str | Path, label: str) -> Path:
    """Make and return `<parent>/<date>-<time>-<label>-<id>`.

    Raises PreflightError when the folder cannot be made.
    """
    stamp = clock.utc_text().replace("-", "").replace(":", "").replace("T", "-")[:15]
    folder = Path(parent) / f"{stamp}-{label}-{seed.run_id()[:6]}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        what = "results folder cannot be made"
        raise PreflightError(
            what, where=str(folder), got=error.strerror or "", remedy="choose another with --results"
        ) from error
    return folder
