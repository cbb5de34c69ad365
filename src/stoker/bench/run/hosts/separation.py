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
LINK: Final = ".stoker-link-{token}"
_FILES_LOOKED_AT_MAX: Final = 10_000


def probe_separation(target: Path, results: Path, *, rank: int = 0, write: bool = False) -> dict[str, Any]:
    """Return the record: `same_filesystem` is None where it cannot be told, with the reason in `error`.

    A hard link is made from a file of the target into the results, and removed again; it fails across file systems.
    With `write` an empty target gets a file for that, which is removed as well; else nothing is written there, and the
    devices alone tell. Two mounts of one file system refuse the link too, so devices are compared.
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
        record["same_filesystem"] = _same(target, results, write=write)
    except OSError as error:
        record["error"] = error.strerror or type(error).__name__
    return record


def _same(target: Path, results: Path, *, write: bool) -> bool:
    if target.stat().st_dev == results.stat().st_dev:
        return True
    name = LINK.format(token=seed.run_id())
    source = _some_file(target)
    if source is not None:
        return _links(source, results / name)
    if not write:
        return False
    source = target / name
    try:
        with source.open("x"):
            return _links(source, results / name)
    finally:
        source.unlink(missing_ok=True)


def _links(source: Path, link: Path) -> bool:
    """Tell whether a hard link can be made, and remove it."""
    try:
        os.link(source, link)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    link.unlink()
    return True


def _some_file(folder: Path) -> Path | None:
    """Return a regular file of the folder's own file system, None when there is none among the first that are seen."""
    device, seen, left = folder.stat().st_dev, 0, [str(folder)]
    while left:
        with os.scandir(left.pop()) as entries:
            for entry in entries:
                seen += 1
                if seen > _FILES_LOOKED_AT_MAX:
                    return None
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)
                elif entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_dev == device:
                    return Path(entry.path)
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
