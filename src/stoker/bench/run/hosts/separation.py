"""Whether a target and the results lie on different file systems (CAP-03): a hard link between them must fail."""

import errno
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.run.hosts.sources import local_name
from stoker.core import clock, seed
from stoker.core.files import write_atomic
from stoker.storage.url import parse_url

SEPARATION_FILE: Final = "fs_separation.json"
_FILES_LOOKED_AT_MAX: Final = 10_000


def probe_separation(target: Path, results: Path, *, rank: int = 0) -> dict[str, Any]:
    """Return the record: `same_filesystem` is None where it cannot be told, with the reason in `error`.

    A hard link is made from a file of the target into the results, and removed again; it fails across file systems.
    Nothing is written into the target. Two mounts of one file system refuse the link too, so devices are compared.
    """
    record: dict[str, Any] = {
        "version": 1,
        "method": "link_exdev",
        "data_or_chkpt_path": str(target),
        "results_path": str(results),
        "data_or_chkpt_realpath": os.path.realpath(target),
        "results_realpath": os.path.realpath(results),
        "same_filesystem": None,
        "probed_at": clock.utc_text(),
        "probed_by_rank": rank,
        "probed_by_host": local_name(),
    }
    try:
        record["same_filesystem"] = _same(target, results)
    except OSError as error:
        record["error"] = error.strerror or type(error).__name__
    return record


def _same(target: Path, results: Path) -> bool:
    if target.stat().st_dev == results.stat().st_dev:
        return True
    source = _some_file(target)
    if source is None:
        return False
    link = results / f".stoker-link-{seed.run_id()}"
    try:
        os.link(source, link)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    link.unlink()
    return True


def _some_file(folder: Path) -> Path | None:
    """Return a regular file below the folder, None when there is none among the first that are found."""
    seen = 0
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            if path.is_file() and not path.is_symlink():
                return path
            seen += 1
        if seen > _FILES_LOOKED_AT_MAX:
            return None
    return None


def record_separation(target_url: str, folder: Path) -> None:
    """Keep in the run's folder whether a local target is apart from it; an object store always is."""
    parsed = parse_url(target_url)
    if parsed.scheme in ("file", "direct"):
        save_separation(folder, probe_separation(Path(parsed.path), folder))


def save_separation(folder: Path, record: dict[str, Any]) -> Path:
    """Write the record into a run folder and return its path."""
    path = folder / SEPARATION_FILE
    write_atomic(path, msgspec.json.format(msgspec.json.encode(record), indent=1))
    return path
